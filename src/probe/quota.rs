//! What many flows through a NAT tell of its port blocks, quotas and overloading (RFC 6888, RFC 7422, RFC 4787 REQ-3).
//!
//! In: where each flow was seen. Out: [`QuotaFacts`]. Pure; the edge opens the flows at a bounded rate.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::observation::nat::QuotaFacts;

/// Flows in a row without an answer that make a quota: fewer may be loss.
pub const SILENT: usize = 12;
/// Flows that must have been seen before a block is told.
const FOR_A_BLOCK: usize = 16;

/// One unanswered flow in so many is more than the loss of a path in use.
const MISSING: u32 = 10;

/// Where one flow was seen; `None` where it got no answer.
pub type Seen = Option<SocketAddr>;

/// Whether the last flows show that no more are let through.
pub fn reached(flows: &[Seen]) -> bool {
    flows.len() >= SILENT && flows.iter().rev().take(SILENT).all(Option::is_none)
}

/// What flows to one address, and then some to the server's other address, tell.
pub fn judge(flows: &[Seen], elsewhere: &[Seen]) -> QuotaFacts {
    let seen: Vec<SocketAddr> = flows.iter().flatten().copied().collect();
    let distinct: BTreeSet<SocketAddr> = seen.iter().copied().collect();
    let there: Vec<SocketAddr> = elsewhere.iter().flatten().copied().collect();
    let ports: BTreeSet<u16> = distinct.iter().map(SocketAddr::port).collect();
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let range = ports.first().copied().zip(ports.last().copied());
    QuotaFacts {
        tried: number(flows.len()),
        answered: number(seen.len()),
        quota: reached(flows).then(|| number(seen.len())),
        ports: range,
        block: range.and_then(|(low, high)| block(low, high, ports.len())),
        // All flows live at once, so one external port for two of them is shared.
        overloading: if distinct.len() < seen.len() || there.iter().any(|a| distinct.contains(a)) {
            Some(true)
        } else {
            (!there.is_empty() && !seen.is_empty()).then_some(false)
        },
        hold_seconds: None,
        rate_limited: None,
    }
}

/// Whether it takes a second, slower look to tell what was met: a quota, a limit on how many flows begin in a second, or loss.
pub fn doubtful(facts: &QuotaFacts) -> bool {
    facts.quota.is_some() || (facts.tried - facts.answered.min(facts.tried)) * MISSING >= facts.tried.max(1)
}

/// What flows tell that were opened `slowly`, after a pause, while the first ones were still there. A NAT that is full lets
/// none of them through; one that limits how many begin in a second lets them through.
pub fn confirm(mut facts: QuotaFacts, slowly: &[Seen]) -> QuotaFacts {
    let through = slowly.iter().flatten().count();
    if facts.quota.is_some() {
        if through > 0 {
            facts.quota = None;
        }
        facts.rate_limited = (!slowly.is_empty()).then_some(through > 0);
    } else if !slowly.is_empty() && through == slowly.len() {
        facts.rate_limited = Some(true);
    }
    facts
}

/// The smallest aligned block of 2^n ports that holds all, where the ports fill at least half of it: then a block explains
/// them, and chance does not.
fn block(low: u16, high: u16, ports: usize) -> Option<(u16, u32)> {
    if ports < FOR_A_BLOCK {
        return None;
    }
    (0..16)
        .map(|n| 1_u32 << n)
        .find(|size| u32::from(low) / size == u32::from(high) / size)
        .filter(|size| u64::try_from(ports).is_ok_and(|n| n * 2 >= u64::from(*size)))
        .and_then(|size| Some((u16::try_from(u32::from(low) / size * size).ok()?, size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Seen {
        Some(SocketAddr::from(([198, 51, 100, 7], port)))
    }

    #[test]
    fn a_quota_is_silence_in_a_row() {
        let mut flows: Vec<Seen> = (0..64).map(|n| at(20_480 + n)).collect();
        assert_eq!(judge(&flows, &[]).quota, None);
        flows.extend([None; SILENT - 1]);
        assert_eq!(judge(&flows, &[]).quota, None);
        flows.push(None);
        let facts = judge(&flows, &[]);
        assert_eq!(
            (facts.quota, facts.answered, facts.ports),
            (Some(64), 64, Some((20_480, 20_543)))
        );
        assert_eq!(facts.block, Some((20_480, 64)));
        // Loss here and there is none.
        let lossy: Vec<Seen> = (0..100)
            .map(|n| if n % 3 == 0 { None } else { at(30_000 + n * 97) })
            .collect();
        let facts = judge(&lossy, &[]);
        assert_eq!((facts.quota, facts.block), (None, None));
    }

    #[test]
    fn what_gets_through_slowly_was_no_quota() {
        let mut flows: Vec<Seen> = (0..20).map(|n| at(20_000 + n)).collect();
        assert!(!doubtful(&judge(&flows, &[])));
        flows.extend([None; SILENT]);
        let full = judge(&flows, &[]);
        assert!(doubtful(&full));
        let kept = confirm(full.clone(), &[None; 4]);
        assert_eq!((kept.quota, kept.rate_limited), (Some(20), Some(false)));
        let slow = confirm(full, &[None, at(1), None, None]);
        assert_eq!((slow.quota, slow.rate_limited), (None, Some(true)));
        // Half of them unanswered, never many in a row: a limit where all get through slowly, else it may be loss.
        let half: Vec<Seen> = (0..60).map(|n| if n % 2 == 0 { None } else { at(n) }).collect();
        let half = judge(&half, &[]);
        assert!(doubtful(&half));
        assert_eq!(confirm(half.clone(), &[at(1), at(2)]).rate_limited, Some(true));
        assert_eq!(confirm(half.clone(), &[at(1), None]).rate_limited, None);
        assert_eq!(confirm(half, &[]).rate_limited, None);
    }

    #[test]
    fn a_port_that_is_given_twice_is_overloaded() {
        let flows: Vec<Seen> = (0..20).map(|n| at(20_000 + n)).collect();
        assert_eq!(judge(&flows, &[]).overloading, None);
        assert_eq!(judge(&flows, &[at(20_003)]).overloading, Some(true));
        assert_eq!(judge(&flows, &[at(20_030)]).overloading, Some(false));
        assert_eq!(judge(&[at(1), at(1)], &[]).overloading, Some(true));
    }
}

//! What the counters' movement means, for all rules of this area.

use crate::observation::conntrack::CtTally;
use crate::rules::Input;
use crate::time::{Span, Timestamp};
use crate::track::conntrack::{ConntrackState, Look, Moved};
use crate::types::Proto;

/// The limit of entries; `None` where it is not known or there is none (0 means no limit).
pub fn limit(input: &Input<'_>) -> Option<u32> {
    let own = input.world.conntrack.newest().and_then(|s| s.max);
    let set = input.world.sysctls.as_ref().and_then(|s| s.conntrack_max);
    own.or(set).filter(|max| *max > 0)
}

/// Ports of NAT that were in use longer ago say nothing of now. Where there is NAT the table is read again before that, but for
/// one that the budget of CPU time does not pay for.
const OLD: Span = Span::from_secs(900);

/// The newest table, unless it is too old to tell how full NAT's ranges are.
pub fn nat_table<'a>(input: &Input<'a>) -> Option<(Timestamp, &'a CtTally)> {
    let table = input.world.conntrack.tally();
    table.filter(|(at, _)| input.now().since(*at) <= OLD)
}

/// `count` as a share of `limit`.
pub fn share(count: u32, limit: u32) -> f64 {
    f64::from(count) / f64::from(limit.max(1))
}

/// Looks at which `what` moved: the first, the last, and how many.
pub fn when(state: &ConntrackState, what: impl Fn(&Look) -> bool) -> Option<(Timestamp, Timestamp, u32)> {
    let first = state.looks().find(|l| what(l))?;
    let last = state.looks().rfind(|l| what(l))?;
    let looks = u32::try_from(state.looks().filter(|l| what(l)).count()).unwrap_or(u32::MAX);
    Some((first.at, last.at, looks))
}

/// Failed insertions of the watch.
#[derive(Clone, Copy, Debug)]
pub struct Failures {
    /// `insert_failed`.
    pub failed: u64,
    /// All counters.
    pub moved: Moved,
    /// Failures per second.
    pub per_second: f64,
}

/// Whether insertions failed while watched.
pub fn failures(input: &Input<'_>) -> Option<Failures> {
    let state = &input.world.conntrack;
    let moved = *state.moved()?;
    (moved.insert_failed > 0).then_some(Failures {
        failed: moved.insert_failed,
        moved,
        per_second: state.per_second(moved.insert_failed)?,
    })
}

impl Failures {
    /// Taken NAT tuples that were met for each failure. `found` moves only where NAT proposes a tuple that is in use
    /// (`nf_conntrack_tuple_taken`).
    pub fn found_per_failure(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // a ratio
        let ratio = self.moved.found as f64 / self.failed.max(1) as f64;
        ratio
    }

    /// Whether each failure dropped its packet and none was a hash chain too long: what a clash looks like, by NAT or not.
    pub fn clash_shaped(&self) -> bool {
        self.moved.chain_toolong * 2 < self.failed && self.moved.drop * 10 >= self.failed * 9
    }
}

/// Taken tuples that the allocator meets at least when it fails in a range of `size` ports (nf_nat_core.c): it tries
/// 128, 64, 32, 16 and 8 ports in a row, or all once where there are no more than 128. For TCP the last 32 tries of each
/// row go by another look-up, which does not count.
pub fn found_per_exhausted(proto: Option<Proto>, size: u32) -> u32 {
    let uncounted = match proto {
        Some(Proto::Udp) => 0,
        Some(Proto::Tcp) | None => 32,
    };
    let rows: &[u32] = if size <= 128 {
        &[size]
    } else {
        &[128, 64, 32, 16, 8]
    };
    rows.iter().map(|tries| tries.saturating_sub(uncounted)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collisions_of_the_allocator() {
        for (proto, size, expected) in [
            (Proto::Udp, 1024, 248),
            (Proto::Tcp, 1024, 128),
            (Proto::Udp, 100, 100),
            (Proto::Tcp, 100, 68),
            (Proto::Tcp, 64, 32),
            (Proto::Tcp, 20, 0),
        ] {
            assert_eq!(
                found_per_exhausted(Some(proto), size),
                expected,
                "{proto:?} {size}"
            );
        }
    }
}

//! The ranges that this host's source NAT takes ports from, read off the ports in use, and how full they are.
//!
//! In: a [`CtTally`]. Out: a [`NatUse`] for each (NAT address, protocol, destination). The kernel does not tell its NAT
//! rules' ranges by conntrack, so they are inferred: a range that a rule sets shows as ports that were rewritten, many, and
//! crowded into a narrow span; anything else is taken for the kernel's own range (`nf_nat_l4proto_unique_tuple`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::observation::conntrack::{CtTally, SnatTally};
use crate::types::{PortRange, Proto};

/// The range of a NAT rule without one, for source ports of 1024 and above.
pub const DEFAULT_RANGE: PortRange = PortRange {
    low: 1024,
    high: 65535,
};

/// Rewritten ports towards one destination below which no range is inferred.
const MIN_REWRITTEN: u32 = 8;

/// How unlikely it must be that ports drawn from the whole default range crowd into the span seen.
const CHANCE: f64 = 1e-6;

/// A range of NAT ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatRange {
    /// How many ports.
    pub size: u32,
    /// The lowest and highest port seen in use, where the range was inferred.
    pub seen: Option<PortRange>,
}

impl NatRange {
    const DEFAULT: Self = Self {
        size: DEFAULT_RANGE.len(),
        seen: None,
    };

    /// Whether it was inferred from the ports in use, rather than taken for the kernel's own.
    pub fn inferred(&self) -> bool {
        self.seen.is_some()
    }
}

/// Port use towards one destination, and what it is measured against.
#[derive(Clone, Copy, Debug)]
pub struct NatUse<'a> {
    /// As tallied.
    pub tally: &'a SnatTally,
    /// The range.
    pub range: NatRange,
}

impl NatUse<'_> {
    /// Ports of the range that are in use. Where entries with preserved ports lie outside an inferred range (they are from
    /// before the rule had one), the rewritten ones alone are counted: at least so many.
    pub fn held(&self) -> u32 {
        let t = self.tally;
        match self.range.seen {
            Some(seen) if t.min_port < seen.low || t.max_port > seen.high => {
                t.ports.saturating_sub(t.preserved)
            }
            _ => t.ports,
        }
    }

    /// Ports in use as a share of the range, at most 1.
    pub fn share(&self) -> f64 {
        (f64::from(self.held()) / f64::from(self.range.size.max(1))).min(1.0)
    }

    /// Ports that are left.
    pub fn free(&self) -> u32 {
        self.range.size.saturating_sub(self.held())
    }

    /// Most entries kept their source port: the NAT rewrites only where it must, so what is in use lies as close together as
    /// the clients' own ports do.
    pub fn preserving(&self) -> bool {
        u64::from(self.tally.preserved) * 2 > u64::from(self.tally.ports)
    }
}

/// Every row of `tally` with its range, in the tally's order. `kernel` is the release (`uname -r`): before 5.0 ports were
/// handed out in turn (commit 6ed5943f8735 removed that), so a narrow span proves nothing there.
pub fn uses<'a>(tally: &'a CtTally, kernel: Option<&str>) -> Vec<NatUse<'a>> {
    let in_turn = kernel.and_then(major).is_some_and(|v| v < 5);
    // A rule's range holds for all destinations of a NAT address, so each is judged by the fullest.
    let mut fullest: BTreeMap<(IpAddr, Proto), &SnatTally> = BTreeMap::new();
    let mut spans: BTreeMap<(IpAddr, Proto), PortRange> = BTreeMap::new();
    for row in &tally.snat {
        let key = (row.nat_address, row.proto);
        let best = fullest.entry(key).or_insert(row);
        if row.ports > best.ports {
            *best = row;
        }
        let seen = span_of(row);
        let span = spans.entry(key).or_insert(seen);
        span.low = span.low.min(seen.low);
        span.high = span.high.max(seen.high);
    }
    let range = |row: &SnatTally| {
        let key = (row.nat_address, row.proto);
        match (fullest.get(&key), spans.get(&key)) {
            (Some(fullest), Some(span)) if !in_turn => infer(fullest, *span).unwrap_or(NatRange::DEFAULT),
            _ => NatRange::DEFAULT,
        }
    };
    tally
        .snat
        .iter()
        .map(|row| NatUse {
            tally: row,
            range: range(row),
        })
        .collect()
}

/// Where a row's ports lie that tell of a rule's range: those that NAT chose. A preserved port lies in the range too, or it
/// is from before the rule had one.
fn span_of(row: &SnatTally) -> PortRange {
    row.rewritten.unwrap_or(PortRange {
        low: row.min_port,
        high: row.max_port,
    })
}

/// The range that the ports towards the `fullest` destination show; `all` is the span over all destinations of this NAT.
///
/// Only one destination's ports are independent draws: towards several, one source keeps one port (`find_appropriate_src`).
fn infer(fullest: &SnatTally, all: PortRange) -> Option<NatRange> {
    let rewritten = fullest.ports.saturating_sub(fullest.preserved);
    let span = span_of(fullest).len();
    if span == 0 || rewritten < MIN_REWRITTEN || all.low < DEFAULT_RANGE.low {
        return None;
    }
    // P(all n of n uniform draws lie within some span s of N) ≤ n · (s/N)^(n-1).
    let share = f64::from(span) / f64::from(DEFAULT_RANGE.len());
    let chance = f64::from(rewritten).ln() + f64::from(rewritten - 1) * share.ln();
    if chance > CHANCE.ln() {
        return None;
    }
    // The German tank estimate from both ends: draws without replacement leave on average span/(k-1) beyond each end… in
    // all, N = (max - min)(k + 1)/(k - 1) - 1, which is the span itself where every port is in use.
    let inside = |port: u16| all.contains(port);
    let drawn = if inside(fullest.min_port) && inside(fullest.max_port) {
        fullest.ports
    } else {
        rewritten
    };
    let k = f64::from(drawn.max(2));
    let estimate = f64::from(span - 1) * (k + 1.0) / (k - 1.0) - 1.0;
    let size = crate::words::whole32(estimate.round())
        .max(all.len())
        .max(drawn)
        .min(DEFAULT_RANGE.len());
    Some(NatRange {
        size,
        seen: Some(all),
    })
}

fn major(release: &str) -> Option<u32> {
    release.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(port: u16, ports: u32, min_port: u16, max_port: u16, preserved: u32) -> SnatTally {
        SnatTally {
            nat_address: [198, 51, 100, 1].into(),
            proto: Proto::Tcp,
            destination: ([203, 0, 113, 9], port).into(),
            ports,
            min_port,
            max_port,
            preserved,
            rewritten: None,
            closing: 0,
            unreplied: 0,
        }
    }

    #[test]
    fn what_is_left_from_before_a_rule_had_a_range_does_not_widen_it() {
        let rewritten = Some(PortRange {
            low: 20_000,
            high: 20_299,
        });
        let mixed = SnatTally {
            rewritten,
            ..row(1, 468, 20_000, 40_998, 168)
        };
        let inside = SnatTally {
            rewritten,
            ..row(1, 300, 20_000, 20_299, 20)
        };
        for (name, row, held) in [("leftovers", mixed, 300), ("some ports kept inside", inside, 300)] {
            let tally = CtTally {
                snat: vec![row],
                ..CtTally::default()
            };
            let uses = uses(&tally, None);
            let one = uses.first().expect("one row");
            assert_eq!((one.range.size, one.held(), one.free()), (300, held, 0), "{name}");
            assert!(one.range.inferred());
        }
    }

    fn sizes(rows: &[SnatTally], kernel: Option<&str>) -> Vec<(u32, bool)> {
        let tally = CtTally {
            snat: rows.to_vec(),
            ..CtTally::default()
        };
        uses(&tally, kernel)
            .iter()
            .map(|u| (u.range.size, u.range.inferred()))
            .collect()
    }

    #[test]
    fn ranges() {
        let default = (64_512, false);
        for (name, rows, kernel, expected) in [
            (
                "full",
                vec![row(1, 100, 20_000, 20_099, 0)],
                None,
                vec![(100, true)],
            ),
            (
                "nearly full",
                vec![row(1, 95, 20_000, 20_099, 0)],
                None,
                vec![(100, true)],
            ),
            (
                "a third",
                vec![row(1, 30, 20_002, 20_096, 0)],
                None,
                vec![(99, true)],
            ),
            (
                "another destination fills the edges",
                vec![row(1, 30, 20_002, 20_096, 0), row(2, 3, 20_000, 20_099, 0)],
                None,
                vec![(100, true); 2],
            ),
            ("too few", vec![row(1, 7, 20_000, 20_099, 0)], None, vec![default]),
            (
                "spread over all",
                vec![row(1, 40, 1500, 64_000, 0)],
                None,
                vec![default],
            ),
            (
                "clients' own range, kept",
                vec![row(1, 20_000, 32_768, 60_999, 19_999)],
                None,
                vec![default],
            ),
            (
                "a rule as wide as the clients' range",
                vec![row(1, 28_000, 32_768, 60_999, 5_000)],
                None,
                vec![(28_232, true)],
            ),
            (
                "one client's port to many destinations",
                vec![row(1, 1, 40_000, 40_000, 0), row(2, 1, 40_000, 40_000, 0)],
                None,
                vec![default; 2],
            ),
            ("low ports", vec![row(1, 100, 600, 1023, 0)], None, vec![default]),
            (
                "handed out in turn",
                vec![row(1, 100, 20_000, 20_099, 0)],
                Some("4.19.0-27"),
                vec![default],
            ),
            (
                "a kernel of today",
                vec![row(1, 100, 20_000, 20_099, 0)],
                Some("6.12.1"),
                vec![(100, true)],
            ),
            (
                "nonsense",
                vec![row(1, 100, 20_099, 20_000, 0)],
                None,
                vec![default],
            ),
        ] {
            assert_eq!(sizes(&rows, kernel), expected, "{name}");
        }
    }

    #[test]
    fn protocols_and_addresses_have_ranges_of_their_own() {
        let mut udp = row(1, 40, 1500, 64_000, 0);
        udp.proto = Proto::Udp;
        assert_eq!(
            sizes(&[row(1, 100, 20_000, 20_099, 0), udp], None),
            vec![(100, true), (64_512, false)]
        );
    }

    proptest! {
        #[test]
        fn any_row_gives_a_range_that_holds_it(
            ports in any::<u32>(), a in any::<u16>(), b in any::<u16>(), preserved in any::<u32>(),
        ) {
            let row = row(1, ports, a, b, preserved);
            let tally = CtTally { snat: vec![row], ..CtTally::default() };
            for u in uses(&tally, None) {
                prop_assert!((1..=64_512).contains(&u.range.size));
                prop_assert!((0.0..=1.0).contains(&u.share()));
            }
        }
    }
}

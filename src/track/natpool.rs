//! The ranges that this host's source NAT takes ports from, read off the ports in use, and how full they are.
//!
//! In: a [`CtTally`] and, where they could be read, the NAT rules. Out: a [`NatUse`] for each (NAT address, protocol,
//! destination). Where the rules do not say it, the range is inferred: one that a rule sets shows as ports that were rewritten,
//! many, and crowded into a narrow span; anything else is taken for the kernel's own (`nf_nat_l4proto_unique_tuple`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::natrules;
use crate::observation::conntrack::{CtTally, ROWS, SnatTally};
use crate::observation::nat_rules::{NatRules, SnatRule};
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
    /// As a rule sets it.
    pub ruled: Option<PortRange>,
}

impl NatRange {
    const DEFAULT: Self = Self {
        size: DEFAULT_RANGE.len(),
        seen: None,
        ruled: None,
    };

    fn of_rule(range: PortRange) -> Self {
        Self {
            size: range.len(),
            seen: None,
            ruled: Some(range),
        }
    }

    /// Where it lies, unless it is the kernel's own.
    pub fn bounds(&self) -> Option<PortRange> {
        self.ruled.or(self.seen)
    }

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
    /// The rule that made these entries, where only one can have.
    pub rule: Option<&'a SnatRule>,
}

impl NatUse<'_> {
    /// Ports of the range that are in use. Where entries with preserved ports lie outside it (they are from
    /// before the rule had one), the rewritten ones alone are counted: at least so many.
    pub fn held(&self) -> u32 {
        let t = self.tally;
        match self.range.bounds() {
            Some(range) if t.min_port < range.low || t.max_port > range.high => {
                t.ports.saturating_sub(t.preserved)
            }
            _ => t.ports,
        }
    }

    /// Whether the range is known: set by the rule that made the entries, or left to the kernel by it.
    pub fn exact(&self) -> bool {
        self.rule.is_some()
    }

    /// The chance that the search for a free port fails for a new flow, by how the ports in use lie; `None` where that was
    /// not looked at. Each of the [`ROWS`] must begin where all of it is in use. A TCP search may do a little better: it may
    /// take the port of a connection that has ended.
    pub fn search_fails(&self) -> Option<f64> {
        if self.free() == 0 {
            return Some(1.0);
        }
        if self.range.size <= ROWS[0] {
            return Some(0.0); // every port is tried
        }
        let starts = self.tally.runs?;
        let size = f64::from(self.range.size);
        Some(starts.iter().map(|n| (f64::from(*n) / size).min(1.0)).product())
    }

    /// The same chance if as many ports were in use, spread evenly: each of the 248 tries meets one that is taken.
    pub fn search_fails_if_spread(&self) -> f64 {
        let tries = if self.range.size <= ROWS[0] {
            self.range.size
        } else {
            ROWS.iter().sum()
        };
        self.share().powf(f64::from(tries))
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
/// handed out in turn (commit 6ed5943f8735 removed that), so a narrow span proves nothing there. `rules` where they could be
/// read.
pub fn uses<'a>(tally: &'a CtTally, kernel: Option<&str>, rules: Option<&'a NatRules>) -> Vec<NatUse<'a>> {
    let in_turn = kernel
        .and_then(|release| version(release)[0])
        .is_some_and(|v| v < 5);
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
    let inferred = |row: &SnatTally| {
        let key = (row.nat_address, row.proto);
        match (fullest.get(&key), spans.get(&key)) {
            (Some(fullest), Some(span)) if !in_turn => infer(fullest, *span),
            _ => None,
        }
    };
    tally
        .snat
        .iter()
        .map(|row| {
            let may = rules.map_or_else(Vec::new, |rules| natrules::candidates(rules, row));
            let rule = match may[..] {
                [one] => Some(one),
                _ => None,
            };
            let range = match natrules::agreed(&may) {
                Some(Some(range)) => NatRange::of_rule(range),
                Some(None) => NatRange::DEFAULT,
                None => match inferred(row) {
                    Some(guess) => guess
                        .seen
                        .and_then(|seen| natrules::holding(&may, seen))
                        .map_or(guess, NatRange::of_rule),
                    None => NatRange::DEFAULT,
                },
            };
            NatUse {
                tally: row,
                range,
                rule,
            }
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
        ruled: None,
    })
}

/// The first two numbers of a kernel's release; of each as much as is one.
fn version(release: &str) -> [Option<u32>; 2] {
    let mut parts = release.split('.');
    [(); 2].map(|()| {
        let part = parts.next()?;
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part.get(..digits)?.parse().ok()
    })
}

/// Whether NAT may give a new TCP connection the port of one that has ended (commit 458972550287, Linux 6.5): then a range whose
/// ports are all in use still serves, as long as some of these have ended. Not known: it may.
pub fn takes_ended(release: Option<&str>) -> bool {
    match version(release.unwrap_or_default()) {
        [Some(major), Some(minor)] => (major, minor) >= (6, 5),
        _ => true,
    }
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
            zone: 0,
            ports,
            min_port,
            max_port,
            preserved,
            rewritten: None,
            closing: 0,
            unreplied: 0,
            runs: None,
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
            let uses = uses(&tally, None, None);
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
        uses(&tally, kernel, None)
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
    fn kernels_that_take_ports_of_ended_connections() {
        for (release, expected) in [
            (Some("6.18.44-fc"), true),
            (Some("6.5-rc1"), true),
            (Some("6.4.12"), false),
            (Some("5.15.0-91-generic"), false),
            (Some("nonsense"), true),
            (None, true),
        ] {
            assert_eq!(takes_ended(release), expected, "{release:?}");
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

    #[test]
    fn a_rule_that_is_read_needs_no_inference() {
        use crate::observation::nat_rules::RulePorts;
        use crate::track::natrules::testing::masquerade;
        let range = PortRange {
            low: 20_000,
            high: 29_999,
        };
        for (name, row, ports, expected) in [
            (
                "few ports, which would tell nothing",
                row(1, 5, 20_002, 29_000, 0),
                RulePorts::Range(range),
                (10_000, true, false),
            ),
            (
                "crowded by chance, under a rule without a range",
                row(1, 100, 20_000, 20_099, 0),
                RulePorts::Any,
                (64_512, true, false),
            ),
            (
                "ports of a rule that is gone",
                SnatTally {
                    rewritten: Some(PortRange {
                        low: 1024,
                        high: 1123,
                    }),
                    ..row(1, 100, 1024, 1123, 0)
                },
                RulePorts::Range(range),
                (100, false, true),
            ),
        ] {
            let tally = CtTally {
                snat: vec![row],
                ..CtTally::default()
            };
            let rules = NatRules {
                rules: vec![masquerade(ports)],
                ..NatRules::default()
            };
            let all = uses(&tally, None, Some(&rules));
            let one = all.first().expect("one row");
            assert_eq!(
                (one.range.size, one.exact(), one.range.inferred()),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn the_search_fails_where_ports_lie_together() {
        let of = |ports, size_row: SnatTally, runs| {
            let tally = CtTally {
                snat: vec![SnatTally {
                    runs,
                    ports,
                    ..size_row
                }],
                ..CtTally::default()
            };
            let all = uses(&tally, None, None);
            (all[0].search_fails(), all[0].search_fails_if_spread())
        };
        let kept = row(1, 0, 1024, 61_023, 1_000_000);
        // A block of 60,000 of 64,512 ports, all kept: the search fails for 0.93⁵ of the flows that need another port
        // (measured: 64 %), and for hardly any where as many are spread (measured: 23 of 6,000 on the way there).
        let starts = [128, 64, 32, 16, 8].map(|row| 60_000 - row + 1);
        let (block, spread) = of(60_000, kept.clone(), Some(starts));
        assert!(block.is_some_and(|p| (0.68..0.71).contains(&p)), "{block:?}");
        assert!(spread < 1e-7, "{spread}");
        assert_eq!(of(60_000, kept.clone(), None).0, None);
        assert_eq!(of(64_512, kept, None).0, Some(1.0));
        // Every port of a small range is tried.
        let (small, _) = of(95, row(1, 0, 20_000, 20_099, 0), Some([0; 5]));
        assert_eq!(small, Some(0.0));
    }

    proptest! {
        #[test]
        fn any_row_gives_a_range_that_holds_it(
            ports in any::<u32>(), a in any::<u16>(), b in any::<u16>(), preserved in any::<u32>(),
        ) {
            let row = row(1, ports, a, b, preserved);
            let tally = CtTally { snat: vec![row], ..CtTally::default() };
            for u in uses(&tally, None, None) {
                prop_assert!((1..=64_512).contains(&u.range.size));
                prop_assert!((0.0..=1.0).contains(&u.share()));
            }
        }
    }
}

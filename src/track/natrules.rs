//! Which source NAT rule made the entries of one row of the table, as far as that can be said.
//!
//! In: a row and the namespace's [`NatRules`]. Out: the rules that may have made it. Conditions that are not understood (the
//! interface, the client, a set) may hold or not, so a rule is ruled out only by what is known to differ, or by an earlier rule
//! of its chain that takes all that it could.

use crate::observation::conntrack::SnatTally;
use crate::observation::nat_rules::{NatRules, RulePorts, SnatRule};
use crate::types::{PortRange, Proto};

/// `IPPROTO_TCP`, `IPPROTO_UDP`.
const fn number(proto: Proto) -> u8 {
    match proto {
        Proto::Tcp => 6,
        Proto::Udp => 17,
    }
}

/// The rules that may have made `row`'s entries, in their order.
pub fn candidates<'a>(rules: &'a NatRules, row: &SnatTally) -> Vec<&'a SnatRule> {
    let mut reached: Vec<&SnatRule> = Vec::new();
    for rule in rules.rules.iter().filter(|rule| may_apply(rule, row)) {
        let taken = reached.iter().any(|earlier| {
            (earlier.family, &earlier.table, &earlier.chain) == (rule.family, &rule.table, &rule.chain)
                && earlier.conditions.iter().all(|c| rule.conditions.contains(c))
        });
        if !taken {
            reached.push(rule);
        }
    }
    reached.retain(|rule| fits(rule, row));
    reached
}

/// Whether nothing that is known of the row speaks against the rule.
fn may_apply(rule: &SnatRule, row: &SnatTally) -> bool {
    let within = |(first, last)| (first..=last).contains(&row.nat_address);
    rule.family.holds(row.nat_address)
        && rule.protocol.is_none_or(|p| p == number(row.proto))
        && rule.destination.is_none_or(|d| d == row.destination.ip())
        && rule.destination_port.is_none_or(|p| p == row.destination.port())
        && (rule.masquerade || rule.addresses.is_none_or(within))
}

/// Whether the ports that NAT chose lie in the rule's range: else they are from a rule that is gone, or of another.
fn fits(rule: &SnatRule, row: &SnatTally) -> bool {
    match (rule.ports, row.rewritten) {
        (RulePorts::Range(range), Some(seen)) => range.contains(seen.low) && range.contains(seen.high),
        _ => true,
    }
}

/// The one range that all of `candidates` agree on: `Some(None)` is the kernel's own.
#[allow(clippy::option_option)]
pub fn agreed(candidates: &[&SnatRule]) -> Option<Option<PortRange>> {
    let (first, others) = candidates.split_first()?;
    if others.iter().any(|rule| rule.ports != first.ports) {
        return None;
    }
    match first.ports {
        RulePorts::Any => Some(None),
        RulePorts::Range(range) => Some(Some(range)),
        RulePorts::Unknown => None,
    }
}

/// The one range among `candidates` that holds what was `seen`.
pub fn holding(candidates: &[&SnatRule], seen: PortRange) -> Option<PortRange> {
    let mut ranges: Vec<PortRange> = candidates
        .iter()
        .filter_map(|rule| match rule.ports {
            RulePorts::Range(range) if range.contains(seen.low) && range.contains(seen.high) => Some(range),
            _ => None,
        })
        .collect();
    ranges.dedup();
    match ranges[..] {
        [one] => Some(one),
        _ => None,
    }
}

#[cfg(test)]
#[allow(missing_docs)]
pub mod testing {
    use super::*;
    use crate::observation::nat_rules::RuleFamily;

    /// `masquerade` with these ports for everything that leaves by one interface.
    pub fn masquerade(ports: RulePorts) -> SnatRule {
        SnatRule {
            family: RuleFamily::Ip,
            table: "nat".to_owned(),
            chain: "postrouting".to_owned(),
            handle: 4,
            masquerade: true,
            addresses: None,
            ports,
            random: false,
            fully_random: false,
            persistent: false,
            protocol: None,
            destination: None,
            destination_port: None,
            conditions: vec![1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::masquerade;
    use super::*;

    fn row(rewritten: Option<(u16, u16)>) -> SnatTally {
        SnatTally {
            nat_address: [198, 51, 100, 1].into(),
            proto: Proto::Tcp,
            destination: ([203, 0, 113, 9], 443).into(),
            zone: 0,
            ports: 50,
            min_port: 20_000,
            max_port: 20_099,
            preserved: 0,
            rewritten: rewritten.map(|(low, high)| PortRange { low, high }),
            closing: 0,
            unreplied: 0,
            runs: None,
        }
    }

    fn ports(low: u16, high: u16) -> RulePorts {
        RulePorts::Range(PortRange { low, high })
    }

    #[test]
    fn which_rule_it_may_be() {
        let plain = || masquerade(RulePorts::Any);
        let ranged = || masquerade(ports(20_000, 20_099));
        let tcp = SnatRule {
            protocol: Some(6),
            ..ranged()
        };
        let udp = SnatRule {
            protocol: Some(17),
            ..ranged()
        };
        let elsewhere = SnatRule {
            destination: Some([203, 0, 113, 10].into()),
            ..ranged()
        };
        let others = SnatRule {
            masquerade: false,
            addresses: Some(([198, 51, 100, 7].into(), [198, 51, 100, 9].into())),
            ..ranged()
        };
        let pool = SnatRule {
            masquerade: false,
            addresses: Some(([198, 51, 100, 1].into(), [198, 51, 100, 9].into())),
            ..plain()
        };
        let other_interface = SnatRule {
            conditions: vec![2],
            ..plain()
        };
        let other_chain = SnatRule {
            chain: "other".to_owned(),
            ..plain()
        };
        for (name, rules, expected) in [
            ("the only one", vec![ranged()], Some(Some((20_000, 20_099)))),
            ("no range", vec![plain()], Some(None)),
            ("no rule", vec![], None),
            ("another protocol's", vec![udp.clone(), plain()], Some(None)),
            ("another destination's", vec![elsewhere, plain()], Some(None)),
            ("another address's", vec![others, plain()], Some(None)),
            ("an address pool", vec![pool], Some(None)),
            (
                "the first takes it all",
                vec![tcp.clone(), plain()],
                Some(Some((20_000, 20_099))),
            ),
            (
                "the first, under a condition that may not hold",
                vec![
                    SnatRule {
                        conditions: vec![1, 3],
                        ..ranged()
                    },
                    plain(),
                ],
                None,
            ),
            ("by either interface", vec![ranged(), other_interface], None),
            ("by either chain", vec![ranged(), other_chain], None),
            (
                "ports that are not constants",
                vec![masquerade(RulePorts::Unknown)],
                None,
            ),
        ] {
            let rules = NatRules {
                rules,
                ..NatRules::default()
            };
            let found = agreed(&candidates(&rules, &row(Some((20_000, 20_050)))));
            let expected = expected.map(|range| range.map(|(low, high)| PortRange { low, high }));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn what_an_earlier_ruleset_made_fits_no_rule() {
        let rules = NatRules {
            rules: vec![masquerade(ports(30_000, 30_099))],
            ..NatRules::default()
        };
        assert!(candidates(&rules, &row(Some((20_000, 20_050)))).is_empty());
        assert_eq!(candidates(&rules, &row(None)).len(), 1);
    }

    #[test]
    fn the_range_that_holds_what_was_seen() {
        let (a, b) = (
            masquerade(ports(20_000, 20_099)),
            masquerade(ports(30_000, 30_099)),
        );
        let seen = |low, high| PortRange { low, high };
        let all = [&a, &b];
        assert_eq!(holding(&all, seen(20_003, 20_090)), Some(seen(20_000, 20_099)));
        assert_eq!(holding(&all, seen(20_003, 30_010)), None);
    }
}

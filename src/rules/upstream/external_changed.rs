//! `nat-external-changed`: the address that this host has outside changed.

use super::view::{list, subject};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::nat::Family;
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "nat-external-changed",
    area: Area::Upstream,
    severity: "warning",
    holds_when: "servers see this host at another external address than before",
    meaning: "The NAT in front has another address now, or this host is behind another NAT: a provider's new lease, a failover, a roamed \
laptop. Flows that were open are dead without knowing it; WireGuard recovers when this side sends, other protocols after their \
time-outs. Allow-lists that name the old address refuse the new one.",
    detection: "Discovery repeated: each run saw one external address, and not the same. A run that saw several is of a NAT with a \
pool, which shows some of them each time, and tells nothing.",
    fix: "- Where the address must stay: a static address from the provider, or egress through a host that has one.\n- Persistent keepalive, so \
that a tunnel's peer learns the new address within seconds.",
    needs: &[&[Source::Nat]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let families = [Family::Ipv4, Family::Ipv6];
    families
        .into_iter()
        .filter_map(|family| {
            let changes: Vec<_> = input.world.nat.changes().filter(|c| c.family == family).collect();
            let count = u32::try_from(changes.len()).unwrap_or(u32::MAX);
            let (first, last) = (changes.first()?, changes.last()?);
            let cause = if last.local_changed {
                "This host's own address changed too: it is on another network."
            } else {
                "This host's own address did not change: the NAT's did."
            };
            Some(Finding {
                code: RULE.code,
                severity: Severity::Warning,
                confidence: Confidence::Certain,
                title: format!("The external {} address changed to {}", family.title(), list(&last.to)),
                subject: subject(last.to.first().copied()),
                summary: format!("Servers saw {} before and see {} now. {cause}", list(&last.from), list(&last.to)),
                evidence: Evidence::new()
                    .with("family", family.name())
                    .with("before", list(&last.from))
                    .with("now", list(&last.to))
                    .with("own_address_changed", last.local_changed)
                    .with("changes", count),
                impact: "Flows that were open are dead, and allow-lists that name the old address refuse the new one.".to_owned(),
                candidates: Vec::new(),
                fixes: vec![Fix {
                    title: "Set a persistent keepalive on tunnels of this host".to_owned(),
                    why: "The peer learns the new address with the next packet, and not when somebody happens to send.".to_owned(),
                    ..Fix::default()
                }],
                first_seen: first.at,
                last_seen: last.at,
                count,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::upstream::testing::{facts, found_after};

    #[test]
    fn another_address_is_told_with_whose_doing_it_is() {
        let mut other = facts();
        other.families[0].external_addresses = vec!["203.0.113.50".parse().unwrap()];
        assert!(found_after(&RULE, vec![facts(), facts()]).is_empty());
        let found = found_after(&RULE, vec![facts(), other.clone()]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].summary.ends_with("the NAT's did."),
            "{}",
            found[0].summary
        );
        // A pool of which each run sees a part.
        let mut pool = facts();
        pool.families[0].external_addresses = ["203.0.113.60", "203.0.113.61"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
        assert!(found_after(&RULE, vec![facts(), pool.clone()]).is_empty());
        assert!(found_after(&RULE, vec![pool, facts()]).is_empty());
        other.families[0].local = Some("10.9.0.2:1".parse().unwrap());
        let found = found_after(&RULE, vec![facts(), other]);
        assert!(
            found[0].summary.contains("another network"),
            "{}",
            found[0].summary
        );
    }
}

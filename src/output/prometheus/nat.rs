//! The NAT in front, as STUN servers show it, and how much of what it allows is in use.

use super::{Family, count, seconds, yes};
use crate::observation::nat::{Behaviour, FamilyFacts, NatFacts};
use crate::report::Report;
use crate::report::agent::{AgentStats, BudgetStats, NatTotals};

/// External addresses with a sample of their own: a pool of more says nothing by names.
const EXTERNAL: usize = 8;

pub(super) fn families(report: &Report, stats: &AgentStats) -> Vec<Family> {
    let mut all = Vec::new();
    if let Some(facts) = &report.nat {
        all.extend(behaviours(facts));
        all.extend(each(facts));
        all.extend(servers(facts));
    }
    all.extend(stats.totals.nat.iter().flat_map(totals));
    all.extend(stats.budget.iter().flat_map(budget));
    all
}

fn label(facts: &FamilyFacts) -> (&'static str, String) {
    ("family", facts.family.name().to_owned())
}

fn behaviours(facts: &NatFacts) -> Vec<Family> {
    const ALL: [Behaviour; 5] = [
        Behaviour::None,
        Behaviour::EndpointIndependent,
        Behaviour::AddressDependent,
        Behaviour::AddressAndPortDependent,
        Behaviour::Unknown,
    ];
    let of = |name, help, of: fn(&FamilyFacts) -> Behaviour| {
        let mut family = Family::gauge(name, help);
        for facts in &facts.families {
            for behaviour in ALL {
                let labels = vec![label(facts), ("behaviour", behaviour.name().to_owned())];
                family.add(labels, yes(of(facts) == behaviour));
            }
        }
        family
    };
    vec![
        of(
            "wgnat_nat_mapping",
            "What a flow's external port depends on (RFC 4787, section 4.1): 1 for the behaviour that was found, 0 for the others.",
            |facts| facts.mapping,
        ),
        of(
            "wgnat_nat_filtering",
            "What the NAT in front lets in (RFC 4787, section 5): 1 for the behaviour that was found, 0 for the others.",
            |facts| facts.filtering,
        ),
    ]
}

fn each(facts: &NatFacts) -> Vec<Family> {
    let of = |name, help, of: fn(&FamilyFacts) -> Option<f64>| {
        let mut family = Family::gauge(name, help);
        for facts in &facts.families {
            if let Some(value) = of(facts) {
                family.add(vec![label(facts)], value);
            }
        }
        family
    };
    let mut external = Family::info(
        "wgnat_nat_external",
        "An address that STUN servers see this host by.",
    );
    for facts in &facts.families {
        for address in facts.external_addresses.iter().take(EXTERNAL) {
            external.add(vec![label(facts), ("address", address.to_string())], 1.0);
        }
    }
    vec![
        of(
            "wgnat_nat_translated",
            "Whether something on the way translates addresses or ports.",
            |facts| facts.translated.map(yes),
        ),
        of(
            "wgnat_nat_port_preservation",
            "Whether the NAT in front keeps local port numbers where it can.",
            |facts| facts.port_preservation.map(yes),
        ),
        of(
            "wgnat_nat_hairpinning",
            "Whether hosts behind the NAT in front reach each other by its external address.",
            |facts| facts.hairpinning.map(yes),
        ),
        of(
            "wgnat_nat_udp_blocked",
            "Whether nothing comes back over UDP while TCP to the same servers works.",
            |facts| facts.udp_blocked.map(yes),
        ),
        of(
            "wgnat_nat_mapping_lifetime_seconds",
            "The longest idle time after which a UDP mapping still let an answer in.",
            |facts| facts.lifetime.map(|lifetime| lifetime.alive_after.as_secs_f64()),
        ),
        of(
            "wgnat_nat_mapping_lifetime_at_most_seconds",
            "The shortest idle time after which it no longer did; none where it outlived the measurement or that could not be told.",
            |facts| facts.lifetime?.gone_after,
        ),
        external,
    ]
}

fn servers(facts: &NatFacts) -> Vec<Family> {
    let mut up = Family::gauge(
        "wgnat_stun_up",
        "Whether a STUN server answered at the newest discovery.",
    );
    let mut rtt = Family::gauge(
        "wgnat_stun_rtt_seconds",
        "From a STUN request to its response; over TCP from the first SYN.",
    );
    for server in &facts.servers {
        let family = crate::observation::nat::Family::of(server.address.ip());
        for (transport, answered) in [("udp", server.udp_rtt), ("tcp", server.tcp_rtt)] {
            let labels = || {
                vec![
                    ("server", server.name.clone()),
                    ("family", family.name().to_owned()),
                    ("transport", transport.to_owned()),
                ]
            };
            up.add(labels(), yes(answered.is_some()));
            if let Some(seconds) = answered {
                rtt.add(labels(), seconds);
            }
        }
    }
    vec![up, rtt]
}

fn totals(totals: &NatTotals) -> Vec<Family> {
    let mut changes = Family::counter(
        "wgnat_nat_external_changes",
        "Times that the external address was another than at the discovery before.",
    );
    for (family, n) in &totals.changes {
        changes.add(vec![("family", family.name().to_owned())], count(*n));
    }
    vec![
        Family::counter("wgnat_nat_discoveries", "Discoveries of the NAT in front.")
            .with(Vec::new(), count(totals.discoveries)),
        changes,
        Family::gauge(
            "wgnat_nat_discovered_time_seconds",
            "When the NAT in front was last discovered, in seconds since 1970.",
        )
        .with(Vec::new(), seconds(totals.at)),
    ]
}

fn budget(budget: &BudgetStats) -> Vec<Family> {
    let labels = || vec![("profile", budget.profile.clone())];
    let mut all = vec![
        Family::gauge(
            "wgnat_nat_budget_flows",
            "Flows that the NAT in front holds of this host in the fullest group that it counts together, as it counts them.",
        )
        .with(labels(), f64::from(budget.fullest)),
        Family::gauge(
            "wgnat_nat_budget_flows_limit",
            "Flows that it allows in each such group, as the configuration says.",
        )
        .with(labels(), f64::from(budget.limit)),
    ];
    if budget.limit > 0 {
        let share = f64::from(budget.fullest) / f64::from(budget.limit);
        all.push(
            Family::gauge(
                "wgnat_nat_budget_used_ratio",
                "Of the flows that the NAT in front allows, the share that its fullest group holds.",
            )
            .with(labels(), share),
        );
    }
    all
}

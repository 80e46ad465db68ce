//! `nat-mapping-varies`: the NAT gives another external port for each destination ("symmetric").

use super::view::{translated, udp_subject};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::nat::Behaviour;
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "nat-mapping-varies",
    area: Area::Upstream,
    severity: "info, warning with a peer that has to reach this host",
    holds_when: "the NAT in front gives one socket different external ports for different destinations",
    meaning: "With address- or port-dependent mapping (RFC 4787; \"symmetric NAT\" in older words) nobody outside can be told a \
port at which this host is reached: what one server sees is not what the next one sees. Tunnels that this side begins work; two \
hosts that are both behind such a NAT cannot find each other directly.",
    detection: "One socket asks a STUN server at its two addresses and two ports (RFC 5780, section 4.3), or several servers; the \
mapped addresses are compared.",
    fix: "- Let this side begin (an endpoint and a persistent keepalive), towards a peer that has a public address or a simpler NAT.\n- \
Forward a fixed port at the NAT to this host.\n- Use IPv6, where it is not translated.",
    needs: &[&[Source::Nat]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    // A peer without an endpoint can only call us; it needs a port of ours that stays.
    let waits = input
        .world
        .tunnels
        .devices()
        .flat_map(|device| device.present_peers())
        .filter(|(_, peer)| peer.newest.endpoint.is_none())
        .count();
    translated(input)
        .filter(|(_, f)| matches!(f.mapping, Behaviour::AddressDependent | Behaviour::AddressAndPortDependent))
        .map(|(at, f)| Finding {
            code: RULE.code,
            severity: if waits > 0 { Severity::Warning } else { Severity::Info },
            confidence: Confidence::Certain,
            title: "The NAT in front gives each destination another port".to_owned(),
            subject: udp_subject(f),
            summary: format!(
                "One socket of this host looks different to each {} that it calls ({} mapping).{}",
                if f.mapping == Behaviour::AddressDependent { "address" } else { "address and port" },
                f.mapping.name(),
                match waits {
                    0 => String::new(),
                    1 => " One WireGuard peer has no endpoint and has to reach this host.".to_owned(),
                    n => format!(" {n} WireGuard peers have no endpoint and have to reach this host."),
                }
            ),
            evidence: Evidence::new()
                .with("family", f.family.name())
                .with("mapping", f.mapping.name())
                .with("filtering", f.filtering.name())
                .maybe("external", f.external.map(|e| e.to_string()))
                .with("peers_that_wait", waits),
            impact: "Nobody outside can be told where to reach this host; direct connections between two such hosts fail.".to_owned(),
            candidates: Vec::new(),
            fixes: vec![
                Fix {
                    title: "Let this side begin, with a persistent keepalive".to_owned(),
                    why: "a peer with a public address answers to whatever port it is called from".to_owned(),
                    ..Fix::default()
                },
                Fix {
                    title: "Forward a fixed UDP port at the NAT to this host".to_owned(),
                    why: "then there is one port to tell others".to_owned(),
                    ..Fix::default()
                },
            ],
            first_seen: at,
            last_seen: at,
            count: 1,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::upstream::testing::{facts, found};

    #[test]
    fn only_mappings_that_vary() {
        for (mapping, fires) in [
            (Behaviour::AddressDependent, true),
            (Behaviour::AddressAndPortDependent, true),
            (Behaviour::EndpointIndependent, false),
            (Behaviour::None, false),
            (Behaviour::Unknown, false),
        ] {
            let mut f = facts();
            f.families[0].mapping = mapping;
            let found = found(&RULE, f);
            assert_eq!(!found.is_empty(), fires, "{mapping:?}");
            assert!(found.iter().all(|f| f.severity == Severity::Info));
        }
    }
}

//! `nat-double`: more than one NAT in the path.

use super::view::{in_tunnel, subject, translated};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::nat::{FamilyFacts, NatFacts, is_inside, is_shared};
use crate::rules::{Area, Input, Rule};
use crate::time::Timestamp;

/// The rule.
pub const RULE: Rule = Rule {
    code: "nat-double",
    area: Area::Upstream,
    severity: "info",
    holds_when: "the default gateway's own outside is not the address that servers see",
    meaning: "Two NATs in a row: a router behind another router, or behind a provider's NAT. A port that is forwarded on the first leads \
nowhere while the second does not forward it too, and the shorter of the two time-outs counts.",
    detection: "The default gateway is asked for its external address (PCP, NAT-PMP, UPnP) and a STUN server for the address that it sees: if \
they differ, another NAT lies between: certain where the gateway's is a private address, and a hint where it is public, for a gateway with several \
uplinks or with a VPN of its own names one outside and uses another. Without an answer of the gateway, private addresses \
of several networks among the routers on the way are a hint.",
    fix: "- Put the first router into bridge mode, or forward the port on both.\n- Use IPv6.",
    needs: &[&[Source::Nat]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some((_, facts)) = super::view::newest(input) else {
        return Vec::new();
    };
    translated(input)
        .filter(|(_, f)| f.local.is_some_and(|l| l.is_ipv4() && !in_tunnel(input, l.ip())))
        .filter_map(|(at, f)| told_by_gateway(at, facts, f).or_else(|| told_by_hops(at, facts, f)))
        .collect()
}

fn told_by_gateway(at: Timestamp, facts: &NatFacts, family: &FamilyFacts) -> Option<Finding> {
    let seen = family.external?.ip();
    let gateway = facts.gateways.iter().find(|g| {
        let other = |ip: std::net::IpAddr| !ip.is_unspecified() && !family.external_addresses.contains(&ip);
        g.external.is_some_and(other)
    })?;
    let outside = gateway.external?;
    let private = is_inside(outside);
    let mut found = finding(
        at,
        family,
        if private {
            Confidence::Certain
        } else {
            Confidence::Possible
        },
        format!(
            "The default gateway {} says ({}) that its outside is {outside}; servers see {seen}.{}",
            gateway.gateway,
            gateway.protocol,
            if private { " Another NAT lies between." } else { "" }
        ),
        Evidence::new()
            .with("gateway", gateway.gateway.to_string())
            .with("gateway_external", outside.to_string())
            .with("protocol", gateway.protocol.clone())
            .with("external", seen.to_string()),
    );
    if !private {
        found.candidates = vec![
            Candidate {
                cause: "A second NAT".to_owned(),
                code: None,
                settle: "a port forwarded on the gateway is reached at its outside address, and not at the one that servers see".to_owned(),
            },
            Candidate {
                cause: "The gateway has several uplinks or addresses, or a VPN, and this host's packets leave by another".to_owned(),
                code: None,
                settle: "the gateway's status page: has it the address that servers see, too?".to_owned(),
            },
        ];
    }
    Some(found)
}

/// A private hop beyond the first router's own network is only a hint: a large private network has many.
fn told_by_hops(at: Timestamp, facts: &NatFacts, family: &FamilyFacts) -> Option<Finding> {
    if facts.gateways.iter().any(|g| g.external.is_some()) || super::cgn::evidence_of(facts, family).is_some()
    {
        return None;
    }
    let network = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(v4) => Some((v4.octets()[0], v4.octets()[1])),
        std::net::IpAddr::V6(_) => None,
    };
    let local = family.local.and_then(|l| network(l.ip()))?;
    let further = facts.hops.iter().find(|h| {
        h.ttl >= 2 && is_inside(h.address) && !is_shared(h.address) && network(h.address) != Some(local)
    })?;
    let mut found = finding(
        at,
        family,
        Confidence::Possible,
        format!(
            "Router {} on the way has the private address {}, of another network than this host's.",
            further.ttl, further.address
        ),
        Evidence::new()
            .with("hop", further.address.to_string())
            .with("ttl", further.ttl),
    );
    found.candidates = vec![
        Candidate {
            cause: "A second NAT".to_owned(),
            code: None,
            settle: "the first router's status page: is its outside address the one that servers see?"
                .to_owned(),
        },
        Candidate {
            cause: "One large private network behind one NAT".to_owned(),
            code: None,
            settle: "the same".to_owned(),
        },
    ];
    Some(found)
}

fn finding(
    at: Timestamp,
    family: &FamilyFacts,
    confidence: Confidence,
    summary: String,
    evidence: Evidence,
) -> Finding {
    Finding {
        code: RULE.code,
        severity: Severity::Info,
        confidence,
        title: "More than one NAT is in the path".to_owned(),
        subject: subject(family.external.map(|e| e.ip())),
        summary,
        evidence,
        impact:
            "A port forwarded on the first router leads nowhere, and the shorter of the time-outs counts."
                .to_owned(),
        candidates: Vec::new(),
        fixes: vec![Fix {
            title: "Put the first router into bridge mode, or forward ports on both".to_owned(),
            why: "Each NAT needs to know the way in.".to_owned(),
            ..Fix::default()
        }],
        first_seen: at,
        last_seen: at,
        count: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::nat::{GatewayFacts, Hop};
    use crate::rules::upstream::testing::{facts, found};

    #[test]
    fn a_gateway_with_another_outside_and_nothing_else_is_certain() {
        let said = |external: Option<&str>, hop: Option<&str>| {
            let mut f = facts();
            if let Some(external) = external {
                f.gateways.push(GatewayFacts {
                    gateway: "10.0.0.1".parse().unwrap(),
                    protocol: "nat-pmp".to_owned(),
                    external: Some(external.parse().unwrap()),
                });
            }
            if let Some(hop) = hop {
                f.hops.push(Hop {
                    ttl: 2,
                    address: hop.parse().unwrap(),
                });
            }
            found(&RULE, f).first().map(|f| f.confidence)
        };
        assert_eq!(said(Some("192.168.1.2"), None), Some(Confidence::Certain));
        // Several uplinks look the same.
        assert_eq!(said(Some("203.0.113.77"), None), Some(Confidence::Possible));
        assert_eq!(said(Some("198.51.100.7"), Some("192.168.1.1")), None);
        assert_eq!(said(Some("0.0.0.0"), None), None);
        assert_eq!(said(None, Some("192.168.1.1")), Some(Confidence::Possible));
        assert_eq!(said(None, Some("10.0.9.1")), None);
        assert_eq!(said(None, None), None);
    }
}

//! `nat-double`: more than one NAT in the path.

use std::net::IpAddr;

use super::view::{in_tunnel, subject, translated};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::nat::{FamilyFacts, Hop, NatFacts, is_inside, is_shared};
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
uplinks or with a VPN of its own names one outside and uses another. Many gateways say that they have no outside \
address where theirs is a private one: that is a hint, and so are private addresses of several networks among the routers on the way. Both \
together make it likely.",
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
        .filter_map(|(at, f)| told_by_gateway(at, facts, f).or_else(|| hinted(at, facts, f)))
        .collect()
}

fn told_by_gateway(at: Timestamp, facts: &NatFacts, family: &FamilyFacts) -> Option<Finding> {
    let seen = family.external?.ip();
    let gateway = facts.gateways.iter().find(|g| {
        let other = |ip: IpAddr| !family.external_addresses.contains(&ip);
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

/// Where no gateway names its outside. A private hop beyond the first router's own network is only a hint: a large private
/// network has many. A gateway that says that it has no outside, although servers see one, is a hint too: that is what
/// those with a private one say (miniupnpd does, which most home routers run), and what one says that does not know it.
fn hinted(at: Timestamp, facts: &NatFacts, family: &FamilyFacts) -> Option<Finding> {
    if facts.gateways.iter().any(|g| g.external.is_some()) || super::cgn::evidence_of(facts, family).is_some()
    {
        return None;
    }
    let hop = private_hop(facts, family);
    let gateway = facts.gateways.iter().find(|g| g.says_none);
    let seen = family.external.map(|e| e.ip());
    let by_hop = hop.map(|hop| {
        format!(
            "Router {} on the way has the private address {}, of another network than this host's.",
            hop.ttl, hop.address
        )
    });
    let by_gateway = gateway.map(|g| {
        let servers = seen.map_or_else(String::new, |seen| format!(", though servers see {seen}"));
        format!(
            "The default gateway {} names no outside address ({}){servers}: gateways do so whose outside is a private address.",
            g.gateway, g.protocol
        )
    });
    let confidence = match (&by_hop, &by_gateway) {
        (None, None) => return None,
        (Some(_), Some(_)) => Confidence::Likely,
        _ => Confidence::Possible,
    };
    let sentences: Vec<String> = by_gateway.into_iter().chain(by_hop).collect();
    let mut found = finding(
        at,
        family,
        confidence,
        sentences.join(" "),
        Evidence::new()
            .maybe("gateway", gateway.map(|g| g.gateway.to_string()))
            .maybe("protocol", gateway.map(|g| g.protocol.clone()))
            .maybe("hop", hop.map(|h| h.address.to_string()))
            .maybe("ttl", hop.map(|h| h.ttl))
            .maybe("external", seen.map(|e| e.to_string())),
    );
    let settle = "the first router's status page: is its outside address the one that servers see?";
    let candidate = |cause: &str| Candidate {
        cause: cause.to_owned(),
        code: None,
        settle: settle.to_owned(),
    };
    found.candidates.push(candidate("A second NAT"));
    if hop.is_some() && gateway.is_none() {
        found
            .candidates
            .push(candidate("One large private network behind one NAT"));
    }
    if gateway.is_some() {
        found
            .candidates
            .push(candidate("A gateway that does not know its own outside address"));
    }
    Some(found)
}

/// The first router beyond the gateway that has a private address of another network than this host's.
fn private_hop<'a>(facts: &'a NatFacts, family: &FamilyFacts) -> Option<&'a Hop> {
    let network = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => Some((v4.octets()[0], v4.octets()[1])),
        IpAddr::V6(_) => None,
    };
    let local = family.local.and_then(|l| network(l.ip()))?;
    facts.hops.iter().find(|h| {
        h.ttl >= 2 && is_inside(h.address) && !is_shared(h.address) && network(h.address) != Some(local)
    })
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
    use crate::observation::nat::GatewayFacts;
    use crate::rules::upstream::testing::{facts, found};

    #[test]
    fn a_gateway_with_another_outside_and_nothing_else_is_certain() {
        let gateway = |external: Option<&str>, says_none: bool| GatewayFacts {
            gateway: "10.0.0.1".parse().unwrap(),
            protocol: "nat-pmp".to_owned(),
            external: external.map(|e| e.parse().unwrap()),
            says_none,
            problem: None,
        };
        let with = |gateway: Option<GatewayFacts>, hop: Option<&str>| {
            let mut f = facts();
            f.gateways.extend(gateway);
            if let Some(hop) = hop {
                f.hops.push(Hop {
                    ttl: 2,
                    address: hop.parse().unwrap(),
                });
            }
            found(&RULE, f).first().map(|f| f.confidence)
        };
        let said = |external: Option<&str>, hop| with(external.map(|e| gateway(Some(e), false)), hop);
        assert_eq!(said(Some("192.168.1.2"), None), Some(Confidence::Certain));
        // Several uplinks look the same.
        assert_eq!(said(Some("203.0.113.77"), None), Some(Confidence::Possible));
        assert_eq!(said(Some("198.51.100.7"), Some("192.168.1.1")), None);
        assert_eq!(said(None, Some("192.168.1.1")), Some(Confidence::Possible));
        assert_eq!(said(None, Some("10.0.9.1")), None);
        assert_eq!(said(None, None), None);
        // A gateway that names no outside: alone a hint, with a private router beyond it more.
        let silent = |says_none| Some(gateway(None, says_none));
        assert_eq!(with(silent(true), None), Some(Confidence::Possible));
        assert_eq!(with(silent(true), Some("192.168.1.1")), Some(Confidence::Likely));
        assert_eq!(with(silent(true), Some("10.0.9.1")), Some(Confidence::Possible));
        // One that refuses says nothing of its outside.
        assert_eq!(with(silent(false), None), None);
        assert_eq!(
            with(silent(false), Some("192.168.1.1")),
            Some(Confidence::Possible)
        );
        // The carriers' range on the way is another finding.
        assert_eq!(with(silent(true), Some("100.64.0.1")), None);
    }
}

//! `nat-cgn`: a carrier-grade NAT is in the path.

use std::net::IpAddr;

use super::view::{in_tunnel, subject, translated};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::nat::{FamilyFacts, NatFacts, is_shared};
use crate::rules::{Area, Input, Rule};
use crate::time::Timestamp;

/// The rule.
pub const RULE: Rule = Rule {
    code: "nat-cgn",
    area: Area::Upstream,
    severity: "info",
    holds_when: "addresses of the carriers' shared range (100.64.0.0/10, RFC 6598) lie between this host and the internet",
    meaning: "The provider shares one public address among many customers (carrier-grade NAT). Ports cannot be forwarded to this host, the \
number of flows is limited for each customer, and idle flows may be forgotten early.",
    detection: "The default gateway says (NAT-PMP, UPnP) that its outside lies in 100.64.0.0/10: certain. This host's own address does and is \
translated: likely, for networks of containers and of clouds use that range as well; not where the address is a tunnel's (Tailscale's are of it). A router \
on the way has such an address: a hint, for some clouds' own routers do.",
    fix: "- Use IPv6 where the provider gives it: it is not translated there.\n- Ask the provider for a public address.\n- Let this side \
begin tunnels, with a keepalive; measure the limit with `wgnat nat --port-quota`.",
    needs: &[&[Source::Nat]],
    explained_by: &[],
    check,
};

/// Where the carrier's range was seen.
pub fn evidence_of(facts: &NatFacts, family: &FamilyFacts) -> Option<(&'static str, IpAddr, Confidence)> {
    let local = family.local.map(|l| l.ip()).filter(|ip| is_shared(*ip));
    let gateway = facts
        .gateways
        .iter()
        .filter_map(|g| g.external)
        .find(|ip| is_shared(*ip));
    let hop = facts.hops.iter().map(|h| h.address).find(|ip| is_shared(*ip));
    local
        .map(|ip| ("own-address", ip, Confidence::Likely))
        .filter(|_| gateway.is_none())
        .or(gateway.map(|ip| ("gateway", ip, Confidence::Certain)))
        .or(hop.map(|ip| ("hop", ip, Confidence::Possible)))
}

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some((_, facts)) = super::view::newest(input) else {
        return Vec::new();
    };
    translated(input)
        .filter(|(_, f)| f.local.is_some_and(|l| l.is_ipv4() && !in_tunnel(input, l.ip())))
        .filter_map(|(at, f)| cgn(at, facts, f))
        .collect()
}

fn cgn(at: Timestamp, facts: &NatFacts, family: &FamilyFacts) -> Option<Finding> {
    let (by, address, confidence) = evidence_of(facts, family)?;
    let external = family.external.map(|e| e.ip());
    let where_seen = match by {
        "own-address" => format!("This host's own address {address} lies in the carriers' shared range"),
        "gateway" => {
            format!("The default gateway says that its outside is {address}, in the carriers' shared range")
        }
        _ => format!("A router on the way has the address {address} of the carriers' shared range"),
    };
    Some(Finding {
        code: RULE.code,
        severity: Severity::Info,
        confidence,
        title: "A carrier's NAT is in the path".to_owned(),
        subject: subject(external),
        summary: match external {
            Some(external) => format!("{where_seen}, and servers see {external}."),
            None => format!("{where_seen}."),
        },
        evidence: Evidence::new()
            .with("seen_at", by)
            .with("shared_address", address.to_string())
            .maybe("external", external.map(|e| e.to_string())),
        impact: "Ports cannot be forwarded, flows are limited for each customer, and others share the external address.".to_owned(),
        candidates: candidates(confidence),
        fixes: vec![Fix {
            title: "Use IPv6, or ask the provider for a public IPv4 address".to_owned(),
            why: "Nothing on this side of a carrier's NAT opens a port in it.".to_owned(),
            ..Fix::default()
        }],
        first_seen: at,
        last_seen: at,
        count: 1,
    })
}

/// Who else uses the carriers' range.
fn candidates(confidence: Confidence) -> Vec<Candidate> {
    if confidence == Confidence::Certain {
        return Vec::new();
    }
    let candidate = |cause: &str, settle: &str| Candidate {
        cause: cause.to_owned(),
        code: None,
        settle: settle.to_owned(),
    };
    vec![
        candidate(
            "The provider's NAT, shared by many customers",
            "the provider says so, or the router's status page shows an outside address in 100.64.0.0/10",
        ),
        candidate(
            "A network of containers or a cloud that uses that range inside",
            "the cluster's or the cloud's address plan (Kubernetes pods, a secondary range of a VPC, a cloud's own routers)",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::nat::{GatewayFacts, Hop};
    use crate::rules::upstream::testing::{facts, found, found_over};

    #[test]
    fn the_shared_range_wherever_it_is_seen() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let said = |change: &dyn Fn(&mut NatFacts)| {
            let mut f = facts();
            change(&mut f);
            found(&RULE, f).first().map(|f| f.confidence)
        };
        assert_eq!(said(&|_| {}), None);
        let own = |f: &mut NatFacts| f.families[0].local = Some("100.64.3.4:5".parse().unwrap());
        assert_eq!(said(&own), Some(Confidence::Likely));
        // A host that has such an address and no NAT in front (a VPN's) is not behind a carrier's.
        let alone = |f: &mut NatFacts| {
            own(f);
            f.families[0].translated = Some(false);
        };
        assert_eq!(said(&alone), None);
        let gateway = |address: &'static str| {
            move |f: &mut NatFacts| {
                f.gateways.push(GatewayFacts {
                    gateway: ip("10.0.0.1"),
                    protocol: "pcp".to_owned(),
                    external: Some(ip(address)),
                    says_none: false,
                    problem: None,
                });
            }
        };
        assert_eq!(said(&gateway("100.100.1.1")), Some(Confidence::Certain));
        assert_eq!(said(&gateway("198.51.100.7")), None);
        let hop = |f: &mut NatFacts| {
            f.hops.push(Hop {
                ttl: 2,
                address: ip("100.65.0.1"),
            })
        };
        assert_eq!(said(&hop), Some(Confidence::Possible));
        // Tailscale's addresses are of that range.
        let mut f = facts();
        own(&mut f);
        assert!(found_over(&RULE, f.clone(), "tun").is_empty());
        assert_eq!(found_over(&RULE, f, "veth").len(), 1);
    }
}

//! `udp-blocked`: nothing comes back over UDP while TCP to the same servers works.

use std::collections::BTreeSet;

use super::view::newest;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::nat::{Family, FamilyFacts, NatFacts};
use crate::rules::{Area, Input, Rule};
use crate::time::{Span, Timestamp};
use crate::words::counted;

/// The rule.
pub const RULE: Rule = Rule {
    code: "udp-blocked",
    area: Area::Upstream,
    severity: "critical; warning where only one server was asked",
    holds_when: "nothing comes back over UDP from any of several STUN servers while TCP to the same servers works",
    meaning: "Something between this host and the servers drops UDP: a company's or a hotel's firewall, an egress policy, a \
provider's filter. WireGuard speaks UDP only, so no tunnel can come up through it.",
    detection: "Each server is asked four times within 2.6 s over UDP, and over TCP at the same port. With answers over TCP from two \
servers at different addresses and none over UDP it is likely (one that is slow over TCP, too, is not counted); one server alone may serve TCP only, so that is a hint. So it is where a \
WireGuard peer was heard over the same address family meanwhile: then UDP passes, and only what goes to those servers does not. It explains \
handshakes that time out over the same address family.",
    fix: "- Let UDP out to the endpoint's port, at the firewall that drops it.\n- Where that is not yours: a tunnel over TCP or WebSocket \
(Fly: `fly wireguard websockets enable`).",
    needs: &[&[Source::Nat]],
    explained_by: &[],
    check,
};

/// Each server is asked for so long before it is called silent.
const ASKED: Span = Span::from_millis(2600);

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some((at, facts)) = newest(input) else {
        return Vec::new();
    };
    // A host with one family blocked still has the other; each is told.
    facts
        .families
        .iter()
        .filter(|f| f.udp_blocked == Some(true))
        .map(|f| blocked(at, facts, f, heard(input, at, f.family)))
        .collect()
}

/// Peers that something came from, over this family, while the servers were asked.
fn heard(input: &Input<'_>, at: Timestamp, family: Family) -> usize {
    let devices = input.world.tunnels.devices();
    devices
        .flat_map(|device| device.present_peers())
        .filter(|(_, peer)| peer.newest.endpoint.is_some_and(|e| Family::of(e.ip()) == family))
        .filter(|(_, peer)| {
            peer.traffic
                .received_at
                .is_some_and(|heard| heard >= at.before(ASKED))
        })
        .count()
}

fn blocked(at: Timestamp, facts: &NatFacts, family: &FamilyFacts, heard: usize) -> Finding {
    let silent: Vec<_> = facts
        .servers
        .iter()
        .filter(|s| Family::of(s.address.ip()) == family.family && s.silent_over_udp())
        .collect();
    let addresses: BTreeSet<_> = silent.iter().map(|s| s.address.ip()).collect();
    let several = addresses.len() >= 2 && heard == 0;
    let names: Vec<&str> = silent.iter().map(|s| s.name.as_str()).collect();
    let refused = silent
        .iter()
        .flat_map(|s| &s.problems)
        .find(|p| p.contains("EPERM"));
    let mut summary = format!(
        "{} answered over TCP and not over UDP: {}.",
        counted(silent.len() as u64, "STUN server", "STUN servers"),
        names.join(", ")
    );
    if refused.is_some() {
        summary.push_str(" This host's own firewall refuses the datagrams (EPERM).");
    }
    if heard > 0 {
        summary.push_str(&format!(
            " {} heard over UDP meanwhile, so it is not UDP as a whole that is dropped.",
            counted(heard as u64, "WireGuard peer was", "WireGuard peers were")
        ));
    }
    Finding {
        code: RULE.code,
        severity: if several || refused.is_some() {
            Severity::Critical
        } else {
            Severity::Warning
        },
        confidence: match (refused.is_some(), several) {
            (true, _) => Confidence::Certain,
            (false, true) => Confidence::Likely,
            (false, false) => Confidence::Possible,
        },
        title: format!("UDP over {} does not get through", family.family.title()),
        subject: Subject::Host,
        summary,
        evidence: Evidence::new()
            .with("family", family.family.name())
            .with("servers_over_tcp", silent.len())
            .with("servers_over_udp", 0)
            .with("addresses", addresses.len())
            .with("peers_heard", heard),
        impact: "WireGuard, QUIC, and DNS to servers outside do not work.".to_owned(),
        candidates: candidates(addresses.len() >= 2, refused.is_some()),
        fixes: vec![
            Fix {
                title: "Let UDP out at the firewall that drops it".to_owned(),
                why: "Nothing else makes plain WireGuard work.".to_owned(),
                ..Fix::default()
            },
            Fix {
                title: "Use a tunnel over TCP or WebSocket".to_owned(),
                why: "It passes where TCP does, at the cost of latency under loss.".to_owned(),
                ..Fix::default()
            },
        ],
        first_seen: at,
        last_seen: at,
        count: 1,
    }
}

/// What may drop it; where this host's own firewall says so, that is all.
fn candidates(several: bool, refused_here: bool) -> Vec<Candidate> {
    if refused_here {
        return Vec::new();
    }
    let mut all = vec![
        Candidate {
            cause: "Something on the way drops UDP".to_owned(),
            code: None,
            settle: if several {
                "look at this network's firewall or egress policy; from another network the servers answer"
                    .to_owned()
            } else {
                "name a second STUN server at another address with --stun".to_owned()
            },
        },
        Candidate {
            cause: "The NAT in front has no UDP port left for new flows".to_owned(),
            code: Some("upstream-nat-exhausted"),
            settle:
                "flows that exist go on then: a tunnel that is up stays up, and a new one does not come up"
                    .to_owned(),
        },
    ];
    if !several {
        all.push(Candidate {
            cause: "That server does not serve UDP".to_owned(),
            code: None,
            settle: "ask it from another network".to_owned(),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::upstream::testing::{facts, found, server};

    #[test]
    fn several_silent_servers_are_likely_and_one_is_a_hint() {
        let case = |servers: &[(&str, bool, bool)]| {
            let mut f = facts();
            f.servers = servers
                .iter()
                .map(|(a, udp, tcp)| server(a, *udp, *tcp))
                .collect();
            let udp = servers.iter().any(|s| s.1);
            let tcp = servers.iter().any(|s| s.2);
            f.families[0].udp_blocked = if udp { Some(false) } else { tcp.then_some(true) };
            found(&RULE, f)
                .into_iter()
                .map(|f| (f.severity, f.confidence))
                .next()
        };
        let (a, b) = ("192.0.2.1:3478", "192.0.2.2:3478");
        assert_eq!(
            case(&[(a, false, true), (b, false, true)]),
            Some((Severity::Critical, Confidence::Likely))
        );
        assert_eq!(
            case(&[(a, false, true)]),
            Some((Severity::Warning, Confidence::Possible))
        );
        // Two ports of one address are one server's word.
        assert_eq!(
            case(&[(a, false, true), ("192.0.2.1:99", false, true)]),
            Some((Severity::Warning, Confidence::Possible))
        );
        assert_eq!(case(&[(a, true, true), (b, false, true)]), None);
        assert_eq!(case(&[(a, false, false), (b, false, false)]), None);
    }
}

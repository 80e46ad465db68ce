//! `fly-egress-policy`: some ports are let out and others are not, wherever they lead to. A hypothesis.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::machine;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::nat::is_inside;
use crate::observation::target::Method;
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::types::Proto;
use crate::words::counted;

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-egress-policy",
    area: Area::Fly,
    severity: "warning",
    holds_when: "on a Fly machine, new TCP connections to one port fail at several outside addresses, none succeeds, and other ports are reached",
    meaning: "Fly's network policies name what a machine may reach; with any egress rule in force all else is dropped. From inside it looks as if \
              many servers were down at once, but only on some ports.",
    detection: "A possibility, never more. Connects as the kernel counts them (with eBPF), sockets that wait in SYN_SENT for two seconds or more, \
                and measured targets, by destination port: one that fails at two outside addresses or more and succeeds at none, while another \
                port succeeds. Servers that are down together, and this machine's own firewall, look the same.",
    fix: "Add the port to the policy, or take the connection elsewhere. WireGuard's UDP and STUN need rules of their own.",
    needs: &[&[Source::Host], &[Source::Bpf, Source::Sockets, Source::Paths]],
    explained_by: &[],
    check,
};

/// Addresses that must fail: one is one server's fault.
const LEAST: usize = 2;

/// A SYN without an answer for this long was sent twice at least.
const STUCK: Span = Span::from_secs(2);

/// What is known of a destination port.
#[derive(Default)]
struct Port {
    failing: BTreeSet<IpAddr>,
    refused: BTreeSet<IpAddr>,
    passing: BTreeSet<IpAddr>,
}

impl Port {
    fn blocked(&self) -> bool {
        self.passing.is_empty() && self.failing.len() >= LEAST
    }
}

fn check(input: &Input<'_>) -> Vec<Finding> {
    if machine(input).is_none() {
        return Vec::new();
    }
    let mut ports: BTreeMap<u16, Port> = BTreeMap::new();
    connects(input, &mut ports);
    sockets(input, &mut ports);
    paths(input, &mut ports);
    let open: Vec<u16> = ports
        .iter()
        .filter(|(_, p)| !p.passing.is_empty())
        .map(|(n, _)| *n)
        .collect();
    let blocked: Vec<(&u16, &Port)> = ports.iter().filter(|(_, p)| p.blocked()).collect();
    if open.is_empty() || blocked.is_empty() {
        return Vec::new();
    }
    vec![finding(input, &blocked, &open)]
}

/// What leaves the machine by Fly's egress.
fn outside(ip: IpAddr) -> bool {
    !is_inside(ip) && !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
}

fn connects(input: &Input<'_>, ports: &mut BTreeMap<u16, Port>) {
    let connects = &input.world.connects;
    for key in connects.keys().filter(|key| key.proto == Proto::Tcp) {
        let (ip, Some(recent)) = (key.destination.ip(), connects.recent(&key)) else {
            continue;
        };
        if !outside(ip) {
            continue;
        }
        let port = ports.entry(key.destination.port()).or_default();
        let counts = recent.counts;
        let unanswered = counts.timed_out + counts.unreachable + counts.unanswered;
        if counts.established > 0 {
            port.passing.insert(ip);
        } else if unanswered + counts.refused > 0 {
            port.failing.insert(ip);
            if unanswered == 0 {
                port.refused.insert(ip);
            }
        }
    }
}

fn sockets(input: &Input<'_>, ports: &mut BTreeMap<u16, Port>) {
    let Some((newest, _)) = input.world.sockets.newest() else {
        return;
    };
    for (key, history) in input.world.sockets.destinations() {
        let ip = key.destination.ip();
        if key.proto != Proto::Tcp || !outside(ip) {
            continue;
        }
        let now = history.newest().filter(|sample| sample.at == newest);
        let waits = now.is_some_and(|sample| sample.syn_sent > 0)
            && history
                .samples()
                .any(|sample| sample.syn_sent > 0 && newest.since(sample.at) >= STUCK);
        let port = ports.entry(key.destination.port()).or_default();
        if history.samples().any(|sample| sample.established > 0) {
            port.passing.insert(ip);
        } else if waits {
            port.failing.insert(ip);
        }
    }
}

fn paths(input: &Input<'_>, ports: &mut BTreeMap<u16, Port>) {
    for path in input.world.paths.iter() {
        let sample = &path.sample;
        let tcp = matches!(
            sample.target.method,
            Method::Tcp(_) | Method::Tls(_) | Method::Http { .. }
        );
        let (true, Some(number), Some(ip)) = (tcp, sample.target.method.port(), sample.address) else {
            continue;
        };
        if !outside(ip) || sample.sent < 3 {
            continue;
        }
        let port = ports.entry(number).or_default();
        if !sample.rtts.0.is_empty() {
            port.passing.insert(ip);
        } else if path.now.lost == sample.sent {
            port.failing.insert(ip);
        }
    }
}

fn finding(input: &Input<'_>, blocked: &[(&u16, &Port)], open: &[u16]) -> Finding {
    let now = input.now();
    let numbers = |all: &mut dyn Iterator<Item = u16>| {
        all.take(8).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
    };
    let shut = numbers(&mut blocked.iter().map(|(n, _)| **n));
    let reached = numbers(&mut open.iter().copied());
    let addresses: BTreeSet<&IpAddr> = blocked.iter().flat_map(|(_, p)| &p.failing).collect();
    let refused = blocked.iter().all(|(_, p)| p.refused.len() == p.failing.len());
    // The strongest sign: one host that answers on one port and not on another.
    let both = blocked.iter().flat_map(|(_, p)| &p.failing).any(|ip| {
        input
            .world
            .paths
            .iter()
            .any(|path| path.sample.address == Some(*ip) && path.now.answered > 0)
    });
    Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: Confidence::Possible,
        title: format!("New connections to port {shut} fail wherever they go, and port {reached} is reached"),
        subject: Subject::Host,
        summary: format!(
            "{} are {} on port {shut}, and no connection to it succeeds anywhere; connections to port {reached} do. That is what a network \
             policy with egress rules looks like from inside.",
            counted(addresses.len() as u64, "outside address", "outside addresses"),
            if refused { "refused" } else { "not reached" },
        ),
        evidence: Evidence::new()
            .with("ports_failing", shut.clone())
            .with("ports_reached", reached)
            .with("addresses_failing", addresses.len())
            .with("answers_on_another_port", both),
        impact: "Whatever needs those ports does not work from this machine.".to_owned(),
        candidates: vec![
            Candidate {
                cause: "A network policy of the app lets out other ports only".to_owned(),
                code: None,
                settle: "curl -H \"Authorization: Bearer $(fly tokens create readonly)\" \
                         https://api.machines.dev/v1/apps/APP/network_policies; then the same connection from a machine of another app"
                    .to_owned(),
            },
            Candidate {
                cause: "This machine's own firewall drops them".to_owned(),
                code: None,
                settle: "nft list ruleset; iptables-save".to_owned(),
            },
            Candidate {
                cause: "Those servers are down, or serve that port to others only".to_owned(),
                code: None,
                settle: "the same connection from outside Fly".to_owned(),
            },
        ],
        fixes: vec![Fix {
            title: "Let the policy allow what the machine needs".to_owned(),
            why: "With one egress rule in force, all that no rule names is dropped: DNS, STUN and WireGuard too.".to_owned(),
            ..Fix::default()
        }],
        first_seen: now,
        last_seen: now,
        count: u32::try_from(addresses.len()).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;

    #[test]
    fn a_port_that_fails_everywhere_while_another_passes() {
        for (name, targets, expected) in [
            (
                "policy",
                &[
                    ("203.0.113.1", 25, 0),
                    ("203.0.113.2", 25, 0),
                    ("203.0.113.1", 443, 5),
                ][..],
                true,
            ),
            (
                "one server",
                &[("203.0.113.1", 25, 0), ("203.0.113.1", 443, 5)],
                false,
            ),
            (
                "it succeeds somewhere",
                &[
                    ("203.0.113.1", 25, 0),
                    ("203.0.113.2", 25, 0),
                    ("203.0.113.3", 25, 5),
                    ("203.0.113.1", 443, 5),
                ],
                false,
            ),
            (
                "nothing passes",
                &[("203.0.113.1", 25, 0), ("203.0.113.2", 25, 0)],
                false,
            ),
            (
                "inside",
                &[("10.0.0.1", 25, 0), ("10.0.0.2", 25, 0), ("203.0.113.1", 443, 5)],
                false,
            ),
        ] {
            let mut scene = Scene::fly(&["fdaa::3"]);
            let mut other = Scene::elsewhere();
            for (ip, port, answered) in targets {
                scene = scene.tcp(ip, *port, *answered);
                other = other.tcp(ip, *port, *answered);
            }
            let found = scene.check(&RULE);
            assert_eq!(found.len(), usize::from(expected), "{name}");
            assert!(found.iter().all(|f| f.confidence == Confidence::Possible));
            assert!(other.check(&RULE).is_empty(), "{name}, not on Fly");
        }
    }

    #[test]
    fn sockets_that_wait_count_too() {
        let scene = |seconds: i64| {
            let base = Scene::fly(&["fdaa::3"]).tcp("203.0.113.9", 443, 5);
            base.syn_sent(&["203.0.113.1", "203.0.113.2"], 25, seconds)
        };
        assert_eq!(scene(3).check(&RULE).len(), 1);
        assert!(scene(1).check(&RULE).is_empty(), "a moment");
    }
}

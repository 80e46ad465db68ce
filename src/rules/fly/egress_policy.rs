//! `fly-egress-policy`: some ports are let out and others are not, wherever they lead to. A hypothesis.
//!
//! In: the app's own connects, as counted in the kernel or as the socket table shows them; and targets that are measured. Nothing
//! is asked for it. What else makes one port fail at several addresses is kept out: an answer that refuses (it came from
//! there), one attempt that was lost, SYN_SENT of a moment, servers of one network that are down together, and this
//! machine's own firewall.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::machine;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::nat::Family;
use crate::observation::target::Method;
use crate::rules::own_drops::OwnDrops;
use crate::rules::upstream::flows::leaves;
use crate::rules::upstream::view::{in_tunnel, network};
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::sockets::Sample;
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
    detection: "A possibility, never more, and it needs no asking: the app's own connects, as the kernel counts them in the last minute (with eBPF), or \
                else sockets whose SYN was sent again; and measured targets. By destination port: one towards which three attempts or more get no \
                answer, at two outside addresses or more that lie in two networks or of which one answers on another port, and none succeeds; while \
                another port succeeds. A refusal is an answer. Where SYNs do not leave this machine (TcpExt.TCPRetransFail) it is its own \
                firewall, and nothing is said here. Servers that are down together look the same.",
    fix: "Add the port to the policy, or take the connection elsewhere. WireGuard's UDP and STUN need rules of their own.",
    needs: &[&[Source::Host], &[Source::Bpf, Source::Sockets, Source::Paths]],
    explained_by: &[],
    check,
};

/// Addresses that must fail: one is one server's fault.
const LEAST: usize = 2;

/// Attempts that must fail: one or two are lost by themselves.
const ATTEMPTS: u64 = 3;

/// A closer look at what waits counts for so long.
const LATELY: Span = Span::from_secs(10);

/// What is known of a destination port.
#[derive(Default)]
struct Port {
    failing: BTreeSet<IpAddr>,
    /// Attempts without an answer.
    failed: u64,
    passing: BTreeSet<IpAddr>,
}

impl Port {
    fn blocked(&self, answering: &BTreeSet<IpAddr>) -> bool {
        let networks: BTreeSet<IpAddr> = self.failing.iter().map(|ip| network(*ip)).collect();
        let apart = networks.len() >= LEAST || !self.failing.is_disjoint(answering);
        self.passing.is_empty() && self.failing.len() >= LEAST && self.failed >= ATTEMPTS && apart
    }
}

/// Destination ports.
type Ports = BTreeMap<u16, Port>;

fn check(input: &Input<'_>) -> Vec<Finding> {
    let kept_here = [Family::Ipv4, Family::Ipv6]
        .iter()
        .any(|family| OwnDrops::of(input, *family).outbound());
    if machine(input).is_none() || kept_here {
        return Vec::new();
    }
    let mut ports = Ports::new();
    connects(input, &mut ports);
    sockets(input, &mut ports);
    paths(input, &mut ports);
    let open: Vec<u16> = ports
        .iter()
        .filter(|(_, p)| !p.passing.is_empty())
        .map(|(n, _)| *n)
        .collect();
    let answering: BTreeSet<IpAddr> = ports.values().flat_map(|p| &p.passing).copied().collect();
    let blocked: Vec<(&u16, &Port)> = ports.iter().filter(|(_, p)| p.blocked(&answering)).collect();
    if open.is_empty() || blocked.is_empty() {
        return Vec::new();
    }
    vec![finding(input, &blocked, &open, &answering)]
}

/// As the kernel counted them in the last minute.
fn connects(input: &Input<'_>, ports: &mut Ports) {
    let connects = &input.world.connects;
    for key in connects.keys().filter(|key| key.proto == Proto::Tcp) {
        let ip = key.destination.ip();
        let Some(recent) = connects.recent(&key) else {
            continue;
        };
        if !leaves(ip) || in_tunnel(input, key.source) {
            continue;
        }
        let port = ports.entry(key.destination.port()).or_default();
        let counts = recent.counts;
        let ended = counts.timed_out + counts.unreachable + counts.unanswered;
        // Each that waits and was sent again; no more of them than were sent again and have not ended so.
        let waiting = recent.waiting.min(counts.syn_retransmits.saturating_sub(ended));
        if counts.established > 0 {
            port.passing.insert(ip);
        } else if ended + waiting > 0 {
            port.failing.insert(ip);
            port.failed += ended + waiting;
        }
    }
}

/// As the socket table shows them.
fn sockets(input: &Input<'_>, ports: &mut Ports) {
    let Some((newest, _)) = input.world.sockets.newest() else {
        return;
    };
    let ours = |source: IpAddr, ip: IpAddr| leaves(ip) && !in_tunnel(input, source);
    // Where connects are counted, those that wait and those that have ended are among them.
    let counted = input
        .world
        .connects
        .newest()
        .is_some_and(|(_, tally)| !tally.causes_unknown);
    for (key, history) in input.world.sockets.destinations() {
        let ip = key.destination.ip();
        // TIME_WAIT is of a connection that was established within the last minutes.
        let was_open = |s: &Sample| s.established > 0 || (!counted && s.time_wait > 0);
        if key.proto == Proto::Tcp && ours(key.source, ip) && history.samples().any(was_open) {
            let port = ports.entry(key.destination.port()).or_default();
            port.passing.insert(ip);
        }
    }
    let mut most: BTreeMap<(IpAddr, u16), u64> = BTreeMap::new();
    let looks = input.world.sockets.waits();
    for (_, rows) in looks.filter(|(at, _)| !counted && newest.since(*at) <= LATELY) {
        for row in rows.iter().filter(|r| r.sent_again > 0 && r.established == 0) {
            if ours(row.source, row.destination.ip()) {
                let waits = most
                    .entry((row.destination.ip(), row.destination.port()))
                    .or_default();
                *waits = (*waits).max(row.sent_again.into());
            }
        }
    }
    for ((ip, number), waits) in most {
        let port = ports.entry(number).or_default();
        if !port.passing.contains(&ip) {
            port.failing.insert(ip);
            port.failed += waits;
        }
    }
}

/// As targets were measured.
fn paths(input: &Input<'_>, ports: &mut Ports) {
    for path in input.world.paths.iter() {
        let sample = &path.sample;
        let tcp = matches!(
            sample.target.method,
            Method::Tcp(_) | Method::Tls(_) | Method::Http { .. }
        );
        let (true, Some(number), Some(ip)) = (tcp, sample.target.method.port(), sample.address) else {
            continue;
        };
        if !leaves(ip) || sample.sent < 3 {
            continue;
        }
        let port = ports.entry(number).or_default();
        if !sample.rtts.0.is_empty() {
            port.passing.insert(ip);
        } else if path.now.lost == sample.sent {
            port.failing.insert(ip);
            port.failed += u64::from(sample.sent);
        }
    }
}

fn finding(
    input: &Input<'_>,
    blocked: &[(&u16, &Port)],
    open: &[u16],
    answering: &BTreeSet<IpAddr>,
) -> Finding {
    let now = input.now();
    let numbers = |all: &mut dyn Iterator<Item = u16>| {
        all.take(8).map(|n| n.to_string()).collect::<Vec<_>>().join(", ")
    };
    let shut = numbers(&mut blocked.iter().map(|(n, _)| **n));
    let reached = numbers(&mut open.iter().copied());
    let addresses: BTreeSet<&IpAddr> = blocked.iter().flat_map(|(_, p)| &p.failing).collect();
    let attempts: u64 = blocked.iter().map(|(_, p)| p.failed).sum();
    // The strongest sign: one host that answers on one port and not on another.
    let both = blocked.iter().any(|(_, p)| !p.failing.is_disjoint(answering));
    Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: Confidence::Possible,
        title: format!("New connections to port {shut} fail wherever they go, and port {reached} is reached"),
        subject: Subject::Host,
        summary: format!(
            "{} {} not reached on port {shut} ({} without an answer), and no connection to it succeeds anywhere; connections to port \
             {reached} do{}. That is what a network policy with egress rules looks like from inside.",
            counted(addresses.len() as u64, "outside address", "outside addresses"),
            if addresses.len() == 1 { "is" } else { "are" },
            counted(attempts, "attempt", "attempts"),
            if both { ", to the same address among others" } else { "" },
        ),
        evidence: Evidence::new()
            .with("ports_failing", shut.clone())
            .with("ports_reached", reached)
            .with("addresses_failing", addresses.len())
            .with("attempts_unanswered", attempts)
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
                cause: "This machine's own firewall drops the answers".to_owned(),
                code: None,
                settle: "nft list ruleset; iptables-save: the hook input".to_owned(),
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

    /// The app's own connects, and nothing that was asked for it.
    #[test]
    fn counted_connects_alone() {
        type Row = (&'static str, &'static [(&'static str, [u64; 4])], bool);
        let table: &[Row] = &[
            (
                "two networks, and another port passes",
                &[
                    ("203.0.113.1:25", [2, 0, 2, 0]),
                    ("198.51.100.2:25", [2, 0, 1, 0]),
                    ("192.0.2.9:443", [5, 5, 0, 0]),
                ],
                true,
            ),
            (
                "one network, of which one answers on another port",
                &[
                    ("203.0.113.1:25", [2, 0, 2, 0]),
                    ("203.0.113.2:25", [2, 0, 2, 0]),
                    ("203.0.113.1:443", [5, 5, 0, 0]),
                ],
                true,
            ),
            (
                "one network that may be down",
                &[
                    ("203.0.113.1:25", [2, 0, 2, 0]),
                    ("203.0.113.2:25", [2, 0, 2, 0]),
                    ("192.0.2.9:443", [5, 5, 0, 0]),
                ],
                false,
            ),
            (
                "an attempt or two are lost by themselves",
                &[
                    ("203.0.113.1:25", [1, 0, 1, 0]),
                    ("198.51.100.2:25", [1, 0, 1, 0]),
                    ("192.0.2.9:443", [5, 5, 0, 0]),
                ],
                false,
            ),
            (
                "a refusal is an answer",
                &[
                    ("203.0.113.1:25", [9, 0, 0, 9]),
                    ("198.51.100.2:25", [9, 0, 0, 9]),
                    ("192.0.2.9:443", [5, 5, 0, 0]),
                ],
                false,
            ),
            (
                "it succeeds now and then",
                &[
                    ("203.0.113.1:25", [9, 1, 8, 0]),
                    ("198.51.100.2:25", [9, 0, 9, 0]),
                    ("192.0.2.9:443", [5, 5, 0, 0]),
                ],
                false,
            ),
            (
                "nothing passes at all: the uplink may be down",
                &[
                    ("203.0.113.1:25", [9, 0, 9, 0]),
                    ("198.51.100.2:25", [9, 0, 9, 0]),
                    ("192.0.2.9:443", [9, 0, 9, 0]),
                ],
                false,
            ),
            (
                "only the private network passes",
                &[
                    ("203.0.113.1:25", [9, 0, 9, 0]),
                    ("198.51.100.2:25", [9, 0, 9, 0]),
                    ("[fdaa::9]:443", [9, 9, 0, 0]),
                ],
                false,
            ),
        ];
        for (name, rows, expected) in table {
            let scene = || Scene::fly(&["fdaa::3"]).connects(rows);
            assert_eq!(scene().check(&RULE).len(), usize::from(*expected), "{name}");
            // What this machine keeps from leaving is its own doing.
            assert!(scene().syns(20, 20).check(&RULE).is_empty(), "{name}");
            assert_eq!(
                scene().syns(20, 1).check(&RULE).len(),
                usize::from(*expected),
                "{name}"
            );
        }
        let found = Scene::fly(&["fdaa::3"])
            .connects(table[0].1)
            .check(&RULE)
            .remove(0);
        assert_eq!(
            (found.severity, found.confidence),
            (Severity::Warning, Confidence::Possible)
        );
        assert_eq!(found.evidence.get("attempts_unanswered"), Some(&4.into()));
        assert!(found.candidates.len() >= 3 && found.candidates.iter().all(|c| !c.settle.is_empty()));
        assert!(Scene::elsewhere().connects(table[0].1).check(&RULE).is_empty());
    }

    #[test]
    fn sockets_whose_syn_was_sent_again_count_where_connects_do_not() {
        let scene = |again| {
            let base = Scene::fly(&["fdaa::3"]).tcp("203.0.113.9", 443, 5);
            base.syn_sent(&["203.0.113.1", "198.51.100.2"], 25, 3, again)
        };
        assert_eq!(scene(true).check(&RULE).len(), 1);
        assert!(scene(false).check(&RULE).is_empty(), "each for a moment");
    }
}

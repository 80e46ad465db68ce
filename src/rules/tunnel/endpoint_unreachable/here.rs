//! Messages to an address of this host that nothing here takes, so that this host itself turns them back: the port is not
//! forwarded, a NAT here has forgotten the mapping, or WireGuard does not run.
//!
//! In: the wire, the addresses and NAT rules of this host. Out: findings. Never above a warning: whoever calls is not known,
//! and anybody may call a port. The same without an error (a firewall that drops) is wg-handshake-timeout's.

use std::net::SocketAddr;

use super::super::parties::Passing;
use super::super::words::{count, here};
use super::CODE;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::Input;
use crate::rules::captured::view::{finding, peer, secs};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::track::handshake::{ANSWER_WITHIN, Conversation, IcmpTally};
use crate::wire::icmp::IcmpClass;
use crate::wire::wireguard::Kind;

/// Whoever is turned back tries again within [`ANSWER_WITHIN`]; silent for longer than three times that, it has given up or
/// found another way.
const GOES_ON: Span = ANSWER_WITHIN.saturating_mul(3);
/// Findings that are made of it at most: anybody may call any port.
const MOST: usize = 20;

/// What one party sent to one port of this host and got back.
struct TurnedBack<'a> {
    from: SocketAddr,
    to: SocketAddr,
    initiations: u64,
    data: u64,
    seen: (Timestamp, Timestamp),
    example: &'a IcmpTally,
    /// This host has rules that translate addresses.
    translates: bool,
}

pub(super) fn check(input: &Input<'_>, passing: &[Passing<'_>]) -> Vec<Finding> {
    let least = u64::from(input.thresholds.unanswered_attempts);
    let conversations = input.world.handshakes.conversations();
    conversations
        .filter_map(|c| turned_back(input.world, passing, c))
        .filter(|t| t.initiations + t.data >= least)
        .map(|t| report(input, &t))
        .take(MOST)
        .collect()
}

fn turned_back<'a>(world: &World, passing: &[Passing<'_>], c: &'a Conversation) -> Option<TurnedBack<'a>> {
    let translates = world.conntrack.rules().is_some_and(|r| !r.rules.is_empty());
    let counts = |t: &&IcmpTally| {
        let kind = match t.kind {
            Some(Kind::Initiation) => true,
            // To a port that a device has left data may come for a moment; a NAT's port has no device.
            Some(Kind::Data) => translates,
            _ => false,
        };
        kind && t.first.sent_here && t.first.class() == IcmpClass::PortUnreachable
    };
    let tallies = || c.errors().iter().filter(counts);
    let example = tallies().max_by_key(|t| t.last_at)?;
    let from = example.about;
    let to = c.other(from)?.address;
    let is_ours = example.first.from == to.ip() && world.routes.is_local(to.ip());
    if !is_ours || world.tunnels.is_endpoint(from) || has_device(world, to) || is_forwarded(passing, from, to)
    {
        return None;
    }
    let last = example.last_at;
    let goes_on = world.now - last <= GOES_ON;
    if !goes_on || heard_since(world, c, (from, to), last) {
        return None;
    }
    let of = |kind| {
        tallies()
            .filter(|t| t.kind == Some(kind) && t.about == from)
            .map(|t| t.count)
            .sum()
    };
    let first = tallies().map(|t| t.first.at).min().unwrap_or(last);
    Some(TurnedBack {
        from,
        to,
        initiations: of(Kind::Initiation),
        data: of(Kind::Data),
        seen: (first, last),
        example,
        translates,
    })
}

/// Whether a device here has that port, or one may have it.
fn has_device(world: &World, to: SocketAddr) -> bool {
    let mut devices = world.tunnels.devices().filter(|d| d.vanished_at.is_none());
    devices.any(|d| d.info.listen_port.is_none_or(|port| port == to.port()))
}

/// Whether what goes `from` there `to` here goes on: then an error that leaves was made by whoever got it.
fn is_forwarded(passing: &[Passing<'_>], from: SocketAddr, to: SocketAddr) -> bool {
    let it = |p: &&Passing<'_>| (p.initiator.end.address, p.initiator.responder) == (from, to);
    passing.iter().find(it).is_some_and(|p| !p.ends_here())
}

/// Whether the two speak again: something came back, or the host behind a NAT here came by another port.
fn heard_since(
    world: &World,
    c: &Conversation,
    (from, to): (SocketAddr, SocketAddr),
    since: Timestamp,
) -> bool {
    let answered = c.end(from).and_then(|e| e.last_answer);
    let tried = c.end(to).and_then(|e| e.last_attempt);
    let moved = world
        .sessions
        .tunnels()
        .iter()
        .filter(|t| t.ends.contains(&from))
        .any(|t| t.moves().any(|m| m.at > since) || t.aliases().any(|a| a.at > since));
    moved || [answered, tried].into_iter().flatten().any(|at| at > since)
}

fn report(input: &Input<'_>, t: &TurnedBack<'_>) -> Finding {
    let (from, to) = (t.from, t.to);
    let levels = (Severity::Warning, Confidence::Certain);
    let mut f = finding(CODE, levels, peer(to, from), t.seen);
    let all = t.initiations + t.data;
    f.count = u32::try_from(all).unwrap_or(u32::MAX);
    f.title = format!("This host turns back what {from} sends to {to}");
    f.summary = format!(
        "{} from {from} came to {to}, which is this host's own address, in {}, and this host answered \"{}\": no WireGuard \
         device here has that port, and nothing forwards it.",
        match (t.initiations, t.data) {
            (0, data) => count(data, "data message"),
            (initiations, 0) => count(initiations, "initiation"),
            (initiations, data) => format!(
                "{} and {}",
                count(data, "data message"),
                count(initiations, "initiation")
            ),
        },
        secs(t.seen.1 - t.seen.0),
        t.example.first.words(),
    );
    f.impact = "Nothing of it reaches a WireGuard host.".to_owned();
    f.evidence = Evidence::new()
        .with("initiations_turned_back", t.initiations)
        .with("data_messages_turned_back", t.data)
        .with("icmp_from", t.example.first.from.to_string())
        .with("icmp_type", t.example.first.icmp_type)
        .with("icmp_code", t.example.first.code)
        .with("this_host_translates", t.translates);
    let candidate = |cause: String, settle: String| Candidate {
        cause,
        code: None,
        settle,
    };
    let port = to.port();
    let host = input.world.host.as_ref();
    let forgotten = || {
        candidate(
            format!(
                "This host's NAT has forgotten the flow to the host behind it that {from} had a session with"
            ),
            format!("{}: nothing with dport={port}", here(host, "conntrack -L -p udp")),
        )
    };
    let not_forwarded = || {
        candidate(
            "A host behind this one is meant, and the port is not forwarded".to_owned(),
            format!("{}: no dnat of UDP port {port}", here(host, "nft list ruleset")),
        )
    };
    let not_running = || {
        candidate(
            "WireGuard is meant to run on this host and does not, or on another port".to_owned(),
            here(host, "wg show all listen-port; ss -lunp"),
        )
    };
    // Data is sent under a session only, so there was a way once.
    f.candidates = match (t.translates, t.data > 0) {
        (true, true) => vec![forgotten(), not_running()],
        (true, false) => vec![not_forwarded(), forgotten(), not_running()],
        (false, _) => vec![not_running(), not_forwarded()],
    };
    let keepalive = || Fix {
        title: "Let the host behind this one send a keepalive every 25 s".to_owned(),
        why: "Then the NAT does not forget it. What that host sends next heals this.".to_owned(),
        snippet: Some("[Peer]\nPersistentKeepalive = 25".to_owned()),
        ..Fix::default()
    };
    f.fixes = match (t.translates, t.data > 0) {
        (true, true) => vec![keepalive(), forward(input, to)],
        (true, false) => vec![forward(input, to), keepalive()],
        (false, _) => vec![
            Fix {
                title: format!("Start WireGuard here on UDP port {port}, or give the peer the right port"),
                why: "The peer tries again by itself every 5 s while traffic wants through.".to_owned(),
                command: Some(here(host, "wg show all listen-port; ss -lunp")),
                ..Fix::default()
            },
            forward(input, to),
        ],
    };
    f
}

/// How this host forwards a port to a host behind it.
pub(in crate::rules::tunnel) fn forward(input: &Input<'_>, to: SocketAddr) -> Fix {
    let (port, family) = (to.port(), if to.is_ipv4() { "ip" } else { "ip6" });
    let host = input.world.host.as_ref();
    Fix {
        title: format!("If the WireGuard host is behind this one, forward UDP port {port} to it"),
        why: "A NAT lets in what it has a mapping or a rule for. HOST is that host's address, and must keep it.".to_owned(),
        command: Some(here(
            host,
            &format!("nft add rule {family} nat prerouting {family} daddr {} udp dport {port} dnat to HOST", to.ip()),
        )),
        expect: Evidence::new().with("initiations_turned_back", 0),
        ..Fix::default()
    }
}

#[cfg(test)]
#[path = "here_tests.rs"]
mod tests;

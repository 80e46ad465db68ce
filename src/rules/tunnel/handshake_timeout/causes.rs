//! The causes of silence that the evidence does not exclude, and what would settle each.
//!
//! In: a view. Out: candidates, most telling first. The order is by what the evidence favours, never a verdict.

use super::super::view::View;
use crate::finding::Candidate;

fn candidate(code: Option<&'static str>, cause: impl Into<String>, settle: impl Into<String>) -> Candidate {
    Candidate {
        cause: cause.into(),
        code,
        settle: settle.into(),
    }
}

/// What is still possible.
pub fn candidates(view: &View<'_>) -> Vec<Candidate> {
    let silence = &view.silence;
    if silence.rejected > 0 && silence.unanswered == 0 && silence.cookies == 0 {
        return rejected(view);
    }
    let mut list = Vec::new();
    list.extend(told_by_this_host(view));
    if silence.cookies > 0 {
        // A cookie reply proves the way there and back and the peer's key: its maker checked mac1 first.
        list.push(candidate(
            Some("wg-under-load"),
            "The peer gets more handshakes than it can check, and rations them",
            "On the peer: count what arrives with `tcpdump -ni any 'udp[8] = 1'`; thousands a second are a flood",
        ));
        list.push(unknown_here(view));
        list.extend(clock(view));
        return list;
    }
    if silence.rejected > 0 {
        list.extend(rejected(view));
    }
    list.push(path(view));
    list.push(wrong_key(view));
    list.push(unknown_here(view));
    list.extend(clock(view));
    list.push(candidate(
        None,
        "Something on the way recognises WireGuard and blocks it",
        "Try from another network (a phone's hotspot), or let the peer listen on another UDP port: if either works, \
         it is the network",
    ));
    list
}

/// Causes that this host's own state points at.
fn told_by_this_host(view: &View<'_>) -> Vec<Candidate> {
    let mut list = Vec::new();
    let leaves_by_counters = view.silence.counted.is_some_and(|c| c.seen_leaving);
    if leaves_by_counters && view.wire_watched() && view.wire.attempts.is_empty() {
        list.push(candidate(
            Some("wg-local-drop"),
            format!(
                "The attempts that {} counts pass no interface here: this host's firewall drops them, or the \
                 device's socket lives in another network namespace",
                view.name()
            ),
            view.here("nft list ruleset") + " (an output rule that drops UDP?)",
        ));
    }
    if view.peer.clock_went_back(view.world.now) {
        list.push(candidate(
            Some("wg-clock-replay"),
            "This host's clock went back: the last handshake lies in its future, so the peer takes new attempts for \
             replays",
            "Compare `date -u` on both hosts",
        ));
    }
    if let Some((cause, _)) = moved_name(view) {
        list.push(candidate(
            Some("wg-endpoint-stale-dns"),
            cause,
            "Set the new address (below): an answer proves it",
        ));
    }
    list
}

/// Where the configured name leads elsewhere now: the words and the command.
pub fn moved_name(view: &View<'_>) -> Option<(String, Option<String>)> {
    let configured = view.configured()?;
    let endpoint = view.endpoint()?;
    let written = configured.endpoint.as_deref()?;
    let now = configured.resolved.first()?;
    if configured.resolved.contains(&endpoint) {
        return None;
    }
    Some((
        format!("{written} now is {now}, but the device still sends to {endpoint}"),
        view.wg_set(&format!("endpoint {now}")),
    ))
}

fn rejected(view: &View<'_>) -> Vec<Candidate> {
    let here = match view.peer.newest.has_preshared_key {
        true => "one is set here",
        false => "none is set here",
    };
    vec![
        candidate(
            Some("wg-response-rejected"),
            format!("The two sides hold different preshared keys ({here})"),
            format!(
                "Compare `{}` with the same on the peer, in private: equal lines exclude it",
                view.here(&format!(
                    "wg show {} preshared-keys",
                    super::super::words::quote(view.name())
                ))
            ),
        ),
        candidate(
            Some("wg-local-drop"),
            "This host drops the responses between the interface and the device (an input rule, or reverse path \
             filtering)",
            format!(
                "`{}` and `{}`: a counter that grows with each attempt is it",
                view.here("nstat -az TcpExtIPReversePathFilter"),
                view.here("nft list ruleset")
            ),
        ),
    ]
}

fn path(view: &View<'_>) -> Candidate {
    let port = view.endpoint().map_or(0, |e| e.port());
    let cause = match (view.wire.called.is_empty(), view.peer.newest.last_handshake) {
        (false, _) => {
            "Our packets are lost on the way out, or the peer's host drops them (the peer's own do arrive)"
        }
        (true, Some(_)) => {
            "The peer's host is down or moved, or UDP is dropped on the way since then (a firewall, a NAT whose \
             mapping is gone)"
        }
        (true, None) => {
            "UDP is dropped on the way or at the peer (a firewall, a security group), the peer is down, or the \
             endpoint is wrong"
        }
    };
    candidate(
        None,
        cause,
        format!("On the peer: `tcpdump -ni any udp port {port}`; no initiation arrives"),
    )
}

fn wrong_key(view: &View<'_>) -> Candidate {
    let cause = match view.peer.newest.last_handshake {
        Some(_) => format!("The peer has a new key; here it is still {}", view.key.short()),
        None => format!("{} is not the peer's public key", view.key.short()),
    };
    candidate(
        Some("wg-wrong-peer-key"),
        cause,
        format!(
            "On the peer: `wg show all public-key` does not print {}",
            view.key
        ),
    )
}

fn unknown_here(view: &View<'_>) -> Candidate {
    let settle = match view.info().public_key {
        Some(ours) => format!("On the peer: `wg show all peers` does not list {ours}"),
        None => "On the peer: `wg show all peers` does not list this host's public key".to_owned(),
    };
    let cause = match view.peer.newest.last_handshake {
        Some(_) => "The peer no longer knows this host's key (removed, or expired)",
        None => "The peer does not know this host's key",
    };
    candidate(Some("wg-unknown-initiator"), cause, settle)
}

/// Not again where this host's own state says so already.
fn clock(view: &View<'_>) -> Option<Candidate> {
    let ours = view
        .info()
        .public_key
        .map_or_else(|| "its public key".to_owned(), |k| k.short());
    (!view.peer.clock_went_back(view.world.now)).then(|| {
        candidate(
            Some("wg-clock-replay"),
            "This host's clock is behind one that it had before (no clock battery, a restored snapshot), so the peer \
             takes each attempt for a replay",
            format!(
                "Compare `date -u` on both hosts; if it is that, remove this host's key ({ours}) from the peer and add \
                 it again"
            ),
        )
    })
}

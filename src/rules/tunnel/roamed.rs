//! `wg-roamed`: a peer's endpoint changed while watched.

use std::net::SocketAddr;

use super::view::{View, views};
use super::words::count;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Area, Input, Rule};

const CODE: &str = "wg-roamed";

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "info",
    holds_when: "a peer's endpoint changed while watched",
    meaning: "WireGuard follows its peers: when an authentic packet comes from a new address, answers go there from \
              then on. So a laptop may move from one network to another and keep its tunnel. This peer did so, or \
              the NAT before it gave it another port, or someone set another endpoint.",
    detection: "Two readings of the device differ in the peer's endpoint. The evidence says what changed: the port only \
                (mostly a NAT that made a new mapping), the address, or the address family; and how long the peer had \
                been silent. Changes between two readings that return to the old value are seen on the wire only, where \
                data is sampled. That it was this host that moved shows there too: its own packets of one session leave \
                from another address.",
    fix: "Nothing needs fixing if the peer is mobile. If it is not, and its port changes again and again, the NAT before \
          it forgets its mapping: set `PersistentKeepalive = 25` on the peer.",
    needs: &[super::DEVICES],
    explained_by: &["wg-duplicate-key", "wg-roaming-unstable", "wg-nat-rebinding"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input)
        .flat_map(|view| [finding(&view), moved_here(&view)])
        .flatten()
        .collect()
}

/// This host itself moved: its outer packets leave from another address, under the same session.
fn moved_here(view: &View<'_>) -> Option<Finding> {
    let (tunnel, ours) = view.tunnel()?;
    let moves: Vec<_> = tunnel.moves().filter(|m| m.side == ours).collect();
    let (first, last) = (moves.first()?, moves.last()?);
    let (part, words) = what_changed(last.from, last.to);
    let mut finding = view.finding(CODE, Severity::Info, Confidence::Certain);
    finding.title = format!("{} moved here from {} to {}", view.name(), last.from, last.to);
    finding.summary = format!(
        "This host's own outer address changed while the session went on: {}. The peer follows with the next packet.",
        match part {
            "port" => "only the port changed, as when another listen port is set",
            _ => words,
        }
    );
    finding.impact = "None by itself: WireGuard follows.".to_owned();
    finding.evidence = Evidence::new()
        .with("old_local_address", last.from.to_string())
        .with("new_local_address", last.to.to_string())
        .with("changed", part)
        .with("moved", "this host")
        .with("changes", moves.len());
    (finding.first_seen, finding.last_seen) = (first.at, last.at);
    finding.count = u32::try_from(moves.len()).unwrap_or(u32::MAX);
    Some(finding)
}

/// What of the endpoint changed.
fn what_changed(old: SocketAddr, new: SocketAddr) -> (&'static str, &'static str) {
    if old.is_ipv4() != new.is_ipv4() {
        ("address_family", "it changed between IPv4 and IPv6")
    } else if old.ip() != new.ip() {
        ("address", "it came from another address")
    } else {
        ("port", "only the port changed, as when a NAT makes a new mapping")
    }
}

fn finding(view: &View<'_>) -> Option<Finding> {
    let newest = view.peer.endpoint_changes.back()?;
    let first = view.peer.endpoint_changes.front()?;
    let (part, words) = what_changed(newest.old, newest.new);
    let changes = view.peer.endpoint_change_count;
    let name = view.name();
    let mut finding = view.finding(CODE, Severity::Info, Confidence::Certain);
    finding.title = format!("{}'s peer {} moved to {}", name, view.key.short(), newest.new);
    finding.summary = format!(
        "Its endpoint was {} and is {}: {words}.{}",
        newest.old,
        newest.new,
        if changes > 1 {
            format!(" It changed {} while watched.", count(u64::from(changes), "time"))
        } else {
            String::new()
        }
    );
    finding.evidence = Evidence::new()
        .with("old_endpoint", newest.old.to_string())
        .with("new_endpoint", newest.new.to_string())
        .with("changed", part)
        .with("moved", "the peer, or a NAT before it")
        .with("changes", changes)
        .with("silence_seconds", newest.silence.as_secs_f64())
        .with("silence_is_at_least", !newest.silence_is_whole)
        .maybe("persistent_keepalive_seconds", view.peer.newest.keepalive);
    finding.impact = match view.live() {
        true => "By itself it harms nothing: the session goes on.".to_owned(),
        false => "By itself it harms nothing.".to_owned(),
    };
    if part == "port" {
        finding.fixes = vec![Fix {
            title: "If the peer stays in one place, let it send a keepalive".to_owned(),
            why: "On the peer: a NAT forgets a silent mapping, often after 30 s.".to_owned(),
            snippet: Some("[Peer]\nPersistentKeepalive = 25".to_owned()),
            expect: Evidence::new().with("changes", 0),
            ..Fix::default()
        }];
    }
    finding.first_seen = first.at;
    finding.last_seen = newest.at;
    finding.count = changes;
    Some(finding)
}

#[cfg(test)]
mod tests;

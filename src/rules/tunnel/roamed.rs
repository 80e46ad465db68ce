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
                (mostly a NAT that made a new mapping), the address, or the address family. Changes between two \
                readings that return to the old value are not seen.",
    fix: "Nothing needs fixing if the peer is mobile. If it is not, and its port changes again and again, the NAT before \
          it forgets its mapping: set `PersistentKeepalive = 25` on the peer.",
    needs: &[super::DEVICES],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input).filter_map(|view| finding(&view)).collect()
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
        .with("changes", changes)
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

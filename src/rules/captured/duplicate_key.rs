//! `wg-duplicate-key`: two hosts use one private key.

use super::CAPTURE;
use super::view::{finding, peer};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "wg-duplicate-key",
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "two hosts share a private key and fight over the peer's endpoint",
    meaning: "To WireGuard a key is a host. Where two hosts have the same private key (a cloned machine, a configuration \
              copied to a second laptop), the other side takes them for one that moves back and forth: each packet of \
              one host draws all traffic to it, and each new handshake of one ends the other's session. Both see a \
              tunnel that works for seconds and drops again.",
    detection: "In a capture at the common peer, or anywhere on the way that both share, without any key. First, the peer \
                sends data of a session that was made at one address to the other: to it, both are one party. Second, \
                one address goes on with its older session more than two seconds after the other has used a newer one. \
                A host that roams has the newer session and sends with that, so this admits no other explanation.",
    fix: "Give each host its own key pair: `wg genkey | tee private.key | wg pubkey` on one of them, its PrivateKey in \
          that host's configuration, and a `[Peer]` section of its own, with its own AllowedIPs, on the other side.",
    needs: CAPTURE,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let mut rivals: Vec<_> = input
        .world
        .sessions
        .tunnels()
        .iter()
        .filter_map(|t| t.rivalry)
        .collect();
    // Both tunnels may hold the proof: one finding for each pair of hosts.
    for rival in &mut rivals {
        rival.hosts.sort_unstable();
    }
    rivals.sort_by_key(|r| (r.with, r.hosts, r.first_at));
    rivals.dedup_by_key(|r| (r.with, r.hosts));
    rivals
        .into_iter()
        .map(|r| {
            let [one, two] = r.hosts;
            let levels = (Severity::Critical, Confidence::Certain);
            let mut f = finding(RULE.code, levels, peer(one, r.with), (r.first_at, r.last_at));
            f.count = u32::try_from(r.count).unwrap_or(u32::MAX);
            f.title = format!("{one} and {two} use one private key");
            f.summary = format!(
                "{} sends data of one's session to the other, so both have one key; and one went on with its older \
                 session after the other had used a newer one, so they are two hosts.",
                r.with
            );
            f.impact = "Each cuts the other off whenever it sends.".to_owned();
            f.evidence = Evidence::new()
                .with("host_a", one.to_string())
                .with("host_b", two.to_string())
                .with("common_peer", r.with.to_string())
                .with("contradictions", r.count);
            f.fixes = vec![Fix {
                title: "Give one of the two hosts a key pair of its own".to_owned(),
                why: "WireGuard tells hosts apart by their keys alone.".to_owned(),
                command: Some("umask 077; wg genkey | tee private.key | wg pubkey".to_owned()),
                ..Fix::default()
            }];
            f
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{A, B, Wire, codes};
    use super::super::{nat_rebinding, roamed};
    use super::*;

    const C: &str = "203.0.113.7:40000";

    #[test]
    fn two_hosts_are_one_finding_and_no_roaming() {
        let mut wire = Wire::new();
        wire.initiation(0, 1).response(10, 1, 9);
        for n in 0..5 {
            wire.data(100 + n, 9, n.unsigned_abs());
            wire.data_between(101 + n, (B, A), 1, n.unsigned_abs());
        }
        // C makes a handshake with the same key, and A knows nothing of it.
        let mut init = vec![1, 0, 0, 0, 2, 0, 0, 0];
        init.resize(148, 9);
        wire.packet(20_000, (C, B), init);
        let mut resp = vec![2, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0];
        resp.resize(92, 9);
        wire.packet(20_010, (B, C), resp);
        for n in 0..5 {
            wire.data_between(20_020 + n, (C, B), 8, n.unsigned_abs());
        }
        for n in 0..5 {
            wire.data(25_000 + n, 9, 10 + n.unsigned_abs());
            wire.data_between(25_001 + n, (B, A), 2, n.unsigned_abs());
        }
        let found = wire.check(&RULE, 30_000);
        assert_eq!(codes(&found), ["wg-duplicate-key"]);
        assert!(wire.check(&roamed::RULE, 30_000).is_empty());
        assert!(wire.check(&nat_rebinding::RULE, 30_000).is_empty());
    }

    #[test]
    fn one_host_that_moves_is_none() {
        let mut wire = Wire::new();
        wire.initiation(0, 1).response(10, 1, 9);
        for (n, from) in [A, A, C, C, C, A, A].into_iter().enumerate() {
            wire.data_between(10_000 * n as i64, (from, B), 9, n as u64);
            wire.data_between(10_000 * n as i64 + 5, (B, from), 1, n as u64);
        }
        assert!(wire.check(&RULE, 100_000).is_empty());
        assert_eq!(codes(&wire.check(&roamed::RULE, 100_000)), ["wg-roamed"]);
    }
}

//! `wg-duplicate-key` at a live host: sessions of one peer take turns at two addresses.

use std::net::SocketAddr;

use super::view::{View, views};
use crate::finding::Finding;
use crate::rules::captured::DUPLICATE_KEY;
use crate::rules::{Input, Rule};
use crate::track::sessions::Rivalry;

/// The rule.
pub const RULE: Rule = Rule {
    needs: &[&[crate::observation::Source::Capture]],
    check,
    ..DUPLICATE_KEY
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let mut found = (DUPLICATE_KEY.check)(input);
    // The same proof, with the peer's name where the device tells it.
    let views: Vec<View<'_>> = if found.is_empty() {
        Vec::new()
    } else {
        views(input).collect()
    };
    let rivals = rivals(input);
    for finding in &mut found {
        let rival = rivals
            .iter()
            .find(|r| names(finding, "host_a", r.hosts) && names(finding, "host_b", r.hosts));
        if let Some(view) = rival.and_then(|r| views.iter().find(|v| is_between(v, r))) {
            finding.subject = view.subject();
            finding.evidence = std::mem::take(&mut finding.evidence)
                .with("endpoint_changes_seen", view.peer.endpoint_change_count);
        }
    }
    found
}

fn rivals(input: &Input<'_>) -> Vec<Rivalry> {
    let tunnels = input.world.sessions.tunnels();
    tunnels.iter().filter_map(|t| t.rivalry).collect()
}

fn names(finding: &Finding, what: &str, hosts: [SocketAddr; 2]) -> bool {
    let value = finding.evidence.get(what).and_then(|v| v.as_str());
    hosts.iter().any(|h| value == Some(h.to_string().as_str()))
}

/// Whether this peer is who two hosts are at: it is, or was, at one of their addresses, and they talk to its device.
fn is_between(view: &View<'_>, rival: &Rivalry) -> bool {
    let ours = view.info().listen_port.is_none_or(|p| p == rival.with.port());
    let now = view.endpoint();
    let before = view.peer.endpoint_changes.iter().flat_map(|c| [c.old, c.new]);
    ours && now.into_iter().chain(before).any(|e| rival.hosts.contains(&e))
}

/// Whether two hosts fight over this peer's endpoint: what moves then is their doing.
pub(super) fn is_fought_over(view: &View<'_>) -> bool {
    let tunnels = view.world.sessions.tunnels();
    tunnels
        .iter()
        .filter_map(|t| t.rivalry.as_ref())
        .any(|rival| is_between(view, rival))
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::observation::device::Implementation::Kernel;
    use crate::observation::device::PeerSnapshot;

    const TWIN: &str = "203.0.113.9:40000";

    /// Two hosts that take turns `every` so many seconds, under sessions from before the watching.
    fn two(every: f64, turns: u32) -> Host {
        let mut host = Host::new(Kernel);
        let mut count = [10u64; 3];
        for turn in 0..turns {
            let start = f64::from(turn) * every;
            let (from, index) = if turn % 2 == 0 { (PEER, 1) } else { (TWIN, 2) };
            let endpoint = Some(sock(from));
            host.peer(
                start,
                PeerSnapshot {
                    endpoint,
                    ..peer_with(5_000, 5_000, Some(-10.0))
                },
            );
            for n in 0..5u32 {
                let at = start + 0.01 + f64::from(n) * 0.01;
                host.data(at, (from, US), index, count[index as usize]);
                // We send under one session, to wherever the last packet came from.
                host.data(at + 0.001, (US, from), 9, count[0]);
                count[index as usize] += 1;
                count[0] += 1;
            }
        }
        host.until(f64::from(turns) * every);
        host
    }

    #[test]
    fn sessions_that_take_turns_are_two_hosts() {
        let host = two(3.0, 5);
        let (found, folded) = host.codes();
        assert_eq!(found, ["wg-duplicate-key"], "{folded:?}");
        let finding = host.find("wg-duplicate-key").unwrap();
        assert!(matches!(
            finding.subject,
            crate::finding::Subject::Peer {
                public_key: Some(KEY),
                ..
            }
        ));
        assert_eq!(finding.evidence.get("endpoint_changes_seen"), Some(&4.into()));
    }

    #[test]
    fn packets_that_overtake_each_other_and_two_turns_are_none() {
        for (every, turns) in [(0.5, 4), (3.0, 2)] {
            let host = two(every, turns);
            assert_eq!(host.find("wg-duplicate-key"), None, "{every} {turns}");
        }
    }
}

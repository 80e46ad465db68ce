//! Prefixes that two peers claim.

use super::super::view::{View, views};
use super::super::words::quote;
use super::CODE;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::device::ConfiguredPeer;
use crate::rules::Input;
use crate::types::{Cidr, PublicKey};

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = lost(input);
    for view in views(input).filter(is_empty_beside_others) {
        let known = findings.iter().any(|f| f.subject.covers(&view.subject()));
        if !known {
            findings.push(empty(&view));
        }
    }
    findings
}

/// Prefixes that a configuration gives to one peer and that another has.
fn lost(input: &Input<'_>) -> Vec<Finding> {
    let configured = input.world.tunnels.configured();
    configured
        .iter()
        .enumerate()
        .filter_map(|(index, peer)| {
            let device = peer.device.as_deref()?;
            let losses: Vec<(Cidr, PublicKey)> = peer
                .allowed_ips
                .iter()
                .filter_map(|prefix| {
                    let winner = holder(input, device, peer.public_key, *prefix)
                        .or_else(|| later_claim(configured, index, device, *prefix))?;
                    (winner != peer.public_key).then_some((*prefix, winner))
                })
                .collect();
            (!losses.is_empty()).then(|| taken(input, peer, device, &losses))
        })
        .collect()
}

/// Who holds `prefix` on the live device. Without the peer itself the configuration was not applied, and the device
/// says nothing about it.
fn holder(input: &Input<'_>, device: &str, peer: PublicKey, prefix: Cidr) -> Option<PublicKey> {
    let device = input.world.tunnels.device(device)?;
    device.peers.get(&peer).filter(|track| !track.gone)?;
    device
        .present_peers()
        .find(|(_, peer)| peer.newest.allowed_ips.contains(&prefix))
        .map(|(key, _)| *key)
}

/// The last peer after `index` of the same device that lists `prefix` as well: it takes it.
fn later_claim(peers: &[ConfiguredPeer], index: usize, device: &str, prefix: Cidr) -> Option<PublicKey> {
    peers
        .iter()
        .skip(index + 1)
        .rev()
        .find(|p| p.device.as_deref() == Some(device) && p.allowed_ips.contains(&prefix))
        .map(|p| p.public_key)
}

fn taken(input: &Input<'_>, peer: &ConfiguredPeer, device: &str, losses: &[(Cidr, PublicKey)]) -> Finding {
    let world = input.world;
    let prefixes: Vec<String> = losses.iter().map(|(prefix, _)| prefix.to_string()).collect();
    let shown = prefixes.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let winner = losses.first().map_or_else(String::new, |(_, key)| key.short());
    Finding {
        code: CODE,
        severity: Severity::Warning,
        confidence: Confidence::Certain,
        title: format!("{device}: {shown} belongs to {winner} instead of {}", peer.public_key.short()),
        subject: Subject::Peer {
            device: Some(device.to_owned()),
            public_key: Some(peer.public_key),
            endpoint: peer.resolved.first().copied(),
            local: None,
        },
        summary: format!(
            "{} gives {shown} to {}, but peer {winner} has it too. One peer of a device can hold a prefix; the one set \
             last got it, so packets to it go to {winner} and those from {} are dropped.",
            peer.origin,
            peer.public_key.short(),
            peer.public_key.short()
        ),
        evidence: Evidence::new()
            .with("prefixes", prefixes)
            .with("held_by", losses.iter().map(|(_, key)| key.to_string()).collect::<Vec<_>>())
            .with("configured_in", peer.origin.clone()),
        impact: "Traffic for these addresses goes to the wrong peer.".to_owned(),
        candidates: Vec::new(),
        fixes: vec![Fix {
            title: "Give each prefix to one peer".to_owned(),
            why: "Edit AllowedIPs so that no prefix stands twice (a longer prefix inside a wider one is fine), then apply."
                .to_owned(),
            command: Some(super::super::words::here(
                world.host.as_ref(),
                &format!("wg show {} allowed-ips", quote(device)),
            )),
            ..Fix::default()
        }],
        first_seen: world.started,
        last_seen: world.now,
        count: 1,
    }
}

/// A peer that we mean to call and that has no inner address, beside peers that have some.
fn is_empty_beside_others(view: &View<'_>) -> bool {
    view.peer.newest.allowed_ips.is_empty()
        && view
            .device
            .present_peers()
            .any(|(_, other)| !other.newest.allowed_ips.is_empty())
        && view
            .configured()
            .is_none_or(|configured| !configured.allowed_ips.is_empty())
}

fn empty(view: &View<'_>) -> Finding {
    let name = view.name();
    // Whom we keep alive or would call, we mean to use; others may be there to be probed only.
    let meant = view.peer.newest.keepalive.is_some()
        || view.endpoint().is_some() && view.peer.newest.last_handshake.is_none();
    let severity = if meant { Severity::Warning } else { Severity::Info };
    let mut finding = view.finding(CODE, severity, Confidence::Possible);
    finding.title = format!("{name}: peer {} has no AllowedIPs", view.key.short());
    finding.summary = "No packet can be sent to this peer, and whatever it sends is dropped. If another peer was \
                       configured later with the same prefixes, it took them: an address belongs to one peer only. A \
                       peer that is meant to carry nothing may look like this too."
        .to_owned();
    finding.evidence = Evidence::new()
        .with("allowed_ips", Vec::<String>::new())
        .with("other_peers", view.device.present_peers().count() as u64 - 1);
    finding.impact = "Nothing passes between this host and the peer.".to_owned();
    finding.fixes = vec![Fix {
        title: "Compare what is configured with what the device holds".to_owned(),
        why: "A prefix that the configuration lists for this peer and that stands at another one here was taken.".to_owned(),
        command: Some(view.here(&format!("wg show {} allowed-ips", quote(name)))),
        ..Fix::default()
    }];
    finding
}

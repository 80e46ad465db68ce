//! Configured peers whose device does not exist here.

use super::super::words::{here, quote};
use super::CODE;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::device::ConfiguredPeer;
use crate::observation::{Source, SourceState};
use crate::rules::Input;

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    let sources = &input.world.sources;
    // A source that sees a part may just not see this device.
    let all_seen = [Source::WireguardNetlink, Source::WireguardUapi]
        .iter()
        .all(|s| sources.get(*s).is_none_or(|s| s.state == SourceState::Ok));
    if !all_seen {
        return Vec::new();
    }
    let tunnels = &input.world.tunnels;
    tunnels
        .configured()
        .iter()
        .filter(|peer| peer.endpoint.is_some())
        .filter_map(|peer| peer.device.as_deref().map(|device| (peer, device)))
        .filter(|(_, device)| {
            tunnels.device(device).is_none() && input.world.routes.link_named(device).is_none()
        })
        // The same tunnel under another interface's name is there.
        .filter(|(peer, _)| !tunnels.devices().any(|d| d.peers.contains_key(&peer.public_key)))
        .filter_map(|(peer, device)| match tried(input, peer) {
            // What its answers prove, or their absence, says more.
            Some(false) => None,
            Some(true) => Some(Finding {
                severity: Severity::Info,
                title: format!("{device} does not exist here; the peer would answer it"),
                ..absent(input, peer, device)
            }),
            None => Some(absent(input, peer, device)),
        })
        .collect()
}

/// Whether the peer answers handshakes, where it was tried.
fn tried(input: &Input<'_>, peer: &ConfiguredPeer) -> Option<bool> {
    let probes = input.world.probes.iter();
    let of_it = probes.filter(|p| p.target.public_key == peer.public_key && !p.attempts.is_empty());
    of_it.map(|p| p.works()).max()
}

fn absent(input: &Input<'_>, peer: &ConfiguredPeer, device: &str) -> Finding {
    let world = input.world;
    let endpoint = peer.endpoint.as_deref().unwrap_or("its endpoint");
    Finding {
        code: CODE,
        severity: Severity::Warning,
        confidence: Confidence::Certain,
        title: format!("{device} does not exist, so {endpoint} was never reached"),
        subject: Subject::Peer {
            device: Some(device.to_owned()),
            public_key: Some(peer.public_key),
            endpoint: peer.resolved.first().copied(),
            local: None,
        },
        summary: format!(
            "{} names this peer, but there is no interface {device} here: the configuration has not been applied.",
            peer.origin
        ),
        evidence: Evidence::new()
            .with("configured_in", peer.origin.clone())
            .with("device_exists", false),
        impact: "Nothing can pass to this peer.".to_owned(),
        candidates: Vec::new(),
        fixes: vec![Fix {
            title: format!("Apply the configuration of {device}"),
            why: "wg-quick makes the interface, its addresses and its routes from the file.".to_owned(),
            command: Some(here(
                world.host.as_ref(),
                &format!("wg-quick up {}", quote(device)),
            )),
            expect: Evidence::new().with("device_exists", true),
            ..Fix::default()
        }],
        first_seen: world.started,
        last_seen: world.now,
        count: 1,
    }
}

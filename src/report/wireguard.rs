//! WireGuard's devices, peers and handshakes as tables.

use super::build::Verdict;
use super::{DeviceRow, HandshakeRow, MessageCounts, PeerRow, PeerState, Wireguard};
use crate::finding::{Finding, Subject};
use crate::observation::Source;
use crate::observation::device::ConfiguredPeer;
use crate::observation::host::Link;
use crate::time::Span;
use crate::track::World;
use crate::track::handshake::{Attempt, Conversation, Outcome};
use crate::track::tunnels::wire::Outcome as WireOutcome;
use crate::track::tunnels::{DeviceTrack, PeerTrack, PeerWire, Silence};
use crate::types::PublicKey;

/// Handshake attempts in a report: the newest are kept.
const HANDSHAKES: usize = 200;

/// The section.
pub(super) fn section(world: &World, verdict: Verdict<'_>) -> Wireguard {
    let watched = world.sources.sees(Source::Capture);
    let counts = world.handshakes.messages();
    let handshakes = handshakes(world);
    let left_out = world.tunnels.left_out();
    Wireguard {
        devices: world.tunnels.devices().map(|d| device(world, d)).collect(),
        peers: peers(world, verdict),
        devices_left_out: left_out.devices,
        peers_left_out: left_out.peers + left_out.configured,
        handshakes_left_out: counts.initiations.saturating_sub(handshakes.len() as u64),
        handshakes,
        // Live captures leave data out, so what belongs together is not known.
        tunnels: Vec::new(),
        tunnels_left_out: 0,
        probes: Vec::new(),
        messages: watched.then(|| {
            let data = counts.data + counts.keepalives;
            MessageCounts {
                initiation: counts.initiations,
                initiations_in: Some(world.handshakes.inflow.total()),
                response: counts.responses,
                cookie_reply: counts.cookie_replies,
                // A live capture leaves data out; only where some was seen was it looked for.
                data: (data > 0).then_some(data),
            }
        }),
    }
}

fn device(world: &World, d: &DeviceTrack) -> DeviceRow {
    let link = link(world, d);
    let mut problems = d.info.problems.clone();
    if d.vanished_at.is_some() {
        problems.push("it vanished while it was watched".to_owned());
    }
    DeviceRow {
        name: d.info.name.clone(),
        implementation: d.info.implementation.name(),
        public_key: d.info.public_key,
        listen_port: d.info.listen_port,
        fwmark: d.info.fwmark,
        mtu: link.map(|l| l.mtu),
        up: link.map(|l| l.admin_up),
        problems,
    }
}

fn link<'a>(world: &'a World, d: &DeviceTrack) -> Option<&'a Link> {
    match d.info.if_index {
        Some(index) => world.routes.link(index),
        None => world.routes.link_named(&d.info.name),
    }
}

fn peers(world: &World, verdict: Verdict<'_>) -> Vec<PeerRow> {
    let mut rows = Vec::new();
    for d in world.tunnels.devices().filter(|d| d.vanished_at.is_none()) {
        rows.extend(
            d.present_peers()
                .map(|(key, peer)| self::peer(world, verdict, d, *key, peer)),
        );
    }
    let known = |c: &ConfiguredPeer| rows.iter().any(|row| row.public_key == c.public_key);
    let only_configured: Vec<PeerRow> = world
        .tunnels
        .configured()
        .iter()
        .filter(|c| !known(c))
        .map(configured)
        .collect();
    rows.extend(only_configured);
    rows
}

fn peer(world: &World, verdict: Verdict<'_>, d: &DeviceTrack, key: PublicKey, p: &PeerTrack) -> PeerRow {
    let wire = world.tunnels.wire_of(&world.handshakes, d, p, world.now);
    let looked_twice = p.watched() > Span::ZERO;
    let (rx_delta, tx_delta) = p.delta();
    let fails = verdict.critical().any(|f| is_about(f, &d.info.name, key));
    PeerRow {
        device: Some(d.info.name.clone()),
        public_key: key,
        endpoint: p.newest.endpoint,
        last_handshake: p.newest.last_handshake,
        rx_bytes: Some(p.newest.rx_bytes),
        tx_bytes: Some(p.newest.tx_bytes),
        rx_delta: looked_twice.then_some(rx_delta),
        tx_delta: looked_twice.then_some(tx_delta),
        rtt: rtt(&wire),
        unanswered: on_wire(world, d, p).then(|| unanswered(&wire)),
        keepalive: p.newest.keepalive,
        allowed_ips: p.newest.allowed_ips.clone(),
        state: state(world, d, p, &wire, fails),
    }
}

/// Whether the wire tells of this peer: it was watched, and no other peer shares its endpoint.
fn on_wire(world: &World, d: &DeviceTrack, p: &PeerTrack) -> bool {
    let own = |endpoint| world.tunnels.owner_of(d.info.listen_port, endpoint).is_some();
    world.sources.sees(Source::Capture) && p.newest.endpoint.is_some_and(own)
}

/// A peer that no device has: what it does is not known.
fn configured(c: &ConfiguredPeer) -> PeerRow {
    PeerRow {
        device: None,
        public_key: c.public_key,
        endpoint: c.resolved.first().copied(),
        last_handshake: None,
        rx_bytes: None,
        tx_bytes: None,
        rx_delta: None,
        tx_delta: None,
        rtt: None,
        unanswered: None,
        keepalive: c.keepalive,
        allowed_ips: c.allowed_ips.clone(),
        state: PeerState::Unknown,
    }
}

fn is_about(f: &Finding, name: &str, key: PublicKey) -> bool {
    match &f.subject {
        Subject::Peer {
            device, public_key, ..
        } => *public_key == Some(key) && device.as_deref().is_none_or(|d| d == name),
        Subject::Device { name: device } => device == name,
        _ => false,
    }
}

fn state(world: &World, d: &DeviceTrack, p: &PeerTrack, wire: &PeerWire, fails: bool) -> PeerState {
    let silence = Silence::of(p, d.info.implementation, wire, world.now);
    let trying = silence.trying || silence.pending.is_some();
    match () {
        () if fails => PeerState::Failing,
        () if p.live(world.now) => PeerState::Up,
        () if trying => PeerState::Handshaking,
        () if p.newest.endpoint.is_none() => PeerState::NoEndpoint,
        () if p.newest.last_handshake.is_none() => PeerState::Never,
        () => PeerState::Idle,
    }
}

/// The round trip of the newest attempt of ours that was answered.
fn rtt(wire: &PeerWire) -> Option<Span> {
    wire.attempts.iter().rev().find_map(|a| match a.outcome {
        WireOutcome::Answered(at) => Some(at - a.at),
        _ => None,
    })
}

/// Attempts of ours since the last one that the peer answered in any way; one that still has time is not counted.
fn unanswered(wire: &PeerWire) -> u32 {
    let newest_first = wire.attempts.iter().rev();
    let silent = newest_first
        .take_while(|a| !matches!(a.outcome, WireOutcome::Answered(_) | WireOutcome::Cookie))
        .filter(|a| a.outcome != WireOutcome::Pending)
        .count();
    u32::try_from(silent).unwrap_or(u32::MAX)
}

/// The newest attempts, oldest first.
fn handshakes(world: &World) -> Vec<HandshakeRow> {
    let mut rows: Vec<HandshakeRow> = world
        .handshakes
        .conversations()
        .flat_map(|c| {
            let attempts = c.ends().iter().flat_map(|end| end.attempts());
            // A probe's own are told with what it made of them.
            let others = attempts.filter(|a| !world.probes.sent(a.initiator, a.responder));
            others.map(move |a| handshake(world, c, a))
        })
        .collect();
    rows.sort_by_key(|row| row.at);
    let surplus = rows.len().saturating_sub(HANDSHAKES);
    rows.drain(..surplus);
    rows
}

fn handshake(world: &World, c: &Conversation, a: &Attempt) -> HandshakeRow {
    let (outcome, rtt) = match a.outcome(world.now) {
        Outcome::Answered { rtt } => ("answered", Some(rtt)),
        Outcome::Unanswered => ("unanswered", None),
        Outcome::Pending => ("pending", None),
        Outcome::Cookie { .. } => ("cookie", None),
        Outcome::Unreachable { .. } => ("unreachable", None),
    };
    // Without directions either end may be this host's.
    let ends = match c.local_remote() {
        Some((local, remote)) => vec![(local.address, remote.address)],
        None => vec![(a.initiator, a.responder), (a.responder, a.initiator)],
    };
    let owner = ends
        .into_iter()
        .find_map(|(local, remote)| world.tunnels.owner_of(Some(local.port()), remote));
    HandshakeRow {
        at: a.at,
        device: owner.map(|(d, _)| d.info.name.clone()),
        public_key: owner.map(|(_, key)| *key),
        initiator: a.initiator,
        responder: a.responder,
        outcome,
        rtt,
        capture: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::device::Implementation;
    use crate::report::build::build;
    use crate::rules::Evaluation;
    use crate::rules::tunnel::testing::{Host, KEY, OTHER, PEER, US, peer_with, sock};

    fn section_of(host: &Host) -> Wireguard {
        build(&host.world, host.evaluate(), "").wireguard
    }

    #[test]
    fn a_peer_that_answers_is_up_with_its_round_trip() {
        let mut host = Host::new(Implementation::Kernel);
        host.peer(0.0, peer_with(0, 0, None));
        host.call(0.1, 1).answered(0.123, 1);
        host.peer(1.0, peer_with(124, 180, Some(0.123)));
        let w = section_of(&host);
        let row = &w.peers[0];
        assert_eq!(row.state, PeerState::Up);
        assert_eq!(row.rtt, Some(Span::from_millis(23)));
        assert_eq!(row.unanswered, Some(0));
        assert_eq!((row.rx_bytes, row.tx_bytes), (Some(124), Some(180)));
        assert_eq!((row.rx_delta, row.tx_delta), (Some(124), Some(180)));
        let messages = w.messages.unwrap();
        assert_eq!(
            (messages.initiation, messages.response, messages.data),
            (1, 1, None)
        );
        let handshake = &w.handshakes[0];
        assert_eq!(handshake.outcome, "answered");
        assert_eq!((handshake.initiator, handshake.responder), (sock(US), sock(PEER)));
        assert_eq!(handshake.device.as_deref(), Some("wg0"));
        assert_eq!(handshake.public_key, Some(KEY));
        assert_eq!(w.handshakes_left_out, 0);
    }

    #[test]
    fn silence_is_counted_and_a_critical_finding_makes_it_failing() {
        let mut host = Host::new(Implementation::Kernel);
        host.peer(0.0, peer_with(0, 0, None));
        host.call(0.1, 1).call(5.3, 2).call(10.5, 3);
        host.peer(11.0, peer_with(0, 444, None)).until(12.0);
        let row = &section_of(&host).peers[0];
        assert_eq!(row.state, PeerState::Failing);
        assert_eq!(row.unanswered, Some(2));
        assert_eq!(row.rtt, None);
        // The rules' word is what makes it failing; without them it is only trying.
        let unjudged = build(&host.world, Evaluation::default(), "").wireguard;
        assert_eq!(unjudged.peers[0].state, PeerState::Handshaking);
    }

    #[test]
    fn what_was_not_watched_is_not_zero() {
        let mut host = Host::blind(Implementation::Kernel);
        host.peer(0.0, peer_with(5, 6, None));
        let w = section_of(&host);
        assert_eq!(w.peers[0].unanswered, None);
        assert_eq!(w.peers[0].rx_delta, None);
        assert_eq!(w.messages, None);
        assert_eq!(w.devices[0].mtu, None);
    }

    #[test]
    fn states_without_a_handshake() {
        let state = |change: fn(&mut crate::observation::device::PeerSnapshot)| {
            let mut host = Host::new(Implementation::Kernel);
            let mut peer = peer_with(0, 0, None);
            change(&mut peer);
            host.peer(0.0, peer.clone()).peer(5.0, peer).until(5.0);
            build(&host.world, Evaluation::default(), "").wireguard.peers[0].state
        };
        assert_eq!(state(|_| {}), PeerState::Never);
        assert_eq!(state(|p| p.endpoint = None), PeerState::NoEndpoint);
        assert_eq!(
            state(|p| p.last_handshake = Some(crate::rules::tunnel::testing::at(-900.0))),
            PeerState::Idle
        );
    }

    #[test]
    fn a_peer_that_only_a_file_names_is_listed_with_nothing_known() {
        let mut host = Host::new(Implementation::Kernel);
        host.peer(0.0, peer_with(0, 0, None));
        let configured = |public_key| ConfiguredPeer {
            origin: "wg0.conf:5".to_owned(),
            device: Some("wg0".to_owned()),
            local_public_key: None,
            public_key,
            has_preshared_key: false,
            endpoint: None,
            resolved: vec![sock(PEER)],
            keepalive: Some(25),
            allowed_ips: Vec::new(),
            mtu: None,
        };
        host.configured(vec![configured(KEY), configured(OTHER)]);
        let peers = section_of(&host).peers;
        assert_eq!(peers.len(), 2);
        assert_eq!(peers[1].public_key, OTHER);
        assert_eq!((peers[1].device.as_deref(), peers[1].rx_bytes), (None, None));
        assert_eq!(peers[1].state, PeerState::Unknown);
        assert_eq!(peers[1].endpoint, Some(sock(PEER)));
    }

    #[test]
    fn the_newest_handshakes_are_kept_and_the_rest_counted() {
        let mut host = Host::new(Implementation::Kernel);
        host.peer(0.0, peer_with(0, 0, None));
        let count = 20 + u32::try_from(HANDSHAKES).unwrap();
        for index in 0..count {
            host.call(f64::from(index) * 6.0, index);
        }
        let w = section_of(&host);
        assert!(w.handshakes.len() <= HANDSHAKES);
        assert_eq!(
            w.handshakes.len() as u64 + w.handshakes_left_out,
            u64::from(count)
        );
        assert!(w.handshakes.is_sorted_by_key(|h| h.at));
    }
}

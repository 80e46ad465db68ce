//! What a probe adds to a report: its targets as peers, its attempts as handshakes, and what each target proved.

use std::net::{Ipv4Addr, SocketAddr};

use super::{HandshakeRow, PeerRow, PeerState, Report, Status};
use crate::finding::Subject;
use crate::observation::probe::{Attempt, Inner, Lifetime, Mtu, Outcome, Skipped, Transport, Websocket};
use crate::time::Span;
use crate::track::World;
use crate::track::probes::{Probe, Tally};
use crate::types::PublicKey;

/// Attempts that a report lists; of more, the newest.
pub const HANDSHAKES_LISTED: usize = 4000;

/// A target of a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeRow {
    /// Where it was read.
    pub origin: String,
    /// The device whose peer it is.
    pub device: Option<String>,
    /// The peer's key.
    pub public_key: PublicKey,
    /// The prober's key.
    pub local_public_key: PublicKey,
    /// The endpoint as written.
    pub endpoint: String,
    /// Where messages went.
    pub address: Option<SocketAddr>,
    /// How they travelled.
    pub transport: Transport,
    /// Why it was not probed.
    pub skipped: Option<Skipped>,
    /// What the attempts amount to.
    pub tally: Tally,
    /// The share of initiations without an answer.
    pub loss: Option<f64>,
    /// The first contact.
    pub cold: Option<Span>,
    /// The round trips after it: shortest, mean, longest.
    pub warm: Option<(Span, Span, Span)>,
    /// What the answers prove, in a sentence each.
    pub proved: Vec<String>,
    /// How far the WebSocket came.
    pub websocket: Option<Websocket>,
    /// What was asked through the tunnel.
    pub inner: Vec<Inner>,
    /// The largest packet.
    pub mtu: Option<Mtu>,
    /// The MTU to set.
    pub mtu_to_set: Option<u32>,
    /// The NAT's patience.
    pub lifetime: Option<Lifetime>,
    /// The keepalive to set, in seconds.
    pub keepalive_to_set: Option<u16>,
}

/// Adds what `world` knows of probes to `report`, which is about them alone: where nothing was tried, nothing is known.
pub fn add(report: &mut Report, world: &World) {
    add_beside(report, world);
    let tried = |probe: &Probe| !probe.attempts.is_empty() || probe.websocket.is_some();
    if !world.probes.iter().any(tried) {
        report.status = Status::Unknown;
    }
}

/// Adds what `world` knows of probes to a report that is about more.
pub fn add_beside(report: &mut Report, world: &World) {
    let mut handshakes = Vec::new();
    for probe in world.probes.iter() {
        let failing = report.findings.iter().any(|f| {
            f.severity == crate::finding::Severity::Critical
                && matches!(&f.subject, Subject::Peer { public_key: Some(key), .. } if *key == probe.target.public_key)
        });
        let row_of_it = report
            .wireguard
            .peers
            .iter_mut()
            .find(|p| p.public_key == probe.target.public_key);
        match row_of_it {
            // A device's peer is known better by its device.
            Some(row) if row.rx_bytes.is_some() => {}
            // A file names it, and no more was known.
            Some(row) => {
                let probed = peer(probe, failing);
                let (keepalive, allowed_ips) = (row.keepalive, std::mem::take(&mut row.allowed_ips));
                *row = PeerRow {
                    keepalive: probed.keepalive.or(keepalive),
                    allowed_ips,
                    ..probed
                };
            }
            None => report.wireguard.peers.push(peer(probe, failing)),
        }
        report.wireguard.probes.push(row(probe));
        handshakes.extend(probe.attempts.iter().filter_map(|a| handshake(probe, a)));
    }
    handshakes.sort_by_key(|row: &HandshakeRow| (row.at, row.initiator));
    let surplus = handshakes.len().saturating_sub(HANDSHAKES_LISTED);
    handshakes.drain(..surplus);
    report.wireguard.handshakes_left_out += surplus as u64;
    report.wireguard.handshakes.extend(handshakes);
    report.wireguard.peers_left_out += world.probes.left_out();
}

fn peer(probe: &Probe, failing: bool) -> PeerRow {
    let tally = probe.tally();
    PeerRow {
        device: probe.target.device.clone(),
        public_key: probe.target.public_key,
        endpoint: probe.target.address,
        last_handshake: None,
        rx_bytes: None,
        tx_bytes: None,
        rx_delta: None,
        tx_delta: None,
        rtt: probe.warm().last().or_else(|| probe.cold()),
        unanswered: (tally.sent > 0).then(|| u32::try_from(tally.silent).unwrap_or(u32::MAX)),
        keepalive: probe.target.keepalive,
        allowed_ips: Vec::new(),
        state: match probe.works() {
            _ if probe.skipped.is_some() => PeerState::Unknown,
            true => PeerState::Up,
            false if failing || tally.sent + tally.not_sent > 0 => PeerState::Failing,
            false => PeerState::Unknown,
        },
    }
}

fn handshake(probe: &Probe, attempt: &Attempt) -> Option<HandshakeRow> {
    let responder = probe.target.address?;
    let unknown = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let (outcome, rtt) = match &attempt.outcome {
        Outcome::Answered { rtt } => ("answered", Some(*rtt)),
        Outcome::CalledBack { after, .. } => ("called-back", Some(*after)),
        Outcome::PresharedKeyDiffers { rtt } => ("rejected", Some(*rtt)),
        Outcome::Cookie { rtt } => ("cookie", Some(*rtt)),
        Outcome::Icmp { .. } => ("unreachable", None),
        Outcome::NotSent { .. } => ("not-sent", None),
        Outcome::Silent { .. } => ("unanswered", None),
    };
    Some(HandshakeRow {
        capture: None,
        at: attempt.sent_at,
        device: probe.target.device.clone(),
        public_key: Some(probe.target.public_key),
        initiator: attempt.local.unwrap_or(unknown),
        responder,
        outcome,
        rtt,
    })
}

fn row(probe: &Probe) -> ProbeRow {
    let target = &probe.target;
    let tally = probe.tally();
    ProbeRow {
        origin: target.origin.clone(),
        device: target.device.clone(),
        public_key: target.public_key,
        local_public_key: target.local_public_key,
        endpoint: target.endpoint.clone(),
        address: target.address,
        transport: target.transport,
        skipped: probe.skipped.clone(),
        tally,
        loss: tally.loss(),
        cold: probe.cold(),
        warm: warm(probe),
        proved: super::proved::proved(probe),
        websocket: probe.websocket.clone(),
        inner: probe.inner.clone(),
        mtu: probe.mtu.clone(),
        mtu_to_set: probe
            .mtu
            .as_ref()
            .filter(|m| m.fails.is_some())
            .and_then(|m| m.passes),
        lifetime: probe.lifetime.clone(),
        keepalive_to_set: probe
            .lifetime
            .as_ref()
            .and_then(crate::track::probes::keepalive_for),
    }
}

fn warm(probe: &Probe) -> Option<(Span, Span, Span)> {
    let all: Vec<Span> = probe.warm().collect();
    let n = u32::try_from(all.len()).ok().filter(|n| *n > 0)?;
    let mean = all.iter().sum::<Span>() / n;
    Some((*all.iter().min()?, mean, *all.iter().max()?))
}

//! Devices, peers and handshakes.

use super::{Family, Kind, Sample, count, yes};
use crate::report::agent::{AgentStats, RTT_BOUNDS};
use crate::report::{PeerRow, PeerState, Report};

/// Every state that a peer can be in.
const STATES: [PeerState; 7] = [
    PeerState::Up,
    PeerState::Idle,
    PeerState::Handshaking,
    PeerState::Failing,
    PeerState::Never,
    PeerState::NoEndpoint,
    PeerState::Unknown,
];

pub(super) fn families(report: &Report, stats: &AgentStats) -> Vec<Family> {
    let wireguard = &report.wireguard;
    let mut all = Vec::new();
    let mut up = Family::gauge(
        "wgnat_wireguard_device_up",
        "Whether a WireGuard device is set up.",
    );
    for device in &wireguard.devices {
        let up_or_not = device.up.map(yes);
        if let Some(value) = up_or_not {
            up.add(vec![("device", device.name.clone())], value);
        }
    }
    all.push(up);
    let mut peers: Vec<&PeerRow> = wireguard.peers.iter().collect();
    // Those that fail first, then those that move most: what is left out matters least.
    peers.sort_by_key(|p| {
        let bytes = p.rx_bytes.unwrap_or(0).saturating_add(p.tx_bytes.unwrap_or(0));
        (p.state != PeerState::Failing, std::cmp::Reverse(bytes))
    });
    let left_out = peers.len().saturating_sub(stats.top_peers) as u64 + wireguard.peers_left_out;
    peers.truncate(stats.top_peers);
    all.extend(by_state(report));
    all.extend(rows(report, &peers, stats));
    all.push(
        Family::gauge(
            "wgnat_wireguard_peers_left_out",
            "Peers that have no metrics of their own, for want of room.",
        )
        .with(Vec::new(), count(left_out)),
    );
    all.extend(handshakes(report, stats));
    all
}

/// Over all peers, shown on their own or not.
fn by_state(report: &Report) -> Option<Family> {
    let peers = &report.wireguard.peers;
    if peers.is_empty() {
        return None;
    }
    let mut family = Family::gauge("wgnat_wireguard_peers", "Peers by how they fare.");
    for state in STATES {
        let n = peers.iter().filter(|p| p.state == state).count() as u64;
        family.add(vec![("state", state.name().to_owned())], count(n));
    }
    Some(family)
}

fn rows(report: &Report, peers: &[&PeerRow], stats: &AgentStats) -> Vec<Family> {
    let mut age = Family::gauge(
        "wgnat_wireguard_peer_handshake_age_seconds",
        "How long ago a peer's last handshake completed; none for a peer that never had one.",
    );
    let mut received = Family::counter(
        "wgnat_wireguard_peer_receive_bytes",
        "Bytes received from a peer, as its device counts.",
    );
    let mut sent = Family::counter(
        "wgnat_wireguard_peer_transmit_bytes",
        "Bytes sent to a peer, as its device counts.",
    );
    let mut rtt = Family::gauge(
        "wgnat_wireguard_peer_handshake_rtt_seconds",
        "The round trip of a peer's newest handshake on the wire.",
    );
    let mut unanswered = Family::gauge(
        "wgnat_wireguard_peer_unanswered_handshakes",
        "Handshake attempts towards a peer since its last answer.",
    );
    let mut lost = Family::gauge(
        "wgnat_wireguard_peer_handshake_loss_ratio",
        "Of a peer's handshake attempts on the wire in the last minutes, the share without an answer.",
    );
    let mut failing = Family::gauge(
        "wgnat_wireguard_peer_up",
        "Whether a peer has a live session: 1, or 0 where it fails, never connected or is idle.",
    );
    let mut changes = Family::counter(
        "wgnat_wireguard_peer_endpoint_changes",
        "Times that a peer's endpoint changed.",
    );
    for peer in peers {
        let labels = || {
            let device = peer.device.clone().unwrap_or_default();
            vec![("device", device), ("public_key", peer.public_key.to_string())]
        };
        let add = |family: &mut Family, value: Option<f64>| {
            if let Some(value) = value {
                family.add(labels(), value);
            }
        };
        let since = peer
            .last_handshake
            .map(|at| (report.generated_at - at).as_secs_f64());
        add(&mut age, since);
        add(&mut received, peer.rx_bytes.map(count));
        add(&mut sent, peer.tx_bytes.map(count));
        add(&mut rtt, peer.rtt.map(|rtt| rtt.as_secs_f64()));
        add(&mut unanswered, peer.unanswered.map(f64::from));
        add(&mut lost, loss(report, peer));
        let up = match peer.state {
            PeerState::Unknown | PeerState::NoEndpoint => None,
            PeerState::Up => Some(1.0),
            _ => Some(0.0),
        };
        add(&mut failing, up);
        let changed = stats
            .totals
            .endpoint_changes
            .iter()
            .find(|(device, key, _)| Some(device) == peer.device.as_ref() && *key == peer.public_key);
        add(&mut changes, changed.map(|(.., n)| count(*n)));
    }
    vec![age, received, sent, rtt, unanswered, lost, failing, changes]
}

/// `None` where the peer was not seen to try.
fn loss(report: &Report, peer: &PeerRow) -> Option<f64> {
    let own = report.wireguard.handshakes.iter().filter(|row| {
        row.public_key == Some(peer.public_key)
            && row.device == peer.device
            && Some(row.responder) == peer.endpoint
    });
    let (mut answered, mut lost) = (0_u64, 0_u64);
    for row in own {
        match row.outcome {
            "answered" | "cookie" => answered += 1,
            "unanswered" | "unreachable" => lost += 1,
            _ => {}
        }
    }
    (answered + lost > 0).then(|| count(lost) / count(answered + lost))
}

fn handshakes(report: &Report, stats: &AgentStats) -> Vec<Family> {
    if report.wireguard.messages.is_none() {
        return Vec::new();
    }
    let mut attempts = Family::counter(
        "wgnat_wireguard_handshakes",
        "Handshake attempts on the wire by what came of them.",
    );
    for (outcome, n) in &stats.totals.handshakes {
        attempts.add(vec![("outcome", (*outcome).to_owned())], count(*n));
    }
    let mut rtt = Family::new(
        "wgnat_wireguard_handshake_rtt_seconds",
        Kind::Histogram,
        "From a handshake's initiation to its response on the wire.",
    );
    let histogram = &stats.totals.rtt;
    let mut below = 0;
    for (index, n) in histogram.counts.iter().enumerate() {
        below += n;
        let bound = RTT_BOUNDS.get(index).map(|b| b.as_secs_f64().to_string());
        rtt.samples.push(Sample {
            suffix: "_bucket",
            labels: vec![("le", bound.unwrap_or_else(|| "+Inf".to_owned()))],
            value: count(below),
        });
    }
    for (suffix, value) in [
        ("_sum", histogram.sum.as_secs_f64()),
        ("_count", count(histogram.count())),
    ] {
        rtt.samples.push(Sample {
            suffix,
            labels: Vec::new(),
            value,
        });
    }
    vec![attempts, rtt]
}

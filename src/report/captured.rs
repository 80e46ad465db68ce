//! What a capture adds to a report: handshakes as a timeline, tunnels as a table, and how well each file was read.

use std::net::SocketAddr;

use super::{HandshakeRow, MessageCounts, Report};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::track::handshake::{Attempt, Outcome};
use crate::track::sessions::{DataCounts, Side, Tunnel};

/// Handshake attempts that a report lists; of more, the newest.
pub const HANDSHAKES_LISTED: usize = 2000;
/// Tunnels that a report lists; of more, those with the most traffic.
pub const TUNNELS_LISTED: usize = 200;

/// How a capture file fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRow {
    /// The file as the user named it.
    pub file: String,
    /// How far it was read, in bytes.
    pub bytes: u64,
    /// Packets that the capturing program says it lost; `None` where the file does not say.
    pub lost: Option<u64>,
    /// What keeps it from being whole: where it is cut or damaged.
    pub problem: Option<String>,
}

/// Two parties on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelRow {
    /// When the first and the last message passed.
    pub first_at: Timestamp,
    /// See `first_at`.
    pub last_at: Timestamp,
    /// Handshakes that were answered.
    pub handshakes: u64,
    /// Sessions whose handshake the capture does not hold.
    pub without_handshake: u64,
    /// `established`, `unknown` (it began before the capture), `unused` (a handshake, and no data after it).
    pub state: &'static str,
    /// The shortest and the longest time between two handshakes.
    pub rekey_after: Option<(Span, Span)>,
    /// How often either side came from another address.
    pub moves: u64,
    /// Other addresses under which the same messages were seen: a translation within the capture's sight.
    pub also_seen_as: Vec<SocketAddr>,
    /// Both sides.
    pub sides: [SideRow; 2],
    /// The capture file that shows it, where two were read as two places.
    pub capture: Option<String>,
}

/// One party, as sender.
#[derive(Clone, Debug, PartialEq)]
pub struct SideRow {
    /// Where it was last.
    pub address: SocketAddr,
    /// What it sent.
    pub data: DataCounts,
    /// The longest inner packet, padding included, in bytes; `None` where it sent none.
    pub longest_packet: Option<u32>,
    /// Its tunnel MTU, where its packets prove it.
    pub mtu: Option<u32>,
}

/// Adds what `world` saw on the wire to `report`.
pub fn add(report: &mut Report, world: &World, captures: Vec<CaptureRow>) {
    let (rows, left_out) = handshakes(world);
    report.wireguard.handshakes = rows;
    report.wireguard.handshakes_left_out = left_out;
    let counts = world.handshakes.messages();
    report.wireguard.messages = Some(MessageCounts {
        initiation: counts.initiations,
        initiations_in: None,
        response: counts.responses,
        cookie_reply: counts.cookie_replies,
        data: Some(world.sessions.data),
    });
    let mut tunnels: Vec<TunnelRow> = world
        .sessions
        .tunnels()
        .iter()
        .map(|t| tunnel(world, t))
        .collect();
    let traffic = |t: &TunnelRow| t.sides.iter().map(|s| s.data.messages).sum::<u64>();
    tunnels.sort_by_key(|t| std::cmp::Reverse(traffic(t)));
    report.wireguard.tunnels_left_out = tunnels.len().saturating_sub(TUNNELS_LISTED) as u64;
    tunnels.truncate(TUNNELS_LISTED);
    report.wireguard.tunnels = tunnels;
    report.captures = captures;
}

/// Adds what each of two places saw on the wire to `report`, each row with the name of its file.
pub fn add_places(report: &mut Report, worlds: [&World; 2], files: &[String; 2], captures: Vec<CaptureRow>) {
    let mut whole = super::Wireguard::default();
    let mut messages = MessageCounts::default();
    for (world, file) in worlds.into_iter().zip(files) {
        add(report, world, Vec::new());
        let mut part = std::mem::take(&mut report.wireguard);
        part.handshakes
            .iter_mut()
            .for_each(|row| row.capture = Some(file.clone()));
        part.tunnels
            .iter_mut()
            .for_each(|row| row.capture = Some(file.clone()));
        whole.handshakes.append(&mut part.handshakes);
        whole.tunnels.append(&mut part.tunnels);
        whole.handshakes_left_out += part.handshakes_left_out;
        whole.tunnels_left_out += part.tunnels_left_out;
        if let Some(counts) = part.messages {
            messages.initiation += counts.initiation;
            messages.response += counts.response;
            messages.cookie_reply += counts.cookie_reply;
            messages.data = Some(messages.data.unwrap_or(0) + counts.data.unwrap_or(0));
        }
    }
    whole.messages = Some(messages);
    report.wireguard = whole;
    report.captures = captures;
}

fn handshakes(world: &World) -> (Vec<HandshakeRow>, u64) {
    let ends = || world.handshakes.conversations().flat_map(|c| c.ends());
    let mut rows = Vec::new();
    for end in ends() {
        let attempts: Vec<_> = end.attempts().collect();
        for (n, attempt) in attempts.iter().enumerate() {
            // A retry says that the attempt before it is over, even if it had a little time left.
            let retried = attempts.get(n + 1).is_some_and(|next| next.try_number > 1);
            rows.push(handshake(attempt, attempt.outcome(world.now), retried));
        }
    }
    rows.sort_by_key(|row| (row.at, row.initiator));
    let surplus = rows.len().saturating_sub(HANDSHAKES_LISTED);
    rows.drain(..surplus);
    let forgotten: u64 = ends().map(|end| end.forgotten).sum();
    (rows, forgotten + surplus as u64)
}

fn handshake(attempt: &Attempt, outcome: Outcome, retried: bool) -> HandshakeRow {
    HandshakeRow {
        at: attempt.at,
        device: None,
        public_key: None,
        initiator: attempt.initiator,
        responder: attempt.responder,
        outcome: match outcome {
            Outcome::Pending if !retried => "pending",
            Outcome::Answered { .. } => "answered",
            Outcome::Pending | Outcome::Unanswered => "unanswered",
            Outcome::Cookie { .. } => "cookie",
            Outcome::Unreachable { .. } => "unreachable",
        },
        rtt: match outcome {
            Outcome::Answered { rtt } => Some(rtt),
            _ => None,
        },
        capture: None,
    }
}

fn tunnel(world: &World, tunnel: &Tunnel) -> TunnelRow {
    let sessions = &world.sessions;
    let side = |side: Side, address: SocketAddr| {
        let data = sessions.sent(tunnel, side);
        let lengths = sessions.lengths(tunnel, side);
        SideRow {
            address,
            data,
            longest_packet: (lengths.longest > 0).then_some(lengths.longest),
            mtu: lengths.mtu(),
        }
    };
    let [first, second] = tunnel.ends;
    let sides = [side(Side::First, first), side(Side::Second, second)];
    let last = [Side::First, Side::Second]
        .into_iter()
        .filter_map(|s| sessions.last_sent(tunnel, s))
        .max();
    TunnelRow {
        first_at: tunnel.first_at,
        last_at: last.unwrap_or(tunnel.last_at).max(tunnel.last_at),
        handshakes: tunnel.handshakes,
        without_handshake: tunnel.without_handshake,
        state: match (tunnel.handshakes, sides.iter().any(|s| s.data.messages > 0)) {
            (0, _) => "unknown",
            (_, true) => "established",
            (_, false) => "unused",
        },
        rekey_after: tunnel.rekeys.shortest.zip(tunnel.rekeys.longest),
        moves: tunnel.moves().len() as u64 + tunnel.moves_forgotten,
        also_seen_as: tunnel.aliases().map(|alias| alias.address).collect(),
        sides,
        capture: None,
    }
}

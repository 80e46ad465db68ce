//! What a capture file shows, in version 1.

use schemars::JsonSchema;
use serde::Serialize;

use super::time;
use crate::report::captured::{CaptureRow, SideRow, TunnelRow};

/// A capture file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Capture {
    /// As it was named.
    pub file: String,
    /// How far it was read, in bytes.
    pub bytes: u64,
    /// Packets that the capturing program says it lost; null where the file does not say.
    pub lost: Option<u64>,
    /// Where it is cut or damaged; null where it is whole.
    pub problem: Option<String>,
}

/// Two parties on the wire.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tunnel {
    /// When its first message passed.
    #[schemars(extend("format" = "date-time"))]
    pub first_at: String,
    /// When its last message passed.
    #[schemars(extend("format" = "date-time"))]
    pub last_at: String,
    /// `established`, `unused` (answered, and no data since) or `unknown` (it began before the capture).
    pub state: String,
    /// Handshakes that were answered.
    pub handshakes: u64,
    /// Sessions whose handshake the capture does not hold.
    pub sessions_without_handshake: u64,
    /// The shortest time between two handshakes, in seconds.
    pub rekey_shortest_seconds: Option<f64>,
    /// The longest time between two handshakes, in seconds.
    pub rekey_longest_seconds: Option<f64>,
    /// How often a side came from another address.
    pub moves: u64,
    /// Other addresses under which the same messages were seen: a translation within the capture's sight.
    pub also_seen_as: Vec<String>,
    /// The two sides, each as sender.
    pub sides: Vec<Side>,
    /// The capture file that shows it, where two were read as two places; else null.
    pub capture: Option<String>,
}

/// One side of a tunnel, as sender.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Side {
    /// Its outer address and port.
    pub address: String,
    /// Data messages, each counter once, keepalives included.
    pub messages: u64,
    /// Their UDP payloads in bytes.
    pub bytes: u64,
    /// Of the messages, those with nothing in them.
    pub keepalives: u64,
    /// Messages that it sent and that did not come as far as the capture, by their counters.
    pub lost: u64,
    /// Messages that came after a later one.
    pub reordered: u64,
    /// Messages seen again.
    pub duplicates: u64,
    /// The longest inner packet in bytes, padding included.
    pub longest_packet: Option<u32>,
    /// Its tunnel MTU in bytes, where its packets prove it.
    pub mtu: Option<u32>,
}

pub(super) fn capture(c: &CaptureRow) -> Capture {
    Capture {
        file: c.file.clone(),
        bytes: c.bytes,
        lost: c.lost,
        problem: c.problem.clone(),
    }
}

pub(super) fn tunnel(t: &TunnelRow) -> Tunnel {
    Tunnel {
        first_at: time(t.first_at),
        last_at: time(t.last_at),
        state: t.state.to_owned(),
        handshakes: t.handshakes,
        sessions_without_handshake: t.without_handshake,
        rekey_shortest_seconds: t.rekey_after.map(|(shortest, _)| shortest.as_secs_f64()),
        rekey_longest_seconds: t.rekey_after.map(|(_, longest)| longest.as_secs_f64()),
        moves: t.moves,
        also_seen_as: t.also_seen_as.iter().map(ToString::to_string).collect(),
        sides: t.sides.iter().map(side).collect(),
        capture: t.capture.clone(),
    }
}

fn side(s: &SideRow) -> Side {
    Side {
        address: s.address.to_string(),
        messages: s.data.messages,
        bytes: s.data.bytes,
        keepalives: s.data.keepalives,
        lost: s.data.lost,
        reordered: s.data.reordered,
        duplicates: s.data.duplicates,
        longest_packet: s.longest_packet,
        mtu: s.mtu,
    }
}

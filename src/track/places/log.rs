//! What passed one place, kept so that it can be compared with what passed another.
//!
//! In: messages in the order in which they were seen. Out: [`PlaceLog`]. Bounded: of a large capture's data only every
//! 2^n-th counter is kept, n as large as it must be; since that is by the message's own counter, the other place keeps the
//! same ones, and what is missing there is missing.

use std::net::SocketAddr;

use hashbrown::HashMap;

use crate::observation::packet::{Direction, WirePacket};
use crate::time::Timestamp;
use crate::types::SessionIndex;
use crate::wire::wireguard::Message;

/// Data messages that are kept of one place (24 bytes each).
pub const KEPT: usize = 1 << 17;
/// Directions of sessions that are followed at one place; further ones are counted.
pub const STREAMS_KEPT: usize = 4096;
/// Handshake messages that are kept of one place, of each kind; further ones are counted.
const HANDSHAKES_KEPT: usize = 1 << 15;
/// Ways (pairs of addresses) that are kept of one direction of a session; further ones are left out.
const WAYS_KEPT: usize = 16;

/// An initiation, told from every other: its index and the first half of its mac1.
pub(super) type InitiationKey = (SessionIndex, [u8; 8]);
/// A response: the initiator's index and the responder's.
pub(super) type ResponseKey = (SessionIndex, SessionIndex);

/// Where and when a message passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub at: Timestamp,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub direction: Direction,
}

/// A data message that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub counter: u64,
    pub at: Timestamp,
    pub len: u16,
}

/// Two addresses that messages of one stream went between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub direction: Direction,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    pub first_counter: u64,
    /// How long nothing of the stream had passed before the first.
    pub silence: Option<crate::time::Span>,
}

/// One direction of a session, by the index that its messages carry.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamLog {
    pub ways: Vec<Way>,
    pub samples: Vec<Sample>,
    last_at: Option<Timestamp>,
}

/// What passed one place.
#[derive(Clone, Debug, Default)]
pub struct PlaceLog {
    /// When the first and the last packet of any kind passed: between the two, what was not seen was not there.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Of each stream the counters that are multiples of 2^power are kept.
    pub(super) power: u32,
    pub(super) initiations: HashMap<InitiationKey, Sighting>,
    pub(super) responses: HashMap<ResponseKey, Sighting>,
    pub(super) streams: HashMap<u32, StreamLog>,
    kept: usize,
    /// Handshake messages and streams beyond those kept.
    pub left_out: u64,
}

impl PlaceLog {
    /// Notes that something passed, whatever it was.
    #[inline]
    pub fn passed(&mut self, at: Timestamp) {
        let (first, last) = self.span.get_or_insert((at, at));
        *first = at.min(*first);
        *last = at.max(*last);
    }

    /// Only every so many-th counter of each session was looked at.
    pub fn sampled(&mut self, one_in: u32) {
        let power = one_in.max(1).ilog2();
        if power > self.power {
            self.power = power;
            self.drop_unsampled();
        }
    }

    /// Takes a message in.
    pub fn packet(&mut self, at: Timestamp, packet: &WirePacket) {
        let seen = Sighting {
            at,
            source: packet.source,
            destination: packet.destination,
            direction: packet.direction,
        };
        match Message::parse(&packet.payload.0, packet.payload_len) {
            Some(Message::Initiation(message)) => {
                let [a, b, c, d, e, f, g, h, ..] = *message.mac1;
                let key = (message.sender, [a, b, c, d, e, f, g, h]);
                keep(&mut self.initiations, key, seen, &mut self.left_out);
            }
            Some(Message::Response(message)) => {
                let key = (message.receiver, message.sender);
                keep(&mut self.responses, key, seen, &mut self.left_out);
            }
            Some(Message::Data(message)) => {
                self.data(&seen, (message.receiver.0, message.counter, message.len))
            }
            _ => {}
        }
    }

    /// Takes a data message's clear part in.
    pub fn data_message(&mut self, m: &crate::track::sessions::DataMessage, direction: Direction) {
        let seen = Sighting {
            at: m.at,
            source: m.source,
            destination: m.destination,
            direction,
        };
        self.data(&seen, (m.receiver.0, m.counter, m.len));
    }

    fn data(&mut self, seen: &Sighting, (index, counter, len): (u32, u64, u32)) {
        if !self.streams.contains_key(&index) && self.streams.len() >= STREAMS_KEPT {
            self.left_out += 1;
            return;
        }
        let stream = self.streams.entry(index).or_default();
        stream.way(seen, counter);
        stream.last_at = Some(seen.at);
        if counter & mask(self.power) != 0 {
            return;
        }
        stream.samples.push(Sample {
            counter,
            at: seen.at,
            len: u16::try_from(len).unwrap_or(u16::MAX),
        });
        self.kept += 1;
        if self.kept > KEPT {
            self.thin_out();
        }
    }

    /// Keeps every second of what is kept.
    fn thin_out(&mut self) {
        while self.kept > KEPT / 2 && self.power < 63 {
            self.power += 1;
            self.drop_unsampled();
        }
    }

    fn drop_unsampled(&mut self) {
        let mask = mask(self.power);
        for stream in self.streams.values_mut() {
            stream.samples.retain(|s| s.counter & mask == 0);
        }
        self.kept = self.streams.values().map(|s| s.samples.len()).sum();
    }
}

/// The bits of a counter that are zero in every 2^`power`-th.
pub(super) fn mask(power: u32) -> u64 {
    (1u64 << power.min(63)) - 1
}

fn keep<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Sighting>, key: K, seen: Sighting, left_out: &mut u64) {
    if map.len() < HANDSHAKES_KEPT {
        // The first sighting counts: on a host that forwards, the one before translation.
        map.entry(key).or_insert(seen);
    } else if !map.contains_key(&key) {
        *left_out += 1;
    }
}

impl StreamLog {
    fn way(&mut self, seen: &Sighting, counter: u64) {
        let is_it = |way: &&mut Way| (way.source, way.destination) == (seen.source, seen.destination);
        if let Some(way) = self.ways.iter_mut().rev().find(is_it) {
            way.last_at = seen.at;
            return;
        }
        if self.ways.len() < WAYS_KEPT {
            self.ways.push(Way {
                source: seen.source,
                destination: seen.destination,
                direction: seen.direction,
                first_at: seen.at,
                last_at: seen.at,
                first_counter: counter,
                silence: self.last_at.map(|last| seen.at - last),
            });
        }
    }
}

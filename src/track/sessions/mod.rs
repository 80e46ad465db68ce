//! Sessions by index: loss, order and silence from the clear counters, and who moved where.
//!
//! In: handshake responses and data messages in the order in which they were seen, whole or cut to their clear
//! headers. Out: tunnels (two parties), their live sessions, and what those that are over have left. Nothing is
//! decrypted: an index is chosen by its receiver, so data that carries it continues that session wherever it comes
//! from. Pure; bounded whatever arrives, with what was dropped counted.

mod answers;
mod begin;
mod candidates;
mod contest;
mod follow;
mod room;
mod stream;
mod tunnel;
mod window;

use std::net::SocketAddr;

use hashbrown::HashMap;

pub use answers::{Answers, Run};
pub use begin::Established;
pub use stream::{DataCounts, Lengths, Stream};
pub use tunnel::{Alias, MOVES_KEPT, Move, Proof, Rekeys, Rivalry, Side, Tunnel};
pub use window::WINDOW;

use crate::observation::packet::WirePacket;
use crate::time::Timestamp;
use crate::types::SessionIndex;
use crate::wire::wireguard::Message;
use window::Mark;

/// Sessions that are kept at a time; each has two windows of 1 KiB at most.
pub const SESSIONS_KEPT: usize = 4096;
/// Tunnels that are kept.
pub const TUNNELS_KEPT: usize = 4096;

/// A data message's clear part, and where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataMessage {
    /// When.
    pub at: Timestamp,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// The receiver's index.
    pub receiver: SessionIndex,
    /// Its counter.
    pub counter: u64,
    /// The UDP payload's length on the wire, in bytes.
    pub len: u32,
}

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// In which tunnel ([`Sessions::tunnel`]).
    pub tunnel: usize,
    /// Which side initiated it; for a session from before the capture, which side was heard first.
    pub initiator: Side,
    /// When its response passed; `None` where its handshake was not seen.
    pub began: Option<Timestamp>,
    /// What the initiator sent, and what the responder sent.
    pub streams: [Stream; 2],
}

impl Session {
    /// What `side` sent under it.
    pub fn sent_by(&self, side: Side) -> &Stream {
        let [by_initiator, by_responder] = &self.streams;
        if side == self.initiator {
            by_initiator
        } else {
            by_responder
        }
    }

    fn sent_by_mut(&mut self, side: Side) -> &mut Stream {
        let [by_initiator, by_responder] = &mut self.streams;
        if side == self.initiator {
            by_initiator
        } else {
            by_responder
        }
    }
}

/// Everything seen of sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    /// A session's two streams are found as `2 * slot` and `2 * slot + 1`.
    slots: Vec<Option<Session>>,
    free: Vec<usize>,
    tunnels: Vec<Tunnel>,
    by_pair: HashMap<(SocketAddr, SocketAddr), usize>,
    /// The first stream with an index; further ones hang on its `next`.
    by_index: HashMap<u32, u32>,
    /// Pairs of addresses without sessions that a party of this tunnel has sent to under one of its sessions.
    expected: HashMap<(SocketAddr, SocketAddr), usize>,
    candidates: candidates::Candidates,
    contests: Vec<contest::Contest>,
    /// Addresses whose owner looks for ways by a protocol of its own, and so moves on purpose.
    seekers: std::collections::BTreeSet<SocketAddr>,
    /// Where the last messages belonged, by the low bits of their index.
    recent: [u32; 16],
    /// Sessions that were dropped while they may have been live.
    pub dropped_sessions: u64,
    /// Tunnels that were dropped, those quiet for longest first.
    pub dropped_tunnels: u64,
    /// Data of known sessions that has been counted, second sightings too.
    pub data: u64,
    /// Datagrams with the shape of data that belong to no session: either too few to tell, or something else.
    pub unconfirmed: u64,
}

impl Sessions {
    /// Takes a message in: responses begin sessions, data belongs to them.
    pub fn apply_packet(&mut self, at: Timestamp, packet: &WirePacket) {
        match Message::parse(&packet.payload.0, packet.payload_len) {
            Some(Message::Response(response)) => self.response(&Established {
                at,
                initiator: packet.destination,
                responder: packet.source,
                initiator_index: response.receiver,
                responder_index: response.sender,
            }),
            Some(Message::Data(data)) => {
                self.data(&DataMessage {
                    at,
                    source: packet.source,
                    destination: packet.destination,
                    receiver: data.receiver,
                    counter: data.counter,
                    len: data.len,
                });
            }
            _ => {}
        }
    }

    /// Takes a data message in. Says whether it belongs to a session.
    #[inline]
    pub fn data(&mut self, m: &DataMessage) -> bool {
        let cached = self.recent[(m.receiver.0 & 15) as usize];
        if self.is_exact(cached, m) {
            self.note_exact(cached, m);
            return true;
        }
        self.data_by_index(m)
    }

    /// Every tunnel, in the order in which they were first seen.
    pub fn tunnels(&self) -> &[Tunnel] {
        &self.tunnels
    }

    /// The tunnel of a number as [`Session::tunnel`] has it.
    pub fn tunnel(&self, number: usize) -> Option<&Tunnel> {
        self.tunnels.get(number)
    }

    /// Notes that whoever is at `address` looks for ways by a protocol of its own (Tailscale's disco): then its moves are
    /// meant.
    pub fn finds_its_own_way(&mut self, address: SocketAddr) {
        if self.seekers.len() < TUNNELS_KEPT {
            self.seekers.insert(address);
        }
    }

    /// Whether one of a tunnel's ends, or where it was, moves on purpose.
    pub fn moves_on_purpose(&self, tunnel: &Tunnel) -> bool {
        let places = tunnel.moves().flat_map(|m| [m.from, m.to]);
        !self.seekers.is_empty()
            && tunnel
                .ends
                .into_iter()
                .chain(places)
                .any(|a| self.seekers.contains(&a))
    }

    /// The tunnel that was last seen between two addresses.
    pub fn between(&self, a: SocketAddr, b: SocketAddr) -> Option<&Tunnel> {
        self.tunnels.get(*self.by_pair.get(&pair(a, b))?)
    }

    /// Whether a live session's data carries this index.
    pub fn knows(&self, index: SessionIndex) -> bool {
        self.by_index.contains_key(&index.0)
    }

    /// Live sessions of a tunnel, oldest first.
    pub fn live(&self, tunnel: &Tunnel) -> impl Iterator<Item = &Session> {
        tunnel
            .live
            .iter()
            .filter_map(|slot| self.slots.get(*slot)?.as_ref())
    }

    /// All data that `side` sent in `tunnel`.
    pub fn sent(&self, tunnel: &Tunnel, side: Side) -> DataCounts {
        self.live(tunnel).fold(*side.of(&tunnel.past), |sum, s| {
            sum.plus(s.sent_by(side).counts())
        })
    }

    /// What lengths say about `side`'s device.
    pub fn lengths(&self, tunnel: &Tunnel, side: Side) -> Lengths {
        self.live(tunnel).fold(*side.of(&tunnel.lengths), |sum, s| {
            sum.plus(s.sent_by(side).lengths)
        })
    }

    /// What became of all that `side` sent in `tunnel`.
    pub fn answers(&self, tunnel: &Tunnel, side: Side) -> Answers {
        let heard = self.last_sent(tunnel, side.other());
        let past = side.of(&tunnel.answers).settled(heard);
        self.live(tunnel)
            .fold(past, |sum, s| sum.plus(s.sent_by(side).answers.settled(heard)))
    }

    /// The tunnel with one end at `remote` and the other at this port, on whatever address; of several the one that was
    /// active last.
    pub fn with(&self, local_port: u16, remote: SocketAddr) -> Option<(&Tunnel, Side)> {
        let fits = |t: &&Tunnel| {
            let local = t.side_at(remote).map(|side| side.other().of(&t.ends).port());
            local == Some(local_port)
        };
        let active = |t: &&Tunnel| {
            let sent = [Side::First, Side::Second].map(|side| self.last_sent(t, side));
            sent.into_iter().flatten().max().max(Some(t.last_at))
        };
        let tunnel = self.tunnels.iter().filter(fits).max_by_key(active)?;
        Some((tunnel, tunnel.side_at(remote)?.other()))
    }

    /// When `side` last sent something in `tunnel` that is no keepalive, by its live sessions.
    pub fn last_payload(&self, tunnel: &Tunnel, side: Side) -> Option<Timestamp> {
        self.live(tunnel)
            .filter_map(|s| s.sent_by(side).last_payload_at)
            .max()
    }

    /// When `side` last sent data in `tunnel`, by its live sessions.
    pub fn last_sent(&self, tunnel: &Tunnel, side: Side) -> Option<Timestamp> {
        self.live(tunnel).filter_map(|s| s.sent_by(side).last_at).max()
    }

    #[inline]
    fn stream(&self, id: u32) -> Option<&Stream> {
        let [a, b] = &self.slots.get((id >> 1) as usize)?.as_ref()?.streams;
        Some(if id & 1 == 0 { a } else { b })
    }

    #[inline]
    fn stream_mut(&mut self, id: u32) -> Option<&mut Stream> {
        let [a, b] = &mut self.slots.get_mut((id >> 1) as usize)?.as_mut()?.streams;
        Some(if id & 1 == 0 { a } else { b })
    }

    #[inline]
    fn is_exact(&self, id: u32, m: &DataMessage) -> bool {
        self.stream(id).is_some_and(|s| {
            s.index == Some(m.receiver) && s.source == m.source && s.destination == m.destination
        })
    }

    /// Notes a message of the stream `id`: what its counter is to it, and whether who sends is followed closely.
    #[inline]
    fn note(&mut self, id: u32, m: &DataMessage) -> Option<(Mark, bool)> {
        self.data += 1;
        let [a, b] = &mut self.slots.get_mut((id >> 1) as usize)?.as_mut()?.streams;
        let (stream, other) = if id & 1 == 0 { (a, b) } else { (b, a) };
        let mark = stream.note(m.at, m.counter, m.len, other.last_at);
        Some((mark, stream.contested))
    }

    #[inline]
    fn note_exact(&mut self, id: u32, m: &DataMessage) {
        let Some((mark, contested)) = self.note(id, m) else {
            return;
        };
        if mark == Mark::Duplicate {
            self.seen_again(id);
        }
        if contested {
            self.turn(id, m);
        }
    }

    fn data_by_index(&mut self, m: &DataMessage) -> bool {
        let mut moved = None;
        let mut next = self.by_index.get(&m.receiver.0).copied();
        while let Some(id) = next {
            let Some(stream) = self.stream(id) else { break };
            if stream.source == m.source && stream.destination == m.destination {
                self.recent[(m.receiver.0 & 15) as usize] = id;
                self.note_exact(id, m);
                return true;
            }
            // With neither address the same it may be a stranger's session: indices are unique per receiver only.
            let one = stream.source == m.source || stream.destination == m.destination;
            if one && moved.is_none() && follow::goes_on(stream, m.counter) {
                moved = Some(id);
            }
            next = stream.next;
        }
        match moved {
            Some(id) => {
                self.follow(id, m);
                true
            }
            None => self.stranger(m),
        }
    }

    /// A message of no known session.
    fn stranger(&mut self, m: &DataMessage) -> bool {
        let way = (m.source, m.destination);
        let Some(candidate) = self.candidates.note(m.at, way, (m.receiver.0, m.counter, m.len)) else {
            self.unconfirmed += 1;
            return false;
        };
        // Those before this one were counted as unconfirmed.
        self.unconfirmed = self.unconfirmed.saturating_sub(u64::from(candidates::ENOUGH) - 1);
        self.begin_without_handshake(&candidate);
        true
    }
}

/// Two addresses in one order.
fn pair(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    if a <= b { (a, b) } else { (b, a) }
}

#[cfg(test)]
mod tests;

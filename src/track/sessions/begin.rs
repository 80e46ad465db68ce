//! How sessions begin: with a response, or in the middle where the capture missed it.

use std::net::SocketAddr;

use super::candidates::Candidate;
use super::tunnel::{LIVE_KEPT, Side, Tunnel};
use super::{Session, Sessions, pair};
use crate::time::{Span, Timestamp};
use crate::types::SessionIndex;
use crate::wire::wireguard::{REKEY_AFTER_TIME, REKEY_TIMEOUT};

use super::stream::Stream;

/// A handshake response and the addresses that it went between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Established {
    /// When it passed.
    pub at: Timestamp,
    /// To whom it went.
    pub initiator: SocketAddr,
    /// From whom it came.
    pub responder: SocketAddr,
    /// The index that the initiator chose: the responder's data carries it.
    pub initiator_index: SessionIndex,
    /// The index that the responder chose.
    pub responder_index: SessionIndex,
}

impl Sessions {
    /// Takes a handshake response in: from now on there may be data.
    pub fn response(&mut self, e: &Established) {
        if let Some(known) = self.same_handshake(e) {
            return self.seen_elsewhere(known, e);
        }
        let number = self.tunnel_between(e.initiator, e.responder, e.at);
        let Some(tunnel) = self.tunnels.get_mut(number) else {
            return;
        };
        let initiator = tunnel.side_at(e.initiator).unwrap_or(Side::First);
        tunnel.handshakes += 1;
        tunnel.last_at = tunnel.last_at.max(e.at);
        if let Some(before) = tunnel.newest_began.replace(e.at) {
            let after = e.at - before;
            tunnel
                .rekeys
                .note(after, after + REKEY_TIMEOUT < REKEY_AFTER_TIME);
        }
        let streams = [
            Stream::new(Some(e.responder_index), e.initiator, e.responder, true),
            Stream::new(Some(e.initiator_index), e.responder, e.initiator, true),
        ];
        self.add(Session {
            tunnel: number,
            initiator,
            began: Some(e.at),
            streams,
        });
        self.check_rivals(number);
    }

    /// A stream that proved itself without a handshake. If the tunnel has a session with only the other direction
    /// known, it is that one's.
    pub(super) fn begin_without_handshake(&mut self, c: &Candidate) {
        let [(first_at, ..), ..] = c.seen;
        let number = self.tunnel_between(c.source, c.destination, first_at);
        let Some(tunnel) = self.tunnels.get_mut(number) else {
            return;
        };
        let side = tunnel.side_at(c.source).unwrap_or(Side::First);
        let index = Some(SessionIndex(c.index));
        let half = tunnel.live.iter().rev().copied().find(|slot| {
            let session = self.slots.get(*slot).and_then(Option::as_ref);
            session.is_some_and(|s| s.began.is_none() && s.sent_by(side).index.is_none())
        });
        let slot = match half {
            Some(slot) => {
                if let Some(session) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                    *session.sent_by_mut(side) = Stream::new(index, c.source, c.destination, false);
                }
                Some(slot)
            }
            None => {
                tunnel.without_handshake += 1;
                let streams = [
                    Stream::new(index, c.source, c.destination, false),
                    Stream::new(None, c.destination, c.source, false),
                ];
                self.add(Session {
                    tunnel: number,
                    initiator: side,
                    began: None,
                    streams,
                })
            }
        };
        let Some(slot) = slot else { return };
        if half.is_some() {
            self.index(slot);
        }
        let id = self
            .slots
            .get(slot)
            .and_then(Option::as_ref)
            .map(|s| stream_id(slot, side != s.initiator));
        let Some(id) = id.flatten() else { return };
        self.data += c.seen.len() as u64;
        if let Some(stream) = self.stream_mut(id) {
            for (at, counter, len) in c.seen {
                stream.note(at, counter, len, None);
            }
        }
    }

    /// The session of this very handshake, where it was seen before.
    fn same_handshake(&self, e: &Established) -> Option<usize> {
        let mut next = self.by_index.get(&e.initiator_index.0).copied();
        while let Some(id) = next {
            let slot = (id >> 1) as usize;
            let session = self.slots.get(slot)?.as_ref()?;
            let [by_initiator, by_responder] = &session.streams;
            if by_initiator.index == Some(e.responder_index) && by_responder.index == Some(e.initiator_index)
            {
                return Some(slot);
            }
            next = self.stream(id)?.next;
        }
        None
    }

    /// The same response on another interface; with other addresses where one translates.
    fn seen_elsewhere(&mut self, slot: usize, e: &Established) {
        let number = self.slots.get(slot).and_then(Option::as_ref).map(|s| s.tunnel);
        if let Some(tunnel) = number.and_then(|n| self.tunnels.get_mut(n)) {
            tunnel.add_alias(e.initiator, e.at, None);
            tunnel.add_alias(e.responder, e.at, None);
        }
    }

    /// The tunnel between two addresses, begun now where there is none.
    pub(super) fn tunnel_between(&mut self, a: SocketAddr, b: SocketAddr, at: Timestamp) -> usize {
        if let Some(known) = self.by_pair.get(&pair(a, b)) {
            return *known;
        }
        self.room_for_a_tunnel();
        self.tunnels.push(Tunnel::new([a, b], at));
        let number = self.tunnels.len() - 1;
        self.by_pair.insert(pair(a, b), number);
        self.expected_tunnel(number, pair(a, b));
        number
    }

    /// Keeps a session; where its tunnel has too many, one that is over makes room.
    fn add(&mut self, session: Session) -> Option<usize> {
        self.room_for_a_session();
        let number = session.tunnel;
        let slot = match self.free.pop() {
            Some(slot) => {
                *self.slots.get_mut(slot)? = Some(session);
                slot
            }
            None => {
                self.slots.push(Some(session));
                self.slots.len() - 1
            }
        };
        self.index(slot);
        let tunnel = self.tunnels.get_mut(number)?;
        tunnel.live.push(slot);
        let (full, contested) = (tunnel.live.len() > LIVE_KEPT, !tunnel.kin.is_empty());
        if contested {
            self.contest(number);
        }
        if full {
            let oldest = self.oldest_of(number);
            self.retire(oldest);
        }
        Some(slot)
    }

    /// Of a tunnel's live sessions the one to give up: never the newest; one without data first.
    fn oldest_of(&self, tunnel: usize) -> usize {
        let live = self.tunnels.get(tunnel).map_or(&[][..], |t| &t.live);
        let older = live.split_last().map_or(&[][..], |(_, older)| older);
        let is_unused = |slot: &&usize| {
            let session = self.slots.get(**slot).and_then(Option::as_ref);
            session.is_some_and(|s| s.streams.iter().all(|s| s.last_at.is_none()))
        };
        older
            .iter()
            .find(is_unused)
            .or(older.first())
            .copied()
            .unwrap_or(usize::MAX)
    }
}

/// The number of one of a slot's streams.
pub(super) fn stream_id(slot: usize, second: bool) -> Option<u32> {
    u32::try_from(slot)
        .ok()?
        .checked_mul(2)?
        .checked_add(u32::from(second))
}

/// How far apart two hosts' data must be to be no mere reordering on the way.
pub(super) const REORDER_SLACK: Span = Span::from_secs(2);

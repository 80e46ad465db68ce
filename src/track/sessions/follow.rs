//! Data of a known session from or to another address: a move, a translation within sight, or two hosts with one key.

use std::net::SocketAddr;

use super::begin::REORDER_SLACK;
use super::stream::Stream;
use super::tunnel::{KIN_KEPT, Move, Pending, Proof, Rivalry, Side};
use super::window::{Mark, WINDOW};
use super::{DataMessage, Session, Sessions, TUNNELS_KEPT, pair};
use crate::time::{Span, Timestamp};

/// How long data to the old address may still be under way, or sent before the other side has heard of the move.
const IN_FLIGHT: Span = Span::from_secs(15);
/// Two sightings of one message as it passes through this host lie no further apart.
const AT_ONCE: Span = Span::from_secs(1);

/// Whether a counter can be this stream's: not far from where it is. Indices may collide (boringtun counts them up).
pub(super) fn goes_on(stream: &Stream, counter: u64) -> bool {
    match stream.highest() {
        Some(highest) => counter.abs_diff(highest) < WINDOW,
        None => counter < WINDOW,
    }
}

/// Whether a session is older than one that began at `began`; without its handshake, its data from before proves it.
fn is_older(session: &Session, began: Timestamp) -> bool {
    let first = session.streams.iter().filter_map(|s| s.first_at).min();
    session.began.or(first).is_some_and(|at| at < began)
}

impl Sessions {
    /// Takes in a message of stream `id` that has another source or another destination.
    pub(super) fn follow(&mut self, id: u32, m: &DataMessage) {
        let Some(session) = self.slots.get((id >> 1) as usize).and_then(Option::as_ref) else {
            return;
        };
        let number = session.tunnel;
        let sender = if id & 1 == 0 {
            session.initiator
        } else {
            session.initiator.other()
        };
        let Some(tunnel) = self.tunnels.get(number) else {
            return;
        };
        let heard = [Side::First, Side::Second].map(|side| self.last_sent(tunnel, side));
        let Some(stream) = self.stream(id) else { return };
        let source_moved = stream.source != m.source;
        // Of a second sighting the first has ended the silence already.
        let (gap, last_at) = (stream.gap, stream.last_at);
        let mark = self.note(id, m).map(|(mark, _)| mark);
        let other = if source_moved { m.source } else { m.destination };
        let Some(tunnel) = self.tunnels.get_mut(number) else {
            return;
        };
        // The same message again under another address: both sides of a translation are in sight.
        if mark == Some(Mark::Duplicate) {
            tunnel.pending = tunnel
                .pending
                .filter(|p| p.to != other && Some(p.to) != Some(m.source));
            // A sender's silence is what its own translation forgets by; the receiver's is not known here.
            let silence = (source_moved && last_at.is_some_and(|last| m.at - last < AT_ONCE)).then_some(gap);
            let seen_as = if source_moved { m.source } else { m.destination };
            tunnel.add_alias(seen_as, m.at, silence);
            return;
        }
        if tunnel.is_alias(other) {
            return;
        }
        let side = if source_moved { sender } else { sender.other() };
        if let Some((old, moved_at)) = *side.of(&tunnel.before)
            && old == other
            && (!source_moved || mark == Some(Mark::Late))
        {
            tunnel.to_old_address += u64::from(!source_moved && m.at - moved_at > IN_FLIGHT);
            return;
        }
        if !source_moved {
            return self.sent_elsewhere(id, number, m);
        }
        let silence = side.of(&heard).map_or(Span::ZERO, |last| m.at - last);
        let quiet = heard
            .into_iter()
            .flatten()
            .max()
            .map_or(Span::ZERO, |last| m.at - last);
        self.moving(
            number,
            Pending {
                at: m.at,
                side,
                to: other,
                silence,
                quiet,
            },
        );
    }

    /// A message was seen again at the known address: had it just been seen at another, both are one party in sight
    /// of a translation.
    pub(super) fn seen_again(&mut self, id: u32) {
        let number = self
            .slots
            .get((id >> 1) as usize)
            .and_then(Option::as_ref)
            .map(|s| s.tunnel);
        if let Some(tunnel) = number.and_then(|n| self.tunnels.get_mut(n))
            && let Some(pending) = tunnel.pending.take()
        {
            tunnel.add_alias(pending.to, pending.at, Some(pending.silence));
        }
    }

    /// A first message may be half of a pair of sightings, so it takes a second one to be a move.
    fn moving(&mut self, number: usize, now: Pending) {
        let Some(tunnel) = self.tunnels.get_mut(number) else {
            return;
        };
        match tunnel.pending.filter(|p| (p.side, p.to) == (now.side, now.to)) {
            None => tunnel.pending = Some(now),
            Some(first) => self.move_side(number, first),
        }
    }

    fn move_side(&mut self, number: usize, p: Pending) {
        let Some(tunnel) = self.tunnels.get_mut(number) else {
            return;
        };
        let from = std::mem::replace(p.side.of_mut(&mut tunnel.ends), p.to);
        *p.side.of_mut(&mut tunnel.before) = Some((from, p.at));
        tunnel.pending = None;
        let (side, to) = (p.side, p.to);
        tunnel.add_move(Move {
            at: p.at,
            side,
            from,
            to,
            silence: p.silence,
            quiet: p.quiet,
            proof: Proof::SameSession,
        });
        for slot in tunnel.live.clone() {
            let Some(session) = self.slots.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            session.sent_by_mut(side).source = to;
            session.sent_by_mut(side.other()).destination = to;
        }
        self.enter(number);
    }

    /// Data under a known session went to an address that this session is not known at. To its sender both addresses are
    /// one party; whether that moved or is two hosts shows in what comes from there: data of this session, or of another.
    fn sent_elsewhere(&mut self, id: u32, number: usize, m: &DataMessage) {
        let way = pair(m.source, m.destination);
        match self.by_pair.get(&way).copied() {
            Some(kin) if kin != number => self.link(id, number, kin, m),
            _ => {
                if let Some(stream) = self.stream_mut(id) {
                    stream.destination = m.destination;
                }
                if self.expected.len() >= TUNNELS_KEPT {
                    self.expected.clear();
                }
                self.expected.insert(way, number);
            }
        }
    }

    /// A tunnel began between addresses that one of another tunnel's parties had already sent to.
    pub(super) fn expected_tunnel(&mut self, number: usize, way: (SocketAddr, SocketAddr)) {
        if let Some(kin) = self.expected.remove(&way).filter(|kin| *kin != number) {
            self.make_kin(number, kin);
        }
    }

    /// Notes that two tunnels are of the same parties. Says whether that is new.
    fn make_kin(&mut self, number: usize, kin: usize) -> bool {
        let mut is_new = false;
        self.begin_contest(number, kin);
        for (one, other) in [(number, kin), (kin, number)] {
            let Some(tunnel) = self.tunnels.get_mut(one) else {
                return false;
            };
            if !tunnel.kin.contains(&other) && tunnel.kin.len() < KIN_KEPT {
                tunnel.kin.push(other);
                is_new = true;
            }
        }
        self.contest(number);
        self.contest(kin);
        is_new
    }

    /// Data under a session of tunnel `number` went to an address that has sessions of its own in tunnel `kin`: to its
    /// sender both are one party.
    fn link(&mut self, id: u32, number: usize, kin: usize, m: &DataMessage) {
        if let Some(stream) = self.stream_mut(id) {
            stream.destination = m.destination;
        }
        let is_new = self.make_kin(number, kin);
        self.check_rivals(number);
        if is_new {
            self.note_link_as_move(number, kin, m);
        }
    }

    /// The party behind both was at one tunnel's address and then made a handshake from the other's.
    fn note_link_as_move(&mut self, number: usize, kin: usize, m: &DataMessage) {
        let (Some(one), Some(other)) = (self.tunnels.get(number), self.tunnels.get(kin)) else {
            return;
        };
        let (old, new) = if one.first_at <= other.first_at {
            (one, other)
        } else {
            (other, one)
        };
        let (Some(old_side), Some(new_side)) = (
            old.side_at(m.source).map(Side::other),
            new.side_at(m.source).map(Side::other),
        ) else {
            return;
        };
        let (from, to) = (*old_side.of(&old.ends), *new_side.of(&new.ends));
        let before = |at: &Timestamp| *at < new.first_at;
        let heard = self.last_sent(old, old_side).filter(before);
        let any = [old_side, old_side.other()]
            .into_iter()
            .filter_map(|s| self.last_sent(old, s))
            .filter(before)
            .max();
        let silence = heard.map_or(Span::ZERO, |last| new.first_at - last);
        let quiet = any.map_or(Span::ZERO, |last| new.first_at - last);
        let proof = Proof::OtherSideFollowed;
        let moved = Move {
            at: new.first_at,
            side: new_side,
            from,
            to,
            silence,
            quiet,
            proof,
        };
        let number = if one.first_at <= other.first_at {
            kin
        } else {
            number
        };
        if let Some(tunnel) = self.tunnels.get_mut(number) {
            tunnel.add_move(moved);
        }
    }

    /// Looks whether two hosts use one key: see [`Rivalry`].
    pub(super) fn check_rivals(&mut self, number: usize) {
        let Some(tunnel) = self.tunnels.get(number) else {
            return;
        };
        let found: Vec<(usize, Rivalry)> = tunnel
            .kin
            .iter()
            .flat_map(|kin| [(number, *kin), (*kin, number)])
            .filter_map(|(old, new)| Some((old, self.rivalry(old, new)?)))
            .collect();
        for (number, rivalry) in found {
            self.note_rivalry(number, rivalry);
        }
    }

    pub(super) fn note_rivalry(&mut self, number: usize, rivalry: Rivalry) {
        let Some(tunnel) = self.tunnels.get_mut(number) else {
            return;
        };
        match &mut tunnel.rivalry {
            Some(known) if known.last_at < rivalry.last_at => {
                known.count += 1;
                known.last_at = rivalry.last_at;
            }
            Some(_) => {}
            none => *none = Some(rivalry),
        }
    }

    /// Whether the moving party's end of `old` went on with an older session after that of `new` used a newer one.
    fn rivalry(&self, old: usize, new: usize) -> Option<Rivalry> {
        let (one, two) = (self.tunnels.get(old)?, self.tunnels.get(new)?);
        let with = one.ends.into_iter().find(|end| two.side_at(*end).is_some())?;
        let (old_side, new_side) = (one.side_at(with)?.other(), two.side_at(with)?.other());
        let hosts: [SocketAddr; 2] = [*old_side.of(&one.ends), *new_side.of(&two.ends)];
        let newer = self.live(two).filter_map(|s| {
            let began = s.began?;
            let first = s.sent_by(new_side).first_at?;
            Some((began, first))
        });
        newer
            .filter_map(|(began, first)| {
                self.live(one)
                    .filter(|s| is_older(s, began))
                    .filter_map(|s| s.sent_by(old_side).last_at)
                    .filter(|last| *last > first + REORDER_SLACK)
                    .max()
            })
            .max()
            .map(|at| Rivalry {
                first_at: at,
                last_at: at,
                hosts,
                with,
                count: 1,
            })
    }

    /// Settles what only the end of the capture settles.
    pub fn finish(&mut self) {
        for number in 0..self.tunnels.len() {
            self.check_rivals(number);
        }
    }
}

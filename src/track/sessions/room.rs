//! Ends: sessions that are over, and what gives way when room is short.

use super::begin::stream_id;
use super::{SESSIONS_KEPT, Sessions, Side, TUNNELS_KEPT, pair};

impl Sessions {
    /// Enters a slot's streams by their index.
    pub(super) fn index(&mut self, slot: usize) {
        for second in [false, true] {
            let Some(id) = stream_id(slot, second) else {
                continue;
            };
            let Some(index) = self.stream(id).and_then(|s| s.index) else {
                continue;
            };
            let head = self.by_index.get(&index.0).copied();
            if head == Some(id) || self.is_chained(head, id) {
                continue;
            }
            self.by_index.insert(index.0, id);
            if let Some(stream) = self.stream_mut(id) {
                stream.next = head;
            }
        }
    }

    fn is_chained(&self, head: Option<u32>, id: u32) -> bool {
        let mut next = head;
        while let Some(at) = next {
            if at == id {
                return true;
            }
            next = self.stream(at).and_then(|s| s.next);
        }
        false
    }

    fn unindex(&mut self, slot: usize) {
        for second in [false, true] {
            let Some(id) = stream_id(slot, second) else {
                continue;
            };
            let Some((index, after)) = self.stream(id).and_then(|s| Some((s.index?, s.next))) else {
                continue;
            };
            let mut before = None;
            let mut at = self.by_index.get(&index.0).copied();
            while at.is_some_and(|at| at != id) {
                before = at;
                at = at.and_then(|at| self.stream(at)?.next);
            }
            match (at, before, after) {
                (None, ..) => {}
                (_, Some(before), after) => {
                    if let Some(stream) = self.stream_mut(before) {
                        stream.next = after;
                    }
                }
                (_, None, Some(after)) => {
                    self.by_index.insert(index.0, after);
                }
                (_, None, None) => {
                    self.by_index.remove(&index.0);
                }
            }
        }
    }

    /// Ends a session: its counts go to its tunnel.
    pub(super) fn retire(&mut self, slot: usize) {
        let number = self.slots.get(slot).and_then(Option::as_ref).map(|s| s.tunnel);
        if let Some(number) = number {
            self.check_rivals(number);
        }
        self.unindex(slot);
        let Some(session) = self.slots.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.free.push(slot);
        let Some(tunnel) = self.tunnels.get_mut(session.tunnel) else {
            return;
        };
        tunnel.live.retain(|live| *live != slot);
        for side in [Side::First, Side::Second] {
            let stream = session.sent_by(side);
            let past = side.of_mut(&mut tunnel.past);
            *past = past.plus(stream.counts());
            let lengths = side.of_mut(&mut tunnel.lengths);
            *lengths = lengths.plus(stream.lengths);
            let heard = session.sent_by(side.other()).last_at;
            let answers = side.of_mut(&mut tunnel.answers);
            *answers = answers.plus(stream.answers.settled(heard));
            tunnel.last_at = tunnel.last_at.max(stream.last_at.unwrap_or(tunnel.last_at));
        }
    }

    /// Ends the eighth of all sessions that was quiet for longest, where all places are taken.
    pub(super) fn room_for_a_session(&mut self) {
        if self.slots.len() - self.free.len() < SESSIONS_KEPT {
            return;
        }
        let mut by_age: Vec<_> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(slot, session)| {
                let session = session.as_ref()?;
                let last = session.streams.iter().filter_map(|s| s.last_at).max();
                Some((last.max(session.began), slot))
            })
            .collect();
        by_age.sort_unstable();
        for (_, slot) in by_age.into_iter().take(SESSIONS_KEPT / 8) {
            self.retire(slot);
            self.dropped_sessions += 1;
        }
    }

    /// Drops the eighth of all tunnels that was quiet for longest, where all places are taken.
    pub(super) fn room_for_a_tunnel(&mut self) {
        if self.tunnels.len() < TUNNELS_KEPT {
            return;
        }
        let last = |n: usize| {
            let tunnel = self.tunnels.get(n)?;
            let sent = [Side::First, Side::Second].map(|side| self.last_sent(tunnel, side));
            sent.into_iter().flatten().max().max(Some(tunnel.last_at))
        };
        let mut by_age: Vec<_> = (0..self.tunnels.len()).map(|n| (last(n), n)).collect();
        by_age.sort_unstable();
        by_age.truncate(TUNNELS_KEPT / 8);
        let mut gone: Vec<bool> = vec![false; self.tunnels.len()];
        for (_, number) in by_age {
            if let Some(gone) = gone.get_mut(number) {
                *gone = true;
            }
            for slot in self
                .tunnels
                .get(number)
                .map(|t| t.live.clone())
                .unwrap_or_default()
            {
                self.retire(slot);
            }
            self.dropped_tunnels += 1;
        }
        self.renumber(&gone);
    }

    /// Takes dropped tunnels out of every list of numbers.
    fn renumber(&mut self, gone: &[bool]) {
        let mut new_number = Vec::with_capacity(gone.len());
        let mut kept = 0;
        for gone in gone {
            new_number.push((!gone).then_some(kept));
            kept += usize::from(!gone);
        }
        let renumbered = |old: usize| new_number.get(old).copied().flatten();
        // What is followed closely begins anew; what it proved is kept with the tunnels.
        self.contests.clear();
        let mut number = 0;
        self.tunnels.retain(|_| {
            number += 1;
            renumbered(number - 1).is_some()
        });
        for tunnel in &mut self.tunnels {
            tunnel.kin = tunnel.kin.iter().filter_map(|old| renumbered(*old)).collect();
        }
        for session in self.slots.iter_mut().flatten() {
            session.tunnel = renumbered(session.tunnel).unwrap_or(usize::MAX);
        }
        for numbers in [&mut self.by_pair, &mut self.expected] {
            numbers.retain(|_, old| match renumbered(*old) {
                Some(new) => {
                    *old = new;
                    true
                }
                None => false,
            });
        }
    }

    /// Enters a tunnel's present addresses; the pairs that it had before stay its own.
    pub(super) fn enter(&mut self, number: usize) {
        // Pairs of past addresses are bounded by what else is: at worst each tunnel has as many as moves are kept.
        if self.by_pair.len() > TUNNELS_KEPT * (super::MOVES_KEPT + 1) {
            self.by_pair.clear();
            let pairs = self
                .tunnels
                .iter()
                .enumerate()
                .map(|(n, t)| (pair(t.ends[0], t.ends[1]), n));
            self.by_pair.extend(pairs);
        }
        if let Some(tunnel) = self.tunnels.get(number) {
            let [a, b] = tunnel.ends;
            self.by_pair.insert(pair(a, b), number);
        }
    }
}

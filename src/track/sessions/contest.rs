//! Two tunnels of one party: does one host move between them, or do two hosts share a key?
//!
//! In: who sends under which session, and when. Out: a [`Rivalry`] where sessions take turns: one is used, then another,
//! then the first again. A host sends with its newest session and never goes back to an older one (kernel noise.c,
//! current_keypair), whichever of the two is the older. So this needs neither handshake to have been seen.

use super::begin::REORDER_SLACK;
use super::tunnel::{Rivalry, Side};
use super::{DataMessage, Sessions};
use crate::time::Timestamp;

/// Pairs that are followed at a time; of more the oldest is given up.
const CONTESTS_KEPT: usize = 256;

/// Two tunnels that are of the same parties.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contest {
    tunnels: [usize; 2],
    /// The stream that was used first, and when.
    first: Option<(u32, Timestamp)>,
    /// The other tunnel's stream that was used after it.
    second: Option<(u32, Timestamp)>,
}

impl Sessions {
    /// Follows a pair of tunnels from now on.
    pub(super) fn begin_contest(&mut self, one: usize, other: usize) {
        let tunnels = [one.min(other), one.max(other)];
        if self.contests.iter().any(|c| c.tunnels == tunnels) {
            return;
        }
        if self.contests.len() == CONTESTS_KEPT {
            self.contests.remove(0);
        }
        self.contests.push(Contest {
            tunnels,
            first: None,
            second: None,
        });
    }

    /// Marks a tunnel's sessions, so that their messages are followed.
    pub(super) fn contest(&mut self, number: usize) {
        let live = self.tunnels.get(number).map_or(&[][..], |t| &t.live);
        for slot in live {
            if let Some(session) = self.slots.get_mut(*slot).and_then(Option::as_mut) {
                session.streams.iter_mut().for_each(|s| s.contested = true);
            }
        }
    }

    /// Takes in that a message of stream `id` was sent, where that is contested.
    #[cold]
    pub(super) fn turn(&mut self, id: u32, m: &DataMessage) {
        let Some(session) = self.slots.get((id >> 1) as usize).and_then(Option::as_ref) else {
            return;
        };
        let number = session.tunnel;
        let sender = if id & 1 == 0 {
            session.initiator
        } else {
            session.initiator.other()
        };
        let mut proven = Vec::new();
        for place in 0..self.contests.len() {
            let Some(contest) = self.contests.get(place).copied() else {
                continue;
            };
            let [one, other] = contest.tunnels;
            let other = match number {
                n if n == one => other,
                n if n == other => one,
                _ => continue,
            };
            let Some(parties) = self.parties(number, other, sender) else {
                continue;
            };
            let (next, is_proof) = self.next_turn(contest, id, m.at);
            if let Some(contest) = self.contests.get_mut(place) {
                *contest = next;
            }
            if is_proof {
                proven.push(parties);
            }
        }
        for (hosts, with) in proven {
            let rivalry = Rivalry {
                first_at: m.at,
                last_at: m.at,
                hosts,
                with,
                count: 1,
            };
            self.note_rivalry(number, rivalry);
        }
    }

    /// The two places of the party that sends here, and whom it talks to. `None` where it is the common peer that sends.
    fn parties(
        &self,
        number: usize,
        other: usize,
        sender: Side,
    ) -> Option<([std::net::SocketAddr; 2], std::net::SocketAddr)> {
        let (one, two) = (self.tunnels.get(number)?, self.tunnels.get(other)?);
        let with = *sender.other().of(&one.ends);
        let theirs = two.side_at(with)?.other();
        Some(([*sender.of(&one.ends), *theirs.of(&two.ends)], with))
    }

    fn next_turn(&self, mut contest: Contest, id: u32, at: Timestamp) -> (Contest, bool) {
        let tunnel_of = |id: u32| {
            let session = self.slots.get((id >> 1) as usize).and_then(Option::as_ref);
            session.map(|s| s.tunnel)
        };
        let Some((first, began)) = contest.first else {
            contest.first = Some((id, at));
            return (contest, false);
        };
        let late = |since: Timestamp| at >= since + REORDER_SLACK;
        match contest.second {
            // The first again, after the other: a proof, from which the next turn is counted.
            Some((other, since)) if first == id => {
                if late(since) {
                    contest.first = Some((other, since));
                    contest.second = Some((id, at));
                }
                return (contest, late(since));
            }
            None if first == id => {}
            // A new session at the first place: that host may have come back there.
            _ if tunnel_of(first) == tunnel_of(id) => {
                contest.first = Some((id, at));
                contest.second = None;
            }
            Some((other, _)) if other == id => {}
            Some(_) => contest.second = Some((id, at)),
            None if late(began) => contest.second = Some((id, at)),
            None => {}
        }
        (contest, false)
    }

    /// When it will be settled whether two hosts share a key, where that is open and goes on.
    pub fn contest_due(&self, now: Timestamp) -> Option<Timestamp> {
        let open = |c: &Contest| {
            let proven = c.tunnels.iter().any(|n| {
                let tunnel = self.tunnels.get(*n);
                tunnel.is_some_and(|t| t.rivalry.is_some())
            });
            let since = c.second.or(c.first)?.1;
            let turns: u32 = if c.second.is_some() { 1 } else { 2 };
            let at = since + REORDER_SLACK * turns + REORDER_SLACK;
            (!proven && at > now).then_some(at)
        };
        self.contests.iter().filter_map(open).max()
    }
}

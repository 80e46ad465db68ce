//! What keys have opened of initiations: who calls whom under which key, and whose clock went back.
//!
//! In: what keys said of each message, in the order in which they passed. Out: who was called under which key, and
//! identities with their clocks. Only public keys are in here. Bounded; what does not fit is counted.

use std::net::SocketAddr;

use hashbrown::HashMap;

use crate::observation::packet::{CheckedKind, CheckedMessage};
use crate::time::Timestamp;
use crate::types::{PublicKey, SessionIndex};
use crate::wire::tai64n::Tai64n;

/// Calls and identities that are kept, each.
pub const KEPT: usize = 4096;
/// Replays that are kept of one identity.
pub const REPLAYS_KEPT: usize = 16;
/// Messages of one identity that are known again on another interface.
const RECENT: usize = 8;

/// Everything opened.
#[derive(Debug, Default)]
pub struct OpenedState {
    calls: HashMap<(SocketAddr, SocketAddr, Option<PublicKey>), Call>,
    identities: HashMap<(PublicKey, PublicKey), Identity>,
    responses: HashMap<(SocketAddr, SocketAddr), ResponseTally>,
    /// Keys whose configuration says on which UDP port they listen.
    pub listening: Vec<(PublicKey, u16)>,
    /// Initiations that were tried with the keys.
    pub tried: u64,
    /// Initiations whose place was taken.
    pub dropped: u64,
}

/// Initiations from one address to another that were made for one key.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who called.
    pub initiator: SocketAddr,
    /// Who was called.
    pub responder: SocketAddr,
    /// The key of this host's device that they reached; a capture file does not say.
    pub reached: Option<PublicKey>,
    /// The key that they were made for; `None`: none of those known.
    pub made_for: Option<PublicKey>,
    /// The first.
    pub first_at: Timestamp,
    /// The last.
    pub last_at: Timestamp,
    /// How many.
    pub count: u64,
    /// The index of the last.
    pub last_sender: SessionIndex,
    last_mac1: [u8; 16],
}

/// Responses from one address to another, by whether they were made for the key of the device that they reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseTally {
    /// Made for it: their maker knows this host's public key.
    pub for_us: u64,
    /// Made for another key.
    pub for_others: u64,
    /// The last.
    pub last_at: Option<Timestamp>,
    last_sender: Option<SessionIndex>,
}

/// A static key that called another.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who calls.
    pub initiator: PublicKey,
    /// Whom.
    pub responder: PublicKey,
    /// Whether the responder's configuration lists it, where one was given.
    pub is_listed: Option<bool>,
    /// From where it called last, and where to.
    pub last: (SocketAddr, SocketAddr),
    /// Its first initiation.
    pub first_at: Timestamp,
    /// Its last initiation.
    pub last_at: Timestamp,
    /// The stamp of the last.
    pub last_stamp: Tai64n,
    /// How many.
    pub count: u64,
    /// The greatest stamp.
    pub greatest: Tai64n,
    /// Those that were not later than the greatest before them, as far as they are kept.
    pub replays: Vec<Replay>,
    /// How many of those.
    pub replay_count: u64,
    recent: [[u8; 16]; RECENT],
}

/// An initiation that its responder takes for a replay.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// When it passed.
    pub at: Timestamp,
    /// From where, and where to.
    pub way: (SocketAddr, SocketAddr),
    /// Its index.
    pub sender: SessionIndex,
    /// Its stamp.
    pub stamp: Tai64n,
    /// The greatest before it.
    pub greatest: Tai64n,
}

/// One opened initiation.
struct Seen {
    at: Timestamp,
    way: (SocketAddr, SocketAddr),
    sender: SessionIndex,
    mac1: [u8; 16],
    stamp: Tai64n,
}

impl OpenedState {
    /// Takes in what keys say of a message.
    pub fn apply(&mut self, at: Timestamp, checked: &CheckedMessage) {
        match checked.message {
            CheckedKind::Initiation => self.initiation(at, checked),
            CheckedKind::Response => self.response(at, checked),
        }
    }

    fn initiation(&mut self, at: Timestamp, checked: &CheckedMessage) {
        self.tried += 1;
        let Ok(mac1) = <[u8; 16]>::try_from(checked.mac1.0.as_slice()) else {
            self.dropped += 1;
            return;
        };
        let key = (checked.source, checked.destination, checked.made_for);
        if self.calls.len() >= KEPT && !self.calls.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        let call = self.calls.entry(key).or_insert(Call {
            initiator: checked.source,
            responder: checked.destination,
            reached: checked.reached,
            made_for: checked.made_for,
            first_at: at,
            last_at: at,
            count: 0,
            last_sender: checked.sender,
            last_mac1: [0; 16],
        });
        if call.last_mac1 == mac1 {
            // The same message on another interface.
            return;
        }
        (call.last_at, call.last_sender, call.last_mac1) = (at, checked.sender, mac1);
        call.reached = checked.reached.or(call.reached);
        call.count += 1;
        // What was made for another device than it reached says nothing of either's peers.
        let reached_it = checked.reached.is_none() || checked.reached == checked.made_for;
        if let (Some(opened), Some(responder), true) = (&checked.opened, checked.made_for, reached_it)
            && let Ok(stamp) = <[u8; 12]>::try_from(opened.stamp.0.as_slice())
        {
            let seen = Seen {
                at,
                way: (checked.source, checked.destination),
                sender: checked.sender,
                mac1,
                stamp: Tai64n(stamp),
            };
            self.identity((opened.initiator, responder), checked.is_listed, &seen);
        }
    }

    fn response(&mut self, at: Timestamp, checked: &CheckedMessage) {
        let key = (checked.source, checked.destination);
        if self.responses.len() >= KEPT && !self.responses.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        let tally = self.responses.entry(key).or_default();
        if tally.last_sender == Some(checked.sender) {
            return;
        }
        (tally.last_at, tally.last_sender) = (Some(at), Some(checked.sender));
        if checked.made_for.is_some() && checked.made_for == checked.reached {
            tally.for_us += 1;
        } else {
            tally.for_others += 1;
        }
    }

    fn identity(&mut self, key: (PublicKey, PublicKey), is_listed: Option<bool>, seen: &Seen) {
        let known = self.identities.len();
        let entry = self.identities.entry(key);
        if known >= KEPT && matches!(entry, hashbrown::hash_map::Entry::Vacant(_)) {
            self.dropped += 1;
            return;
        }
        let mut is_new = false;
        let identity = entry.or_insert_with(|| {
            is_new = true;
            Identity {
                initiator: key.0,
                responder: key.1,
                is_listed,
                last: seen.way,
                first_at: seen.at,
                last_at: seen.at,
                last_stamp: seen.stamp,
                count: 0,
                greatest: seen.stamp,
                replays: Vec::new(),
                replay_count: 0,
                recent: [[0; 16]; RECENT],
            }
        });
        if identity.recent.contains(&seen.mac1) {
            return;
        }
        identity.recent.rotate_right(1);
        if let Some(newest) = identity.recent.first_mut() {
            *newest = seen.mac1;
        }
        (identity.last, identity.last_at) = (seen.way, seen.at);
        identity.last_stamp = seen.stamp;
        identity.count += 1;
        // Whitepaper 5.4.2: the responder takes only what is later than all before.
        if !is_new && seen.stamp <= identity.greatest {
            identity.replay_count += 1;
            if identity.replays.len() < REPLAYS_KEPT {
                identity.replays.push(Replay {
                    at: seen.at,
                    way: seen.way,
                    sender: seen.sender,
                    stamp: seen.stamp,
                    greatest: identity.greatest,
                });
            }
        }
        identity.greatest = identity.greatest.max(seen.stamp);
    }

    /// What keys say of the responses from one address to another.
    pub fn responses(&self, from: SocketAddr, to: SocketAddr) -> Option<&ResponseTally> {
        self.responses.get(&(from, to))
    }

    /// Who called whom under which key, in the order of the first calls.
    pub fn calls(&self) -> Vec<&Call> {
        let mut calls: Vec<_> = self.calls.values().collect();
        calls.sort_by_key(|c| (c.first_at, c.initiator, c.responder));
        calls
    }

    /// Who called by which key, in the order of the first calls.
    pub fn identities(&self) -> Vec<&Identity> {
        let mut identities: Vec<_> = self.identities.values().collect();
        identities.sort_by_key(|i| (i.first_at, i.initiator));
        identities
    }
}

//! What keys have opened of captured initiations: who calls whom under which key, and whose clock went back.
//!
//! In: verdicts of a key ring, in the order in which the initiations passed. Out: who was called under which key, and
//! identities with their clocks. Only public keys are in here. Bounded; what does not fit is counted.

use std::net::SocketAddr;

use hashbrown::HashMap;

use crate::time::Timestamp;
use crate::types::{PublicKey, SessionIndex};
use crate::wire::key_ring::Verdict;
use crate::wire::tai64n::Tai64n;
use crate::wire::wireguard::Initiation;

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
    /// The key that they were made for; `None`: none of those given.
    pub made_for: Option<PublicKey>,
    /// The first.
    pub first_at: Timestamp,
    /// The last.
    pub last_at: Timestamp,
    /// How many.
    pub count: u64,
    /// The index of the last.
    pub last_sender: SessionIndex,
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

impl OpenedState {
    /// Takes an initiation in, and what the keys say of it.
    pub fn apply(
        &mut self,
        at: Timestamp,
        way: (SocketAddr, SocketAddr),
        message: &Initiation<'_>,
        verdict: &Verdict,
    ) {
        self.tried += 1;
        let key = (way.0, way.1, verdict.made_for);
        if self.calls.len() >= KEPT && !self.calls.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        let call = self.calls.entry(key).or_insert(Call {
            initiator: way.0,
            responder: way.1,
            made_for: verdict.made_for,
            first_at: at,
            last_at: at,
            count: 0,
            last_sender: message.sender,
        });
        (call.last_at, call.last_sender) = (at, message.sender);
        call.count += 1;
        if let (Some(opened), Some(responder)) = (verdict.opened, verdict.made_for) {
            self.identity(
                at,
                way,
                message,
                (opened.initiator, responder, opened.timestamp),
                verdict.is_listed,
            );
        }
    }

    fn identity(
        &mut self,
        at: Timestamp,
        way: (SocketAddr, SocketAddr),
        message: &Initiation<'_>,
        (initiator, responder, stamp): (PublicKey, PublicKey, Tai64n),
        is_listed: Option<bool>,
    ) {
        let known = self.identities.len();
        let entry = self.identities.entry((initiator, responder));
        if known >= KEPT && matches!(entry, hashbrown::hash_map::Entry::Vacant(_)) {
            self.dropped += 1;
            return;
        }
        let mut is_new = false;
        let identity = entry.or_insert_with(|| {
            is_new = true;
            Identity {
                initiator,
                responder,
                is_listed,
                last: way,
                first_at: at,
                last_at: at,
                count: 0,
                greatest: stamp,
                replays: Vec::new(),
                replay_count: 0,
                recent: [[0; 16]; RECENT],
            }
        });
        if identity.recent.contains(message.mac1) {
            return;
        }
        identity.recent.rotate_right(1);
        if let Some(newest) = identity.recent.first_mut() {
            *newest = *message.mac1;
        }
        (identity.last, identity.last_at) = (way, at);
        identity.count += 1;
        // Whitepaper 5.4.2: the responder takes only what is later than all before.
        if !is_new && stamp <= identity.greatest {
            identity.replay_count += 1;
            if identity.replays.len() < REPLAYS_KEPT {
                let greatest = identity.greatest;
                identity.replays.push(Replay {
                    at,
                    way,
                    sender: message.sender,
                    stamp,
                    greatest,
                });
            }
        }
        identity.greatest = identity.greatest.max(stamp);
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

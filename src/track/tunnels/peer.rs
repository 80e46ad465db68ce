//! One peer of one device over time.
//!
//! In: its snapshots. Out: what moved, what was sent without an answer, and how its endpoint and handshakes
//! changed. Why counters and not packets: the capture's filter leaves data messages out.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::arithmetic;
use super::traffic::{Step, Traffic};
use crate::observation::device::{Implementation, PeerSnapshot};
use crate::time::{Span, Timestamp};
use crate::wire::wireguard::{REJECT_AFTER_TIME, REKEY_TIMEOUT};

/// Past this, a retry that was going to come (after REKEY_TIMEOUT and jitter) has come and has been seen.
pub const RETRY_SEEN: Span = Span::from_millis(6_000);

/// How far ahead of our clock a device's handshake time may be for rounding and slow looks.
const CLOCK_SLACK: Span = Span::from_secs(5);
/// Endpoint changes kept; older ones are dropped, the count goes on.
const MAX_CHANGES: usize = 32;
/// Handshake times kept; older ones are dropped.
const MAX_HANDSHAKES: usize = 16;

/// Received less than this part of what was sent is "hardly anything". An upload's acknowledgements are about a
/// thirtieth, but they are data while it runs; keepalives and handshakes beside one ping a second are an eighteenth
/// after 16 s.
const TINY_SHARE: u64 = 8;

/// A peer while watched.
#[derive(Debug)]
pub struct PeerTrack {
    /// Its newest snapshot.
    pub newest: PeerSnapshot,
    /// When that was taken.
    pub newest_at: Timestamp,
    /// When it was first seen (again, after its counters went back: it was then removed and added anew).
    pub first_at: Timestamp,
    /// Bytes received and sent at `first_at`.
    pub first_bytes: (u64, u64),
    /// Endpoint changes, newest last; bounded.
    pub endpoint_changes: VecDeque<EndpointChange>,
    /// Endpoint changes in all.
    pub endpoint_change_count: u32,
    /// Times of completed handshakes as the device showed them, newest last; bounded. The first may be from before
    /// the watching began.
    pub handshakes: VecDeque<Timestamp>,
    /// Handshakes completed while watched.
    pub handshakes_seen: u64,
    /// What moved, and what stayed unanswered.
    pub traffic: Traffic,
    /// Its device no longer lists it.
    pub gone: bool,
}

/// One change of a peer's endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointChange {
    /// When it was first seen.
    pub at: Timestamp,
    /// Where the peer was.
    pub old: SocketAddr,
    /// Where it is.
    pub new: SocketAddr,
    /// How long nothing had been received from it before; the time watched where nothing was.
    pub silence: Span,
    /// Something had been received while watched, so `silence` is that long and not at least that long.
    pub silence_is_whole: bool,
}

impl EndpointChange {
    /// Whether only the port changed.
    pub fn is_port_only(&self) -> bool {
        self.old.ip() == self.new.ip()
    }
}

/// Handshake attempts that the counters prove, without any capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedAttempts {
    /// Sent since anything was last received.
    pub sent: u64,
    /// Of these, those whose time (REKEY_TIMEOUT) is over.
    pub unanswered: u64,
    /// The newest left at this time or before.
    pub newest_before: Timestamp,
    /// Whether the newest was seen to leave while watched.
    pub seen_leaving: bool,
    /// The peer has never answered since it was configured, so `sent` counts from then on.
    pub since_configured: bool,
}

impl PeerTrack {
    /// A peer first seen.
    pub fn new(at: Timestamp, snapshot: &PeerSnapshot) -> Self {
        Self {
            newest: snapshot.clone(),
            newest_at: at,
            first_at: at,
            first_bytes: (snapshot.rx_bytes, snapshot.tx_bytes),
            endpoint_changes: VecDeque::new(),
            endpoint_change_count: 0,
            handshakes: snapshot.last_handshake.into_iter().collect(),
            handshakes_seen: 0,
            traffic: Traffic::default(),
            gone: false,
        }
    }

    /// Takes the next snapshot in.
    pub fn apply(&mut self, at: Timestamp, snapshot: &PeerSnapshot, implementation: Implementation) {
        let old = &self.newest;
        if snapshot.rx_bytes < old.rx_bytes || snapshot.tx_bytes < old.tx_bytes {
            *self = Self::new(at, snapshot);
            return;
        }
        // The handshakes that this snapshot shows may have been confirmed by a keepalive each.
        let handshakes = self.handshakes_seen + u64::from(snapshot.last_handshake != old.last_handshake);
        let step = Step {
            at,
            span: at - self.newest_at,
            sent: snapshot.tx_bytes - old.tx_bytes,
            received: snapshot.rx_bytes - old.rx_bytes,
            implementation,
            own_keepalives: arithmetic::own_keepalives(at - self.first_at, snapshot.keepalive, handshakes),
        };
        let heard = self.traffic.received_at;
        self.traffic.apply(&step);
        if let (Some(old), Some(new)) = (old.endpoint, snapshot.endpoint)
            && old != new
        {
            push_bounded(
                &mut self.endpoint_changes,
                EndpointChange {
                    at,
                    old,
                    new,
                    silence: at - heard.unwrap_or(self.first_at),
                    silence_is_whole: heard.is_some(),
                },
                MAX_CHANGES,
            );
            self.endpoint_change_count = self.endpoint_change_count.saturating_add(1);
        }
        if let Some(time) = snapshot.last_handshake {
            self.note_handshake(time, implementation);
        }
        self.newest = snapshot.clone();
        self.newest_at = at;
        self.gone = false;
    }

    fn note_handshake(&mut self, time: Timestamp, implementation: Implementation) {
        // boringtun tells whole seconds of age, so one handshake's time wanders by a second between looks.
        let slack = handshake_slack(implementation);
        match self.handshakes.back() {
            Some(last) if time <= *last + slack && *last <= time + slack => {}
            _ => {
                push_bounded(&mut self.handshakes, time, MAX_HANDSHAKES);
                self.handshakes_seen += 1;
            }
        }
    }

    /// Bytes received and sent while watched.
    pub fn delta(&self) -> (u64, u64) {
        (
            self.newest.rx_bytes.saturating_sub(self.first_bytes.0),
            self.newest.tx_bytes.saturating_sub(self.first_bytes.1),
        )
    }

    /// How long its counters have been watched.
    pub fn watched(&self) -> Span {
        self.newest_at - self.first_at
    }

    /// Its last handshake, unless it lies in the future: the clock was set back since, and what was before and after
    /// can no longer be told.
    pub fn last_handshake(&self, now: Timestamp) -> Option<Timestamp> {
        self.newest.last_handshake.filter(|at| *at <= now + CLOCK_SLACK)
    }

    /// Whether its last handshake lies in the future.
    pub fn clock_went_back(&self, now: Timestamp) -> bool {
        self.newest.last_handshake.is_some() && self.last_handshake(now).is_none()
    }

    /// Whether the session of its last handshake is still good at `now`.
    pub fn live(&self, now: Timestamp) -> bool {
        self.last_handshake(now)
            .is_some_and(|at| now - at < REJECT_AFTER_TIME)
    }

    /// Time between its two newest handshakes.
    pub fn handshake_gap(&self) -> Option<Span> {
        let mut newest_first = self.handshakes.iter().rev();
        let newest = *newest_first.next()?;
        newest_first.next().map(|before| newest - *before)
    }

    /// Whether hardly anything ever came back, in all its life: what one-sided talk looks like from the counters.
    pub fn hardly_answered(&self) -> bool {
        self.newest.rx_bytes.saturating_mul(TINY_SHARE) < self.newest.tx_bytes
    }

    /// The handshake attempts that the sent bytes prove. `None` where this implementation's counters do not tell,
    /// or where there was none.
    pub fn counted_attempts(&self, implementation: Implementation) -> Option<CountedAttempts> {
        let never = self.newest.last_handshake.is_none() && self.newest.rx_bytes == 0;
        let sent = if never {
            arithmetic::initiations(self.newest.tx_bytes, implementation)?
        } else {
            self.traffic.initiations
        };
        if sent == 0 {
            return None;
        }
        let seen_leaving = self.traffic.initiation.is_some();
        let newest_before = self.traffic.initiation.map_or(self.first_at, |seen| seen.until);
        // The newest may still be answered; the ones before it were, or they would not have been repeated.
        let pending = u64::from(self.newest_at - newest_before < REKEY_TIMEOUT);
        Some(CountedAttempts {
            sent,
            unanswered: sent - pending,
            newest_before,
            seen_leaving,
            since_configured: never,
        })
    }
}

/// By how much two readings of one handshake's time may differ.
pub fn handshake_slack(implementation: Implementation) -> Span {
    match implementation {
        Implementation::Kernel | Implementation::WireguardGo => Span::ZERO,
        _ => Span::from_millis(2_000),
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, bound: usize) {
    if queue.len() >= bound {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests;

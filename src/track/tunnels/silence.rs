//! How many of this side's handshake attempts failed, by wire and by counters together.
//!
//! In: a peer and its wire. Out: [`Silence`]. Why together: the wire shows when and what came back, the counters
//! reach further back and need no privilege to capture, and only the device knows whether it accepted a response.

use super::peer::{CountedAttempts, PeerTrack, RETRY_SEEN};
use super::wire::{Outcome, PeerWire};
use crate::observation::device::Implementation;
use crate::time::{Span, Timestamp};
use crate::wire::wireguard::REJECT_AFTER_TIME;

/// Two readings of one event, by packet and by device, may lie this far apart (boringtun tells whole seconds).
const SLACK: Span = Span::from_secs(2);
/// A response that the device accepts shows in its handshake time within this.
const ACCEPTED_WITHIN: Span = Span::from_millis(500);

/// This side's failing handshake attempts since the last good handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// Attempts that failed: the larger of what the wire and what the counters prove.
    pub failed: u64,
    /// Of those on the wire: nothing came back.
    pub unanswered: u64,
    /// Of those on the wire: a response came and the device did not accept it.
    pub rejected: u64,
    /// Of those on the wire: a cookie reply came.
    pub cookies: u64,
    /// Attempts seen on the wire, failed or pending.
    pub on_wire: u64,
    /// By counters alone.
    pub counted: Option<CountedAttempts>,
    /// The attempt still under way.
    pub pending: Option<Timestamp>,
    /// From then on the device's handshake time tells whether it took the response to its newest attempt.
    pub judged_from: Option<Timestamp>,
    /// The first failed attempt on the wire.
    pub since: Option<Timestamp>,
    /// The newest attempt (by counters: at the latest).
    pub newest: Option<Timestamp>,
    /// Whether attempts still leave, as far as the time watched can tell.
    pub trying: bool,
}

impl Silence {
    /// Of `peer`, at `now`.
    pub fn of(peer: &PeerTrack, implementation: Implementation, wire: &PeerWire, now: Timestamp) -> Self {
        let mut silence = Self::default();
        let good = peer.last_handshake(now);
        let recent = now.before(REJECT_AFTER_TIME);
        for attempt in wire.attempts.iter().filter(|a| a.at >= recent) {
            let after_good = |slack: Span| good.is_none_or(|good| attempt.at > good + slack);
            let failed = match attempt.outcome {
                Outcome::Pending if after_good(Span::ZERO) => {
                    silence.pending = Some(attempt.at);
                    false
                }
                Outcome::Unanswered | Outcome::Unreachable if after_good(Span::ZERO) => {
                    silence.unanswered += 1;
                    true
                }
                Outcome::Cookie if after_good(Span::ZERO) => {
                    silence.cookies += 1;
                    true
                }
                Outcome::Answered(at) if after_good(SLACK) && peer.newest_at > at + ACCEPTED_WITHIN => {
                    silence.rejected += 1;
                    true
                }
                Outcome::Answered(at) if after_good(SLACK) => {
                    silence.judged_from = Some(at + ACCEPTED_WITHIN);
                    continue;
                }
                _ => continue,
            };
            silence.on_wire += 1;
            silence.newest = Some(attempt.at);
            if failed {
                silence.since.get_or_insert(attempt.at);
            }
        }
        silence.counted = peer.counted_attempts(implementation);
        let on_wire = silence.unanswered + silence.cookies + silence.rejected;
        let counted = silence.counted.map_or(0, |c| c.unanswered);
        silence.failed = on_wire.max(counted);
        let wire_trying = silence.newest.is_some_and(|at| now - at < RETRY_SEEN);
        let counters_trying = silence
            .counted
            .is_some_and(|c| peer.newest_at - c.newest_before < RETRY_SEEN);
        silence.trying = wire_trying || counters_trying;
        silence.newest = silence.newest.max(silence.counted.map(|c| c.newest_before));
        silence
    }
}

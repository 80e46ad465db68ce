//! What moved between a peer's snapshots, and what stayed unanswered.
//!
//! In: differences of byte counters. Out: when data and keepalives were last sent and heard, and since when data goes
//! without an answer.

use super::arithmetic::{self, Kind};
use crate::observation::device::Implementation;
use crate::time::{Span, Timestamp};

/// What moved while watched. Times are those of the snapshot that showed it, so at or after the event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Anything was sent last.
    pub sent_at: Option<Timestamp>,
    /// Data was sent last.
    pub data_sent_at: Option<Timestamp>,
    /// Anything beyond handshake messages was received last: the peer's data or keepalives.
    pub heard_at: Option<Timestamp>,
    /// Anything was received last.
    pub received_at: Option<Timestamp>,
    /// Data was received last.
    pub data_heard_at: Option<Timestamp>,
    /// Since when data has been sent and nothing (no data, no keepalive) came back.
    pub unheard_since: Option<Timestamp>,
    /// Bytes sent since then.
    pub unheard_bytes: u64,
    /// Since when data has been sent and no data (at most keepalives) came back.
    pub undelivered_since: Option<Timestamp>,
    /// Bytes sent since then.
    pub undelivered_bytes: u64,
    /// Initiations that the sent bytes show since anything was last received.
    pub initiations: u64,
    /// Between which snapshots the newest of these left.
    pub initiation: Option<Between>,
    /// The same for the ones before it.
    pub initiation_before: Option<Between>,
    /// Initiations that the received bytes show: the peer calls us.
    pub called: u64,
    /// What was sent and may have been keepalives, counted as such.
    keepalives_sent: u64,
}

/// The time between two snapshots that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    /// When the first was taken.
    pub after: Timestamp,
    /// When the second was taken.
    pub until: Timestamp,
}

/// One difference between two snapshots.
pub(super) struct Step {
    pub at: Timestamp,
    pub span: Span,
    pub sent: u64,
    pub received: u64,
    pub implementation: Implementation,
    /// Keepalives that this side may have sent since it is watched.
    pub own_keepalives: u64,
}

impl Traffic {
    /// Takes one difference in.
    pub(super) fn apply(&mut self, step: &Step) {
        let Step {
            at,
            span,
            sent,
            received,
            implementation,
            ..
        } = *step;
        // Each way errs towards what accuses nobody. Sent: data is claimed only where the keepalives of all the time
        // watched cannot explain it. Received: the peer's persistent keepalive is not known, so few are believed.
        let left = step.own_keepalives.saturating_sub(self.keepalives_sent);
        let (out, keepalives) = arithmetic::classify(sent, span, implementation, left);
        let (back, _) = arithmetic::classify(
            received,
            span,
            implementation,
            arithmetic::passive_keepalives(span),
        );
        self.keepalives_sent += keepalives;
        if back > Kind::Handshake {
            self.heard_at = Some(at);
            self.unheard_since = None;
            self.unheard_bytes = 0;
        }
        if back == Kind::Data {
            self.data_heard_at = Some(at);
            self.undelivered_since = None;
            self.undelivered_bytes = 0;
        }
        if back != Kind::Nothing {
            self.received_at = Some(at);
            self.initiations = 0;
            (self.initiation, self.initiation_before) = (None, None);
            self.called += arithmetic::initiations(received, implementation).unwrap_or(0);
        }
        if out != Kind::Nothing {
            self.sent_at = Some(at);
        }
        if out == Kind::Data {
            self.data_sent_at = Some(at);
            // What was sent in the same interval as something was heard may have been answered by it.
            if back <= Kind::Handshake {
                self.unheard_since.get_or_insert(at);
            }
            if back < Kind::Data {
                self.undelivered_since.get_or_insert(at);
            }
        }
        if self.unheard_since.is_some() {
            self.unheard_bytes += sent;
        }
        if self.undelivered_since.is_some() {
            self.undelivered_bytes += sent;
        }
        if back == Kind::Nothing
            && out == Kind::Handshake
            && let Some(n) = arithmetic::initiations(sent, implementation)
        {
            self.initiations += n;
            let between = Between {
                after: at.before(span),
                until: at,
            };
            self.initiation_before = self.initiation.replace(between);
        }
    }
}

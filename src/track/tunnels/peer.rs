//! One peer of one device over time.
//!
//! In: its snapshots. Out: what moved, what was sent without an answer, and how its endpoint and handshakes
//! changed. Why counters and not packets: the capture's filter leaves data messages out.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::arithmetic::{self, Kind, Way};
use crate::observation::device::{Implementation, PeerSnapshot};
use crate::time::{Span, Timestamp};
use crate::wire::wireguard::{REJECT_AFTER_TIME, REKEY_TIMEOUT};

/// Past this, a retry that was going to come (after REKEY_TIMEOUT and jitter) has come and has been seen.
pub const RETRY_SEEN: Span = Span::from_millis(6_000);

/// Endpoint changes kept; older ones are dropped, the count goes on.
const MAX_CHANGES: usize = 32;
/// Handshake times kept; older ones are dropped.
const MAX_HANDSHAKES: usize = 16;

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
}

/// What moved while watched. Times are those of the snapshot that showed it, so at or after the event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Anything was sent last.
    pub sent_at: Option<Timestamp>,
    /// Data was sent last.
    pub data_sent_at: Option<Timestamp>,
    /// Anything beyond handshake messages was received last: the peer's data or keepalives.
    pub heard_at: Option<Timestamp>,
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
    /// When the newest of these was seen.
    pub initiation_at: Option<Timestamp>,
    /// Initiations that the received bytes show: the peer calls us.
    pub called: u64,
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
        let sent = snapshot.tx_bytes - old.tx_bytes;
        let received = snapshot.rx_bytes - old.rx_bytes;
        let span = at - self.newest_at;
        self.traffic
            .apply(at, span, sent, received, implementation, snapshot.keepalive);
        if let (Some(old), Some(new)) = (old.endpoint, snapshot.endpoint)
            && old != new
        {
            push_bounded(
                &mut self.endpoint_changes,
                EndpointChange { at, old, new },
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
            _ => push_bounded(&mut self.handshakes, time, MAX_HANDSHAKES),
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

    /// Whether the session of its last handshake is still good at `now`.
    pub fn live(&self, now: Timestamp) -> bool {
        self.newest
            .last_handshake
            .is_some_and(|at| now - at < REJECT_AFTER_TIME)
    }

    /// Time between its two newest handshakes.
    pub fn handshake_gap(&self) -> Option<Span> {
        let mut newest_first = self.handshakes.iter().rev();
        let newest = *newest_first.next()?;
        newest_first.next().map(|before| newest - *before)
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
        let seen_leaving = self.traffic.initiation_at.is_some();
        let newest_before = self.traffic.initiation_at.unwrap_or(self.first_at);
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

impl Traffic {
    fn apply(
        &mut self,
        at: Timestamp,
        span: Span,
        sent: u64,
        received: u64,
        implementation: Implementation,
        keepalive: Option<u16>,
    ) {
        let out = arithmetic::classify(sent, span, implementation, Way::Sent(keepalive));
        let back = arithmetic::classify(received, span, implementation, Way::Received);
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
            self.initiations = 0;
            self.initiation_at = None;
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
            self.initiation_at = Some(at);
        }
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, bound: usize) {
    if queue.len() >= bound {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PublicKey;
    use Implementation::{Boringtun, Kernel, WireguardGo};

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    fn snapshot(rx: u64, tx: u64, handshake: Option<i64>) -> PeerSnapshot {
        PeerSnapshot {
            public_key: PublicKey([7; 32]),
            has_preshared_key: false,
            endpoint: Some(SocketAddr::from(([198, 51, 100, 7], 51820))),
            last_handshake: handshake.map(at),
            rx_bytes: rx,
            tx_bytes: tx,
            keepalive: None,
            allowed_ips: Vec::new(),
        }
    }

    fn track(implementation: Implementation, snapshots: &[(i64, u64, u64, Option<i64>)]) -> PeerTrack {
        let (t, rx, tx, hs) = snapshots[0];
        let mut peer = PeerTrack::new(at(t), &snapshot(rx, tx, hs));
        for (t, rx, tx, hs) in &snapshots[1..] {
            peer.apply(at(*t), &snapshot(*rx, *tx, *hs), implementation);
        }
        peer
    }

    #[test]
    fn attempts_are_proven_by_the_bytes_sent() {
        for (implementation, snapshots, expected) in [
            // Seen at once: three left; the newest may still be answered.
            (Kernel, vec![(0, 0, 3 * 148, None)], Some((3, 2))),
            // Five seconds on without another: the newest is unanswered too.
            (
                Kernel,
                vec![(0, 0, 2 * 148, None), (5, 0, 2 * 148, None)],
                Some((2, 2)),
            ),
            (
                WireguardGo,
                vec![(0, 0, 148, None), (5, 0, 2 * 148, None)],
                Some((2, 1)),
            ),
            // Never tried.
            (Kernel, vec![(0, 0, 0, None)], None),
            // It answered: rx is no longer zero, and nothing has left since.
            (
                Kernel,
                vec![(0, 0, 2 * 148, None), (1, 92, 3 * 148, Some(1))],
                None,
            ),
            // boringtun's counters hold no handshake bytes.
            (Boringtun, vec![(0, 0, 3 * 148, None)], None),
            // An old session; two initiations leave while watched.
            (
                Kernel,
                vec![
                    (0, 5_000, 7_001, Some(-500)),
                    (1, 5_000, 7_149, Some(-500)),
                    (6, 5_000, 7_297, Some(-500)),
                ],
                Some((2, 1)),
            ),
            // A responder: what it sends are responses.
            (
                Kernel,
                vec![
                    (0, 148, 92, None),
                    (5, 2 * 148, 2 * 92, None),
                    (10, 3 * 148, 3 * 92, None),
                ],
                None,
            ),
        ] {
            let peer = track(implementation, &snapshots);
            let counted = peer.counted_attempts(implementation);
            assert_eq!(
                counted.map(|c| (c.sent, c.unanswered)),
                expected,
                "{implementation:?} {snapshots:?}"
            );
        }
    }

    #[test]
    fn unheard_data_is_dated_from_the_first_byte() {
        let mut steps = vec![(0, 92, 400, Some(-3))];
        steps.extend((1..=8).map(|t| (t, 92, 400 + 128 * t as u64, Some(-3))));
        let peer = track(Kernel, &steps);
        assert_eq!(peer.traffic.unheard_since, Some(at(1)));
        assert_eq!(peer.traffic.unheard_bytes, 8 * 128);
        // A keepalive is heard, but it is not data.
        steps.push((9, 124, 400 + 128 * 9, Some(-3)));
        steps.push((10, 124, 400 + 128 * 10, Some(-3)));
        let peer = track(Kernel, &steps);
        assert_eq!(peer.traffic.unheard_since, Some(at(10)));
        assert_eq!(peer.traffic.undelivered_since, Some(at(1)));
        // Data is both.
        steps.push((11, 124 + 128, 400 + 128 * 11, Some(-3)));
        let peer = track(Kernel, &steps);
        assert_eq!(peer.traffic.unheard_since, None);
        assert_eq!(peer.traffic.undelivered_since, None);
        // A response in between is a handshake, and answers no data.
        let peer = track(
            Kernel,
            &[
                (0, 92, 0, Some(0)),
                (1, 92, 640, Some(0)),
                (2, 184, 788, Some(2)),
                (3, 184, 1_500, Some(2)),
            ],
        );
        assert_eq!(peer.traffic.unheard_since, Some(at(1)));
        assert_eq!(peer.handshake_gap(), Some(Span::from_secs(2)));
    }

    #[test]
    fn keepalives_sent_are_not_data() {
        let mut peer = PeerTrack::new(at(0), &snapshot(92, 180, Some(0)));
        for n in 1..20 {
            let mut s = snapshot(92, 180 + 32 * n, Some(0));
            s.keepalive = Some(5);
            peer.apply(at(5 * n as i64), &s, Kernel);
        }
        assert_eq!(peer.traffic.data_sent_at, None);
        assert_eq!(peer.traffic.unheard_since, None);
    }

    #[test]
    fn counters_that_go_back_start_anew() {
        let peer = track(
            Kernel,
            &[(0, 900, 900, Some(0)), (1, 950, 990, Some(0)), (2, 0, 148, None)],
        );
        assert_eq!(peer.first_at, at(2));
        assert_eq!(peer.delta(), (0, 0));
        assert_eq!(peer.newest.last_handshake, None);
    }

    #[test]
    fn histories_are_bounded() {
        let mut peer = PeerTrack::new(at(0), &snapshot(0, 0, None));
        for n in 0..100u16 {
            let mut s = snapshot(0, 0, Some(i64::from(n) * 10));
            s.endpoint = Some(SocketAddr::from(([198, 51, 100, 7], 1_000 + n)));
            peer.apply(at(i64::from(n) + 1), &s, Kernel);
        }
        assert_eq!(peer.endpoint_changes.len(), MAX_CHANGES);
        assert_eq!(peer.endpoint_change_count, 100);
        assert_eq!(peer.handshakes.len(), MAX_HANDSHAKES);
    }

    #[test]
    fn boringtuns_rounded_age_is_one_handshake() {
        let peer = track(
            Boringtun,
            &[
                (0, 10, 10, Some(-5)),
                (1, 10, 10, Some(-6)),
                (2, 10, 10, Some(-5)),
            ],
        );
        assert_eq!(peer.handshakes.len(), 1);
        assert_eq!(peer.handshake_gap(), None);
    }
}

//! One direction of one session: what its clear counters and lengths say.

use std::net::SocketAddr;

use super::answers::Answers;
use super::window::{Mark, Window};
use crate::time::{Span, Timestamp};
use crate::types::SessionIndex;
use crate::wire::wireguard::KEEPALIVE_LEN;

/// Octets of a data message around the inner packet: header and tag.
const OVERHEAD: u32 = 32;
const _: () = assert!(OVERHEAD as usize == KEEPALIVE_LEN);
/// Silence after which what is said is no answer and no keepalive: KEEPALIVE_TIMEOUT (10 s) and some slack.
pub const QUIET: Span = Span::from_secs(12);
/// Inner packets are padded to this many octets, but not beyond the device's MTU (paper 5.4.6, kernel send.c).
const PADDING: u32 = 16;

/// Data messages as a tracker counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataCounts {
    /// Messages, each counter once; keepalives are among them.
    pub messages: u64,
    /// Their UDP payloads together, in bytes.
    pub bytes: u64,
    /// Messages with nothing in them.
    pub keepalives: u64,
    /// Counters that never came this far: lost between the sender and where the capture was made.
    pub lost: u64,
    /// Messages that came after a later one.
    pub reordered: u64,
    /// Messages seen again.
    pub duplicates: u64,
    /// Messages too late for the receiver's window, which drops them.
    pub too_late: u64,
}

impl DataCounts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            messages: self.messages + other.messages,
            bytes: self.bytes + other.bytes,
            keepalives: self.keepalives + other.keepalives,
            lost: self.lost.saturating_add(other.lost),
            reordered: self.reordered + other.reordered,
            duplicates: self.duplicates + other.duplicates,
            too_late: self.too_late + other.too_late,
        }
    }

    /// Of the messages that were sent, the share that did not come this far.
    pub fn loss_share(&self) -> Option<f64> {
        let sent = self.messages.checked_add(self.lost)?;
        (sent > 0).then(|| self.lost as f64 / sent as f64)
    }
}

/// What lengths say about the sender's device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// The longest inner packet, padding included, in bytes.
    pub longest: u32,
    /// The longest inner length that is no multiple of 16, and whether there was another one.
    odd: Option<(u32, bool)>,
}

impl Lengths {
    #[inline]
    fn note(&mut self, inner: u32) {
        self.longest = self.longest.max(inner);
        if !inner.is_multiple_of(PADDING) {
            self.odd = Some(match self.odd {
                None => (inner, false),
                Some((known, several)) => (known.max(inner), several || known != inner),
            });
        }
    }

    /// With another's.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let mut sum = self;
        sum.longest = sum.longest.max(other.longest);
        if let Some((inner, several)) = other.odd {
            sum.note(inner);
            sum.odd = sum.odd.map(|(inner, s)| (inner, s || several));
        }
        sum
    }

    /// The sender's tunnel MTU, where its packets prove it: padding stops at the MTU, so the one length that is no
    /// multiple of 16 is the MTU itself. Implementations that never pad (boringtun) show several such lengths, and an
    /// MTU that is a multiple of 16 shows none: then only [`Lengths::longest`] is known.
    pub fn mtu(&self) -> Option<u32> {
        self.odd
            .filter(|(inner, several)| !several && *inner == self.longest)
            .map(|(inner, _)| inner)
    }

    /// Whether the sender pads (all but boringtun and its forks do); `None` where it cannot be told.
    pub fn pads(&self) -> Option<bool> {
        self.odd.map(|(_, several)| !several)
    }
}

/// One direction of a session.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The receiver's index, which every message carries; `None` until it is known.
    pub index: Option<SessionIndex>,
    /// Where it was last sent from.
    pub source: SocketAddr,
    /// Where it was last sent to.
    pub destination: SocketAddr,
    /// When its first message passed.
    pub first_at: Option<Timestamp>,
    /// When its last message passed.
    pub last_at: Option<Timestamp>,
    /// When its last message with something in it passed.
    pub last_payload_at: Option<Timestamp>,
    /// The longest time without a message since the first.
    pub longest_silence: Span,
    /// The longest silence that ended with its newest message.
    pub gap: Span,
    /// What lengths say.
    pub lengths: Lengths,
    /// What the other side's messages say of these.
    pub answers: Answers,
    /// How often it spoke first after `QUIET`, with something to say: it wants to be able to reach the other side.
    pub pushes: u64,
    /// The longest silence of both sides that it broke so.
    pub longest_push: Span,
    /// Two tunnels seem to be of one party: who sends when is followed closely.
    pub(super) contested: bool,
    counts: DataCounts,
    /// The counter from which on loss is counted.
    base: u64,
    window: Option<Window>,
    /// The next stream with the same index.
    pub(super) next: Option<u32>,
}

impl Stream {
    /// Without messages yet. `from_zero`: its handshake was seen, so its counters begin at 0.
    pub(super) fn new(
        index: Option<SessionIndex>,
        source: SocketAddr,
        destination: SocketAddr,
        from_zero: bool,
    ) -> Self {
        Self {
            index,
            source,
            destination,
            first_at: None,
            last_at: None,
            last_payload_at: None,
            longest_silence: Span::ZERO,
            gap: Span::ZERO,
            lengths: Lengths::default(),
            answers: Answers::default(),
            pushes: 0,
            longest_push: Span::ZERO,
            contested: false,
            counts: DataCounts::default(),
            base: if from_zero { 0 } else { u64::MAX },
            window: None,
            next: None,
        }
    }

    /// Notes a message; the other side was `heard` last at that time.
    #[inline]
    pub(super) fn note(&mut self, at: Timestamp, counter: u64, len: u32, heard: Option<Timestamp>) -> Mark {
        let mark = match &mut self.window {
            Some(window) => window.mark(counter),
            None => {
                self.window = Some(Window::starting(counter));
                Mark::New
            }
        };
        match mark {
            Mark::New => {}
            Mark::Late => self.counts.reordered += 1,
            Mark::Duplicate => {
                self.counts.duplicates += 1;
                return mark;
            }
            Mark::TooOld => {
                self.counts.too_late += 1;
                return mark;
            }
        }
        self.base = self.base.min(counter);
        self.counts.messages += 1;
        self.counts.bytes += u64::from(len);
        let inner = len.saturating_sub(OVERHEAD);
        if inner == 0 {
            self.counts.keepalives += 1;
        } else {
            self.lengths.note(inner);
            self.answers.note(at, inner, heard);
            self.last_payload_at = Some(at);
        }
        match self.last_at {
            Some(last) => {
                self.gap = at - last;
                if self.gap >= QUIET && inner > 0 {
                    let quiet = at - last.max(heard.unwrap_or(last));
                    if quiet >= QUIET {
                        self.pushes += 1;
                        self.longest_push = self.longest_push.max(quiet);
                    }
                }
                self.longest_silence = self.longest_silence.max(self.gap);
            }
            None => self.first_at = Some(at),
        }
        self.last_at = self.last_at.max(Some(at));
        mark
    }

    /// The highest counter seen.
    pub fn highest(&self) -> Option<u64> {
        self.window.as_ref().map(|w| w.highest())
    }

    /// What was counted so far.
    pub fn counts(&self) -> DataCounts {
        let lost = match self.highest() {
            // Every counter from the base to the highest was sent once.
            Some(highest) => (highest - self.base.min(highest))
                .saturating_add(1)
                .saturating_sub(self.counts.messages + self.counts.too_late),
            None => 0,
        };
        DataCounts { lost, ..self.counts }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(from_zero: bool) -> Stream {
        let addr = SocketAddr::from(([192, 0, 2, 1], 1));
        Stream::new(Some(SessionIndex(1)), addr, addr, from_zero)
    }

    #[test]
    fn loss_reorder_and_duplicates_are_exact() {
        let mut s = stream(true);
        for (n, counter) in [0, 1, 4, 3, 3, 9].into_iter().enumerate() {
            s.note(Timestamp::from_secs(n as i64), counter, 96, None);
        }
        let c = s.counts();
        // 2, 5, 6, 7 and 8 never came.
        assert_eq!((c.messages, c.lost, c.reordered, c.duplicates), (5, 5, 1, 1));
        assert_eq!(c.loss_share(), Some(0.5));
        assert_eq!(s.longest_silence, Span::from_secs(2));
    }

    #[test]
    fn a_stream_from_before_the_capture_has_lost_nothing_before_it() {
        let mut s = stream(false);
        for counter in [1000, 1002, 999] {
            s.note(Timestamp::EPOCH, counter, 32, None);
        }
        let c = s.counts();
        assert_eq!((c.messages, c.keepalives, c.lost), (3, 3, 1));
        assert_eq!((s.lengths.longest, s.last_payload_at), (0, None));
    }

    #[test]
    fn what_lengths_prove() {
        for (inner, longest, mtu, pads) in [
            (&[96, 1420, 64, 1420][..], 1420, Some(1420), Some(true)),
            (&[96, 1408, 64], 1408, None, None),
            (&[84, 1420, 52], 1420, None, Some(false)),
            // A lone odd packet below a longer one: whatever it was, it is not the MTU.
            (&[84, 1424], 1424, None, Some(true)),
        ] {
            let mut s = stream(true);
            for (counter, inner) in (0..).zip(inner) {
                s.note(Timestamp::EPOCH, counter, inner + 32, None);
            }
            assert_eq!(
                (s.lengths.longest, s.lengths.mtu(), s.lengths.pads()),
                (longest, mtu, pads),
                "{inner:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn sent_is_seen_and_lost(counters in proptest::collection::vec(0u64..3000, 1..200), from_zero: bool) {
            let mut s = stream(from_zero);
            for counter in &counters {
                s.note(Timestamp::EPOCH, *counter, 32, None);
            }
            let unique: std::collections::BTreeSet<_> = counters.iter().collect();
            let base = if from_zero { 0 } else { **unique.first().unwrap() };
            let span = **unique.last().unwrap() - base + 1;
            let c = s.counts();
            prop_assert_eq!(c.messages, unique.len() as u64);
            prop_assert_eq!(c.messages + c.lost, span);
            prop_assert_eq!(c.messages + c.duplicates, counters.len() as u64);
        }

        #[test]
        fn any_counters(counters in proptest::collection::vec(any::<u64>(), 0..50)) {
            let mut s = stream(true);
            for counter in counters {
                s.note(Timestamp::EPOCH, counter, 32, None);
                let _ = s.counts().loss_share();
            }
        }
    }
}

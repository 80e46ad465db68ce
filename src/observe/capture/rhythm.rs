//! When the tap's descriptor wakes the observer: at each packet, and where many come only every [`REST`].
//!
//! In: how many packets a look took, and when. Out: how long to rest. Pure. Waking costs some 20 µs, a packet one or two.

use std::time::Instant;

use crate::time::Span;

/// How long to rest where many come. The receive buffer holds some 5,000 messages: a quarter of a million a second.
pub const REST: Span = Span::from_millis(20);
/// Packets within [`WINDOW`] that are many.
const MANY: u64 = 32;
/// Fewer than this within a whole one are few again.
const FEW: u64 = 16;
const WINDOW: Span = Span::from_millis(100);

/// The rhythm.
#[derive(Debug)]
pub struct Rhythm {
    since: Instant,
    packets: u64,
    is_dense: bool,
}

impl Rhythm {
    /// Wakes at each packet, from `now` on.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            packets: 0,
            is_dense: false,
        }
    }

    /// A look that ended at `now` took so many packets.
    pub fn took(&mut self, packets: u64, now: Instant) {
        self.packets += packets;
        self.is_dense |= self.packets > MANY;
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.is_dense = self.packets >= FEW && self.is_dense;
            (self.since, self.packets) = (now, 0);
        }
    }

    /// How long to rest now.
    pub fn rest(&self) -> Span {
        if self.is_dense { REST } else { Span::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn many_are_fetched_together_and_few_at_once() {
        let start = clock::instant();
        let mut rhythm = Rhythm::new(start);
        // (milliseconds since the start, packets taken, whether it rests)
        for (at, packets, rests) in [
            (1, 1, false),
            (5, 31, false),
            (6, 1, true),
            (99, 0, true),
            (100, 0, true),
            // Still not few.
            (150, 8, true),
            (200, 8, true),
            (290, 15, true),
            (300, 0, false),
            // A burst after a pause.
            (900, 1, false),
            (901, 40, true),
            (1_001, 0, true),
            (1_102, 0, false),
        ] {
            rhythm.took(packets, start + Span::from_millis(at));
            assert_eq!(!rhythm.rest().is_zero(), rests, "{at} ms");
        }
    }
}

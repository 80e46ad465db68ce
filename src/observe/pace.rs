//! Spreads the work of a large dump over time, so that it neither holds a core nor lasts too long.
//!
//! In: CPU time used and time passed so far. Out: how long to pause. The kernel does no work for a dump between two receives.

use crate::time::Span;

/// CPU time of one conntrack entry, kernel and ours: 2 to 4 µs measured.
const PER_ITEM: Span = Span::from_micros(4);
/// Work done between two pauses.
const SLICE: Span = Span::from_millis(10);
/// A dump that takes less is not worth pausing.
const SMALL: Span = Span::from_millis(100);

/// The pauses of one dump.
#[derive(Debug)]
pub struct Pace {
    /// What the whole dump takes, by estimate.
    work: Span,
    within: Span,
    paid: Span,
}

impl Pace {
    /// For a dump of about `items` that should be done `within` this.
    pub fn new(items: u32, within: Span) -> Self {
        Self {
            work: PER_ITEM.saturating_mul(items),
            within,
            paid: Span::ZERO,
        }
    }

    /// The pause that is due when the dump has used `busy` of CPU time and `elapsed` has passed since it began.
    /// Pauses share out the time that is left over, up to as long as the work itself, which leaves half a core to
    /// others; where none is left over there are none.
    pub fn pause(&mut self, busy: Span, elapsed: Span) -> Option<Span> {
        let unpaid = busy.saturating_sub(self.paid);
        if self.work < SMALL || unpaid < SLICE {
            return None;
        }
        self.paid = busy;
        let left = self.work.saturating_sub(busy);
        let spare = self.within.saturating_sub(elapsed).saturating_sub(left);
        let ratio = spare.as_secs_f64() / left.max(SLICE).as_secs_f64();
        Some(unpaid.mul_f64(ratio.min(1.0))).filter(|pause| !pause.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Total pauses of a dump that takes `work` of CPU time, in receives of 0.5 ms, on a core of which it gets one
    /// part in `share`.
    fn paused(items: u32, work: Span, share: u32) -> Span {
        let mut pace = Pace::new(items, Span::from_secs(2));
        let step = Span::from_micros(500);
        let (mut busy, mut elapsed, mut total) = (Span::ZERO, Span::ZERO, Span::ZERO);
        while busy < work {
            busy += step;
            elapsed += step * share;
            let pause = pace.pause(busy, elapsed).unwrap_or_default();
            total += pause;
            elapsed += pause;
        }
        total
    }

    #[test]
    fn pauses_fill_the_time_that_is_left() {
        // (entries, CPU ms that they really take, share of the core, least and most pause ms)
        for (items, work, share, least, most) in [
            (0, 50, 1, 0, 0),
            (10_000, 40, 1, 0, 0),
            (100_000, 400, 1, 380, 400),
            (250_000, 1000, 1, 980, 1000),
            (250_000, 500, 1, 480, 500),
            (400_000, 1600, 1, 350, 410),
            (1_000_000, 4000, 1, 0, 0),
            // Twice as dear as estimated: it stops pausing when the time is up.
            (250_000, 2000, 1, 900, 1100),
            // A busy machine: what others take is not paused for once more.
            (250_000, 1000, 3, 0, 250),
        ] {
            let total = paused(items, Span::from_millis(work), share);
            let span = Span::from_millis(least)..=Span::from_millis(most);
            assert!(span.contains(&total), "{items} {work} {share}: {total:?}");
        }
    }
}

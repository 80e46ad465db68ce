//! Spreads the work of a large dump over time, so that it neither holds a core nor lasts too long.
//!
//! In: CPU time used so far. Out: how long to pause. The kernel does no work for a dump between two receives.

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
    /// Pause per CPU time: 1 leaves half a core to others.
    ratio: f64,
    paid: Span,
}

impl Pace {
    /// For a dump of about `items` that should be done `within` this: pauses fill the time that is left over, up to
    /// as long as the work itself; where there is none left, there are none.
    pub fn new(items: u32, within: Span) -> Self {
        let work = PER_ITEM.saturating_mul(items);
        let ratio = if work < SMALL {
            0.0
        } else {
            (within.saturating_sub(work).as_secs_f64() / work.as_secs_f64()).min(1.0)
        };
        Self {
            ratio,
            paid: Span::ZERO,
        }
    }

    /// The pause that is due when the dump has used `busy` of CPU time; `None` for none yet.
    pub fn pause(&mut self, busy: Span) -> Option<Span> {
        let unpaid = busy.saturating_sub(self.paid);
        if self.ratio == 0.0 || unpaid < SLICE {
            return None;
        }
        self.paid = busy;
        Some(unpaid.mul_f64(self.ratio))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Total pauses of a dump that takes `work` of CPU time, in receives of 0.5 ms.
    fn paused(items: u32, work: Span) -> Span {
        let mut pace = Pace::new(items, Span::from_secs(2));
        let step = Span::from_micros(500);
        let mut busy = Span::ZERO;
        let mut total = Span::ZERO;
        while busy < work {
            busy += step;
            total += pace.pause(busy).unwrap_or_default();
        }
        total
    }

    #[test]
    fn pauses_fill_the_time_that_is_left() {
        for (items, work_ms, least_ms, most_ms) in [
            (0, 50, 0, 0),
            (10_000, 40, 0, 0),
            (100_000, 400, 380, 400),
            (250_000, 1000, 980, 1000),
            (400_000, 1600, 390, 410),
            (1_000_000, 4000, 0, 0),
        ] {
            let total = paused(items, Span::from_millis(work_ms));
            let span = Span::from_millis(least_ms)..=Span::from_millis(most_ms);
            assert!(span.contains(&total), "{items}: {total:?}");
        }
    }
}

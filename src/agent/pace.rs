//! Keeps the agent within its CPU budget: observers look more seldom when it is exceeded, and more often again later.
//!
//! In: CPU time and time. Out: a new pace, where it changes.

use std::time::Instant;

use crate::time::Span;

/// A share is measured over at least this.
const WINDOW: Span = Span::from_secs(10);
/// Beyond this observers would not look within a window.
const SLOWEST: f32 = 20.0;
/// Smaller changes are not worth it.
const STEP: f32 = 1.1;

/// The budget.
#[derive(Debug)]
pub struct Budget {
    /// Of one core, 1 is all of it.
    share: f64,
    pace: f32,
    since: (Instant, Span),
}

impl Budget {
    /// Of `percent` of one core; `now` the process has used `cpu`.
    pub fn new(percent: f64, now: Instant, cpu: Span) -> Self {
        Self {
            share: percent / 100.0,
            pace: 1.0,
            since: (now, cpu),
        }
    }

    /// Another budget from now on.
    pub fn set(&mut self, percent: f64) {
        self.share = percent / 100.0;
    }

    /// The new pace, where it changes: 2 means to look half as often.
    pub fn pace(&mut self, now: Instant, cpu: Span) -> Option<f32> {
        let passed = now.saturating_duration_since(self.since.0);
        if passed < WINDOW {
            return None;
        }
        let used = cpu.saturating_sub(self.since.1).as_secs_f64() / passed.as_secs_f64();
        self.since = (now, cpu);
        // What is used falls about as the pace rises. Back it goes by halves, so that it does not swing.
        #[allow(clippy::cast_possible_truncation)] // clamped
        let excess = (used / self.share).clamp(0.1, 4.0) as f32;
        let wanted = if excess > 1.0 {
            self.pace * excess
        } else {
            self.pace * (1.0 + excess) / 2.0
        };
        let wanted = wanted.clamp(1.0, SLOWEST);
        let differs =
            wanted / self.pace > STEP || self.pace / wanted > STEP || (wanted == 1.0 && self.pace != 1.0);
        differs.then(|| {
            self.pace = wanted;
            wanted
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    /// A process whose work costs `fixed`, and `varying` at full pace, of a core.
    fn settles_at(fixed: f64, varying: f64, percent: f64) -> (f32, f64) {
        let mut now = clock::instant();
        let mut cpu = Span::ZERO;
        let mut budget = Budget::new(percent, now, cpu);
        let mut pace = 1.0_f32;
        let mut share = 0.0;
        for _ in 0..100 {
            share = fixed + varying / f64::from(pace);
            now += WINDOW;
            cpu += WINDOW.mul_f64(share);
            pace = budget.pace(now, cpu).unwrap_or(pace);
        }
        (pace, share * 100.0)
    }

    #[test]
    fn it_keeps_to_the_budget_where_it_can_and_gives_all_where_there_is_room() {
        assert_eq!(settles_at(0.0, 0.001, 1.0), (1.0, 0.1));
        let (pace, percent) = settles_at(0.001, 0.05, 1.0);
        assert!(pace > 3.0 && percent < 1.3, "{pace} {percent}");
        // What no pace can help with does not stop it from looking.
        assert_eq!(settles_at(0.5, 0.05, 1.0).0, SLOWEST);
    }
}

//! By how much two places' clocks differ, from messages that passed both, in both directions.
//!
//! A message from the first place to the second shows `delay + offset`, one the other way `offset - delay`. Delays are
//! not negative, so each message bounds the offset from one side, and the fastest ones bound it best (RFC 5905 does the
//! same with one exchange).

use crate::time::Timestamp;

/// The second place's clock less the first's, in nanoseconds, as messages bound it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// It is not more than this: the fastest message from the first to the second.
    pub at_most: Option<i64>,
    /// It is not less than this: the fastest message from the second to the first.
    pub at_least: Option<i64>,
}

impl Clocks {
    /// Takes a message in that passed the first place at `first` and the second at `second`.
    pub(super) fn note(&mut self, first: Timestamp, second: Timestamp, onward: bool) {
        let seen = difference(first, second);
        if onward {
            self.at_most = Some(self.at_most.map_or(seen, |known| known.min(seen)));
        } else {
            self.at_least = Some(self.at_least.map_or(seen, |known| known.max(seen)));
        }
    }

    /// The best guess, in nanoseconds: the middle where both directions bound it (delays the same both ways), else the
    /// one bound that there is.
    pub fn offset(&self) -> Option<i64> {
        match (self.at_least, self.at_most) {
            (Some(low), Some(high)) => Some(low.saturating_add(high.saturating_sub(low) / 2)),
            (low, high) => low.or(high),
        }
    }

    /// How far off the guess may be, in nanoseconds; `None` where one direction only bounds it. A drift between the
    /// clocks shows as a bound that contradicts the other; it is then as large.
    pub fn uncertainty(&self) -> Option<u64> {
        let (low, high) = (self.at_least?, self.at_most?);
        Some(high.saturating_sub(low).unsigned_abs().div_ceil(2))
    }

    /// The time of the second place's clock at `first` of the first's.
    pub fn to_second(&self, first: Timestamp) -> Timestamp {
        Timestamp::from_nanos(first.as_nanos().saturating_add(self.offset().unwrap_or(0)))
    }

    /// The time of the first place's clock at `second` of the second's.
    pub fn to_first(&self, second: Timestamp) -> Timestamp {
        Timestamp::from_nanos(second.as_nanos().saturating_sub(self.offset().unwrap_or(0)))
    }
}

/// `second - first` in nanoseconds.
pub(super) fn difference(first: Timestamp, second: Timestamp) -> i64 {
    second.as_nanos().saturating_sub(first.as_nanos())
}

//! Which counters of a stream were seen: WireGuard's own sliding window, so late here is late at the receiver too.

/// Counters behind the highest that are still told apart: the kernel's window (`COUNTER_BITS_TOTAL`, 8192 bits). A
/// receiver throws away what is later than that.
pub const WINDOW: u64 = 8192;

const WORDS: usize = 128;

/// What a counter is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Higher than all before.
    New,
    /// Lower than the highest, and not seen before.
    Late,
    /// Seen before.
    Duplicate,
    /// Too far behind the highest to say.
    TooOld,
}

/// A bit for each of the last [`WINDOW`] counters, up to the highest.
#[derive(Clone, Debug)]
pub struct Window {
    bits: [u64; WORDS],
    highest: u64,
}

impl Window {
    /// With `first` as the only counter seen.
    pub fn starting(first: u64) -> Self {
        let mut window = Self {
            bits: [0; WORDS],
            highest: first,
        };
        window.set(first);
        window
    }

    /// The highest counter seen.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Notes a counter.
    #[inline]
    pub fn mark(&mut self, counter: u64) -> Mark {
        if counter > self.highest {
            let ahead = counter - self.highest;
            if ahead == 1 {
                self.clear(counter);
            } else {
                for passed in 1..=ahead.min(WINDOW) {
                    self.clear(self.highest.wrapping_add(passed));
                }
            }
            self.highest = counter;
            self.set(counter);
            return Mark::New;
        }
        match self.highest - counter {
            behind if behind >= WINDOW => Mark::TooOld,
            _ if self.set(counter) => Mark::Late,
            _ => Mark::Duplicate,
        }
    }

    fn place(counter: u64) -> (usize, u64) {
        // In range by the remainder, whatever the counter.
        let bit = counter % WINDOW;
        (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
    }

    /// Whether it was not set before.
    #[inline]
    fn set(&mut self, counter: u64) -> bool {
        let (word, bit) = Self::place(counter);
        self.bits.get_mut(word).is_some_and(|word| {
            let new = *word & bit == 0;
            *word |= bit;
            new
        })
    }

    #[inline]
    fn clear(&mut self, counter: u64) {
        let (word, bit) = Self::place(counter);
        if let Some(word) = self.bits.get_mut(word) {
            *word &= !bit;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn marks() {
        let mut w = Window::starting(5);
        for (counter, mark) in [
            (5, Mark::Duplicate),
            (6, Mark::New),
            (9, Mark::New),
            (7, Mark::Late),
            (7, Mark::Duplicate),
            (9 + WINDOW, Mark::New),
            (9, Mark::TooOld),
            (10, Mark::Late),
            (u64::MAX, Mark::New),
            (u64::MAX - 1, Mark::Late),
        ] {
            assert_eq!(w.mark(counter), mark, "{counter}");
        }
        assert_eq!(w.highest(), u64::MAX);
    }

    proptest! {
        /// A set of all counters says the same.
        #[test]
        fn agrees_with_a_set(start in 0u64..20_000, steps in proptest::collection::vec(-9000i64..9000, 0..200)) {
            let mut window = Window::starting(start);
            let mut seen = BTreeSet::from([start]);
            let mut at = start;
            for step in steps {
                at = at.saturating_add_signed(step);
                let highest = *seen.last().unwrap();
                let expected = match () {
                    () if at > highest => Mark::New,
                    () if highest - at >= WINDOW => Mark::TooOld,
                    () if seen.contains(&at) => Mark::Duplicate,
                    () => Mark::Late,
                };
                prop_assert_eq!(window.mark(at), expected);
                if expected != Mark::TooOld {
                    seen.insert(at);
                }
            }
        }
    }
}

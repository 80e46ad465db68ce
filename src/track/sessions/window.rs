//! Which counters of a stream were seen: WireGuard's own sliding window, so late here is late at the receiver too.

/// Counters behind the highest that are still told apart: the kernel's window (`COUNTER_BITS_TOTAL`, 8192 bits). A
/// receiver throws away what is later than that.
pub const WINDOW: u64 = 8192;

/// [`WINDOW`] in words of 64 bits.
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

/// A bit for each of the last [`WINDOW`] counters, up to the highest. It has room for those that were seen and grows with
/// them: most sessions of most peers carry a few keepalives.
#[derive(Clone, Debug)]
pub struct Window {
    /// A ring, whose length is a power of two.
    bits: Vec<u64>,
    highest: u64,
    /// The lowest that was ever seen; while it is in the ring, so is every other.
    lowest: u64,
}

impl Window {
    /// With `first` as the only counter seen.
    pub fn starting(first: u64) -> Self {
        let mut window = Self {
            bits: vec![0],
            highest: first,
            lowest: first,
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
            if ahead >= WINDOW {
                self.bits.fill(0);
                self.lowest = counter;
            } else {
                self.make_room(counter - self.lowest);
                for passed in 1..=ahead {
                    self.clear(self.highest.wrapping_add(passed));
                }
            }
            self.highest = counter;
            self.set(counter);
            return Mark::New;
        }
        let behind = self.highest - counter;
        if behind >= WINDOW {
            return Mark::TooOld;
        }
        if counter < self.lowest {
            self.make_room(behind);
            self.lowest = counter;
        }
        match self.set(counter) {
            true => Mark::Late,
            false => Mark::Duplicate,
        }
    }

    fn room(&self) -> u64 {
        self.bits.len() as u64 * 64
    }

    /// Makes the ring hold counters that lie `span` apart, or as far as the window is long.
    #[inline]
    fn make_room(&mut self, span: u64) {
        if span >= self.room() && self.bits.len() < WORDS {
            self.grow(span);
        }
    }

    #[cold]
    fn grow(&mut self, span: u64) {
        let words = usize::try_from(span / 64 + 1).map_or(WORDS, usize::next_power_of_two);
        let before = self.room();
        let old = std::mem::replace(&mut self.bits, vec![0; words.min(WORDS)]);
        for behind in 0..before.min(self.highest.saturating_add(1)) {
            let counter = self.highest - behind;
            let (word, bit) = place(&old, counter);
            if old.get(word).is_some_and(|word| word & bit != 0) {
                self.set(counter);
            }
        }
    }

    /// Whether it was not set before.
    #[inline]
    fn set(&mut self, counter: u64) -> bool {
        let (word, bit) = place(&self.bits, counter);
        self.bits.get_mut(word).is_some_and(|word| {
            let new = *word & bit == 0;
            *word |= bit;
            new
        })
    }

    #[inline]
    fn clear(&mut self, counter: u64) {
        let (word, bit) = place(&self.bits, counter);
        if let Some(word) = self.bits.get_mut(word) {
            *word &= !bit;
        }
    }
}

/// Word and bit of `counter` in a ring.
#[inline]
fn place(ring: &[u64], counter: u64) -> (usize, u64) {
    // In range by the mask, whatever the counter.
    let word = (counter / 64) & (ring.len() as u64).wrapping_sub(1);
    (usize::try_from(word).unwrap_or(0), 1 << (counter % 64))
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

    #[test]
    fn few_counters_take_little_room_and_many_no_more_than_the_window() {
        let mut few = Window::starting(1_000);
        for counter in [1_001, 1_002, 990, 1_005] {
            few.mark(counter);
        }
        assert_eq!(few.room(), 64);
        let mut many = Window::starting(0);
        for counter in 1..100_000 {
            assert_eq!(many.mark(counter), Mark::New);
        }
        assert_eq!(many.room(), WINDOW);
    }

    /// A set of all counters says the same.
    fn agrees(start: u64, steps: Vec<i64>) -> Result<(), TestCaseError> {
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
        Ok(())
    }

    proptest! {
        /// Steps as small as a quiet tunnel's, so that the ring grows step by step.
        #[test]
        fn agrees_with_a_set_while_it_grows(start in 0u64..200, steps in proptest::collection::vec(-90i64..120, 0..200)) {
            agrees(start, steps)?;
        }

        /// Steps as large as the window, and back.
        #[test]
        fn agrees_with_a_set(start in 0u64..20_000, steps in proptest::collection::vec(-9000i64..9000, 0..200)) {
            agrees(start, steps)?;
        }
    }
}

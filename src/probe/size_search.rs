//! The largest packet that passes a path, by bisection.
//!
//! In: for each size that was tried whether it came back, was lost, or was called too big. Out: the next size to try. A size
//! is held to fail only after several losses in a row, since paths lose packets of any size, and what the search ends
//! with has failed twice as often, so that a burst of loss is not taken for a size. In the end what passed must pass once more:
//! a target that fell silent in the middle proves nothing of sizes. Pure.

/// Losses in a row after which a size is held not to pass.
pub const TRIES: u32 = 3;

/// The state of one search, over sizes of whole packets.
#[derive(Clone, Debug)]
pub struct SizeSearch {
    /// Known or assumed to pass.
    passed: u32,
    /// Whether `passed` was seen to.
    proven: bool,
    /// Known not to pass.
    lost: Option<u32>,
    /// Whether `lost` has failed a second time.
    confirmed: bool,
    /// Whether `passed` still passes after that; `None` where it was not asked.
    answers_still: Option<bool>,
    /// The largest that could.
    limit: u32,
    /// Sizes between are multiples of this.
    step: u32,
    told: Option<u32>,
    losses: u32,
}

impl SizeSearch {
    /// A search between `floor`, which passes every path of its family (RFC 791: 68, in practice 576; RFC 8200: 1280), and
    /// the interface's own MTU.
    pub fn new(floor: u32, limit: u32) -> Self {
        Self {
            passed: floor.min(limit),
            proven: false,
            lost: None,
            confirmed: false,
            answers_still: None,
            limit: limit.max(1),
            step: 1,
            told: None,
            losses: 0,
        }
    }

    /// Tries only multiples of `step` between the floor and the limit, where sizes between make no difference.
    #[must_use]
    pub fn in_steps_of(mut self, step: u32) -> Self {
        self.step = step.max(1);
        self
    }

    /// The size to try now, the same until something came of it; `None` when the search is over.
    pub fn next(&self) -> Option<u32> {
        if !self.proven {
            // Nothing is learnt from large packets before small ones are known to be answered.
            return (self.lost != Some(self.passed)).then_some(self.passed);
        }
        let Some(lost) = self.lost else {
            // Most paths carry what the interface does.
            return (self.passed < self.limit).then_some(self.limit);
        };
        // Who names an MTU is believed as far as it goes: what it names is tried and, where every size counts, one more.
        let least = self.passed + u32::from(self.step > 1);
        if let Some(told) = self.told.filter(|told| *told >= least && *told < lost) {
            let next = told.max(self.passed + 1);
            return (next < lost).then_some(next);
        }
        let middle = (self.passed + (lost - self.passed) / 2) / self.step * self.step;
        if middle > self.passed && middle < lost {
            return Some(middle);
        }
        if self.told.is_some() {
            return None;
        }
        if !self.confirmed {
            return Some(lost);
        }
        self.answers_still.is_none().then_some(self.passed)
    }

    /// A packet of `size` came back.
    pub fn passed(&mut self, size: u32) {
        self.losses = 0;
        self.proven = true;
        if self.confirmed && size == self.passed {
            self.answers_still = Some(true);
        }
        self.passed = self.passed.max(size);
        if self.lost.is_some_and(|lost| lost <= self.passed) {
            (self.lost, self.confirmed, self.answers_still) = (None, false, None);
        }
    }

    /// A packet of `size` did not come back in time.
    pub fn lost(&mut self, size: u32) {
        self.losses += 1;
        if self.losses >= TRIES {
            self.fail(size);
        }
    }

    /// An ICMP error, or this host's own kernel, called `size` too big, and named an `mtu` (0 where it named none).
    pub fn too_big(&mut self, size: u32, mtu: u32) {
        if mtu < size {
            self.note(mtu);
        }
        self.fail(size);
    }

    /// Somebody named an `mtu` (0 where it named none).
    pub fn note(&mut self, mtu: u32) {
        if mtu > 0 {
            self.told = Some(self.told.map_or(mtu, |told| told.min(mtu)));
        }
    }

    fn fail(&mut self, size: u32) {
        self.losses = 0;
        if self.confirmed && size <= self.passed {
            self.answers_still = Some(false);
            return;
        }
        match self.lost {
            Some(lost) if lost == size => self.confirmed = true,
            Some(lost) if lost < size => {}
            _ => (self.lost, self.confirmed) = (Some(size), false),
        }
    }

    /// The largest size that came back; `None` where not even the smallest did, or where nothing did any more.
    pub fn largest(&self) -> Option<u32> {
        (self.proven && !self.fell_silent()).then_some(self.passed)
    }

    /// The smallest size that did not; `None` where nothing came back any more.
    pub fn smallest_lost(&self) -> Option<u32> {
        self.lost.filter(|_| !self.fell_silent())
    }

    /// Whether what had passed did not pass any more in the end.
    pub fn fell_silent(&self) -> bool {
        self.answers_still == Some(false)
    }

    /// The smallest MTU that was named.
    pub fn told(&self) -> Option<u32> {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Searches a path that carries `mtu` and says so or not, and loses each `nth` packet; returns the packets sent.
    fn search(search: &mut SizeSearch, mtu: u32, says: bool, nth: u32) -> u32 {
        let mut sent = 0_u32;
        while let Some(size) = search.next() {
            sent += 1;
            assert!(sent < 200, "a search without end at {size}");
            if size > mtu {
                if says {
                    search.too_big(size, mtu);
                } else {
                    search.lost(size);
                }
            } else if nth > 0 && sent.is_multiple_of(nth) {
                search.lost(size);
            } else {
                search.passed(size);
            }
        }
        sent
    }

    #[test]
    fn a_path_that_carries_all_takes_two_packets() {
        let mut s = SizeSearch::new(576, 1500);
        assert_eq!(search(&mut s, 1500, false, 0), 2);
        assert_eq!(
            (s.largest(), s.smallest_lost(), s.told()),
            (Some(1500), None, None)
        );
    }

    #[test]
    fn a_router_that_says_so_is_believed_and_checked() {
        let mut s = SizeSearch::new(576, 1500);
        let sent = search(&mut s, 1420, true, 0);
        assert!(sent <= 5, "{sent}");
        assert_eq!(
            (s.largest(), s.smallest_lost(), s.told()),
            (Some(1420), Some(1421), Some(1420))
        );
        // A word that names a size larger than what fails is no help, and no harm.
        let mut s = SizeSearch::new(576, 1500);
        s.passed(576);
        s.too_big(1500, 1500);
        assert_eq!(s.told(), None);
    }

    #[test]
    fn a_dead_path_ends_after_a_few() {
        let mut s = SizeSearch::new(576, 1500);
        assert_eq!(search(&mut s, 0, false, 0), TRIES);
        assert_eq!(s.largest(), None);
    }

    #[test]
    fn who_falls_silent_in_the_middle_proves_nothing() {
        // After any number of answers, in either kind of search.
        for answers in 1..12 {
            for step in [1, 16] {
                let mut s = SizeSearch::new(576, 1500).in_steps_of(step);
                let mut sent = 0;
                while let Some(size) = s.next() {
                    sent += 1;
                    assert!(sent < 200, "a search without end at {size}");
                    if size > 1300 || sent > answers {
                        s.lost(size);
                    } else {
                        s.passed(size);
                    }
                }
                assert!(s.fell_silent(), "{answers} answers, steps of {step}");
                assert_eq!((s.largest(), s.smallest_lost()), (None, None));
            }
        }
    }

    #[test]
    fn steps_are_kept_but_for_what_is_told_and_the_limit() {
        let between = || SizeSearch::new(496, 1440).in_steps_of(16);
        let mut s = between();
        let sent = search(&mut s, 1340, false, 0);
        assert_eq!(
            (s.largest(), s.smallest_lost(), s.told()),
            (Some(1328), Some(1344), None)
        );
        assert!(sent < 30, "{sent}");
        let mut s = between();
        assert_eq!(search(&mut s, 9000, false, 0), 2);
        assert_eq!(s.largest(), Some(1440));
        let mut s = between();
        let sent = search(&mut s, 1341, true, 0);
        assert_eq!(s.largest(), Some(1341));
        assert!(sent <= 8, "{sent}");
    }

    #[test]
    fn a_burst_of_loss_is_no_size() {
        let mut s = SizeSearch::new(496, 1440).in_steps_of(16);
        let mut sent = 0;
        while let Some(size) = s.next() {
            sent += 1;
            // Five in a row are lost, whatever their size.
            if (2..7).contains(&sent) {
                s.lost(size)
            } else {
                s.passed(size)
            }
        }
        assert_eq!((s.largest(), s.smallest_lost()), (Some(1440), None));
    }

    proptest! {
        #[test]
        fn loss_does_not_move_the_step(limit in 496u32..1500, nth in 3u32..9) {
            let mut s = SizeSearch::new(496, 1440).in_steps_of(16);
            search(&mut s, limit, false, nth);
            let expected = if limit >= 1440 { 1440 } else { limit / 16 * 16 };
            prop_assert_eq!(s.largest(), Some(expected));
        }

        #[test]
        fn the_exact_size_is_found_through_single_losses(mtu in 576_u32..=9000, says: bool, nth in prop_oneof![Just(0_u32), 3_u32..9]) {
            let mut s = SizeSearch::new(576, 9000);
            let sent = search(&mut s, mtu, says, nth);
            prop_assert_eq!(s.largest(), Some(mtu));
            prop_assert!(sent < 90, "{}", sent);
        }
    }
}

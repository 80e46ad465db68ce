//! The largest packet that passes a path, by bisection.
//!
//! In: for each size that was tried whether it came back, was lost, or was called too big by an ICMP error. Out: the next
//! size to try. A size is held to fail only after several losses in a row, since paths lose packets of any size. Pure.

/// Losses in a row after which a size is held not to pass.
const TRIES: u32 = 3;

/// The state of one search. Sizes are of whole IP packets.
#[derive(Clone, Debug)]
pub struct SizeSearch {
    /// Known or assumed to pass.
    passed: u32,
    /// Whether `passed` was seen to.
    proven: bool,
    /// Known not to pass.
    lost: Option<u32>,
    /// The largest that could.
    limit: u32,
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
            limit: limit.max(1),
            told: None,
            losses: 0,
        }
    }

    /// The size to try now; `None` when the search is over.
    pub fn next(&self) -> Option<u32> {
        if !self.proven {
            // Nothing is learnt from large packets before small ones are known to be answered.
            return (self.lost != Some(self.passed)).then_some(self.passed);
        }
        match self.lost {
            None if self.passed == self.limit => None,
            // Most paths carry what the interface does.
            None => Some(self.limit),
            Some(lost) if lost <= self.passed + 1 => None,
            Some(lost) => {
                let middle = self.passed + (lost - self.passed) / 2;
                // A router that names its MTU is believed as far as it goes: what it names is tried, and one more.
                let told = self.told.filter(|told| *told >= self.passed && *told < lost);
                Some(told.map_or(middle, |told| told.max(self.passed + 1)))
            }
        }
    }

    /// A packet of `size` came back.
    pub fn passed(&mut self, size: u32) {
        self.losses = 0;
        self.proven = true;
        self.passed = self.passed.max(size);
        if self.lost.is_some_and(|lost| lost <= self.passed) {
            self.lost = None;
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
        if mtu > 0 && mtu < size {
            self.told = Some(self.told.map_or(mtu, |told| told.min(mtu)));
        }
        self.fail(size);
    }

    fn fail(&mut self, size: u32) {
        self.losses = 0;
        self.lost = Some(self.lost.map_or(size, |lost| lost.min(size)));
    }

    /// The largest size that came back; `None` where not even the smallest did.
    pub fn largest(&self) -> Option<u32> {
        self.proven.then_some(self.passed)
    }

    /// The smallest size that did not.
    pub fn smallest_lost(&self) -> Option<u32> {
        self.lost
    }

    /// The smallest MTU that an ICMP error named.
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
    }

    #[test]
    fn a_dead_path_ends_after_a_few() {
        let mut s = SizeSearch::new(576, 1500);
        assert_eq!(search(&mut s, 0, false, 0), TRIES);
        assert_eq!(s.largest(), None);
    }

    proptest! {
        #[test]
        fn the_exact_size_is_found_through_single_losses(mtu in 576_u32..=9000, says: bool, nth in prop_oneof![Just(0_u32), 3_u32..9]) {
            let mut s = SizeSearch::new(576, 9000);
            let sent = search(&mut s, mtu, says, nth);
            prop_assert_eq!(s.largest(), Some(mtu));
            prop_assert!(sent < 90, "{}", sent);
        }
    }
}

//! The search for the largest inner packet that gets through and back.
//!
//! In: which sizes were answered, and what routers say. Out: the next size to try. A size that is not answered is tried
//! again: only one that fails [`TRIES`] times is too large, and what the search ends with has failed twice as often. Sizes
//! between are multiples of 16, for the peer pads its replies to that (WireGuard paper, section 5.4.6).

use std::net::IpAddr;

use super::Inside;
use super::ask::Echo;
use super::stack::Stack;
use crate::observation::probe::{Fact, Mtu, ToldMtu};
use crate::time::{Span, Timestamp};

/// How often a size is tried before it is too large.
pub const TRIES: u32 = 3;
/// The step between sizes.
const STEP: u32 = 16;
/// Every IPv4 path carries this (RFC 791 asks for 576 to be received; no link in use is smaller).
const FLOOR: u32 = 496;

/// The search.
#[derive(Debug)]
pub struct MtuSearch {
    ceiling: u32,
    overhead: u32,
    passes: Option<u32>,
    fails: Option<u32>,
    told: Option<ToldMtu>,
    /// The size under way and its failures.
    trying: Option<(u32, u32)>,
    confirmed: bool,
    packets: u32,
}

impl MtuSearch {
    /// Up to inner packets of `ceiling` bytes, which are `overhead` bytes longer outside.
    pub fn new(ceiling: u32, overhead: u32) -> Self {
        Self {
            ceiling,
            overhead,
            passes: None,
            fails: None,
            told: None,
            trying: None,
            confirmed: false,
            packets: 0,
        }
    }

    /// The next size to try; `None` when the search is over.
    pub fn next_size(&mut self) -> Option<u32> {
        if let Some((size, _)) = self.trying {
            self.packets += 1;
            return Some(size);
        }
        let size = match (self.passes, self.fails) {
            (None, Some(_)) => return None,
            (None, None) => FLOOR.min(self.ceiling),
            (Some(passes), None) if passes >= self.ceiling => return None,
            (Some(_), None) => self.ceiling,
            (Some(passes), Some(fails)) => self.between(passes, fails)?,
        };
        self.trying = Some((size, 0));
        self.packets += 1;
        Some(size)
    }

    fn between(&mut self, passes: u32, fails: u32) -> Option<u32> {
        // What a router names is exact.
        if let Some(exact) = self.told_size().filter(|s| passes < *s && *s < fails) {
            return Some(exact);
        }
        let middle = (passes + fails) / 2 / STEP * STEP;
        if middle > passes && middle < fails {
            return Some(middle);
        }
        // Once more, so that a burst of loss is not taken for a size.
        if !self.confirmed && self.told.is_none() {
            self.confirmed = true;
            return Some(fails);
        }
        None
    }

    fn told_size(&self) -> Option<u32> {
        self.told.as_ref()?.mtu.checked_sub(self.overhead)
    }

    /// A packet of `size` was answered.
    pub fn passed(&mut self, size: u32) {
        self.passes = Some(self.passes.map_or(size, |p| p.max(size)));
        if self.trying.is_some_and(|(t, _)| t <= size) {
            self.trying = None;
        }
        // It failed before, by loss.
        if self.fails.is_some_and(|fails| fails <= size) {
            self.fails = None;
            self.confirmed = false;
        }
    }

    /// A packet of the size under way was not answered in time.
    pub fn failed(&mut self) {
        let Some((size, failures)) = &mut self.trying else {
            return;
        };
        *failures += 1;
        if *failures >= TRIES {
            let size = *size;
            self.too_large(size);
        }
    }

    /// Somebody says that the path carries outer packets of `mtu` bytes at most.
    pub fn told(&mut self, told: ToldMtu) {
        let smaller = self.told.as_ref().is_none_or(|t| told.mtu < t.mtu);
        if smaller {
            self.told = Some(told);
        }
        if let (Some((size, _)), Some(limit)) = (self.trying, self.told_size())
            && size > limit
        {
            self.too_large(size);
        }
    }

    fn too_large(&mut self, size: u32) {
        self.fails = Some(self.fails.map_or(size, |f| f.min(size)));
        self.trying = None;
    }

    /// What it came to: the largest that passes, the smallest that does not, what was told, packets sent.
    pub fn result(&self) -> (Option<u32>, Option<u32>, Option<&ToldMtu>, u32) {
        (self.passes, self.fails, self.told.as_ref(), self.packets)
    }
}

/// Echoes of the sizes that the search asks for.
pub struct MtuProbe {
    search: MtuSearch,
    stack: Stack,
    echo: Echo,
    to: IpAddr,
    ceiling: u32,
    overhead: u32,
    /// The number, size and time of each echo under way.
    sent: Vec<(u16, u32, Timestamp)>,
    next: u16,
    timeout: Span,
    result: Option<Mtu>,
    over: bool,
}

impl MtuProbe {
    /// Echoes from `source` to `to`, each waited for as long as `timeout`.
    pub fn new(
        source: IpAddr,
        to: IpAddr,
        (ceiling, overhead): (u32, u32),
        seed: u64,
        timeout: Span,
        now: Timestamp,
    ) -> Self {
        let mut stack = Stack::new(source, seed, now);
        let [a, b, ..] = seed.to_le_bytes();
        let mut probe = Self {
            search: MtuSearch::new(ceiling, overhead),
            echo: Echo::new(&mut stack, source, to, u16::from_le_bytes([a, b])),
            stack,
            to,
            ceiling,
            overhead,
            sent: Vec::new(),
            next: 0,
            timeout,
            result: None,
            over: false,
        };
        probe.go_on(now);
        probe
    }

    /// Sends the next size where none is under way.
    fn go_on(&mut self, now: Timestamp) {
        while self.sent.is_empty() && !self.over {
            let Some(size) = self.search.next_size() else {
                self.end();
                return;
            };
            let length = usize::try_from(size).unwrap_or(0);
            self.echo.send(&mut self.stack, self.next, length);
            self.sent.push((self.next, size, now));
            self.next = self.next.wrapping_add(1);
        }
        self.stack.handle_timeout(now);
    }

    fn end(&mut self) {
        self.over = true;
        let (passes, fails, told, packets) = self.search.result();
        self.result = Some(Mtu {
            target: self.to,
            passes,
            fails,
            ceiling: self.ceiling,
            overhead: self.overhead,
            told: told.cloned(),
            packets,
        });
    }
}

impl Inside for MtuProbe {
    fn handle_input(&mut self, now: Timestamp, inner: Vec<u8>) {
        self.stack.handle_input(now, inner);
        self.handle_timeout(now);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(number) = self.echo.receive(&mut self.stack) {
            if let Some(at) = self.sent.iter().position(|(n, ..)| *n == number) {
                let (_, size, _) = self.sent.remove(at);
                self.search.passed(size);
            }
        }
        let timeout = self.timeout;
        if self.sent.iter().any(|(.., at)| now >= *at + timeout) {
            self.sent.clear();
            self.search.failed();
        }
        self.go_on(now);
    }

    fn handle_too_big(&mut self, now: Timestamp, told: ToldMtu) {
        if !self.over {
            self.search.told(told);
            self.sent.clear();
            self.go_on(now);
        }
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.stack.poll_transmit()
    }

    fn poll_timeout(&mut self, now: Timestamp) -> Option<Timestamp> {
        let own = self.sent.iter().map(|(.., at)| *at + self.timeout).min();
        let stack = self.stack.poll_timeout(now);
        [own, stack].into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<Fact> {
        self.result.take().map(Fact::Mtu)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches where `limit` is the largest that passes; every `loss`th packet is lost.
    fn search(ceiling: u32, limit: u32, loss: u32, told: Option<u32>) -> MtuSearch {
        let mut search = MtuSearch::new(ceiling, 60);
        let mut sent = 0;
        while let Some(size) = search.next_size() {
            sent += 1;
            assert!(sent < 200, "{search:?}");
            match told {
                Some(mtu) if size + 60 > mtu => search.told(ToldMtu { mtu, from: None }),
                _ if size <= limit && (loss == 0 || sent % loss != 0) => search.passed(size),
                _ => search.failed(),
            }
        }
        search
    }

    #[test]
    fn the_largest_is_found_to_the_step() {
        let (passes, fails, told, packets) = {
            let s = search(1440, 1340, 0, None);
            let r = s.result();
            (r.0, r.1, r.2.cloned(), r.3)
        };
        assert_eq!((passes, fails, told), (Some(1328), Some(1344), None));
        assert!(packets < 30, "{packets}");
        assert_eq!(search(1440, 9000, 0, None).result().0, Some(1440));
        assert_eq!(search(1440, 9000, 0, None).result().3, 2);
        assert_eq!(search(1440, 100, 0, None).result().0, None);
    }

    #[test]
    fn what_a_router_says_is_exact_and_quick() {
        let s = search(1440, 1340, 0, Some(1400));
        assert_eq!(s.result().0, Some(1340));
        assert!(s.result().3 <= 8, "{s:?}");
    }

    proptest! {
        #[test]
        fn loss_does_not_move_the_result(limit in 496u32..1500, loss in 2u32..9) {
            let s = search(1440, limit, loss, None);
            let expected = if limit >= 1440 { 1440 } else { limit / 16 * 16 };
            prop_assert_eq!(s.result().0, Some(expected));
        }
    }
}

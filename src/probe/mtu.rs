//! The search for the largest inner packet that gets through and back.
//!
//! In: which sizes were answered, and what routers say. Out: echoes of the sizes that a [`SizeSearch`] asks for. Sizes between
//! are multiples of 16, for the peer pads its replies to that (WireGuard paper, section 5.4.6).

use std::net::IpAddr;

use super::Inside;
use super::ask::Echo;
use super::size_search::SizeSearch;
use super::stack::Stack;
use crate::observation::probe::{Fact, Mtu, ToldMtu};
use crate::time::{Span, Timestamp};

/// The step between sizes.
const STEP: u32 = 16;
/// Every IPv4 path carries this (RFC 791 asks for 576 to be received; no link in use is smaller).
const FLOOR: u32 = 496;

/// Echoes of the sizes that the search asks for.
pub struct MtuProbe {
    search: SizeSearch,
    told: Option<ToldMtu>,
    packets: u32,
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
            search: SizeSearch::new(FLOOR, ceiling).in_steps_of(STEP),
            told: None,
            packets: 0,
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
            let Some(size) = self.search.next() else {
                self.end();
                return;
            };
            self.packets += 1;
            let length = usize::try_from(size).unwrap_or(0);
            self.echo.send(&mut self.stack, self.next, length);
            self.sent.push((self.next, size, now));
            self.next = self.next.wrapping_add(1);
        }
        self.stack.handle_timeout(now);
    }

    fn end(&mut self) {
        self.over = true;
        self.result = Some(Mtu {
            target: self.to,
            passes: self.search.largest(),
            fails: self.search.smallest_lost(),
            ceiling: self.ceiling,
            overhead: self.overhead,
            told: self.told.clone(),
            packets: self.packets,
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
            if let Some(size) = self.search.next() {
                self.search.lost(size);
            }
        }
        self.go_on(now);
    }

    fn handle_too_big(&mut self, now: Timestamp, told: ToldMtu) {
        if !self.over {
            let inner = told.mtu.saturating_sub(self.overhead);
            match self.search.next() {
                Some(size) if size > inner => self.search.too_big(size, inner),
                _ => self.search.note(inner),
            }
            let smaller = self.told.as_ref().is_none_or(|known| told.mtu < known.mtu);
            if smaller {
                self.told = Some(told);
            }
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

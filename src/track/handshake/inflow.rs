//! How many initiations come to an address, and from whom the most: what a flood looks like.
//!
//! In: initiations as they come in, or only their number. Out: counts, the busiest second, the busiest sources. Kept
//! apart from attempts, of which a flood drops most.

use std::net::SocketAddr;

use hashbrown::HashMap;

use crate::observation::packet::{Direction, InitiationTally, WirePacket};
use crate::time::{Span, Timestamp};
use crate::types::IfIndex;

/// Addresses whose inflow is kept; that to further ones is counted in [`Inflow::left_out`] alone.
pub const KEPT: usize = 256;
/// Sources that are kept of each.
const SOURCES: usize = 8;

/// All that comes in.
#[derive(Debug, Default)]
pub struct Inflow {
    flows: HashMap<(Option<IfIndex>, SocketAddr), Flow>,
    /// Initiations to addresses beyond those kept.
    pub left_out: u64,
}

/// What comes to one address through one interface.
#[derive(Clone, Debug)]
pub struct Flow {
    /// To whom.
    pub destination: SocketAddr,
    /// The first.
    pub first_at: Timestamp,
    /// The last.
    pub last_at: Timestamp,
    /// How many, repeats of one message included: each costs its receiver the same. An estimate where `one_in` is above 1.
    pub count: u64,
    /// How many of these were shown one by one.
    pub shown: u64,
    /// One in so many was taken, at the coarsest; 1 is all of them.
    pub one_in: u32,
    /// The variance of `count`.
    pub variance: u64,
    /// The most within one second of the clock.
    pub peak: u64,
    second: (i64, u64),
    sources: Vec<Heavy>,
}

/// A source that sends many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heavy {
    /// Its address.
    pub source: SocketAddr,
    /// How many it sent, at least: only those are counted that came while it was among the busiest.
    pub count: u64,
}

impl Inflow {
    pub(super) fn packet(&mut self, at: Timestamp, packet: &WirePacket) {
        // Many captures tell no direction: of what they hold, all goes to somebody.
        if packet.direction == Direction::Out {
            return;
        }
        if let Some(flow) = self.flow(at, (packet.if_index, packet.destination)) {
            flow.add(at, 1);
            flow.shown += 1;
            flow.from(packet.source);
        }
    }

    pub(super) fn tally(&mut self, at: Timestamp, tally: &InitiationTally) {
        match self.flow(at, (tally.if_index, tally.destination)) {
            Some(flow) => {
                flow.add(at, tally.count);
                flow.one_in = flow.one_in.max(tally.one_in);
                flow.variance = flow.variance.saturating_add(tally.variance);
            }
            None => self.left_out = self.left_out.saturating_add(tally.count.saturating_sub(1)),
        }
    }

    /// The larger flows to `port`, one for each address: a message that passes two interfaces is one.
    pub fn to_port(&self, port: u16) -> Vec<&Flow> {
        self.larger(|f| f.destination.port() == port)
    }

    /// The same, to every port.
    pub fn all(&self) -> Vec<&Flow> {
        self.larger(|_| true)
    }

    /// How many came to all addresses together, a message that passes two interfaces once; with its margin of error.
    pub fn total(&self) -> (u64, Option<u64>) {
        let flows = self.larger(|_| true);
        let count = flows
            .iter()
            .fold(self.left_out, |sum, f| sum.saturating_add(f.count));
        let variance = flows.iter().fold(0u64, |sum, f| sum.saturating_add(f.variance));
        (count, margin(variance))
    }

    fn larger(&self, wanted: impl Fn(&Flow) -> bool) -> Vec<&Flow> {
        let mut flows: Vec<&Flow> = self.flows.values().filter(|f| wanted(f)).collect();
        flows.sort_by_key(|f| (f.destination, std::cmp::Reverse(f.count)));
        flows.dedup_by_key(|f| f.destination);
        flows
    }

    fn flow(&mut self, at: Timestamp, key: (Option<IfIndex>, SocketAddr)) -> Option<&mut Flow> {
        if self.flows.len() >= KEPT && !self.flows.contains_key(&key) {
            self.left_out += 1;
            return None;
        }
        Some(self.flows.entry(key).or_insert_with(|| Flow {
            destination: key.1,
            first_at: at,
            last_at: at,
            count: 0,
            shown: 0,
            one_in: 1,
            variance: 0,
            peak: 0,
            second: (0, 0),
            sources: Vec::new(),
        }))
    }
}

impl Flow {
    fn add(&mut self, at: Timestamp, count: u64) {
        self.last_at = self.last_at.max(at);
        self.count = self.count.saturating_add(count);
        let second = at.as_nanos().div_euclid(1_000_000_000);
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 = self.second.1.saturating_add(count);
        self.peak = self.peak.max(self.second.1);
    }

    /// Misra and Gries: whoever sends more than a ninth of all stays.
    fn from(&mut self, source: SocketAddr) {
        if let Some(known) = self.sources.iter_mut().find(|h| h.source == source) {
            known.count += 1;
        } else if self.sources.len() < SOURCES {
            self.sources.push(Heavy { source, count: 1 });
        } else {
            self.sources.retain_mut(|h| {
                h.count -= 1;
                h.count > 0
            });
        }
    }

    /// The source that sends the most.
    pub fn busiest(&self) -> Option<Heavy> {
        self.sources.iter().copied().max_by_key(|h| (h.count, h.source))
    }

    /// How far `count` may be off, either way, in 19 of 20 cases; `None` where it is exact.
    pub fn margin(&self) -> Option<u64> {
        margin(self.variance)
    }

    /// From the first to the last.
    pub fn span(&self) -> Span {
        self.last_at - self.first_at
    }
}

/// Half of the 95 % interval of a count with this variance: hundreds of messages taken make it a normal one.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // an estimate, and not negative
fn margin(variance: u64) -> Option<u64> {
    (variance > 0).then(|| (1.96 * (variance as f64).sqrt()).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::packet::Bytes;

    fn packet(source: u16, port: u16) -> WirePacket {
        WirePacket {
            direction: Direction::In,
            if_index: Some(IfIndex(2)),
            source: ([192, 0, 2, 1], source).into(),
            destination: ([192, 0, 2, 2], port).into(),
            tos: 0,
            payload_len: 148,
            payload: Bytes(vec![1, 0, 0, 0]),
        }
    }

    #[test]
    fn the_busiest_source_stays_among_many() {
        let mut inflow = Inflow::default();
        for n in 0..10_000u16 {
            let at = Timestamp::from_nanos(i64::from(n) * 1_000_000);
            inflow.packet(at, &packet(if n % 3 == 0 { 7 } else { n }, 51820));
        }
        let flows = inflow.to_port(51820);
        assert_eq!((flows.len(), flows[0].count, flows[0].peak), (1, 10_000, 1_000));
        assert_eq!(flows[0].busiest().map(|h| h.source.port()), Some(7));
        assert!(flows[0].sources.len() <= SOURCES);
    }

    #[test]
    fn addresses_are_bounded_and_what_is_left_out_is_counted() {
        let mut inflow = Inflow::default();
        for port in 0..1_000 {
            inflow.packet(Timestamp::EPOCH, &packet(1, port));
        }
        let tally = InitiationTally {
            if_index: None,
            destination: ([192, 0, 2, 9], 9).into(),
            count: 100,
            one_in: 1,
            variance: 0,
        };
        inflow.tally(Timestamp::EPOCH, &tally);
        assert_eq!(inflow.flows.len(), KEPT);
        assert_eq!(inflow.left_out, 1_000 - KEPT as u64 + 100);
        assert_eq!(inflow.total(), (1_100, None));
    }

    #[test]
    fn an_estimate_knows_its_error() {
        let mut inflow = Inflow::default();
        let second = Timestamp::from_secs(7);
        inflow.packet(second, &packet(1, 51820));
        // The same through another interface, of which fewer came.
        let tally = |if_index, count| InitiationTally {
            if_index: Some(IfIndex(if_index)),
            destination: ([192, 0, 2, 2], 51820).into(),
            count,
            one_in: 64,
            variance: count * 63,
        };
        inflow.tally(second, &tally(2, 100_031));
        inflow.tally(second, &tally(3, 99_000));
        let flows = inflow.to_port(51820);
        let [flow] = flows.as_slice() else {
            panic!("{flows:?}")
        };
        assert_eq!((flow.count, flow.shown, flow.one_in), (100_032, 1, 64));
        assert_eq!(flow.peak, 100_032);
        // 1.96 × sqrt(63 × 100,031).
        assert_eq!(flow.margin(), Some(4_921));
        assert_eq!(inflow.total(), (100_032, Some(4_921)));
    }
}

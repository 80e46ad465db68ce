//! Sockets over time: the newest table, and a bounded history of each destination.
//!
//! In: [`SocketTally`]s. Out: [`History`] by (protocol, source, destination), usable ports ([`Usable`]). A source address
//! is part of the key because a port is unique within (source, destination) only.

pub mod history;
pub mod usable;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

pub use history::{Basis, History, OpenRate, Sample};
pub use usable::Usable;

use crate::observation::socket::{DestinationTally, SocketTally, WaitingTally};
use crate::time::Timestamp;
use crate::track::trend::Trend;
use crate::types::Proto;

/// Destinations remembered. At the bound those that were not seen lately make room, and if all were, a new one is not
/// taken in; [`SocketState::left_out`] counts both.
pub const MAX_DESTINATIONS: usize = 1024;

/// Closer looks remembered, half a minute of them at one a second; the oldest is forgotten.
const MAX_WAITS: usize = 32;

/// What a local port is unique within.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The transport.
    pub proto: Proto,
    /// The local address.
    pub source: IpAddr,
    /// The remote address and port.
    pub destination: SocketAddr,
}

impl From<&DestinationTally> for Key {
    fn from(tally: &DestinationTally) -> Self {
        Self {
            proto: tally.proto,
            source: tally.source,
            destination: tally.destination,
        }
    }
}

/// Sockets over time.
#[derive(Debug, Default)]
pub struct SocketState {
    newest: Option<(Timestamp, SocketTally)>,
    /// UDP ports in the ephemeral range that were taken at each of the newest looks, oldest first.
    udp_ports: VecDeque<(Timestamp, u32)>,
    destinations: BTreeMap<Key, History>,
    left_out: u64,
    /// Closer looks at what waited, oldest first.
    waits: VecDeque<(Timestamp, Vec<WaitingTally>)>,
}

impl SocketState {
    /// Takes a folded table in.
    pub fn apply(&mut self, at: Timestamp, tally: &SocketTally) {
        self.newest = Some((at, tally.clone()));
        if self.udp_ports.len() == history::MAX_SAMPLES {
            self.udp_ports.pop_front();
        }
        self.udp_ports.push_back((at, tally.udp_ports_in_range));
        if tally.left_out.items == 0 {
            // The tally is whole, so what it does not show is not there.
            let shown: std::collections::BTreeSet<Key> = tally.destinations.iter().map(Key::from).collect();
            for (key, history) in &mut self.destinations {
                if !shown.contains(key) {
                    history.push_absent(at);
                }
            }
        }
        if let Some(waiting) = &tally.waiting {
            if self.waits.len() == MAX_WAITS {
                self.waits.pop_front();
            }
            self.waits.push_back((at, waiting.clone()));
        }
        for destination in &tally.destinations {
            let key = Key::from(destination);
            if !self.destinations.contains_key(&key) && self.destinations.len() >= MAX_DESTINATIONS {
                self.left_out += 1;
                if !self.make_room(at) {
                    continue;
                }
            }
            self.destinations.entry(key).or_default().push(at, destination);
        }
    }

    /// Forgets the destination that has been idle longest; false where all are in use at `at`.
    fn make_room(&mut self, at: Timestamp) -> bool {
        let last_used = |h: &History| h.samples().rev().find(|s| s.held > 0 || s.live > 0).map(|s| s.at);
        let oldest = self
            .destinations
            .iter()
            .map(|(key, history)| (last_used(history), *key))
            .min_by_key(|(used, _)| *used);
        match oldest {
            Some((used, key)) if used < Some(at) => self.destinations.remove(&key).is_some(),
            _ => false,
        }
    }

    /// Where the count of taken UDP ports is going.
    pub fn udp_trend(&self) -> Option<Trend> {
        Trend::of(self.udp_ports.iter().map(|(at, ports)| (*at, f64::from(*ports))))
    }

    /// The newest table and when it was read.
    pub fn newest(&self) -> Option<(Timestamp, &SocketTally)> {
        self.newest.as_ref().map(|(at, tally)| (*at, tally))
    }

    /// The closer looks at addresses towards which connections wait, oldest first.
    pub fn waits(&self) -> impl DoubleEndedIterator<Item = (Timestamp, &[WaitingTally])> {
        self.waits.iter().map(|(at, rows)| (*at, rows.as_slice()))
    }

    /// Every destination that is remembered.
    pub fn destinations(&self) -> impl Iterator<Item = (&Key, &History)> {
        self.destinations.iter()
    }

    /// The history of one destination.
    pub fn get(&self, key: &Key) -> Option<&History> {
        self.destinations.get(key)
    }

    /// Destinations that were forgotten or not taken in for want of room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The `n` destinations that matter most: by ports held now plus ten seconds' opens.
    pub fn busiest(&self, n: usize) -> Vec<(&Key, &History)> {
        let weight = |h: &History| {
            let held = h.newest().map_or(0, |s| s.held);
            f64::from(held) + h.opens().map_or(0.0, |o| o.per_second * 10.0)
        };
        let mut all: Vec<_> = self.destinations().map(|(k, h)| (weight(h), k, h)).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all.into_iter()
            .filter(|(weight, ..)| *weight > 0.0)
            .take(n)
            .map(|(_, k, h)| (k, h))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::socket::{LeftOut, StateCounts};

    fn tally(ports: impl IntoIterator<Item = u16>, left_out: u64) -> SocketTally {
        let one = |port| {
            let mut states = StateCounts::default();
            states.0[1] = 1;
            DestinationTally {
                proto: Proto::Tcp,
                source: [10, 0, 0, 2].into(),
                destination: ([203, 0, 113, 9], port).into(),
                states,
                ports_in_range: 1,
                time_wait_left: [0; 6],
                inodes: vec![port.into()],
                uids: Vec::new(),
            }
        };
        SocketTally {
            destinations: ports.into_iter().map(one).collect(),
            left_out: LeftOut {
                items: left_out,
                members: left_out,
            },
            ..SocketTally::default()
        }
    }

    #[test]
    fn absent_means_zero_only_in_a_whole_tally() {
        for (left_out, samples) in [(0, 2), (1, 1)] {
            let mut state = SocketState::default();
            state.apply(Timestamp::from_secs(1), &tally([1], 0));
            state.apply(Timestamp::from_secs(2), &tally([2], left_out));
            let first = state.destinations().next().unwrap().1;
            assert_eq!(first.samples().count(), samples);
            assert_eq!(state.newest().unwrap().0, Timestamp::from_secs(2));
        }
    }

    #[test]
    fn memory_is_bounded_and_the_idle_make_room() {
        let mut state = SocketState::default();
        state.apply(Timestamp::from_secs(1), &tally(0..1000, 0));
        state.apply(Timestamp::from_secs(2), &tally(1000..2100, 0));
        assert_eq!(state.destinations().count(), MAX_DESTINATIONS);
        let ports = |p| {
            state
                .destinations()
                .filter(|(k, _)| (k.destination.port() >= 1000) == p)
                .count()
        };
        assert_eq!((ports(true), ports(false)), (MAX_DESTINATIONS, 0));
        assert_eq!(state.left_out(), 1000 + 76);
    }

    #[test]
    fn closer_looks_are_bounded_and_the_oldest_is_forgotten() {
        let mut state = SocketState::default();
        for second in 0..100 {
            let tally = SocketTally {
                // No closer look is none, and not an empty one.
                waiting: (second % 2 == 0).then(Vec::new),
                ..SocketTally::default()
            };
            state.apply(Timestamp::from_secs(second), &tally);
        }
        assert_eq!(state.waits().count(), MAX_WAITS);
        assert_eq!(state.waits().next().unwrap().0, Timestamp::from_secs(98 - 2 * 31));
    }
}

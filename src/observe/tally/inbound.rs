//! Inbound connections by local port.

use std::cmp::Reverse;

use hashbrown::HashMap;

use crate::observation::socket::{InboundTally, LeftOut, StateCounts};

/// Ports whose connections are kept apart at most. What comes when they are full is counted as left out.
const TRACKED: usize = 4096;
/// Of these the busiest that a tally lists.
const REPORTED: usize = 64;

/// Connections by local port and state.
#[derive(Debug, Default)]
pub struct Inbound {
    ports: HashMap<u16, StateCounts>,
    beyond: u64,
}

impl Inbound {
    /// Counts a connection. `state` is below 13.
    #[inline]
    pub fn add(&mut self, port: u16, state: u8) {
        if self.ports.len() >= TRACKED && !self.ports.contains_key(&port) {
            self.beyond += 1;
            return;
        }
        if let Some(count) = self.ports.entry(port).or_default().0.get_mut(usize::from(state)) {
            *count += 1;
        }
    }

    /// The busiest ports, busiest first, and what is left out.
    pub fn busiest(&self) -> (Vec<InboundTally>, LeftOut) {
        let tally = |(port, states): (&u16, &StateCounts)| InboundTally {
            port: *port,
            states: *states,
        };
        listed(self.ports.iter().map(tally).collect(), self.beyond)
    }

    /// Whether something did not fit.
    pub fn overflowed(&self) -> bool {
        self.beyond > 0
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.ports.clear();
        self.beyond = 0;
    }
}

/// Of all served ports the busiest, busiest first, and what is left out; `beyond` are connections whose port did not fit at all.
pub fn listed(mut list: Vec<InboundTally>, beyond: u64) -> (Vec<InboundTally>, LeftOut) {
    list.sort_unstable_by_key(|inbound| (Reverse(inbound.states.total()), inbound.port));
    let mut left_out = LeftOut {
        items: 0,
        members: beyond,
    };
    for beyond in list.drain(REPORTED.min(list.len())..) {
        left_out.items += 1;
        left_out.members += u64::from(beyond.states.total());
    }
    (list, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_are_listed_and_the_rest_is_counted() {
        let mut inbound = Inbound::default();
        for port in 0..5000 {
            inbound.add(port, 1);
        }
        inbound.add(77, 6);
        let (list, left_out) = inbound.busiest();
        assert_eq!(list.len(), 64);
        assert_eq!((list[0].port, list[0].states.total(), list[1].port), (77, 2, 0));
        assert_eq!((left_out.items, left_out.members), (4096 - 64, 5000 - 64));
        assert!(inbound.overflowed());
    }
}

//! How fast initiations may go to one address, so that a probe of many peers is no flood.
//!
//! A responder under load gives each address 20 handshakes a second, five at once (kernel ratelimiter.c), and boringtun
//! answers with cookies from 100 a second on; both are for all senders behind one address. So a probe stays well below
//! the second, and below the first as soon as a cookie shows that the responder is under load.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::time::{Span, Timestamp};

/// Between two initiations to one address: 50 a second.
pub const SPACING: Span = Span::from_millis(20);
/// The same once a cookie came from there: 12.5 a second.
pub const SPACING_UNDER_LOAD: Span = Span::from_millis(80);

/// When the next initiation may go to each address.
#[derive(Debug, Default)]
pub struct Pacing {
    addresses: BTreeMap<IpAddr, Turn>,
}

#[derive(Debug, Default)]
struct Turn {
    next: Timestamp,
    under_load: bool,
}

impl Pacing {
    /// Takes the next turn towards `address`: when to send, not before `now`. Bounded by the targets of the probe.
    pub fn turn(&mut self, address: IpAddr, now: Timestamp) -> Timestamp {
        let turn = self.addresses.entry(address).or_default();
        let at = turn.next.max(now);
        turn.next = at
            + if turn.under_load {
                SPACING_UNDER_LOAD
            } else {
                SPACING
            };
        at
    }

    /// Notes that `address` sent a cookie.
    pub fn under_load(&mut self, address: IpAddr) {
        self.addresses.entry(address).or_default().under_load = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_fifty_a_second_and_fewer_under_load() {
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let mut pacing = Pacing::default();
        let now = Timestamp::from_secs(10);
        let turns: Vec<_> = (0..51).map(|_| pacing.turn(a, now)).collect();
        assert_eq!(turns[50] - turns[0], Span::from_secs(1));
        assert_eq!(pacing.turn(b, now), now, "another address has its own turns");
        pacing.under_load(a);
        let first = pacing.turn(a, now);
        assert!(
            pacing.turn(a, now) - first >= Span::from_millis(50),
            "below 20 a second"
        );
        // Nobody is made to wait for a burst that never came.
        let later = Timestamp::from_secs(100);
        assert_eq!(pacing.turn(a, later), later);
    }
}

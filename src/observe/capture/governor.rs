//! A bound on what a flood of initiations costs: so many a second are shown one by one, the rest is counted.
//!
//! In: what the tap decoded. Out: whether it is to be shown, and once a second how many were not. Responses, cookie
//! replies and errors always pass: they answer this host's own attempts, on which verdicts hang.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::observation::Body;
use crate::observation::packet::{Direction, InitiationTally};
use crate::time::Timestamp;
use crate::types::IfIndex;

/// Initiations a second that come in and are shown: a hub whose 1,000 peers all come back within seconds stays below.
pub const IN_A_SECOND: u32 = 1_000;
/// Initiations a second that leave and are shown: a hub calls each of 10,000 peers at most every five seconds.
pub const OUT_A_SECOND: u32 = 4_000;
/// Destinations that are counted apart; what goes to further ones is counted with the first.
const DESTINATIONS: usize = 64;

/// The state of one second.
#[derive(Debug, Default)]
pub struct Governor {
    second: i64,
    shown_in: u32,
    shown_out: u32,
    counted: HashMap<(Option<IfIndex>, SocketAddr), u64>,
}

impl Governor {
    /// Whether `body`, which passed at `at`, is to be shown. What is not is counted.
    pub fn admits(&mut self, at: Timestamp, body: &Body) -> bool {
        let Body::Packet(packet) = body else { return true };
        if packet.payload.0.first() != Some(&1) {
            return true;
        }
        self.turn_to(at);
        let (shown, limit) = match packet.direction {
            Direction::Out => (&mut self.shown_out, OUT_A_SECOND),
            Direction::In | Direction::Unknown => (&mut self.shown_in, IN_A_SECOND),
        };
        if *shown < limit {
            *shown += 1;
            return true;
        }
        if packet.direction != Direction::Out {
            let key = (packet.if_index, packet.destination);
            let has_room = self.counted.len() < DESTINATIONS || self.counted.contains_key(&key);
            let key = match (has_room, self.counted.keys().next()) {
                (false, Some(first)) => *first,
                _ => key,
            };
            *self.counted.entry(key).or_default() += 1;
        }
        false
    }

    /// What was counted and not shown, once its second is over.
    pub fn flush(&mut self, now: Timestamp) -> Option<impl Iterator<Item = InitiationTally> + use<>> {
        if self.counted.is_empty() || second(now) == self.second {
            return None;
        }
        let counted = std::mem::take(&mut self.counted);
        Some(
            counted
                .into_iter()
                .map(|((if_index, destination), count)| InitiationTally {
                    if_index,
                    destination,
                    count,
                }),
        )
    }

    fn turn_to(&mut self, at: Timestamp) {
        let now = second(at);
        if now != self.second {
            (self.second, self.shown_in, self.shown_out) = (now, 0, 0);
        }
    }
}

fn second(at: Timestamp) -> i64 {
    at.as_nanos().div_euclid(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::packet::{Bytes, WirePacket};
    use crate::time::Span;

    fn packet(kind: u8, direction: Direction, port: u16) -> Body {
        Body::Packet(WirePacket {
            direction,
            if_index: Some(IfIndex(2)),
            source: ([192, 0, 2, 1], 1).into(),
            destination: ([192, 0, 2, 2], port).into(),
            tos: 0,
            payload_len: 148,
            payload: Bytes(vec![kind, 0, 0, 0]),
        })
    }

    #[test]
    fn a_flood_is_counted_and_its_answers_are_shown() {
        let mut governor = Governor::default();
        let at = Timestamp::from_secs(100);
        let mut admit = |kind, direction, port| governor.admits(at, &packet(kind, direction, port));
        let shown = (0..5_000).filter(|_| admit(1, Direction::In, 51820)).count();
        assert_eq!(shown, IN_A_SECOND as usize);
        assert!(
            admit(1, Direction::Out, 51820) && admit(2, Direction::In, 51820) && admit(3, Direction::In, 7)
        );
        // More destinations than are counted apart are all counted.
        for port in 0..1_000 {
            assert!(!admit(1, Direction::In, port));
        }
        assert!(governor.flush(at).is_none(), "its second is not over");
        let later = at + Span::from_secs(1);
        let tallies: Vec<_> = governor.flush(later).unwrap().collect();
        assert!(tallies.len() <= DESTINATIONS);
        assert_eq!(tallies.iter().map(|t| t.count).sum::<u64>(), 5_000);
        assert!(governor.admits(later, &packet(1, Direction::In, 51820)));
    }
}

//! Datagrams that look like data of a session whose handshake was not seen.
//!
//! The shape alone (type 4, three zeros) is weak, so a stream counts as WireGuard only after several messages with
//! the same index, to the same place, with counters that rise in small steps. A fixed table: what does not fit pushes
//! out what it collides with.

use std::net::SocketAddr;

use crate::time::Timestamp;

/// Messages in a row until a stream counts as WireGuard.
pub const ENOUGH: u32 = 4;
/// The largest step of a counter that still is a step and not chance: 65,536 messages lost in a row.
const LARGEST_STEP: u64 = 1 << 16;
/// No session sends so many: REKEY_AFTER_MESSAGES (paper 6.1).
const LARGEST_COUNTER: u64 = 1 << 60;
const PLACES: usize = 1024;

/// A stream that may be one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub index: u32,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// The messages so far: when, counter, length.
    pub seen: [(Timestamp, u64, u32); ENOUGH as usize],
    count: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    places: Vec<Option<Candidate>>,
}

impl Candidates {
    /// Takes a message in; gives the stream when it is enough.
    pub fn note(
        &mut self,
        at: Timestamp,
        (source, destination): (SocketAddr, SocketAddr),
        (index, counter, len): (u32, u64, u32),
    ) -> Option<Candidate> {
        if counter >= LARGEST_COUNTER {
            return None;
        }
        if self.places.is_empty() {
            self.places.resize(PLACES, None);
        }
        // Two hosts that one session is sent to in turn must not push each other out.
        let host = match destination.ip() {
            std::net::IpAddr::V4(v4) => v4.to_bits(),
            #[allow(clippy::cast_possible_truncation)] // a hash
            std::net::IpAddr::V6(v6) => v6.to_bits() as u32,
        };
        let hash =
            (index ^ u32::from(destination.port()) ^ host.rotate_left(16)).wrapping_mul(0x9e37_79b1) >> 22;
        let place = self.places.get_mut(usize::try_from(hash).ok()?)?;
        let now = (at, counter, len);
        let goes_on = |c: &Candidate| {
            let last = c
                .count
                .checked_sub(1)
                .and_then(|n| c.seen.get(usize::try_from(n).ok()?));
            c.index == index
                && c.destination == destination
                && last.is_some_and(|(_, before, _)| counter > *before && counter - before <= LARGEST_STEP)
        };
        // The same message on a second interface: neither progress nor contradiction.
        let again =
            |c: &Candidate| c.index == index && c.seen.iter().any(|(_, before, _)| *before == counter);
        match place {
            Some(candidate) if goes_on(candidate) => {
                let next = usize::try_from(candidate.count).ok()?;
                *candidate.seen.get_mut(next)? = now;
                candidate.source = source;
                candidate.count += 1;
                if candidate.count == ENOUGH {
                    return place.take();
                }
            }
            Some(candidate) if again(candidate) && candidate.destination == destination => {}
            _ => {
                *place = Some(Candidate {
                    index,
                    source,
                    destination,
                    seen: [now; ENOUGH as usize],
                    count: 1,
                })
            }
        }
        None
    }
}

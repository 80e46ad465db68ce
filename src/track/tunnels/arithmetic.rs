//! What growth of a peer's byte counter can be made of.
//!
//! In: a difference between two readings and the time between them. Out: its [`Kind`]. Why: the kernel and
//! wireguard-go count handshake messages and keepalives too, so "the counter grew" does not mean "data flowed".

use crate::observation::device::Implementation;
use crate::time::Span;

/// An initiation's UDP payload in bytes (WireGuard paper, section 5.4.2).
pub const INITIATION_LEN: u64 = 148;
/// A response's UDP payload in bytes (section 5.4.3).
pub const RESPONSE_LEN: u64 = 92;
/// A keepalive's UDP payload in bytes: a data message without content (section 6.5).
pub const KEEPALIVE_LEN: u64 = 32;

/// What growth shows for certain, from nothing to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The counter stood still.
    Nothing,
    /// Handshake messages explain all of it.
    Handshake,
    /// Handshake messages and keepalives explain all of it.
    Keepalive,
    /// Neither does: data flowed.
    Data,
}

/// Sorts `delta` bytes that came within `span`, of which at most `keepalives` keepalives are to be believed. Also how
/// many keepalives it then holds at the least.
pub fn classify(delta: u64, span: Span, implementation: Implementation, keepalives: u64) -> (Kind, u64) {
    if delta == 0 {
        return (Kind::Nothing, 0);
    }
    if implementation.counts_handshake_bytes() == Some(false) {
        return (Kind::Data, 0);
    }
    // REKEY_TIMEOUT keeps one side's initiations 5 s apart; the peer may initiate in between.
    let handshakes = span.as_secs() / 5 + 1;
    match fewest_keepalives(delta, handshakes) {
        Some(0) => (Kind::Handshake, 0),
        Some(n) if n <= keepalives => (Kind::Keepalive, n),
        _ => (Kind::Data, 0),
    }
}

/// How many keepalives a side sends at most within `span` without being told to: one in KEEPALIVE_TIMEOUT (10 s) in
/// answer to data.
pub fn passive_keepalives(span: Span) -> u64 {
    span.as_secs() / 10 + 1
}

/// How many keepalives this side sends at most within `span`: those in answer to data, the persistent ones, and one that
/// confirms each of `handshakes` handshakes.
pub fn own_keepalives(span: Span, persistent: Option<u16>, handshakes: u64) -> u64 {
    let persistent = persistent.map_or(0, |k| span.as_secs() / u64::from(k.max(1)) + 1);
    passive_keepalives(span) + persistent + handshakes
}

/// The fewest keepalives that, with at most `handshakes` initiations and as many responses, add up to `delta`.
fn fewest_keepalives(delta: u64, handshakes: u64) -> Option<u64> {
    // Longer gaps than a look's interval only make it more tolerant; the cap bounds the work.
    let handshakes = handshakes.min(64);
    (0..=handshakes)
        .flat_map(|initiations| (0..=handshakes).map(move |responses| (initiations, responses)))
        .filter_map(|(initiations, responses)| {
            delta.checked_sub(initiations * INITIATION_LEN + responses * RESPONSE_LEN)
        })
        .filter(|rest| rest.is_multiple_of(KEEPALIVE_LEN))
        .map(|rest| rest / KEEPALIVE_LEN)
        .min()
}

/// How many initiations `delta` sent bytes are, where they are nothing else.
pub fn initiations(delta: u64, implementation: Implementation) -> Option<u64> {
    (implementation.counts_handshake_bytes() == Some(true)
        && delta > 0
        && delta.is_multiple_of(INITIATION_LEN))
    .then_some(delta / INITIATION_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Implementation::{Boringtun, Kernel};

    #[test]
    fn growth_is_sorted() {
        for (delta, secs, implementation, keepalives, kind) in [
            (0, 1, Kernel, 2, Kind::Nothing),
            (148, 1, Kernel, 2, Kind::Handshake),
            (92, 1, Kernel, 1, Kind::Handshake),
            (240, 1, Kernel, 1, Kind::Handshake),
            (180, 1, Kernel, 2, Kind::Keepalive),
            (124, 1, Kernel, 1, Kind::Keepalive),
            (32, 1, Kernel, 1, Kind::Keepalive),
            (32, 1, Kernel, 0, Kind::Data),
            // An echo request of 84 bytes: padded to 96, with 32 of overhead.
            (128, 1, Kernel, 2, Kind::Data),
            // Four initiations do not fit into a second.
            (4 * 148, 1, Kernel, 2, Kind::Data),
            (4 * 148, 20, Kernel, 2, Kind::Handshake),
            // boringtun counts content only, so whatever grows is data.
            (148, 1, Boringtun, 2, Kind::Data),
        ] {
            assert_eq!(
                classify(delta, Span::from_secs(secs), implementation, keepalives).0,
                kind,
                "{delta} bytes in {secs} s"
            );
        }
    }

    #[test]
    fn a_keepalive_beside_a_handshake_is_one() {
        let second = Span::from_secs(1);
        assert_eq!(classify(148 + 32, second, Kernel, 5), (Kind::Keepalive, 1));
        assert_eq!(classify(148 + 92 + 64, second, Kernel, 5), (Kind::Keepalive, 2));
    }

    #[test]
    fn keepalives_are_few() {
        for (secs, persistent, handshakes, most) in [(0, None, 0, 1), (20, None, 1, 4), (20, Some(5), 1, 9)] {
            let span = Span::from_secs(secs);
            assert_eq!(own_keepalives(span, persistent, handshakes), most);
        }
    }

    #[test]
    fn initiations_are_counted_only_where_they_are_counted() {
        assert_eq!(initiations(3 * 148, Kernel), Some(3));
        assert_eq!(initiations(3 * 148, Boringtun), None);
        assert_eq!(initiations(3 * 148 + 32, Kernel), None);
        assert_eq!(initiations(0, Kernel), None);
    }
}

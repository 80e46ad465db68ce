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

/// Which way the bytes went: each side errs towards what accuses nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Sent: data is claimed only where keepalives cannot explain it; holds this side's keepalive in seconds.
    Sent(Option<u16>),
    /// Received: keepalives are claimed only where they are few enough to be the protocol's own.
    Received,
}

/// Sorts `delta` bytes that came within `span`.
pub fn classify(delta: u64, span: Span, implementation: Implementation, way: Way) -> Kind {
    if delta == 0 {
        return Kind::Nothing;
    }
    if implementation.counts_handshake_bytes() == Some(false) {
        return Kind::Data;
    }
    let seconds = span.as_secs();
    // REKEY_TIMEOUT keeps one side's initiations 5 s apart; the peer may initiate in between.
    let handshakes = seconds / 5 + 1;
    // One passive keepalive in KEEPALIVE_TIMEOUT (10 s); a sender also confirms each handshake with one and has
    // its persistent ones. The peer's interval is not known, so a receiver's count leaves those out.
    let passive = seconds / 10 + 1;
    let keepalives = match way {
        Way::Sent(persistent) => {
            let persistent = persistent.map_or(0, |k| seconds / u64::from(k.max(1)) + 1);
            passive + persistent + handshakes
        }
        Way::Received => passive,
    };
    if made_of(delta, handshakes, 0) {
        Kind::Handshake
    } else if made_of(delta, handshakes, keepalives) {
        Kind::Keepalive
    } else {
        Kind::Data
    }
}

/// Whether at most `handshakes` initiations, as many responses and `keepalives` keepalives add up to `delta`.
fn made_of(delta: u64, handshakes: u64, keepalives: u64) -> bool {
    // Longer gaps than a look's interval only make it more tolerant; the cap bounds the work.
    let handshakes = handshakes.min(64);
    (0..=handshakes).any(|initiations| {
        (0..=handshakes).any(|responses| {
            let messages = initiations * INITIATION_LEN + responses * RESPONSE_LEN;
            delta
                .checked_sub(messages)
                .is_some_and(|rest| rest.is_multiple_of(KEEPALIVE_LEN) && rest / KEEPALIVE_LEN <= keepalives)
        })
    })
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
        let sent = Way::Sent(None);
        let keep = Way::Sent(Some(25));
        for (delta, secs, implementation, way, kind) in [
            (0, 1, Kernel, sent, Kind::Nothing),
            (148, 1, Kernel, sent, Kind::Handshake),
            (92, 1, Kernel, Way::Received, Kind::Handshake),
            (240, 1, Kernel, Way::Received, Kind::Handshake),
            (180, 1, Kernel, sent, Kind::Keepalive),
            (124, 1, Kernel, Way::Received, Kind::Keepalive),
            (32, 1, Kernel, keep, Kind::Keepalive),
            // An echo request of 84 bytes: padded to 96, with 32 of overhead.
            (128, 1, Kernel, sent, Kind::Data),
            (128, 1, Kernel, Way::Received, Kind::Data),
            // Four initiations do not fit into a second.
            (4 * 148, 1, Kernel, sent, Kind::Data),
            (4 * 148, 20, Kernel, sent, Kind::Handshake),
            // boringtun counts content only, so whatever grows is data.
            (148, 1, Boringtun, sent, Kind::Data),
        ] {
            assert_eq!(
                classify(delta, Span::from_secs(secs), implementation, way),
                kind,
                "{delta} bytes in {secs} s, {way:?}"
            );
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

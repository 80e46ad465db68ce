//! Whether a UDP payload can be a WireGuard message, beyond its type and length: for traffic on any port, where other
//! protocols may begin with the same four bytes.
//!
//! In: a payload, whole or cut. Out: which message it can be. Ephemeral keys are points below 2^255, so their top bit
//! is clear; keys, tags and macs look random, so bytes repeat little. Data has nothing but its header to go by: what
//! continues what decides there ([`crate::track::sessions`]).

use super::wireguard::{COOKIE_REPLY_LEN, INITIATION_LEN, Kind, RESPONSE_LEN};

/// What a payload can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A message as the paper has it.
    Standard(Kind),
    /// The same but with its reserved bytes in use, as Cloudflare's WARP does.
    Reserved(Kind),
    /// The header of one, but what follows is no key material: another protocol.
    Unlikely(Kind),
    /// Nothing like it.
    Other,
}

/// Says what `payload` can be; `wire_len` is its length on the wire. Data is judged by its header only.
#[inline]
pub fn shape(payload: &[u8], wire_len: u32) -> Shape {
    let Some([kind, reserved @ ..]) = payload.first_chunk::<4>() else {
        return Shape::Other;
    };
    let Some(kind) = Kind::from_type(*kind).filter(|k| k.fits(wire_len)) else {
        return Shape::Other;
    };
    let is_standard = *reserved == [0; 3];
    match kind {
        // Any payload of this length may begin with a 4.
        Kind::Data if !is_standard => Shape::Other,
        Kind::Data => Shape::Standard(kind),
        _ => match (looks_random(kind, payload), is_standard) {
            (true, true) => Shape::Standard(kind),
            (true, false) => Shape::Reserved(kind),
            (false, true) => Shape::Unlikely(kind),
            (false, false) => Shape::Other,
        },
    }
}

/// Where a handshake message's key material lies: from after its indices to before mac2, which is often zeros.
fn material(kind: Kind) -> (usize, usize) {
    match kind {
        Kind::Initiation => (8, INITIATION_LEN - 16),
        Kind::Response => (12, RESPONSE_LEN - 16),
        Kind::CookieReply | Kind::Data => (8, COOKIE_REPLY_LEN),
    }
}

fn looks_random(kind: Kind, payload: &[u8]) -> bool {
    let (start, end) = material(kind);
    let material = payload.get(start..payload.len().min(end)).unwrap_or(&[]);
    let is_point = match (kind, material.get(31)) {
        (Kind::Initiation | Kind::Response, Some(last)) => last & 0x80 == 0,
        _ => true,
    };
    let mut seen = [0u64; 4];
    for byte in material {
        if let Some(word) = seen.get_mut(usize::from(byte >> 6)) {
            *word |= 1 << (byte & 63);
        }
    }
    let distinct: usize = seen.iter().map(|word| word.count_ones() as usize).sum();
    // Of 124 random bytes 98 are different on average, and fewer than 62 less than once in 10^20 messages.
    is_point && distinct * 2 >= material.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::boring;
    use super::*;

    #[test]
    fn real_messages_are_standard() {
        let mut pair = boring::pair();
        for _ in 0..50 {
            let initiation = boring::initiation(&mut pair.initiator);
            assert_eq!(shape(&initiation, 148), Shape::Standard(Kind::Initiation));
            // As far as a short snapshot length goes.
            for cut in [4, 8, 26, 54, 100] {
                assert_eq!(shape(&initiation[..cut], 148), Shape::Standard(Kind::Initiation));
            }
            let response = boring::answer(&mut boring::pair().responder, &initiation);
            assert_eq!(shape(&response, 92), Shape::Standard(Kind::Response));
            let mut warp = initiation;
            warp[1..4].copy_from_slice(&[7, 8, 9]);
            assert_eq!(shape(&warp, 148), Shape::Reserved(Kind::Initiation));
        }
    }

    #[test]
    fn a_real_cookie_reply_is_standard() {
        let (_, cookie) = boring::cookie_reply(&mut boring::pair());
        assert_eq!(shape(&cookie, 64), Shape::Standard(Kind::CookieReply));
    }

    #[test]
    fn lookalikes_are_not() {
        let with = |head: &[u8], fill: u8, len: usize| {
            let mut payload = head.to_vec();
            payload.resize(len, fill);
            payload
        };
        let text =
            b"GET /an-ordinary-sentence-which-repeats-letters-repeats-letters-repeats-letters".repeat(3);
        let mut worded = with(&[1, 0, 0, 0], 0, 8);
        worded.extend(&text[..140]);
        for (payload, expected) in [
            (with(&[1, 0, 0, 0], 0, 148), Shape::Unlikely(Kind::Initiation)),
            (worded, Shape::Unlikely(Kind::Initiation)),
            (with(&[2, 0, 0, 0], 0xff, 92), Shape::Unlikely(Kind::Response)),
            (with(&[3, 0, 0, 0], 0, 64), Shape::Unlikely(Kind::CookieReply)),
            // A STUN binding request, a Tailscale disco message, DNS, QUIC's long header.
            (with(&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42], 7, 148), Shape::Other),
            (with(b"TS\xf0\x9f\x92\xac", 7, 148), Shape::Other),
            (with(&[1, 0, 1, 0, 0, 1], 7, 148), Shape::Other),
            (with(&[0xc3, 0, 0, 0, 1], 7, 148), Shape::Other),
            (with(&[4, 0, 0, 0], 0, 31), Shape::Other),
            (with(&[4, 1, 0, 0], 0, 100), Shape::Other),
            (with(&[4, 0, 0], 0, 3), Shape::Other),
        ] {
            let len = u32::try_from(payload.len()).unwrap();
            assert_eq!(shape(&payload, len), expected, "{payload:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(payload in proptest::collection::vec(any::<u8>(), 0..160), len in 0u32..200, kind in 0u8..6) {
            let _ = shape(&payload, len);
            let mut typed = payload;
            typed.splice(0..typed.len().min(4), [kind, 0, 0, 0]);
            let _ = shape(&typed, len);
        }
    }
}

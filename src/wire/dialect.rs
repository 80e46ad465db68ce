//! Protocols beside and around WireGuard that are told by their own marks: Tailscale's disco messages, and WireGuard
//! whose headers were changed (AmneziaWG).
//!
//! In: UDP payloads that are no standard WireGuard. Out: what they are. A changed header is known by what the protocol
//! keeps: an answer carries the index that its question chose, at the same distance from its end.

use std::net::SocketAddr;

use super::wireguard::{INITIATION_LEN, RESPONSE_LEN};
use crate::types::SessionIndex;

/// What a disco message begins with: `TS` and a speech balloon (Tailscale, disco/disco.go).
const DISCO_MAGIC: [u8; 6] = *b"TS\xf0\x9f\x92\xac";
/// Magic, the sender's public key, a nonce of 24 octets, a tag.
const DISCO_LEAST: usize = 6 + 32 + 24 + 16;

/// Whether this is a disco message: peers of Tailscale find ways to each other by them, beside their WireGuard.
pub fn is_disco(payload: &[u8], wire_len: u32) -> bool {
    payload.starts_with(&DISCO_MAGIC) && wire_len as usize >= DISCO_LEAST
}

/// Questions that wait for their answer. A fixed table: what does not fit pushes out what it collides with.
const PLACES: usize = 256;

/// Recognises handshakes whose four header bytes were replaced.
#[derive(Debug, Default)]
pub struct ChangedHeaders {
    asked: Vec<Option<(SocketAddr, SocketAddr, SessionIndex)>>,
    /// Answers that carried the index of a question: so many handshakes of such a dialect passed.
    pub handshakes: u64,
}

impl ChangedHeaders {
    /// Takes a payload in that has a handshake message's length and is none.
    pub fn note(&mut self, source: SocketAddr, destination: SocketAddr, payload: &[u8], wire_len: u32) {
        let (Some(at_4), at_8) = (index(payload, 4), index(payload, 8)) else {
            return;
        };
        if self.asked.is_empty() {
            self.asked.resize(PLACES, None);
        }
        match usize::try_from(wire_len) {
            Ok(INITIATION_LEN) => {
                if let Some(place) = self.asked.get_mut(place(at_4)) {
                    *place = Some((source, destination, at_4));
                }
            }
            Ok(RESPONSE_LEN) => {
                let Some(receiver) = at_8 else { return };
                let Some(asked) = self.asked.get_mut(place(receiver)) else {
                    return;
                };
                if *asked == Some((destination, source, receiver)) {
                    *asked = None;
                    self.handshakes += 1;
                }
            }
            _ => {}
        }
    }
}

fn index(payload: &[u8], at: usize) -> Option<SessionIndex> {
    let bytes = payload.get(at..)?.first_chunk::<4>()?;
    Some(SessionIndex(u32::from_le_bytes(*bytes)))
}

fn place(index: SessionIndex) -> usize {
    // In range by the remainder.
    usize::try_from(index.0).unwrap_or(0) % PLACES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 51820))
    }

    fn changed(header: u32, indices: &[u32], len: usize) -> Vec<u8> {
        let mut payload = header.to_le_bytes().to_vec();
        indices.iter().for_each(|i| payload.extend(i.to_le_bytes()));
        payload.resize(len, 0xa7);
        payload
    }

    #[test]
    fn an_answer_with_the_questions_index_is_a_handshake() {
        for (name, from, to, receiver, expected) in [
            ("an answer", 2, 1, 77, 1),
            ("another index", 2, 1, 78, 0),
            ("from somebody else", 3, 1, 77, 0),
            ("the same way", 1, 2, 77, 0),
        ] {
            let mut dialect = ChangedHeaders::default();
            dialect.note(addr(1), addr(2), &changed(0x1234_5678, &[77], 148), 148);
            dialect.note(
                addr(from),
                addr(to),
                &changed(0x9abc_def0, &[5, receiver], 92),
                92,
            );
            assert_eq!(dialect.handshakes, expected, "{name}");
        }
    }

    #[test]
    fn disco_by_its_magic() {
        let mut message = DISCO_MAGIC.to_vec();
        message.resize(122, 9);
        assert!(is_disco(&message, 122));
        assert!(is_disco(&message[..6], 122), "cut by a snapshot length");
        assert!(!is_disco(&message[..6], 6));
        message[2] = 0;
        assert!(!is_disco(&message, 122));
    }

    proptest! {
        #[test]
        fn any_bytes(payload in proptest::collection::vec(any::<u8>(), 0..160), len in prop_oneof![Just(148u32), Just(92), 0..200u32]) {
            let mut dialect = ChangedHeaders::default();
            dialect.note(addr(1), addr(2), &payload, len);
            dialect.note(addr(2), addr(1), &payload, len);
            let _ = is_disco(&payload, len);
        }
    }
}

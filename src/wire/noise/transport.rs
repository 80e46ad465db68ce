//! Data under a session's keys (section 5.4.6).
//!
//! In: inner packets and data messages. Out: the other of the two. A prober sends little and is sent little, so what is
//! received is only kept from being taken twice in a row; reordering is let pass as the peer's network made it.

use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, Tag};

use super::{Secret, Symmetric, kdf2};
use crate::types::SessionIndex;
use crate::wire::wireguard::{DATA_HEADER_LEN, Data};

/// Counters that are remembered, so that no message is taken twice.
const WINDOW: u64 = 64;
/// The longest inner packet: IPv4 and IPv6 lengths have 16 bits.
pub const LONGEST_INNER: usize = 65_535;

/// A session. It holds its keys and so has no `Debug`.
pub struct Transport {
    /// This side's index: what the peer's messages name.
    pub local: SessionIndex,
    /// The peer's index: what this side's messages name.
    pub remote: SessionIndex,
    sending: Secret,
    receiving: Secret,
    sent: u64,
    /// One more than the highest counter received, and which of the [`WINDOW`] below it came.
    next: u64,
    seen: u64,
}

/// Why a data message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// It names another session.
    #[error("the message is of another session")]
    OtherSession,
    /// Its tag does not verify.
    #[error("the message does not authenticate")]
    Tag,
    /// Its counter was there before, or is too old to tell.
    #[error("the message came before, or too late")]
    Replay,
}

impl Transport {
    pub(super) fn new(local: SessionIndex, remote: SessionIndex, sending: Secret, receiving: Secret) -> Self {
        Self {
            local,
            remote,
            sending,
            receiving,
            sent: 0,
            next: 0,
            seen: 0,
        }
    }

    /// The keys that the initiator and the responder send with (section 5.4.5).
    pub(super) fn keys(state: &Symmetric) -> (Secret, Secret) {
        let [initiator, responder] = kdf2(&state.chain, &[]);
        (initiator, responder)
    }

    /// Messages sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Seals an inner packet; an empty one is a keepalive. Nothing is padded: who searches for a path's MTU must know
    /// the length to the byte.
    pub fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let counter = self.sent;
        self.sent += 1;
        let mut message = vec![0; DATA_HEADER_LEN];
        let header = Data {
            reserved: [0; 3],
            receiver: self.remote,
            counter,
            len: 0,
        };
        if let Some(place) = message.first_chunk_mut::<DATA_HEADER_LEN>() {
            header.emit(place);
        }
        message.extend_from_slice(inner);
        let text = message.get_mut(DATA_HEADER_LEN..).unwrap_or_default();
        let sealing = ChaCha20Poly1305::new((&*self.sending).into());
        if let Ok(tag) = sealing.encrypt_in_place_detached(&nonce(counter), &[], text) {
            message.extend_from_slice(&tag);
        }
        message
    }

    /// Opens a whole data message: the inner packet with its padding, empty for a keepalive.
    pub fn open(&mut self, message: &[u8]) -> Result<Vec<u8>, DataError> {
        let len = u32::try_from(message.len()).map_err(|_| DataError::Tag)?;
        let header = Data::parse(message, len).ok_or(DataError::OtherSession)?;
        if header.receiver != self.local {
            return Err(DataError::OtherSession);
        }
        let (text, tag) = message
            .get(DATA_HEADER_LEN..)
            .and_then(|rest| rest.split_last_chunk::<16>())
            .ok_or(DataError::Tag)?;
        let mut text = text.to_vec();
        ChaCha20Poly1305::new((&*self.receiving).into())
            .decrypt_in_place_detached(&nonce(header.counter), &[], &mut text, Tag::from_slice(tag))
            .map_err(|_| DataError::Tag)?;
        self.accept(header.counter)?;
        Ok(text)
    }

    fn accept(&mut self, counter: u64) -> Result<(), DataError> {
        if counter >= self.next {
            let ahead = counter - self.next + 1;
            self.seen = self
                .seen
                .checked_shl(u32::try_from(ahead).unwrap_or(64))
                .unwrap_or(0)
                | 1;
            self.next = counter.saturating_add(1);
            return Ok(());
        }
        let behind = self.next - 1 - counter;
        if behind >= WINDOW || self.seen >> behind & 1 == 1 {
            return Err(DataError::Replay);
        }
        self.seen |= 1 << behind;
        Ok(())
    }
}

/// 32 zero bits and the counter, little-endian.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    let (_, low) = nonce.split_at_mut(4);
    low.copy_from_slice(&counter.to_le_bytes());
    nonce.into()
}

#[cfg(test)]
mod tests {
    use boringtun::noise::{Tunn, TunnResult};
    use proptest::prelude::*;

    use super::super::initiator::{Fresh, Identity, ResponseError};
    use super::*;
    use crate::types::{PresharedKey, PrivateKey};
    use crate::wire::boring;
    use crate::wire::tai64n::{Scale, Tai64n};
    use crate::wire::wireguard::{Initiation, Response};

    fn identity(private: [u8; 32], peer: [u8; 32], preshared: Option<&str>) -> Identity {
        Identity::new(
            PrivateKey::from_bytes(private),
            PrivateKey::from_bytes(peer).public(),
            preshared.map(|k| PresharedKey::from_base64(k).unwrap()),
        )
        .unwrap()
    }

    fn fresh(n: u8) -> Fresh {
        Fresh {
            sender: SessionIndex(0x0102_0300 + u32::from(n)),
            ephemeral: [n; 32],
            timestamp: Tai64n::new(
                crate::time::Timestamp::from_secs(1_700_000_000 + i64::from(n)),
                Scale::Kernel,
            ),
            cookie: None,
        }
    }

    const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn packet(len: usize) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.resize(len, 7);
        packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        packet
    }

    /// Our initiator, boringtun's responder, with and without a pre-shared key.
    #[test]
    fn boringtun_answers_us_and_takes_our_data() {
        for preshared in [None, Some(KEY)] {
            let us = identity([0x11; 32], [0x22; 32], preshared);
            let mut them = Tunn::new(
                [0x22; 32].into(),
                us.public().0.into(),
                preshared.map(|_| [1; 32]),
                None,
                9,
                None,
            );
            let (pending, initiation) = us.initiate(fresh(1));
            let answer = boring::answer(&mut them, &initiation);
            let response = Response::parse(answer.as_slice().try_into().unwrap()).unwrap();
            let mut session = us.finish(&pending, &answer, &response).ok().unwrap();
            let mut out = [0; 2048];
            for len in [20, 100, 1420] {
                let message = session.seal(&packet(len));
                assert_eq!(message.len(), len + 32);
                match them.decapsulate(Some(boring::FROM), &message, &mut out) {
                    TunnResult::WriteToTunnelV4(inner, _) => assert_eq!(inner, packet(len)),
                    other => panic!("{other:?}"),
                }
            }
            let back = boring::sent(them.encapsulate(&packet(77), &mut out));
            assert_eq!(session.open(&back).unwrap()[..77], packet(77));
            assert_eq!(session.open(&back), Err(DataError::Replay));
        }
    }

    /// What only the pre-shared key can be the cause of is told from what is not for us at all.
    #[test]
    fn a_response_proves_what_differs() {
        let us = identity([0x11; 32], [0x22; 32], Some(KEY));
        let mut them = Tunn::new(
            [0x22; 32].into(),
            us.public().0.into(),
            Some([9; 32]),
            None,
            9,
            None,
        );
        let (pending, initiation) = us.initiate(fresh(1));
        let answer = boring::answer(&mut them, &initiation);
        let parse = |bytes: &[u8]| -> Result<(), ResponseError> {
            let whole: [u8; 92] = bytes.try_into().unwrap();
            us.finish(&pending, &whole, &Response::parse(&whole).unwrap())
                .map(|_| ())
        };
        assert_eq!(parse(&answer), Err(ResponseError::PresharedKey));
        let mut changed = answer.clone();
        changed[50] ^= 1;
        assert_eq!(parse(&changed), Err(ResponseError::OtherReceiver));
        let mut other = answer;
        other[8] ^= 1;
        assert_eq!(parse(&other), Err(ResponseError::OtherIndex));
    }

    /// Our responder, boringtun's initiator: a gateway that calls back.
    #[test]
    fn we_answer_boringtun() {
        let mut pair = boring::pair();
        let us = identity(pair.responder_private, pair.initiator_private, None);
        let initiation = boring::initiation(&mut pair.initiator);
        let parsed = Initiation::parse(initiation.as_slice().try_into().unwrap()).unwrap();
        let (opened, mut session, response) = us.answer(&parsed, SessionIndex(5), [3; 32]).ok().unwrap();
        assert_eq!(opened.initiator, us.peer());
        // It confirms with a keepalive.
        let confirm = boring::answer(&mut pair.initiator, &response);
        assert!(session.open(&confirm).unwrap().is_empty());
        let mut out = [0; 2048];
        match pair
            .initiator
            .decapsulate(Some(boring::FROM), &session.seal(&packet(60)), &mut out)
        {
            TunnResult::WriteToTunnelV4(inner, _) => assert_eq!(inner, packet(60)),
            other => panic!("{other:?}"),
        }
        let stranger = identity(pair.responder_private, [0x33; 32], None);
        assert!(stranger.answer(&parsed, SessionIndex(5), [3; 32]).is_err());
    }

    #[test]
    fn a_point_of_small_order_is_refused() {
        let zero = crate::types::PublicKey([0; 32]);
        assert!(Identity::new(PrivateKey::from_bytes([1; 32]), zero, None).is_err());
    }

    proptest! {
        /// Both sides are ours: any data passes, in any order, once.
        #[test]
        fn each_message_is_taken_once(inner in proptest::collection::vec(any::<u8>(), 0..300), order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle()) {
            let (a, b) = (identity([1; 32], [2; 32], None), identity([2; 32], [1; 32], None));
            let (pending, initiation) = a.initiate(fresh(7));
            let parsed = Initiation::parse(&initiation).unwrap();
            let (_, mut back, answer) = b.answer(&parsed, SessionIndex(8), [4; 32]).ok().unwrap();
            let mut there = a.finish(&pending, &answer, &Response::parse(&answer).unwrap()).ok().unwrap();
            let sealed: Vec<_> = (0..40).map(|_| there.seal(&inner)).collect();
            for n in order {
                prop_assert_eq!(back.open(&sealed[n]), Ok(inner.clone()));
                prop_assert_eq!(back.open(&sealed[n]), Err(DataError::Replay));
            }
            let mut changed = there.seal(&inner);
            let last = changed.len() - 1;
            changed[last] ^= 1;
            prop_assert_eq!(back.open(&changed), Err(DataError::Tag));
        }
    }
}

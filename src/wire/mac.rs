//! Message authentication that public keys can check: mac1, cookies, mac2.
//!
//! In: messages and public keys. Out: for whom a handshake message was made, what a cookie reply holds, and whether
//! a retry used it. WireGuard paper, sections 5.4.4 and 5.4.7. Nothing here is secret but to who lacks the public
//! key, so comparisons need not take constant time.

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac as _};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};

use super::wireguard::{CookieReply, INITIATION_LEN, Kind, RESPONSE_LEN};
use crate::types::PublicKey;

/// The labels of section 5.4.4 and 5.4.7.
const LABEL_MAC1: &[u8; 8] = b"mac1----";
const LABEL_COOKIE: &[u8; 8] = b"cookie--";
/// mac1 and mac2 are the last two fields, of this length each.
const MAC: usize = 16;

/// A cookie, as the initiator gets to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub [u8; 16]);

/// What follows from a receiver's public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl ReceiverKeys {
    /// Derives them.
    pub fn of(key: &PublicKey) -> Self {
        let derive = |label: &[u8]| {
            Blake2s256::new()
                .chain_update(label)
                .chain_update(key.0)
                .finalize()
                .into()
        };
        Self {
            mac1: derive(LABEL_MAC1),
            cookie: derive(LABEL_COOKIE),
        }
    }

    /// mac1 over a message up to that field.
    pub fn mac1(&self, body: &[u8]) -> [u8; MAC] {
        keyed(&self.mac1, &[body])
    }

    /// Whether a whole initiation or response was made for this receiver. `None` for what is neither.
    pub fn made(&self, message: &[u8]) -> Option<bool> {
        let (body, mac1, _) = parts(message)?;
        Some(self.mac1(body) == *mac1)
    }

    /// Fills in mac1, and mac2 where there is a cookie, of a whole initiation or response for this receiver. The result
    /// is mac1: a cookie reply is bound to it.
    pub fn sign(&self, message: &mut [u8], cookie: Option<&Cookie>) -> [u8; MAC] {
        let Some((rest, mac2)) = message.split_last_chunk_mut::<MAC>() else {
            return [0; MAC];
        };
        let Some((body, mac1)) = rest.split_last_chunk_mut::<MAC>() else {
            return [0; MAC];
        };
        *mac1 = self.mac1(body);
        if let Some(cookie) = cookie {
            *mac2 = cookie.mac2(body, mac1);
        }
        *mac1
    }

    /// Opens a cookie reply that this key's owner sent, with mac1 of the message that it answers. `None` where one
    /// of the three does not belong to the others.
    pub fn open_cookie(&self, reply: &CookieReply<'_>, mac1: &[u8; MAC]) -> Option<Cookie> {
        let (encrypted, rest) = reply.encrypted_cookie.split_first_chunk::<16>()?;
        let tag = rest.first_chunk::<16>()?;
        let mut cookie = *encrypted;
        XChaCha20Poly1305::new(&self.cookie.into())
            .decrypt_in_place_detached(
                XNonce::from_slice(reply.nonce),
                mac1,
                &mut cookie,
                Tag::from_slice(tag),
            )
            .ok()?;
        Some(Cookie(cookie))
    }
}

impl Cookie {
    /// mac2 over a message up to that field.
    pub fn mac2(&self, body: &[u8], mac1: &[u8; MAC]) -> [u8; MAC] {
        keyed(&self.0, &[body, mac1])
    }

    /// Whether a whole initiation or response was made with this cookie. `None` for what is neither.
    pub fn used_in(&self, message: &[u8]) -> Option<bool> {
        let (body, mac1, mac2) = parts(message)?;
        Some(self.mac2(body, mac1) == *mac2)
    }
}

/// An initiation or response: what mac1 covers, mac1, mac2.
fn parts(message: &[u8]) -> Option<(&[u8], &[u8; MAC], &[u8; MAC])> {
    let kind = Kind::from_type(*message.first()?)?;
    let right = match kind {
        Kind::Initiation => message.len() == INITIATION_LEN,
        Kind::Response => message.len() == RESPONSE_LEN,
        Kind::CookieReply | Kind::Data => false,
    };
    let (rest, mac2) = message.split_last_chunk::<MAC>().filter(|_| right)?;
    let (body, mac1) = rest.split_last_chunk::<MAC>()?;
    Some((body, mac1, mac2))
}

/// Keyed BLAKE2s with 16 bytes of output (RFC 7693). Keys are 16 or 32 bytes, which it takes.
fn keyed(key: &[u8], parts: &[&[u8]]) -> [u8; MAC] {
    let Ok(mut mac) = <Blake2sMac<U16> as KeyInit>::new_from_slice(key) else {
        return [0; MAC];
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PrivateKey;
    use crate::wire::boring;
    use crate::wire::wireguard::{Initiation, Message};

    fn keys(private: [u8; 32]) -> ReceiverKeys {
        ReceiverKeys::of(&PrivateKey::from_bytes(private).public())
    }

    #[test]
    fn mac1_tells_for_whom_a_message_was_made() {
        let mut pair = boring::pair();
        let (initiator, responder) = (keys(pair.initiator_private), keys(pair.responder_private));
        let initiation = boring::initiation(&mut pair.initiator);
        let response = boring::answer(&mut pair.responder, &initiation);
        assert_eq!(
            (responder.made(&initiation), initiator.made(&initiation)),
            (Some(true), Some(false))
        );
        assert_eq!(
            (responder.made(&response), initiator.made(&response)),
            (Some(false), Some(true))
        );
        for at in [0, 4, 50, 115, 116] {
            let mut changed = initiation.clone();
            changed[at] ^= 1;
            assert_ne!(responder.made(&changed), Some(true), "byte {at}");
        }
        assert_eq!(responder.made(&initiation[..147]), None);
        assert_eq!(responder.made(&[4; 148]), None);
    }

    #[test]
    fn a_cookie_opens_and_the_retry_proves_it() {
        let mut pair = boring::pair();
        let responder = keys(pair.responder_private);
        let (initiation, reply) = boring::cookie_reply(&mut pair);
        let Some(Message::CookieReply(parsed)) = Message::parse(&reply, 64) else {
            panic!("not a cookie reply");
        };
        let mac1 = Initiation::parse(initiation.as_array().unwrap()).unwrap().mac1;
        let cookie = responder.open_cookie(&parsed, mac1).unwrap();
        assert_eq!(keys(pair.initiator_private).open_cookie(&parsed, mac1), None);
        assert_eq!(responder.open_cookie(&parsed, &[0; 16]), None);

        let mut out = [0; 256];
        pair.initiator.decapsulate(Some(boring::FROM), &reply, &mut out);
        let retry = boring::initiation(&mut pair.initiator);
        assert!(Initiation::parse(retry.as_array().unwrap()).unwrap().has_mac2());
        assert_eq!(cookie.used_in(&retry), Some(true));
        assert_eq!(cookie.used_in(&initiation), Some(false));
        assert_eq!(Cookie([1; 16]).used_in(&retry), Some(false));
    }
}

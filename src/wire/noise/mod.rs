//! Noise_IKpsk2 as WireGuard uses it: what opens with which key, and both roles of a handshake.
//!
//! In: messages and keys. Out: who sent an initiation, and when by that clock ([`open_initiation`]); an initiation and
//! what its response proves ([`initiator`]); an answer to an initiation ([`responder`]); data ([`transport`]). WireGuard
//! paper, section 5.4. No randomness and no clock in here: ephemeral keys and timestamps are arguments. Everything
//! derived is wiped after use, and nothing of it is ever shown.

pub mod initiator;
pub mod responder;
pub mod transport;

use blake2::{Blake2s256, Digest as _};
use chacha20poly1305::aead::AeadInPlace as _;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::tai64n::Tai64n;
use super::wireguard::Initiation;
use crate::types::{PrivateKey, PublicKey};

/// Section 5.4: the names that the chaining key and the hash begin with.
const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// BLAKE2s's block, for HMAC (RFC 2104).
const BLOCK: usize = 64;

type Secret = Zeroizing<[u8; 32]>;

/// What an initiation says to its responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Who sent it.
    pub initiator: PublicKey,
    /// When, by the initiator's clock. A responder takes only later ones than it has seen from that key.
    pub timestamp: Tai64n,
}

/// Why an initiation does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The static key does not authenticate: made for another responder, or changed on the way.
    #[error("the initiation was not made for this responder's key, or was changed on the way")]
    NotForThisKey,
    /// The static key opens and the timestamp does not: whoever made it does not hold that key.
    #[error("the initiation names the key {0} but whoever made it does not hold that key, or it was changed")]
    NotByThatKey(PublicKey),
}

/// Opens an initiation with the responder's private key.
pub fn open_initiation(responder: &PrivateKey, message: &Initiation<'_>) -> Result<Opened, OpenError> {
    open(responder, message).map(|(opened, _)| opened)
}

/// As [`open_initiation`], and where the handshake stands then.
fn open(responder: &PrivateKey, message: &Initiation<'_>) -> Result<(Opened, Symmetric), OpenError> {
    let secret = StaticSecret::from(*responder.expose());
    let mut state = Symmetric::begin(&responder.public());
    state.ephemeral(message.ephemeral);
    let shared = agree(&secret, message.ephemeral).ok_or(OpenError::NotForThisKey)?;
    let key = state.mix(&*shared);
    let initiator = PublicKey(
        state
            .open(&key, message.encrypted_static)
            .ok_or(OpenError::NotForThisKey)?,
    );

    let wrong = OpenError::NotByThatKey(initiator);
    let shared = agree(&secret, &initiator.0).ok_or(wrong)?;
    let key = state.mix(&*shared);
    let timestamp = state.open(&key, message.encrypted_timestamp).ok_or(wrong)?;
    let opened = Opened {
        initiator,
        timestamp: Tai64n(timestamp),
    };
    Ok((opened, state))
}

/// Where a handshake stands: the chaining key and the transcript's hash (section 5.4).
#[derive(Clone)]
struct Symmetric {
    chain: Secret,
    hash: [u8; 32],
}

impl Symmetric {
    /// Before the first message to `responder`.
    fn begin(responder: &PublicKey) -> Self {
        let chain: [u8; 32] = Blake2s256::digest(CONSTRUCTION).into();
        let start = hash(&[&chain, IDENTIFIER]);
        Self {
            hash: hash(&[&start, &responder.0]),
            chain: Zeroizing::new(chain),
        }
    }

    /// Takes an ephemeral public key in, which passes in the clear.
    fn ephemeral(&mut self, public: &[u8; 32]) {
        self.absorb(public);
        self.mix(public);
    }

    /// Mixes `input` into the chaining key; the result is a key for one message.
    fn mix(&mut self, input: &[u8]) -> Secret {
        let [chain, key] = kdf2(&self.chain, input);
        self.chain = chain;
        key
    }

    /// Mixes the pre-shared key in.
    fn mix_preshared(&mut self, key: &[u8; 32]) -> Secret {
        let [chain, second, third] = kdf3(&self.chain, key);
        self.chain = chain;
        self.absorb(&*second);
        third
    }

    fn absorb(&mut self, part: &[u8]) {
        self.hash = hash(&[&self.hash, part]);
    }

    /// Seals `plain` with nonce 0: it and 16 bytes of tag.
    fn seal<const PLAIN: usize, const SEALED: usize>(
        &mut self,
        key: &[u8; 32],
        plain: &[u8; PLAIN],
    ) -> [u8; SEALED] {
        const { assert!(SEALED == PLAIN + 16) };
        let mut sealed = [0; SEALED];
        if let Some((text, tag)) = sealed.split_first_chunk_mut::<PLAIN>() {
            *text = *plain;
            let sealing = ChaCha20Poly1305::new(key.into());
            // It fails for texts of 256 GiB and more only.
            if let Ok(made) = sealing.encrypt_in_place_detached(&Nonce::default(), &self.hash, text) {
                tag.copy_from_slice(&made);
            }
        }
        self.absorb(&sealed);
        sealed
    }

    /// Opens what was sealed with nonce 0.
    fn open<const PLAIN: usize, const SEALED: usize>(
        &mut self,
        key: &[u8; 32],
        sealed: &[u8; SEALED],
    ) -> Option<[u8; PLAIN]> {
        const { assert!(SEALED == PLAIN + 16) };
        let (text, tag) = sealed.split_first_chunk::<PLAIN>()?;
        let mut text = *text;
        ChaCha20Poly1305::new(key.into())
            .decrypt_in_place_detached(&Nonce::default(), &self.hash, &mut text, Tag::from_slice(tag))
            .ok()?;
        self.absorb(sealed);
        Some(text)
    }
}

/// X25519; `None` for a point of small order, which every implementation refuses.
fn agree(secret: &StaticSecret, public: &[u8; 32]) -> Option<Secret> {
    let shared = secret.diffie_hellman(&(*public).into());
    shared
        .was_contributory()
        .then(|| Zeroizing::new(*shared.as_bytes()))
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// HKDF of section 5.4: the next chaining key and one more.
fn kdf2(chain: &[u8; 32], input: &[u8]) -> [Secret; 2] {
    let root = hmac(chain, &[input]);
    let first = hmac(&root, &[&[1]]);
    let second = hmac(&root, &[&*first, &[2]]);
    [first, second]
}

/// As [`kdf2`], and one more.
fn kdf3(chain: &[u8; 32], input: &[u8]) -> [Secret; 3] {
    let root = hmac(chain, &[input]);
    let first = hmac(&root, &[&[1]]);
    let second = hmac(&root, &[&*first, &[2]]);
    let third = hmac(&root, &[&*second, &[3]]);
    [first, second, third]
}

/// HMAC-BLAKE2s (RFC 2104).
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    let pad = |byte: u8| {
        let mut block = Zeroizing::new([byte; BLOCK]);
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let mut inner = Blake2s256::new().chain_update(*pad(0x36));
    parts.iter().for_each(|part| inner.update(part));
    let inner: Secret = Zeroizing::new(inner.finalize().into());
    Zeroizing::new(
        Blake2s256::new()
            .chain_update(*pad(0x5c))
            .chain_update(*inner)
            .finalize()
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::boring;
    use crate::wire::tai64n::Scale;

    fn opened(private: [u8; 32], bytes: &[u8]) -> Result<Opened, OpenError> {
        let message = Initiation::parse(bytes.as_array().unwrap()).unwrap();
        open_initiation(&PrivateKey::from_bytes(private), &message)
    }

    #[test]
    fn the_responders_key_opens_what_boringtun_makes() {
        let mut pair = boring::pair();
        let initiator = PrivateKey::from_bytes(pair.initiator_private).public();
        let [one, two] = [(); 2].map(|()| {
            let bytes = boring::initiation(&mut pair.initiator);
            let opened = opened(pair.responder_private, &bytes).unwrap();
            assert_eq!(opened.initiator, initiator);
            opened.timestamp
        });
        assert!(one < two);
        assert_eq!(one.likely_scale(), Scale::Rust);
    }

    #[test]
    fn no_other_key_opens_it_and_no_bit_may_change() {
        let mut pair = boring::pair();
        let bytes = boring::initiation(&mut pair.initiator);
        let stranger = opened(pair.initiator_private, &bytes);
        assert_eq!(stranger, Err(OpenError::NotForThisKey));
        let initiator = PrivateKey::from_bytes(pair.initiator_private).public();
        for (at, error) in [
            (8, OpenError::NotForThisKey),
            (40, OpenError::NotForThisKey),
            (87, OpenError::NotForThisKey),
            (88, OpenError::NotByThatKey(initiator)),
            (115, OpenError::NotByThatKey(initiator)),
        ] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(opened(pair.responder_private, &changed), Err(error), "byte {at}");
        }
        let mut small_order = bytes;
        small_order[8..40].fill(0);
        assert_eq!(
            opened(pair.responder_private, &small_order),
            Err(OpenError::NotForThisKey)
        );
    }
}

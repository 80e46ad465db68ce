//! The initiator's side of a handshake: an initiation, and what a response to it proves (sections 5.4.2 and 5.4.3).

use x25519_dalek::StaticSecret;

use super::transport::Transport;
use super::{Secret, Symmetric, agree};
use crate::types::{PresharedKey, PrivateKey, PublicKey, SessionIndex};
use crate::wire::mac::{Cookie, ReceiverKeys};
use crate::wire::tai64n::Tai64n;
use crate::wire::wireguard::{INITIATION_LEN, Initiation, Response};

/// What an initiation is made of, but for what is fresh in each. It holds secrets and so has no `Debug`.
pub struct Identity {
    private: PrivateKey,
    public: PublicKey,
    peer: PublicKey,
    preshared: Option<PresharedKey>,
    /// DH of both static keys; the same in every handshake.
    shared: Secret,
    peer_keys: ReceiverKeys,
    own_keys: ReceiverKeys,
}

/// The peer's key is a point of small order: no implementation talks to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's public key is no usable point of the curve: every WireGuard refuses it")]
pub struct WeakKey;

/// What is fresh in each initiation.
pub struct Fresh {
    /// The initiator's index of the session to be.
    pub sender: SessionIndex,
    /// 32 random bytes for the ephemeral key.
    pub ephemeral: [u8; 32],
    /// Later than every one before.
    pub timestamp: Tai64n,
    /// From a cookie reply, where there was one.
    pub cookie: Option<Cookie>,
}

/// An initiation under way. It holds secrets and so has no `Debug`.
pub struct Pending {
    /// The initiator's index.
    pub sender: SessionIndex,
    /// mac1 of the initiation, which a cookie reply is bound to.
    pub mac1: [u8; 16],
    ephemeral: StaticSecret,
    state: Symmetric,
}

/// Why a response is not accepted. Each proves something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Its receiver index is none of this initiation.
    #[error("the response is not to this initiation")]
    OtherIndex,
    /// mac1 does not verify under our public key: whoever made it does not know it, or it was changed on the way.
    #[error("the response was not made for our public key")]
    OtherReceiver,
    /// mac1 verifies and the tag does not: the responder accepted our initiation, so it has both static keys right, and
    /// only the pre-shared key is left to differ.
    #[error("the response does not authenticate: the preshared keys differ")]
    PresharedKey,
}

impl Identity {
    /// Who calls whom.
    pub fn new(
        private: PrivateKey,
        peer: PublicKey,
        preshared: Option<PresharedKey>,
    ) -> Result<Self, WeakKey> {
        let secret = StaticSecret::from(*private.expose());
        let shared = agree(&secret, &peer.0).ok_or(WeakKey)?;
        let public = private.public();
        Ok(Self {
            peer_keys: ReceiverKeys::of(&peer),
            own_keys: ReceiverKeys::of(&public),
            private,
            public,
            peer,
            preshared,
            shared,
        })
    }

    /// This side's public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The peer's public key.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// This side's private key, for the other role.
    pub(super) fn private(&self) -> &PrivateKey {
        &self.private
    }

    /// The pre-shared key; zeros for none (section 5.4).
    pub(super) fn preshared(&self) -> &[u8; 32] {
        self.preshared.as_ref().map_or(&[0; 32], PresharedKey::expose)
    }

    /// What the peer checks messages with.
    pub fn peer_keys(&self) -> &ReceiverKeys {
        &self.peer_keys
    }

    /// What this side checks messages with.
    pub fn own_keys(&self) -> &ReceiverKeys {
        &self.own_keys
    }

    /// Makes an initiation.
    pub fn initiate(&self, fresh: Fresh) -> (Pending, [u8; INITIATION_LEN]) {
        let ephemeral = StaticSecret::from(fresh.ephemeral);
        let ephemeral_public = x25519_dalek::PublicKey::from(&ephemeral).to_bytes();
        let mut state = Symmetric::begin(&self.peer);
        state.ephemeral(&ephemeral_public);
        // The peer's key is no point of small order (checked once, above), so this gives a result.
        let shared = agree(&ephemeral, &self.peer.0).unwrap_or_default();
        let key = state.mix(&*shared);
        let encrypted_static: [u8; 48] = state.seal(&key, &self.public.0);
        let key = state.mix(&*self.shared);
        let encrypted_timestamp: [u8; 28] = state.seal(&key, &fresh.timestamp.0);

        let mut message = [0; INITIATION_LEN];
        let unsigned = Initiation {
            reserved: [0; 3],
            sender: fresh.sender,
            ephemeral: &ephemeral_public,
            encrypted_static: &encrypted_static,
            encrypted_timestamp: &encrypted_timestamp,
            mac1: &[0; 16],
            mac2: &[0; 16],
        };
        unsigned.emit(&mut message);
        let mac1 = self.peer_keys.sign(&mut message, fresh.cookie.as_ref());
        let pending = Pending {
            sender: fresh.sender,
            mac1,
            ephemeral,
            state,
        };
        (pending, message)
    }

    /// Judges a response to `pending`. `message` is the whole of it.
    pub fn finish(
        &self,
        pending: &Pending,
        message: &[u8],
        response: &Response<'_>,
    ) -> Result<Transport, ResponseError> {
        if response.receiver != pending.sender {
            return Err(ResponseError::OtherIndex);
        }
        if self.own_keys.made(message) != Some(true) {
            return Err(ResponseError::OtherReceiver);
        }
        let mut state = pending.state.clone();
        let own = StaticSecret::from(*self.private.expose());
        let step = |state: &mut Symmetric| {
            state.ephemeral(response.ephemeral);
            state.mix(&*agree(&pending.ephemeral, response.ephemeral)?);
            state.mix(&*agree(&own, response.ephemeral)?);
            let key = state.mix_preshared(self.preshared());
            state.open::<0, 16>(&key, response.encrypted_nothing)
        };
        step(&mut state).ok_or(ResponseError::PresharedKey)?;
        let (sending, receiving) = Transport::keys(&state);
        Ok(Transport::new(
            pending.sender,
            response.sender,
            sending,
            receiving,
        ))
    }
}

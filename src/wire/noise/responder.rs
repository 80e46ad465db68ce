//! The responder's side of a handshake: an answer to an initiation (section 5.4.3).
//!
//! A prober needs it for gateways that know their peers only once these have called, and then call back themselves.
//! A response holds no timestamp, so answering sets no clock at the other side.

use x25519_dalek::StaticSecret;

use super::initiator::Identity;
use super::transport::Transport;
use super::{OpenError, Opened, agree, open};
use crate::types::SessionIndex;
use crate::wire::wireguard::{Initiation, RESPONSE_LEN, Response};

/// Why an initiation is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It opens to another static key than the peer's.
    #[error("the initiation is from the key {}, which is not the peer's", .0.initiator)]
    OtherPeer(Opened),
    /// Its ephemeral key is a point of small order.
    #[error("the initiation's ephemeral key is no usable point of the curve")]
    Weak,
}

impl Identity {
    /// Answers an initiation of the peer with `sender` as our index and `ephemeral` as 32 random bytes. The session is the
    /// initiator's to confirm: it must send first.
    pub fn answer(
        &self,
        initiation: &Initiation<'_>,
        sender: SessionIndex,
        ephemeral: [u8; 32],
    ) -> Result<(Opened, Transport, [u8; RESPONSE_LEN]), AnswerError> {
        let (opened, mut state) = open(self.private(), initiation)?;
        if opened.initiator != self.peer() {
            return Err(AnswerError::OtherPeer(opened));
        }
        let ephemeral = StaticSecret::from(ephemeral);
        let ephemeral_public = x25519_dalek::PublicKey::from(&ephemeral).to_bytes();
        state.ephemeral(&ephemeral_public);
        state.mix(&*agree(&ephemeral, initiation.ephemeral).ok_or(AnswerError::Weak)?);
        state.mix(&*agree(&ephemeral, &self.peer().0).ok_or(AnswerError::Weak)?);
        let key = state.mix_preshared(self.preshared());
        let encrypted_nothing: [u8; 16] = state.seal(&key, &[]);

        let mut message = [0; RESPONSE_LEN];
        let unsigned = Response {
            reserved: [0; 3],
            sender,
            receiver: initiation.sender,
            ephemeral: &ephemeral_public,
            encrypted_nothing: &encrypted_nothing,
            mac1: &[0; 16],
            mac2: &[0; 16],
        };
        unsigned.emit(&mut message);
        self.peer_keys().sign(&mut message, None);
        let (initiator_sends, responder_sends) = Transport::keys(&state);
        let transport = Transport::new(sender, initiation.sender, responder_sends, initiator_sends);
        Ok((opened, transport, message))
    }
}

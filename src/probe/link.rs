//! A live session with a peer: data there and back, and new keys in time.
//!
//! In: inner packets and datagrams. Out: datagrams and inner packets. A peer that calls us is answered. New keys are asked
//! for only when something is to be sent: silence stays silence, on which the search for a NAT's patience depends.

use std::collections::VecDeque;

use super::entropy::Entropy;
use crate::time::{Span, Timestamp};
use crate::wire::noise::initiator::{Fresh, Identity, Pending};
use crate::wire::noise::transport::Transport;
use crate::wire::tai64n::Tai64n;
use crate::wire::wireguard::{Message, REKEY_AFTER_TIME, REKEY_TIMEOUT};

/// Inner packets that wait to be taken; later ones are dropped.
const INNER: usize = 256;

/// The session. It holds keys and so has no `Debug`.
pub struct Link {
    identity: Identity,
    entropy: Entropy,
    current: Transport,
    began: Timestamp,
    /// The one before, for what was under way.
    previous: Option<Transport>,
    /// One that the peer began and has not confirmed.
    offered: Option<Transport>,
    pending: Option<(Pending, Timestamp)>,
    last_stamp: Option<Tai64n>,
    transmits: VecDeque<Vec<u8>>,
    inner: VecDeque<Vec<u8>>,
}

impl Link {
    /// Goes on with the session of a handshake that was answered at `began`.
    pub fn new(
        identity: Identity,
        entropy: Entropy,
        session: Transport,
        last_stamp: Option<Tai64n>,
        began: Timestamp,
    ) -> Self {
        Self {
            identity,
            entropy,
            current: session,
            began,
            previous: None,
            offered: None,
            pending: None,
            last_stamp,
            transmits: VecDeque::new(),
            inner: VecDeque::new(),
        }
    }

    /// Sends an inner packet; an empty one is a keepalive.
    pub fn send(&mut self, now: Timestamp, inner: &[u8]) {
        self.renew(now, REKEY_AFTER_TIME);
        self.transmits.push_back(self.current.seal(inner));
    }

    /// Asks for new keys where the present ones are older than `age`.
    pub fn renew(&mut self, now: Timestamp, age: Span) {
        let waits = self
            .pending
            .as_ref()
            .is_some_and(|(_, at)| now - *at < REKEY_TIMEOUT);
        if now - self.began < age || waits {
            return;
        }
        let timestamp = Tai64n::like_the_kernel(now, self.last_stamp);
        self.last_stamp = Some(timestamp);
        let fresh = Fresh {
            sender: self.entropy.index(),
            ephemeral: self.entropy.bytes(),
            timestamp,
            cookie: None,
        };
        let (pending, message) = self.identity.initiate(fresh);
        self.pending = Some((pending, now));
        self.transmits.push_back(message.to_vec());
    }

    /// Takes a datagram in; says whether it is the peer's.
    pub fn handle_input(&mut self, now: Timestamp, datagram: &[u8]) -> bool {
        let len = u32::try_from(datagram.len()).unwrap_or(u32::MAX);
        match Message::parse(datagram, len) {
            Some(Message::Data(_)) => self.data(now, datagram),
            Some(Message::Response(response)) => {
                let Some((pending, _)) = &self.pending else {
                    return false;
                };
                let Ok(session) = self.identity.finish(pending, datagram, &response) else {
                    return false;
                };
                self.pending = None;
                self.adopt(now, session);
                // The peer uses the new keys once it has seen them used.
                let confirm = self.current.seal(&[]);
                self.transmits.push_back(confirm);
                true
            }
            Some(Message::Initiation(initiation)) => {
                if self.identity.own_keys().made(datagram) != Some(true) {
                    return false;
                }
                let (sender, ephemeral) = (self.entropy.index(), self.entropy.bytes());
                let Ok((_, session, response)) = self.identity.answer(&initiation, sender, ephemeral) else {
                    return false;
                };
                self.offered = Some(session);
                self.transmits.push_back(response.to_vec());
                true
            }
            Some(Message::CookieReply(_)) | None => false,
        }
    }

    fn data(&mut self, now: Timestamp, datagram: &[u8]) -> bool {
        if let Some(inner) = self.offered.as_mut().and_then(|s| s.open(datagram).ok()) {
            if let Some(session) = self.offered.take() {
                self.adopt(now, session);
            }
            self.take(inner);
            return true;
        }
        let opened = self.current.open(datagram).ok();
        let opened = opened.or_else(|| self.previous.as_mut()?.open(datagram).ok());
        let Some(inner) = opened else { return false };
        self.take(inner);
        true
    }

    fn adopt(&mut self, now: Timestamp, session: Transport) {
        self.previous = Some(std::mem::replace(&mut self.current, session));
        self.began = now;
    }

    fn take(&mut self, inner: Vec<u8>) {
        if !inner.is_empty() && self.inner.len() < INNER {
            self.inner.push_back(inner);
        }
    }

    /// The last timestamp that was used.
    pub fn last_stamp(&self) -> Option<Tai64n> {
        self.last_stamp
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// The next inner packet that came.
    pub fn poll_inner(&mut self) -> Option<Vec<u8>> {
        self.inner.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PrivateKey, SessionIndex};
    use crate::wire::wireguard::{Initiation, Response};

    fn identity(own: u8, peer: u8) -> Identity {
        let peer = PrivateKey::from_bytes([peer; 32]).public();
        Identity::new(PrivateKey::from_bytes([own; 32]), peer, None).unwrap()
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_700_000_000 + secs)
    }

    /// Two links of one session.
    fn pair() -> (Link, Link) {
        let (a, b) = (identity(1, 2), identity(2, 1));
        let (pending, initiation) = a.initiate(Fresh {
            sender: SessionIndex(1),
            ephemeral: [7; 32],
            timestamp: Tai64n::like_the_kernel(at(0), None),
            cookie: None,
        });
        let initiation = Initiation::parse(&initiation).unwrap();
        let (_, theirs, answer) = b.answer(&initiation, SessionIndex(2), [8; 32]).ok().unwrap();
        let ours = a
            .finish(&pending, &answer, &Response::parse(&answer).unwrap())
            .ok()
            .unwrap();
        let stamp = Some(Tai64n::like_the_kernel(at(0), None));
        (
            Link::new(a, Entropy::new([1; 32]), ours, stamp, at(0)),
            Link::new(b, Entropy::new([2; 32]), theirs, None, at(0)),
        )
    }

    /// Carries everything both ways.
    fn carry(now: Timestamp, a: &mut Link, b: &mut Link) -> usize {
        let mut carried = 0;
        loop {
            let before = carried;
            while let Some(datagram) = a.poll_transmit() {
                assert!(b.handle_input(now, &datagram));
                carried += 1;
            }
            while let Some(datagram) = b.poll_transmit() {
                assert!(a.handle_input(now, &datagram));
                carried += 1;
            }
            if carried == before {
                return carried;
            }
        }
    }

    #[test]
    fn data_passes_and_keys_are_renewed_when_something_is_sent() {
        let (mut a, mut b) = pair();
        a.send(at(1), b"there");
        assert_eq!(carry(at(1), &mut a, &mut b), 1);
        assert_eq!(b.poll_inner().unwrap(), b"there");
        // Two minutes later: an initiation, the data under the old keys, the answer and its confirmation.
        a.send(at(121), b"again");
        assert_eq!(carry(at(121), &mut a, &mut b), 4);
        assert_eq!(b.poll_inner().unwrap(), b"again");
        b.send(at(122), b"back");
        a.send(at(122), b"new keys");
        assert_eq!(carry(at(122), &mut a, &mut b), 2);
        assert_eq!(
            (a.poll_inner().unwrap(), b.poll_inner().unwrap()),
            (b"back".to_vec(), b"new keys".to_vec())
        );
        // The peer calls.
        b.renew(at(250), Span::from_secs(120));
        assert_eq!(carry(at(250), &mut a, &mut b), 3);
        a.send(at(251), b"x");
        assert_eq!(carry(at(251), &mut a, &mut b), 1);
        assert!(!a.handle_input(at(251), b"nothing"));
    }
}

//! What known keys open of a handshake message: for whom it was made, by whom, and when by its maker's clock.

use std::net::SocketAddr;

use super::key_file::KeyFile;
use super::mac::ReceiverKeys;
use super::noise::{self, Opened};
use super::wireguard::{INITIATION_LEN, Initiation};
use crate::observation::packet::{Bytes, CheckedKind, CheckedMessage, OpenedInitiation};
use crate::types::{PrivateKey, PublicKey};

/// Keys that [`KeyRing::know`] takes in at most: a device's own, and what it had before.
pub const KNOWN: usize = 1024;

/// Keys to try. It holds private keys and so has no `Debug`.
#[derive(Default)]
pub struct KeyRing {
    receivers: Vec<Receiver>,
    listening: Vec<(PublicKey, u16)>,
}

struct Receiver {
    key: PublicKey,
    macs: ReceiverKeys,
    /// In a place of its own: a list that grows would leave copies behind.
    private: Option<Box<PrivateKey>>,
    peers: Option<Vec<PublicKey>>,
}

/// What the keys say of an initiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The key that it was made for, of those given.
    pub made_for: Option<PublicKey>,
    /// What it says, where that key's private half was given.
    pub opened: Option<Opened>,
    /// Whether the configuration of that key lists its maker; `None` where it was not opened or nothing lists peers.
    pub is_listed: Option<bool>,
}

impl KeyRing {
    /// Takes the keys of a file over.
    pub fn add(&mut self, file: KeyFile) {
        self.listening.extend(file.listening);
        for (private, peers) in file.private {
            let key = private.public();
            match self.receivers.iter_mut().find(|r| r.key == key) {
                Some(known) => {
                    known.private = Some(Box::new(private));
                    known.peers = known.peers.take().or(peers);
                }
                None => self.push(key, Some(Box::new(private)), peers),
            }
        }
        for key in file.public {
            if self.receivers.iter().all(|r| r.key != key) {
                self.push(key, None, None);
            }
        }
    }

    /// Makes a key known, with its private half where that can be read. What is known of it already stays. False where
    /// there is no room for another.
    pub fn know(&mut self, key: PublicKey, private: Option<Box<PrivateKey>>) -> bool {
        let is_full = self.receivers.len() >= KNOWN;
        match self.receivers.iter_mut().find(|r| r.key == key) {
            Some(known) => known.private = private.or(known.private.take()),
            None if is_full => return false,
            None => self.push(key, private, None),
        }
        true
    }

    /// Whether the private half of a key is there.
    pub fn opens(&self, key: PublicKey) -> bool {
        self.receivers.iter().any(|r| r.key == key && r.private.is_some())
    }

    /// For which known key a whole handshake message was made; that of `first` is tried first.
    pub fn made_for(&self, payload: &[u8], first: Option<PublicKey>) -> Option<PublicKey> {
        let made = |r: &&Receiver| r.macs.made(payload) == Some(true);
        let likely = self.receivers.iter().filter(|r| Some(r.key) == first);
        likely.chain(&self.receivers).find(made).map(|r| r.key)
    }

    /// Keys whose configuration says on which UDP port they listen.
    pub fn listening(&self) -> &[(PublicKey, u16)] {
        &self.listening
    }

    fn push(&mut self, key: PublicKey, private: Option<Box<PrivateKey>>, peers: Option<Vec<PublicKey>>) {
        self.receivers.push(Receiver {
            key,
            macs: ReceiverKeys::of(&key),
            private,
            peers,
        });
    }

    /// Tries the keys on a whole initiation; `None` for anything else, and where there are no keys.
    pub fn try_on(&self, payload: &[u8]) -> Option<Verdict> {
        if self.receivers.is_empty() {
            return None;
        }
        let bytes: &[u8; INITIATION_LEN] = payload.try_into().ok()?;
        let message = Initiation::parse(bytes)?;
        let Some(receiver) = self.receivers.iter().find(|r| r.macs.made(payload) == Some(true)) else {
            return Some(Verdict {
                made_for: None,
                opened: None,
                is_listed: None,
            });
        };
        let opened = receiver
            .private
            .as_deref()
            .and_then(|key| noise::open_initiation(key, &message).ok());
        let is_listed = opened
            .zip(receiver.peers.as_ref())
            .map(|(opened, peers)| peers.contains(&opened.initiator));
        Some(Verdict {
            made_for: Some(receiver.key),
            opened,
            is_listed,
        })
    }
}

impl Verdict {
    /// The fact that it is about a whole initiation from `source` to `destination`; `None` for anything else.
    pub fn about(
        self,
        payload: &[u8],
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<CheckedMessage> {
        let message = Initiation::parse(payload.try_into().ok()?)?;
        Some(CheckedMessage {
            message: CheckedKind::Initiation,
            source,
            destination,
            sender: message.sender,
            mac1: Bytes(message.mac1.to_vec()),
            reached: None,
            made_for: self.made_for,
            opened: self.opened.map(|opened| OpenedInitiation {
                initiator: opened.initiator,
                stamp: Bytes(opened.timestamp.0.to_vec()),
            }),
            is_listed: self.is_listed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::boring;
    use super::*;

    #[test]
    fn keys_say_for_whom_by_whom_and_whether_known() {
        let mut pair = boring::pair();
        let initiation = boring::initiation(&mut pair.initiator);
        let [ours, theirs] = [pair.initiator_private, pair.responder_private].map(PrivateKey::from_bytes);
        let (initiator, responder) = (ours.public(), theirs.public());
        let verdict = |file: KeyFile| {
            let mut ring = KeyRing::default();
            ring.add(file);
            ring.try_on(&initiation).unwrap()
        };
        let nothing = Verdict {
            made_for: None,
            opened: None,
            is_listed: None,
        };
        let with = |private, public| KeyFile {
            private,
            public,
            ..KeyFile::default()
        };
        assert_eq!(verdict(with(vec![], vec![initiator])), nothing);
        assert_eq!(verdict(with(vec![(ours, None)], vec![])), nothing);
        let public = verdict(with(vec![], vec![responder]));
        assert_eq!(
            public,
            Verdict {
                made_for: Some(responder),
                ..nothing
            }
        );
        for (peers, is_listed) in [
            (None, None),
            (Some(vec![]), Some(false)),
            (Some(vec![initiator]), Some(true)),
        ] {
            let seen = verdict(with(vec![(theirs.clone(), peers)], vec![responder]));
            assert_eq!(seen.opened.map(|o| o.initiator), Some(initiator));
            assert_eq!((seen.made_for, seen.is_listed), (Some(responder), is_listed));
        }
        assert_eq!(KeyRing::default().try_on(&initiation), None);
        let mut ring = KeyRing::default();
        ring.add(with(vec![], vec![responder]));
        assert_eq!(ring.try_on(&initiation[..147]), None);
    }
}

//! What given keys open of a captured initiation: for whom it was made, by whom, and when by its maker's clock.

use super::key_file::KeyFile;
use super::mac::ReceiverKeys;
use super::noise::{self, Opened};
use super::wireguard::{INITIATION_LEN, Initiation};
use crate::types::{PrivateKey, PublicKey};

/// Keys to try. It holds private keys and so has no `Debug`.
#[derive(Default)]
pub struct KeyRing {
    receivers: Vec<Receiver>,
    listening: Vec<(PublicKey, u16)>,
}

struct Receiver {
    key: PublicKey,
    macs: ReceiverKeys,
    private: Option<PrivateKey>,
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
                    known.private = Some(private);
                    known.peers = known.peers.take().or(peers);
                }
                None => self.push(key, Some(private), peers),
            }
        }
        for key in file.public {
            if self.receivers.iter().all(|r| r.key != key) {
                self.push(key, None, None);
            }
        }
    }

    /// Keys whose configuration says on which UDP port they listen.
    pub fn listening(&self) -> &[(PublicKey, u16)] {
        &self.listening
    }

    fn push(&mut self, key: PublicKey, private: Option<PrivateKey>, peers: Option<Vec<PublicKey>>) {
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
            .as_ref()
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

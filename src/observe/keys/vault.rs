//! The devices' private keys, as long as this process looks: given by the observers of devices, used by the observer
//! of keys, wiped when dropped. Nothing in here can be printed, recorded or asked for.

use std::sync::{Mutex, PoisonError};

use crate::observation::Source;
use crate::observation::device::{DeviceSnapshot, Implementation};
use crate::observation::packet::CheckedMessage;
use crate::types::{PrivateKey, PublicKey};
use crate::wire::key_ring::KeyRing;

/// Peers whose keys are tried too, of all devices: a message for one of them reached the wrong host.
const PEERS_KNOWN: usize = 256;

/// A private key in a place of its own: a list of them that grows leaves no copies behind.
pub type BoxedKey = Box<PrivateKey>;

/// The keys of one namespace's devices.
#[derive(Default)]
pub struct Vault(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    ring: KeyRing,
    devices: Vec<Known>,
    peers_known: usize,
}

/// A device, without its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    source: Source,
    name: String,
    port: Option<u16>,
    key: Option<PublicKey>,
    /// Whether it has a private key that can be told of.
    has_key: bool,
}

/// Which devices' private keys are there, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// They are.
    pub readable: Vec<String>,
    /// They are not.
    pub unreadable: Vec<String>,
}

impl Vault {
    /// Takes over what `source` has just read: its devices, and the private keys that came along, by device.
    pub fn deposit(
        &self,
        source: Source,
        devices: &[DeviceSnapshot],
        keys: impl IntoIterator<Item = BoxedKey>,
    ) {
        self.with(|inner| {
            for private in keys {
                let key = private.public();
                if !inner.ring.opens(key) {
                    inner.ring.know(key, Some(private));
                }
            }
            inner.devices.retain(|d| d.source != source);
            for device in devices {
                if let Some(key) = device.public_key {
                    inner.ring.know(key, None);
                }
                // Without a private key a kernel's device has no public one either, and can answer nobody.
                let keyless = device.implementation == Implementation::Kernel && device.public_key.is_none();
                inner.devices.push(Known {
                    source,
                    name: device.name.clone(),
                    port: device.listen_port,
                    key: device.public_key,
                    has_key: !keyless,
                });
                for peer in &device.peers {
                    if inner.peers_known < PEERS_KNOWN && inner.ring.know(peer.public_key, None) {
                        inner.peers_known += 1;
                    }
                }
            }
        });
    }

    /// The key of the device that listens on `port`; the inner `None` where it is not told. Of two on one port neither
    /// can be said to have been reached.
    pub fn listening_on(&self, port: u16) -> Option<Option<PublicKey>> {
        self.with(|inner| {
            let mut found = inner.devices.iter().filter(|d| d.port == Some(port));
            let first = found.next()?;
            found.all(|d| d.key == first.key).then_some(first.key)
        })
    }

    /// Hands the keys to `check`, for one message.
    pub fn check(&self, check: impl FnOnce(&KeyRing) -> Option<CheckedMessage>) -> Option<CheckedMessage> {
        self.with(|inner| check(&inner.ring))
    }

    /// What is there.
    pub fn holdings(&self) -> Holdings {
        self.with(|inner| {
            let mut holdings = Holdings::default();
            for device in inner.devices.iter().filter(|d| d.has_key) {
                match device.key.is_some_and(|key| inner.ring.opens(key)) {
                    true => holdings.readable.push(device.name.clone()),
                    false => holdings.unreadable.push(device.name.clone()),
                }
            }
            holdings
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // A thread that panicked has left whole keys all the same.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, key: Option<PublicKey>, implementation: Implementation) -> DeviceSnapshot {
        DeviceSnapshot {
            name: name.to_owned(),
            if_index: None,
            implementation,
            public_key: key,
            listen_port: Some(51820),
            fwmark: 0,
            peers: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn key(byte: u8) -> Box<PrivateKey> {
        Box::new(PrivateKey::from_bytes([byte; 32]))
    }

    #[test]
    fn whose_key_is_there_and_whose_is_not() {
        let vault = Vault::default();
        assert_eq!(vault.holdings(), Holdings::default());
        let devices = [
            device("wg0", Some(key(1).public()), Implementation::WireguardGo),
            device("wg1", Some(key(2).public()), Implementation::Boringtun),
            device("wg2", None, Implementation::Kernel),
        ];
        vault.deposit(Source::WireguardUapi, &devices, [key(1)]);
        let holdings = vault.holdings();
        assert_eq!(holdings.readable, ["wg0"]);
        assert_eq!(holdings.unreadable, ["wg1"]);
        // One port, two keys.
        assert_eq!(vault.listening_on(51820), None);
        vault.deposit(Source::WireguardUapi, &devices[..1], []);
        assert_eq!(vault.listening_on(51820), Some(Some(key(1).public())));
        assert_eq!(vault.listening_on(1), None);
        // What was known stays known: a device's key of before may still be in use at a peer.
        assert_eq!(vault.holdings().readable, ["wg0"]);
    }
}

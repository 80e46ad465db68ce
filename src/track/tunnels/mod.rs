//! WireGuard devices and their peers over time.
//!
//! In: snapshots of devices, configured peers. Out: what each peer's counters, handshakes and endpoint did while
//! watched; the route look-ups that would tell more; the next event on which a verdict hangs.

pub mod arithmetic;
pub mod delivery;
pub mod due;
pub mod peer;
pub mod requests;
pub mod silence;
pub mod traffic;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use hashbrown::HashMap;

use super::Due;
use super::handshake::Handshakes;
use super::routes::RouteState;
use crate::observation::device::{ConfiguredPeer, DeviceSnapshot};
use crate::observation::host::RouteWay;
use crate::observation::{Request, Source};
use crate::time::Timestamp;
use crate::types::PublicKey;
pub use delivery::Delivery;
pub use peer::PeerTrack;
pub use silence::Silence;
pub use wire::PeerWire;

/// Devices kept; further ones are left out and counted.
const MAX_DEVICES: usize = 256;
/// Peers kept over all devices; further ones are left out and counted.
const MAX_PEERS: usize = 10_000;
/// Configured peers kept; further ones are left out and counted.
const MAX_CONFIGURED: usize = 10_000;

/// Every device.
#[derive(Debug, Default)]
pub struct Tunnels {
    devices: BTreeMap<String, DeviceTrack>,
    configured: Vec<ConfiguredPeer>,
    /// Which peers are at an endpoint: as large as the peers are.
    by_endpoint: HashMap<SocketAddr, Vec<(String, PublicKey)>>,
    asked: BTreeMap<String, requests::Asked>,
    left_out: LeftOut,
}

/// What did not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Devices of the newest look.
    pub devices: u64,
    /// Peers of the newest look.
    pub peers: u64,
    /// Configured peers.
    pub configured: u64,
}

/// A device over time.
#[derive(Debug)]
pub struct DeviceTrack {
    /// Its newest snapshot, without the peers.
    pub info: DeviceSnapshot,
    /// Who saw it.
    pub source: Source,
    /// When it was last seen.
    pub seen_at: Timestamp,
    /// When it was first missed after it had been seen.
    pub vanished_at: Option<Timestamp>,
    /// Its peers, those that it no longer lists included (see [`PeerTrack::gone`]).
    pub peers: BTreeMap<PublicKey, PeerTrack>,
}

impl DeviceTrack {
    /// The peers that it has now.
    pub fn present_peers(&self) -> impl Iterator<Item = (&PublicKey, &PeerTrack)> {
        self.peers.iter().filter(|(_, peer)| !peer.gone)
    }
}

impl Tunnels {
    /// Takes all devices of one source in.
    pub fn apply_devices(&mut self, source: Source, at: Timestamp, devices: &[DeviceSnapshot]) {
        self.left_out.devices = 0;
        self.left_out.peers = 0;
        for snapshot in devices {
            self.apply_device(source, at, snapshot);
        }
        for device in self.devices.values_mut() {
            let listed = devices.iter().any(|d| d.name == device.info.name);
            if device.source == source && !listed {
                device.vanished_at.get_or_insert(at);
            }
        }
        self.index_endpoints();
    }

    fn index_endpoints(&mut self) {
        self.by_endpoint.clear();
        for (name, device) in self.devices.iter().filter(|(_, d)| d.vanished_at.is_none()) {
            for (key, peer) in device.present_peers() {
                if let Some(endpoint) = peer.newest.endpoint {
                    let owners = self.by_endpoint.entry(endpoint).or_default();
                    owners.push((name.clone(), *key));
                }
            }
        }
    }

    fn apply_device(&mut self, source: Source, at: Timestamp, snapshot: &DeviceSnapshot) {
        if self.devices.len() >= MAX_DEVICES && !self.devices.contains_key(&snapshot.name) {
            self.devices.retain(|_, d| d.vanished_at.is_none());
            self.asked.retain(|name, _| self.devices.contains_key(name));
        }
        let peers_kept: usize = self.devices.values().map(|d| d.peers.len()).sum();
        if !self.devices.contains_key(&snapshot.name) && self.devices.len() >= MAX_DEVICES {
            self.left_out.devices += 1;
            return;
        }
        let info = without_peers(snapshot);
        let device = self
            .devices
            .entry(snapshot.name.clone())
            .or_insert_with(|| DeviceTrack {
                info: info.clone(),
                source,
                seen_at: at,
                vanished_at: None,
                peers: BTreeMap::new(),
            });
        if device.source != source && device.vanished_at.is_none() && device.info.problems.is_empty() {
            // Two sources, one name: the one that answers first and well is believed (the other is a stale socket).
            return;
        }
        device.info = info;
        device.source = source;
        device.seen_at = at;
        device.vanished_at = None;
        // A daemon that did not answer has not lost its peers.
        let unread = snapshot.peers.is_empty() && !snapshot.problems.is_empty();
        if unread {
            return;
        }
        for peer in device.peers.values_mut() {
            peer.gone = true;
        }
        if peers_kept >= MAX_PEERS {
            let listed: BTreeSet<PublicKey> = snapshot.peers.iter().map(|p| p.public_key).collect();
            device.peers.retain(|key, _| listed.contains(key));
        }
        let mut room = MAX_PEERS.saturating_sub(peers_kept);
        for peer in &snapshot.peers {
            if let Some(track) = device.peers.get_mut(&peer.public_key) {
                track.apply(at, peer, snapshot.implementation);
            } else if room > 0 {
                room -= 1;
                device.peers.insert(peer.public_key, PeerTrack::new(at, peer));
            } else {
                self.left_out.peers += 1;
            }
        }
    }

    /// Takes configured peers in. They replace those known before.
    pub fn apply_configured(&mut self, _at: Timestamp, peers: &[ConfiguredPeer]) {
        self.configured = peers.iter().take(MAX_CONFIGURED).cloned().collect();
        self.left_out.configured = (peers.len() - self.configured.len()) as u64;
    }

    /// Every device seen, those that vanished included, by name.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceTrack> {
        self.devices.values()
    }

    /// The device called `name`.
    pub fn device(&self, name: &str) -> Option<&DeviceTrack> {
        self.devices.get(name)
    }

    /// Peers that a file or the command line names.
    pub fn configured(&self) -> &[ConfiguredPeer] {
        &self.configured
    }

    /// What a file or the command line says about `key` on `device`.
    pub fn configured_peer(&self, device: &str, key: PublicKey) -> Option<&ConfiguredPeer> {
        self.configured
            .iter()
            .find(|c| c.public_key == key && c.device.as_deref().is_none_or(|d| d == device))
    }

    /// The device and peer that the wire between `local_port` and `remote` belongs to, where exactly one fits.
    pub fn owner_of(
        &self,
        local_port: Option<u16>,
        remote: SocketAddr,
    ) -> Option<(&DeviceTrack, &PublicKey)> {
        let mut fitting = self
            .by_endpoint
            .get(&remote)?
            .iter()
            .filter_map(|(name, key)| self.devices.get(name).map(|device| (device, key)))
            .filter(|(d, _)| {
                local_port.is_none() || d.info.listen_port.is_none_or(|p| Some(p) == local_port)
            });
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }

    /// Whether a peer of any device is there.
    pub fn is_endpoint(&self, remote: SocketAddr) -> bool {
        self.by_endpoint.contains_key(&remote)
    }

    /// What did not fit.
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }

    /// Route look-ups that would tell something; each is returned once.
    pub fn route_requests(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        for (name, device) in &self.devices {
            if device.vanished_at.is_none() {
                requests.extend(self.asked.entry(name.clone()).or_default().next(device));
            }
        }
        requests
    }

    /// Forgets what was asked: ways have changed, so the answers may be other ones now.
    pub fn ask_again(&mut self) {
        self.asked.clear();
    }

    /// The next event on which a verdict hangs. None where `routes` tell the verdict already: what cannot leave is not
    /// answered either.
    /// `tapped`: since when the wire is watched, where it is.
    pub fn due(
        &self,
        handshakes: &Handshakes,
        routes: &RouteState,
        tapped: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<Due> {
        self.devices()
            .filter(|device| device.vanished_at.is_none())
            .flat_map(|device| device.present_peers().map(move |(_, peer)| (device, peer)))
            .filter(|(device, peer)| !cannot_leave(device, peer, routes))
            .filter_map(|(device, peer)| {
                let wire = self.wire_of(handshakes, device, peer, now);
                due::of(device, peer, &wire, tapped, now)
            })
            .min_by_key(|due| due.at)
    }

    /// What the wire showed between this host and `peer`. Empty where two peers of one port share an endpoint: whose
    /// it is cannot be told then.
    pub fn wire_of(
        &self,
        handshakes: &Handshakes,
        device: &DeviceTrack,
        peer: &PeerTrack,
        now: Timestamp,
    ) -> PeerWire {
        let Some(endpoint) = peer.newest.endpoint else {
            return PeerWire::default();
        };
        match self.owner_of(device.info.listen_port, endpoint) {
            Some(_) => PeerWire::of(handshakes, endpoint, device.info.listen_port, now),
            None => PeerWire::default(),
        }
    }
}

/// Whether the kernel has no way to the peer's endpoint, or only one into the device itself.
fn cannot_leave(device: &DeviceTrack, peer: &PeerTrack, routes: &RouteState) -> bool {
    let info = &device.info;
    let way = peer.newest.endpoint.and_then(|endpoint| {
        routes.to_endpoint(&info.name, peer.newest.public_key, endpoint.ip(), info.fwmark)
    });
    match way {
        Some(RouteWay::Via { out, .. }) => info.if_index == Some(*out),
        Some(RouteWay::None { .. }) => true,
        None => false,
    }
}

fn without_peers(snapshot: &DeviceSnapshot) -> DeviceSnapshot {
    DeviceSnapshot {
        name: snapshot.name.clone(),
        if_index: snapshot.if_index,
        implementation: snapshot.implementation,
        public_key: snapshot.public_key,
        listen_port: snapshot.listen_port,
        fwmark: snapshot.fwmark,
        peers: Vec::new(),
        problems: snapshot.problems.clone(),
    }
}

#[cfg(test)]
mod tests;

//! One peer as the rules of this area look at it: its track, its wire and its routes side by side.
//!
//! In: [`Input`]. Out: a [`View`] for each peer of each device that is there now.

use std::net::{IpAddr, SocketAddr};

use super::words;
use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::observation::device::{ConfiguredPeer, DeviceSnapshot, Implementation, KernelReason};
use crate::observation::host::{Link, RouteWay};
use crate::observation::{Source, SourceState};
use crate::rules::Input;
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::track::sessions::{Side, Tunnel};
use crate::track::tunnels::{DeviceTrack, PeerTrack, PeerWire, Silence};
use crate::types::PublicKey;

/// A peer and all that is known around it.
pub struct View<'a> {
    /// The state.
    pub world: &'a World,
    /// Its device.
    pub device: &'a DeviceTrack,
    /// Its key.
    pub key: PublicKey,
    /// It over time.
    pub peer: &'a PeerTrack,
    /// The wire between us.
    pub wire: PeerWire,
    /// This side's failing attempts.
    pub silence: Silence,
}

/// Every peer that is there now.
pub fn views<'a>(input: &Input<'a>) -> impl Iterator<Item = View<'a>> + use<'a> {
    let world = input.world;
    world
        .tunnels
        .devices()
        .filter(|device| device.vanished_at.is_none())
        .flat_map(move |device| {
            device
                .present_peers()
                .map(move |(key, peer)| View::of(world, device, *key, peer))
        })
}

impl<'a> View<'a> {
    /// Of one peer of a device.
    pub fn of(world: &'a World, device: &'a DeviceTrack, key: PublicKey, peer: &'a PeerTrack) -> Self {
        let wire = world.tunnels.wire_of(&world.handshakes, device, peer, world.now);
        Self {
            world,
            device,
            key,
            peer,
            silence: Silence::of(peer, device.info.implementation, &wire, world.now),
            wire,
        }
    }

    /// The device's name.
    pub fn name(&self) -> &'a str {
        &self.device.info.name
    }

    /// The device without its peers.
    pub fn info(&self) -> &'a DeviceSnapshot {
        &self.device.info
    }

    /// Where the peer is.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.peer.newest.endpoint
    }

    /// How long ago the last handshake was.
    pub fn handshake_age(&self) -> Option<Span> {
        self.peer
            .last_handshake(self.world.now)
            .map(|at| self.world.now - at)
    }

    /// Whether the session is alive.
    pub fn live(&self) -> bool {
        self.peer.live(self.world.now)
    }

    /// Whether the counters tell handshakes from silence.
    pub fn counts(&self) -> bool {
        self.implementation().counts_handshake_bytes() == Some(true)
    }

    /// What runs the device.
    pub fn implementation(&self) -> Implementation {
        self.device.info.implementation
    }

    /// Whether the wire was watched without known gaps.
    pub fn wire_watched(&self) -> bool {
        self.world
            .sources
            .get(Source::Capture)
            .is_some_and(|s| s.state == SourceState::Ok && s.lost == 0)
    }

    /// The device's link, where links are known.
    pub fn link(&self) -> Option<&'a Link> {
        let routes = &self.world.routes;
        match self.device.info.if_index {
            Some(index) => routes.link(index),
            None => routes.link_named(self.name()),
        }
    }

    /// The way to the endpoint, where the kernel was asked.
    pub fn way(&self) -> Option<&'a RouteWay> {
        self.world.routes.to_endpoint(
            self.name(),
            self.key,
            self.endpoint()?.ip(),
            self.device.info.fwmark,
        )
    }

    /// What a file or the command line says about this peer.
    pub fn configured(&self) -> Option<&'a ConfiguredPeer> {
        self.world.tunnels.configured_peer(self.name(), self.key)
    }

    /// Whether the way to the endpoint may be judged from this namespace: a device with a live session sends its outer
    /// packets well, so where routes say otherwise its socket lives in another namespace (that of its birth).
    pub fn outer_route_disproved(&self) -> bool {
        self.live() && self.silence.failed == 0
    }

    /// The finding's subject.
    pub fn subject(&self) -> Subject {
        Subject::Peer {
            device: Some(self.name().to_owned()),
            public_key: Some(self.key),
            endpoint: self.endpoint(),
            local: self.wire.local,
        }
    }

    /// Other peers of the device with a live session: this host's own network works then.
    pub fn other_live_peers(&self) -> u64 {
        let live = |(key, peer): &(&PublicKey, &PeerTrack)| **key != self.key && peer.live(self.world.now);
        self.device.present_peers().filter(live).count() as u64
    }

    /// An empty finding about this peer.
    pub fn finding(&self, code: &'static str, severity: Severity, confidence: Confidence) -> Finding {
        Finding {
            code,
            severity,
            confidence,
            title: String::new(),
            subject: self.subject(),
            summary: String::new(),
            evidence: Evidence::new(),
            impact: String::new(),
            candidates: Vec::new(),
            fixes: Vec::new(),
            first_seen: self.world.started,
            last_seen: self.world.now,
            count: 1,
        }
    }

    /// How often the kernel's log gave `reason` for this peer while watched; `None` where it did not, which says nothing.
    pub fn kernel_says(&self, reason: KernelReason) -> Option<u64> {
        self.world.kernel_log.count(self.name(), reason, self.endpoint()?)
    }

    /// A command for the observed namespace.
    pub fn here(&self, command: &str) -> String {
        words::here(self.world.host.as_ref(), command)
    }

    /// `wg set` for this peer with `what` appended. boringtun's worker dies of a change to an existing peer, so for it
    /// there is none.
    pub fn wg_set(&self, what: &str) -> Option<String> {
        (self.implementation() != Implementation::Boringtun).then(|| {
            self.here(&format!(
                "wg set {} peer {} {what}",
                words::quote(self.name()),
                self.key
            ))
        })
    }

    /// What was seen of the sessions with this peer's present endpoint, and which side is ours. `None` where data is not
    /// sampled, or none was seen.
    pub fn tunnel(&self) -> Option<(&'a Tunnel, Side)> {
        let port = self.info().listen_port.or(self.wire.local.map(|l| l.port()))?;
        self.world.sessions.with(port, self.endpoint()?)
    }

    /// Whether every data message was seen, so that what was not seen was not there.
    pub fn data_watched(&self) -> bool {
        self.world.sampling.is_some_and(|s| s.is_whole())
    }

    /// This side's outer address: as the kernel would choose it, else as packets showed it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        let chosen = match self.way() {
            Some(RouteWay::Via { source, .. }) => *source,
            _ => None,
        };
        chosen.or(self.wire.local.map(|l| l.ip()))
    }

    /// When the attempts that failed began, as far as seen.
    pub fn failing_since(&self) -> Timestamp {
        self.silence.since.unwrap_or(self.peer.first_at)
    }
}

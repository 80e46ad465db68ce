//! Who calls a device of this host, as its own key tells: what the rules about callers share.
//!
//! In: [`Input`]. Out: [`Caller`]s, and findings that stay few when strangers are many.

use std::net::SocketAddr;

use super::view::View;
use super::words::count;
use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::rules::Input;
use crate::rules::captured::view::finding;
use crate::time::Timestamp;
use crate::track::World;
use crate::track::handshake::Attempt;
use crate::track::opened::Identity;
use crate::track::tunnels::DeviceTrack;
use crate::types::PublicKey;

/// Findings of one rule about one device that stand alone; more become one, or a flood would bury the rest.
const ONE_BY_ONE: usize = 4;
/// Callers that are named in such a one.
const NAMED: usize = 20;

/// A static key that called a device here.
pub struct Caller<'a> {
    /// The state.
    pub world: &'a World,
    /// The device that it called.
    pub device: &'a DeviceTrack,
    /// What its messages opened to.
    pub identity: &'a Identity,
}

/// Every key that called a device which is there now.
pub fn callers<'a>(input: &Input<'a>) -> Vec<Caller<'a>> {
    let world = input.world;
    let device_of = |key: PublicKey| {
        let mut devices = world.tunnels.devices().filter(|d| d.vanished_at.is_none());
        devices.find(|d| d.info.public_key == Some(key))
    };
    let identities = world.opened.identities();
    identities
        .into_iter()
        .filter_map(|identity| {
            Some(Caller {
                world,
                device: device_of(identity.responder)?,
                identity,
            })
        })
        .collect()
}

impl<'a> Caller<'a> {
    /// The peer that it is, where the device lists it.
    pub fn peer(&self) -> Option<View<'a>> {
        let key = self.identity.initiator;
        let peer = self.device.peers.get(&key).filter(|peer| !peer.gone)?;
        Some(View::of(self.world, self.device, key, peer))
    }

    /// Its attempts on the wire, oldest first.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &'a Attempt> {
        attempts(self.world, self.identity.last)
    }
}

/// The attempts that went that way, oldest first.
pub fn attempts(
    world: &World,
    (from, to): (SocketAddr, SocketAddr),
) -> impl DoubleEndedIterator<Item = &Attempt> {
    let conversation = world.handshakes.conversation(Some(from), to);
    let end = conversation.and_then(|c| c.end(from));
    end.into_iter().flat_map(|e| e.attempts())
}

/// A caller as a subject: the peer whose key or whose endpoint it has, where the device has such a one.
pub fn subject(
    device: &DeviceTrack,
    key: Option<PublicKey>,
    (from, to): (SocketAddr, SocketAddr),
) -> Subject {
    let by_endpoint = || {
        let mut peers = device
            .present_peers()
            .filter(|(_, p)| p.newest.endpoint == Some(from));
        peers.next().map(|(key, _)| *key)
    };
    Subject::Peer {
        device: Some(device.info.name.clone()),
        public_key: key.or_else(by_endpoint),
        endpoint: Some(from),
        local: Some(to),
    }
}

/// An empty finding about a caller.
pub fn about(
    code: &'static str,
    (severity, confidence): (Severity, Confidence),
    subject: Subject,
    (first, last): (Timestamp, Timestamp),
    times: u64,
) -> Finding {
    let mut f = finding(code, (severity, confidence), subject, (first, last));
    f.count = u32::try_from(times).unwrap_or(u32::MAX);
    f
}

/// `findings` of one rule about `device`, each with the address of its caller, as one where they are many.
pub fn few(device: &DeviceTrack, what: &str, mut findings: Vec<(SocketAddr, Finding)>) -> Vec<Finding> {
    if findings.len() <= ONE_BY_ONE {
        return findings.into_iter().map(|(_, f)| f).collect();
    }
    findings.sort_by_key(|(from, _)| *from);
    let name = &device.info.name;
    let callers = findings.len() as u64;
    let addresses: Vec<String> = findings
        .iter()
        .take(NAMED)
        .map(|(from, _)| from.to_string())
        .collect();
    let first = findings.iter().map(|(_, f)| f.first_seen).min();
    let last = findings.iter().map(|(_, f)| f.last_seen).max();
    let times: u64 = findings.iter().map(|(_, f)| u64::from(f.count)).sum();
    let Some((_, example)) = findings.into_iter().next() else {
        return Vec::new();
    };
    vec![Finding {
        subject: Subject::Device { name: name.clone() },
        title: format!("{} of {name} {what}", count(callers, "caller")),
        summary: format!(
            "{} from {}. The first: {}",
            count(times, "initiation"),
            count(callers, "caller"),
            example.summary
        ),
        evidence: Evidence::new()
            .with("callers", callers)
            .with("initiations", times)
            .with("addresses", addresses),
        first_seen: first.unwrap_or(example.first_seen),
        last_seen: last.unwrap_or(example.last_seen),
        count: u32::try_from(times).unwrap_or(u32::MAX),
        ..example
    }]
}

//! Consistent anonymising of observations: the same name, address or key is always replaced by the same other one, so
//! that a case can be sent to us and still be judged.
//!
//! In: an observation and a random key. Out: an observation of the same shape. Kept: times, counts, ports, versions,
//! private-range prefixes, names that everybody uses (`wg0`, `node`). Replaced: host, app and machine names, other
//! interface and process names, paths, public keys, addresses (prefix-preserving), and every byte of a handshake
//! message that could be checked against a key.

mod addresses;
mod names;

use addresses::Addresses;
use names::Names;

use crate::observation::device::{ConfiguredPeer, DeviceSnapshot};
use crate::observation::host::{HostFacts, RouteAnswer, RouteTables, RouteWay, Sysctls};
use crate::observation::packet::Bytes;
use crate::observation::{Body, Observation, RoutePurpose, RouteQuery, SourceStatus};
use crate::types::PublicKey;

/// Replaces names, addresses and keys.
pub struct Anonymiser {
    addresses: Addresses,
    names: Names,
}

impl Anonymiser {
    /// With `key`, which decides what is replaced by what. Never store it.
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            addresses: Addresses::new(key),
            names: Names::default(),
        }
    }

    /// The same observation about somebody else.
    pub fn observation(&mut self, observation: &Observation) -> Observation {
        let mut other = observation.clone();
        match &mut other.body {
            Body::Status(status) => self.status(status),
            Body::Host(facts) => self.host(facts),
            Body::Sysctls(sysctls) => self.sysctls(sysctls),
            Body::Devices(devices) => devices.iter_mut().for_each(|d| self.device(d)),
            Body::ConfiguredPeers(peers) => peers.iter_mut().for_each(|p| self.configured(p)),
            Body::Packet(packet) => {
                self.addresses.socket(&mut packet.source);
                self.addresses.socket(&mut packet.destination);
                self.payload(&mut packet.payload);
            }
            Body::IcmpError(error) => {
                self.addresses.ip(&mut error.from);
                self.addresses.socket(&mut error.quoted_source);
                self.addresses.socket(&mut error.quoted_destination);
                self.payload(&mut error.quoted_payload);
            }
            Body::Routes(tables) => self.routes(tables),
            Body::RouteAnswer(answer) => self.answer(answer),
            Body::Sockets(tally) => {
                for destination in &mut tally.destinations {
                    self.addresses.ip(&mut destination.source);
                    self.addresses.socket(&mut destination.destination);
                }
            }
            Body::Processes(table) => {
                for process in &mut table.processes {
                    self.names.process(&mut process.comm, process.exe.as_mut());
                }
            }
            Body::Connects(tally) => {
                for row in &mut tally.rows {
                    self.addresses.ip(&mut row.source);
                    self.addresses.socket(&mut row.destination);
                    self.names
                        .process(&mut row.process.comm, row.process.exe.as_mut());
                }
            }
            Body::ConntrackTally(tally) => {
                for snat in &mut tally.snat {
                    self.addresses.ip(&mut snat.nat_address);
                    self.addresses.socket(&mut snat.destination);
                }
            }
            Body::Counters(_) | Body::ConntrackStats(_) => {}
        }
        other
    }

    fn status(&mut self, status: &mut SourceStatus) {
        if let Some(reason) = &mut status.reason {
            *reason = self.text(reason);
        }
    }

    fn host(&mut self, facts: &mut HostFacts) {
        self.names.replace("host", &mut facts.hostname);
        if let Some(name) = &mut facts.netns_name {
            self.names.replace("netns", name);
        }
        if let Some(fly) = &mut facts.fly {
            self.names.replace("app", &mut fly.app);
            self.names.replace("machine", &mut fly.machine);
        }
    }

    /// Settings per interface carry its name (`net.ipv4.conf.NAME.rp_filter`).
    fn sysctls(&mut self, sysctls: &mut Sysctls) {
        let others = std::mem::take(&mut sysctls.others);
        sysctls.others = others
            .into_iter()
            .map(|(name, value)| (self.sysctl_name(&name), value))
            .collect();
    }

    fn sysctl_name(&mut self, name: &str) -> String {
        let Some((family, rest)) = name.split_once(".conf.") else {
            return name.to_owned();
        };
        let Some((interface, setting)) = rest.rsplit_once('.') else {
            return name.to_owned();
        };
        let mut interface = interface.to_owned();
        if interface != "all" && interface != "default" {
            self.names.interface(&mut interface);
        }
        format!("{family}.conf.{interface}.{setting}")
    }

    fn device(&mut self, device: &mut DeviceSnapshot) {
        self.names.interface(&mut device.name);
        self.optional_key(&mut device.public_key);
        for peer in &mut device.peers {
            self.key(&mut peer.public_key);
            peer.endpoint.iter_mut().for_each(|e| self.addresses.socket(e));
            peer.allowed_ips.iter_mut().for_each(|c| self.addresses.cidr(c));
        }
        for problem in &mut device.problems {
            *problem = self.text(problem);
        }
    }

    fn configured(&mut self, peer: &mut ConfiguredPeer) {
        self.names.replace("file", &mut peer.origin);
        peer.device.iter_mut().for_each(|d| self.names.interface(d));
        self.optional_key(&mut peer.local_public_key);
        self.key(&mut peer.public_key);
        if let Some(endpoint) = &mut peer.endpoint {
            *endpoint = self.host_port(endpoint);
        }
        peer.resolved.iter_mut().for_each(|a| self.addresses.socket(a));
        peer.allowed_ips.iter_mut().for_each(|c| self.addresses.cidr(c));
    }

    fn host_port(&mut self, text: &str) -> String {
        if let Ok(mut address) = text.parse() {
            self.addresses.socket(&mut address);
            return address.to_string();
        }
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let mut host = host.to_owned();
        self.names.replace("name", &mut host);
        format!("{host}.example:{port}")
    }

    fn routes(&mut self, tables: &mut RouteTables) {
        tables
            .links
            .iter_mut()
            .for_each(|link| self.names.interface(&mut link.name));
        tables
            .addresses
            .iter_mut()
            .for_each(|a| self.addresses.ip(&mut a.address));
        for route in &mut tables.routes {
            self.addresses.cidr(&mut route.destination);
            route.gateway.iter_mut().for_each(|g| self.addresses.ip(g));
        }
    }

    fn answer(&mut self, answer: &mut RouteAnswer) {
        self.query(&mut answer.query);
        if let RouteWay::Via { gateway, source, .. } = &mut answer.way {
            gateway.iter_mut().for_each(|g| self.addresses.ip(g));
            source.iter_mut().for_each(|s| self.addresses.ip(s));
        }
    }

    fn query(&mut self, query: &mut RouteQuery) {
        self.addresses.ip(&mut query.destination);
        match &mut query.purpose {
            RoutePurpose::Endpoint { device, peer } => {
                self.names.interface(device);
                self.key(peer);
            }
            RoutePurpose::AllowedIp { device, peer, prefix } => {
                self.names.interface(device);
                self.key(peer);
                self.addresses.cidr(prefix);
            }
        }
    }

    fn key(&mut self, key: &mut PublicKey) {
        *key = PublicKey(self.addresses.keyed(b"public key", &key.0));
    }

    fn optional_key(&mut self, key: &mut Option<PublicKey>) {
        key.iter_mut().for_each(|k| self.key(k));
    }

    /// Keeps a message's type and indices (and a data message's counter), replaces each MAC by another of its own
    /// (zero stays zero: "no cookie"), and blanks the rest. Layout: WireGuard paper, section 5.4.
    fn payload(&mut self, payload: &mut Bytes) {
        let bytes = &mut payload.0;
        let (keep, macs): (usize, &[usize]) = match (bytes.first(), bytes.len()) {
            (Some(1), 148) => (8, &[116, 132]),
            (Some(2), 92) => (12, &[60, 76]),
            (Some(2), _) => (12, &[]),
            (Some(4), _) => (16, &[]),
            _ => (8, &[]),
        };
        let original = bytes.clone();
        bytes.iter_mut().skip(keep).for_each(|b| *b = 0);
        for start in macs {
            let (Some(from), Some(to)) = (
                original.get(*start..start + 16),
                bytes.get_mut(*start..start + 16),
            ) else {
                continue;
            };
            if from.iter().any(|b| *b != 0) {
                let mac = self.addresses.keyed(b"mac", from);
                to.copy_from_slice(mac.first_chunk::<16>().unwrap_or(&[0; 16]));
            }
        }
    }

    /// Free text: every word that is a known name, an address or a key is replaced.
    fn text(&mut self, text: &str) -> String {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "._:-+=".contains(c);
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(is_word) {
            let (before, from) = rest.split_at(start);
            let (word, after) = from.split_at(from.find(|c| !is_word(c)).unwrap_or(from.len()));
            out.push_str(before);
            // A full stop or colon after a word is not a part of it.
            let bare = word.trim_end_matches(['.', ':', '-']);
            out.push_str(&self.word(bare));
            out.push_str(word.get(bare.len()..).unwrap_or(""));
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn word(&mut self, word: &str) -> String {
        if let Ok(mut ip) = word.parse() {
            self.addresses.ip(&mut ip);
            return ip.to_string();
        }
        if let Ok(mut address) = word.parse() {
            self.addresses.socket(&mut address);
            return address.to_string();
        }
        if let (44, Ok(mut key)) = (word.len(), word.parse::<PublicKey>()) {
            self.key(&mut key);
            return key.to_string();
        }
        // `wg0.sock`: the part before the suffix is the name.
        match word.split_once('.') {
            Some((name, suffix)) => format!("{}.{suffix}", self.names.known(name)),
            None => self.names.known(word),
        }
    }
}

#[cfg(test)]
mod tests;

//! Consistent anonymising of observations: the same name, address or key is always replaced by the same other one, so
//! that a case can be sent to us and still be judged.
//!
//! In: an observation and a random key. Out: an observation of the same shape. Kept: times, counts, ports, versions,
//! private-range prefixes, names that everybody uses (`wg0`, `node`). Replaced: host, app and machine names, other
//! interface and process names, paths, public keys, addresses (prefix-preserving), and every byte of a handshake
//! message that could be checked against a key.

mod addresses;
mod document;
mod fly_toml;
mod names;
mod probed;

use std::net::IpAddr;

use addresses::Addresses;
use names::Names;

use crate::observation::device::{ConfiguredPeer, DeviceSnapshot};
use crate::observation::fly::Internal;
use crate::observation::host::{HostFacts, RouteAnswer, RouteTables, RouteWay, Sysctls};
use crate::observation::nat::NatFacts;
use crate::observation::nat_rules::NatRules;
use crate::observation::packet::{Bytes, CheckedMessage};
use crate::observation::path::{Failure, PathSample};
use crate::observation::target::{Method, Target};
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
            Body::Checked(checked) => self.checked(checked),
            Body::KernelLine(line) => {
                self.names.interface(&mut line.device);
                line.endpoint.iter_mut().for_each(|e| self.addresses.socket(e));
            }
            Body::Initiations(tally) => self.addresses.socket(&mut tally.destination),
            Body::Routes(tables) => self.routes(tables),
            Body::RouteAnswer(answer) => self.answer(answer),
            Body::Sockets(tally) => {
                for destination in &mut tally.destinations {
                    self.addresses.ip(&mut destination.source);
                    self.addresses.socket(&mut destination.destination);
                }
                for waiting in tally.waiting.iter_mut().flatten() {
                    self.addresses.ip(&mut waiting.source);
                    self.addresses.socket(&mut waiting.destination);
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
                for denial in tally.denied.iter_mut().flatten() {
                    self.addresses.ip(&mut denial.source);
                    if let Some(holder) = &mut denial.holder {
                        self.addresses.ip(&mut holder.source);
                        if let Some(destination) = &mut holder.destination {
                            self.addresses.socket(destination);
                        }
                    }
                    if let Some(destination) = &mut denial.destination {
                        self.addresses.socket(destination);
                    }
                    self.names
                        .process(&mut denial.process.comm, denial.process.exe.as_mut());
                }
            }
            Body::ConntrackTally(tally) => {
                for snat in &mut tally.snat {
                    self.addresses.ip(&mut snat.nat_address);
                    self.addresses.socket(&mut snat.destination);
                }
            }
            Body::Nat(facts) => self.nat(facts),
            Body::Path(sample) => self.path(sample),
            Body::PathPast(past) => self.target(&mut past.target),
            Body::Probe(probed) => self.probed(&mut probed.fact),
            Body::Counters(_)
            | Body::ConntrackStats(_)
            | Body::ConntrackEvents(_)
            | Body::Sampling(_)
            | Body::NatBudget(_) => {}
            Body::NatRules(rules) => self.nat_rules(rules),
            Body::FlyNet(facts) => {
                for answer in &mut facts.answers {
                    self.addresses.socket(&mut answer.server);
                    if let Internal::Failed(says) = &mut answer.says {
                        *says = self.text(says);
                    }
                }
            }
            Body::FlyToml(facts) => fly_toml::redact(&mut self.addresses, &mut self.names, facts),
        }
        other
    }

    fn path(&mut self, sample: &mut PathSample) {
        self.target(&mut sample.target);
        if let Some(address) = &mut sample.address {
            self.addresses.ip(address);
        }
        for (failure, _) in &mut sample.failures {
            match failure {
                Failure::Unreachable { from, says } => {
                    if let Some(from) = from {
                        self.addresses.ip(from);
                    }
                    *says = self.text(says);
                }
                Failure::Cut(says) | Failure::Local(says) => *says = self.text(says),
                Failure::Dns(_) | Failure::Timeout | Failure::Silent(_) | Failure::Refused => {}
            }
        }
        if let Some(certificate) = &mut sample.certificate {
            // Whom it names is the target, in other words; who signed it tells of the network.
            self.names.replace("certificate", &mut certificate.subject);
            self.names.replace("issuer", &mut certificate.issuer);
        }
        for address in sample.hops.iter_mut().flat_map(|hop| &mut hop.addresses) {
            self.addresses.ip(address);
        }
        for problem in &mut sample.problems {
            *problem = self.text(problem);
        }
        if let Some(sibling) = &mut sample.sibling {
            self.names.replace("app", &mut sibling.app);
            self.names.replace("machine", &mut sibling.machine);
        }
    }

    /// A target's host, and what else of it names somebody.
    fn target(&mut self, target: &mut Target) {
        match target.host.parse() {
            Ok(mut address) => {
                self.addresses.ip(&mut address);
                target.host = address.to_string();
            }
            Err(_) => self.names.replace("target", &mut target.host),
        }
        match &mut target.method {
            Method::Dns(Some(server)) => self.addresses.socket(server),
            Method::Http { path, .. } => "/".clone_into(path),
            _ => {}
        }
    }

    /// A condition's number could be tried against names; only which are the same matters.
    fn nat_rules(&mut self, rules: &mut NatRules) {
        let mut seen: Vec<u64> = Vec::new();
        for rule in &mut rules.rules {
            self.names.replace("table", &mut rule.table);
            self.names.replace("chain", &mut rule.chain);
            if let Some((first, last)) = &mut rule.addresses {
                self.addresses.ip(first);
                self.addresses.ip(last);
                // What is replaced keeps a common prefix, not its order.
                if last < first {
                    std::mem::swap(first, last);
                }
            }
            rule.destination.iter_mut().for_each(|d| self.addresses.ip(d));
            for condition in &mut rule.conditions {
                let at = seen.iter().position(|c| c == condition).unwrap_or_else(|| {
                    seen.push(*condition);
                    seen.len() - 1
                });
                *condition = at as u64;
            }
        }
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
            if let Some(group) = &mut fly.group {
                self.names.replace("group", group);
            }
            let private = fly.private.map(IpAddr::V6);
            for ip in fly.public.iter_mut().chain(&mut fly.name_servers) {
                self.addresses.ip(ip);
            }
            fly.private = private.and_then(|mut ip| {
                self.addresses.ip(&mut ip);
                match ip {
                    IpAddr::V6(v6) => Some(v6),
                    IpAddr::V4(_) => None,
                }
            });
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
            *endpoint = self.word(endpoint);
        }
        peer.resolved.iter_mut().for_each(|a| self.addresses.socket(a));
        peer.allowed_ips.iter_mut().for_each(|c| self.addresses.cidr(c));
    }

    fn nat(&mut self, facts: &mut NatFacts) {
        for server in &mut facts.servers {
            server.name = self.word(&server.name);
            self.addresses.socket(&mut server.address);
            server.other.iter_mut().for_each(|o| self.addresses.socket(o));
            for problem in &mut server.problems {
                *problem = self.text(problem);
            }
        }
        for family in &mut facts.families {
            family.local.iter_mut().for_each(|a| self.addresses.socket(a));
            family.external.iter_mut().for_each(|a| self.addresses.socket(a));
            family
                .external_addresses
                .iter_mut()
                .for_each(|a| self.addresses.ip(a));
            for test in &mut family.left_out {
                test.why = self.text(&test.why);
            }
        }
        for gateway in &mut facts.gateways {
            self.addresses.ip(&mut gateway.gateway);
            gateway.external.iter_mut().for_each(|a| self.addresses.ip(a));
            if let Some(problem) = &mut gateway.problem {
                *problem = self.text(problem);
            }
        }
        facts
            .hops
            .iter_mut()
            .for_each(|hop| self.addresses.ip(&mut hop.address));
    }

    fn host_port(&mut self, host: &str, port: &str) -> String {
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

    fn checked(&mut self, checked: &mut CheckedMessage) {
        self.addresses.socket(&mut checked.source);
        self.addresses.socket(&mut checked.destination);
        self.optional_key(&mut checked.reached);
        self.optional_key(&mut checked.made_for);
        if let Some(opened) = &mut checked.opened {
            self.key(&mut opened.initiator);
        }
        // As in the message itself, so that the two still belong together.
        let mac = self.addresses.keyed(b"mac", &checked.mac1.0);
        checked.mac1.0 = mac.first_chunk::<16>().unwrap_or(&[0; 16]).to_vec();
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

    /// Free text, which only this crate's observers write: every word that is a name, an address or a key is replaced.
    fn text(&mut self, text: &str) -> String {
        let text = self.daemon(text);
        let text = self.keys(&text);
        // Names may hold nearly anything; what surrounds them in the observers' sentences is this.
        let is_word = |c: char| !c.is_whitespace() && !"/\"'`(),;".contains(c);
        let mut out = String::new();
        let mut rest = text.as_str();
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

    /// "its daemon (NAME, process 812)": a program that nothing else in the record may name.
    fn daemon(&mut self, text: &str) -> String {
        const BEFORE: &str = "daemon (";
        let Some((before, (name, after))) = text
            .split_once(BEFORE)
            .and_then(|(before, rest)| Some((before, rest.split_once(", process ")?)))
        else {
            return text.to_owned();
        };
        let mut name = name.to_owned();
        self.names.process(&mut name, None);
        let after = self.daemon(after);
        format!("{before}{BEFORE}{name}, process {after}")
    }

    /// Keys: their base64 may hold a slash, at which words end.
    fn keys(&mut self, text: &str) -> String {
        let of_key = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(of_key) {
            let (before, from) = rest.split_at(start);
            let (token, after) = from.split_at(from.find(|c| !of_key(c)).unwrap_or(from.len()));
            out.push_str(before);
            match token.parse::<PublicKey>() {
                Ok(mut key) => {
                    self.key(&mut key);
                    out.push_str(&key.to_string());
                }
                Err(_) => out.push_str(token),
            }
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
        // A socket is named after its interface, which the record need not name anywhere else.
        if let Some(name) = word.strip_suffix(".sock") {
            let mut name = name.to_owned();
            self.names.interface(&mut name);
            return format!("{name}.sock");
        }
        // `vpn.example.org:51820`, as a wg-quick file has it.
        match word.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => self.host_port(host, port),
            _ => self.names.known(word),
        }
    }
}

#[cfg(test)]
mod tests;

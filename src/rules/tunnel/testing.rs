//! A host in a test: observations in, evaluation out. wg0 (index 10, listening on 51820) has one peer at
//! 198.51.100.7:51820, reached through eth0 (index 2, MTU 1500); tests change what they are about.

use std::net::{IpAddr, SocketAddr};

use super::RULES;
use crate::config::Thresholds;
use crate::finding::Finding;
use crate::observation::device::{ConfiguredPeer, DeviceSnapshot, Implementation, PeerSnapshot};
use crate::observation::host::{
    Address, Counters, Link, LinkStats, Route, RouteAnswer, RouteTables, RouteWay,
};
use crate::observation::packet::{
    Bytes, CheckedKind, CheckedMessage, Direction, IcmpError, OpenedInitiation, WirePacket,
};
use crate::observation::{Body, Observation, Request, RoutePurpose, Source, SourceStatus};
use crate::rules::{Evaluation, Input, evaluate};
use crate::time::{Span, Timestamp};
use crate::track::{Due, World};
use crate::types::{Cidr, IfIndex, PublicKey, SessionIndex};
use crate::wire::tai64n::{Scale, Tai64n};

pub const US: &str = "192.0.2.2:51820";
pub const PEER: &str = "198.51.100.7:51820";
pub const KEY: PublicKey = PublicKey([7; 32]);
pub const OTHER: PublicKey = PublicKey([8; 32]);
pub const OURS: PublicKey = PublicKey([9; 32]);
pub const ETH0: IfIndex = IfIndex(2);
pub const WG0: IfIndex = IfIndex(10);

/// `secs` after the start.
pub fn at(secs: f64) -> Timestamp {
    let start = Timestamp::from_secs(1_700_000_000);
    if secs < 0.0 {
        start.before(Span::from_secs_f64(-secs))
    } else {
        start + Span::from_secs_f64(secs)
    }
}

pub fn sock(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

/// A peer that was never reached.
pub fn peer() -> PeerSnapshot {
    PeerSnapshot {
        public_key: KEY,
        has_preshared_key: false,
        endpoint: Some(sock(PEER)),
        last_handshake: None,
        rx_bytes: 0,
        tx_bytes: 0,
        keepalive: None,
        allowed_ips: vec![cidr("10.0.0.1/32")],
    }
}

/// A peer with these bytes and a handshake at `handshake` seconds after the start.
pub fn peer_with(rx: u64, tx: u64, handshake: Option<f64>) -> PeerSnapshot {
    PeerSnapshot {
        rx_bytes: rx,
        tx_bytes: tx,
        last_handshake: handshake.map(at),
        ..peer()
    }
}

pub fn device_with(implementation: Implementation, peers: Vec<PeerSnapshot>) -> DeviceSnapshot {
    DeviceSnapshot {
        name: "wg0".to_owned(),
        if_index: Some(WG0),
        implementation,
        public_key: Some(OURS),
        listen_port: Some(51820),
        fwmark: 0,
        peers,
        problems: Vec::new(),
    }
}

pub fn link(index: IfIndex, name: &str, mtu: u32) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind: None,
        admin_up: true,
        carrier: true,
        loopback: false,
        mtu,
        stats: LinkStats::default(),
    }
}

pub fn route(destination: &str, out: IfIndex, gateway: Option<&str>) -> Route {
    Route {
        destination: cidr(destination),
        table: 254,
        kind: "unicast".to_owned(),
        out: Some(out),
        gateway: gateway.map(|g| g.parse().unwrap()),
        priority: 0,
        mtu: None,
    }
}

/// A healthy host's tables.
pub fn tables() -> RouteTables {
    RouteTables {
        links: vec![link(ETH0, "eth0", 1500), link(WG0, "wg0", 1420)],
        addresses: vec![
            Address {
                index: ETH0,
                address: "192.0.2.2".parse().unwrap(),
                prefix: 24,
            },
            Address {
                index: WG0,
                address: "10.0.0.2".parse().unwrap(),
                prefix: 24,
            },
        ],
        routes: vec![
            route("0.0.0.0/0", ETH0, Some("192.0.2.1")),
            route("192.0.2.0/24", ETH0, None),
            route("10.0.0.0/24", WG0, None),
        ],
        routes_left_out: 0,
        rules: Vec::new(),
    }
}

pub fn via(out: IfIndex) -> RouteWay {
    RouteWay::Via {
        out,
        gateway: None,
        source: None,
        mtu: None,
        local: false,
    }
}

/// A host under observation.
pub struct Host {
    pub world: World,
    pub implementation: Implementation,
}

impl Host {
    /// All sources see, nothing was seen yet.
    pub fn new(implementation: Implementation) -> Self {
        Self::seeing(
            implementation,
            &[
                Source::WireguardNetlink,
                Source::WireguardUapi,
                Source::Capture,
                Source::Routes,
                Source::Counters,
                Source::Keys,
            ],
        )
    }

    /// Without the wire.
    pub fn blind(implementation: Implementation) -> Self {
        Self::seeing(
            implementation,
            &[Source::WireguardNetlink, Source::WireguardUapi, Source::Routes],
        )
    }

    pub fn seeing(implementation: Implementation, sources: &[Source]) -> Self {
        let mut host = Self {
            world: World::new(at(0.0)),
            implementation,
        };
        for source in sources {
            host.see(0.0, *source, Body::Status(SourceStatus::ok()));
        }
        host
    }

    pub fn see(&mut self, secs: f64, source: Source, body: Body) {
        self.world.apply(&Observation {
            at: at(secs),
            took: Span::ZERO,
            source,
            body,
        });
    }

    /// wg0 with these peers.
    pub fn peers(&mut self, secs: f64, peers: Vec<PeerSnapshot>) -> &mut Self {
        let device = device_with(self.implementation, peers);
        self.devices(secs, vec![device])
    }

    pub fn peer(&mut self, secs: f64, peer: PeerSnapshot) -> &mut Self {
        self.peers(secs, vec![peer])
    }

    pub fn devices(&mut self, secs: f64, devices: Vec<DeviceSnapshot>) -> &mut Self {
        self.see(secs, Source::WireguardNetlink, Body::Devices(devices));
        self
    }

    pub fn configured(&mut self, peers: Vec<ConfiguredPeer>) -> &mut Self {
        self.see(0.0, Source::Config, Body::ConfiguredPeers(peers));
        self
    }

    pub fn tables(&mut self, secs: f64, tables: RouteTables) -> &mut Self {
        self.see(secs, Source::Routes, Body::Routes(tables));
        self
    }

    pub fn counters(&mut self, secs: f64, name: &str, value: u64) -> &mut Self {
        let counters = Counters([(name.to_owned(), value)].into());
        self.see(secs, Source::Counters, Body::Counters(counters));
        self
    }

    /// Answers every look-up that the core asks for.
    pub fn answer(&mut self, secs: f64, way: impl Fn(&RoutePurpose, IpAddr) -> RouteWay) -> &mut Self {
        for request in self.world.requests() {
            if let Request::RouteLookup(query) = request {
                let way = way(&query.purpose, query.destination);
                self.see(
                    secs,
                    Source::Routes,
                    Body::RouteAnswer(RouteAnswer { query, way }),
                );
            }
        }
        self
    }

    /// Healthy tables, and every look-up answered so: endpoints by eth0, AllowedIPs by wg0.
    pub fn routed(&mut self, secs: f64) -> &mut Self {
        self.tables(secs, tables());
        self.answer(secs, |purpose, _| match purpose {
            RoutePurpose::Endpoint { .. } => via(ETH0),
            RoutePurpose::AllowedIp { .. } => via(WG0),
        })
    }

    fn packet(&mut self, secs: f64, outward: bool, payload: Vec<u8>) -> &mut Self {
        let (direction, source, destination) = match outward {
            true => (Direction::Out, US, PEER),
            false => (Direction::In, PEER, US),
        };
        let packet = WirePacket {
            direction,
            if_index: Some(ETH0),
            source: sock(source),
            destination: sock(destination),
            tos: 0,
            payload_len: u32::try_from(payload.len()).unwrap(),
            payload: Bytes(payload),
        };
        self.see(secs, Source::Capture, Body::Packet(packet));
        self
    }

    /// A data message that passes, of 128 bytes.
    pub fn data(&mut self, secs: f64, way: (&str, &str), index: u32, counter: u64) -> &mut Self {
        self.data_of(secs, way, index, counter, 128)
    }

    /// A data message that passes.
    pub fn data_of(
        &mut self,
        secs: f64,
        (from, to): (&str, &str),
        index: u32,
        counter: u64,
        len: u32,
    ) -> &mut Self {
        let mut payload = vec![4, 0, 0, 0];
        payload.extend(index.to_le_bytes());
        payload.extend(counter.to_le_bytes());
        let packet = WirePacket {
            direction: if from == US { Direction::Out } else { Direction::In },
            if_index: Some(ETH0),
            source: sock(from),
            destination: sock(to),
            tos: 0,
            payload_len: len,
            payload: Bytes(payload),
        };
        self.see(secs, Source::Capture, Body::Packet(packet));
        self
    }

    /// An initiation of ours leaves.
    pub fn call(&mut self, secs: f64, index: u32) -> &mut Self {
        self.packet(secs, true, message(1, 148, &[index]))
    }

    /// The peer's initiation arrives.
    pub fn called(&mut self, secs: f64, index: u32) -> &mut Self {
        self.packet(secs, false, message(1, 148, &[index]))
    }

    /// The peer answers our initiation `index`.
    pub fn answered(&mut self, secs: f64, index: u32) -> &mut Self {
        self.packet(secs, false, message(2, 92, &[index + 1000, index]))
    }

    /// We answer the peer's initiation `index`.
    pub fn answer_call(&mut self, secs: f64, index: u32) -> &mut Self {
        self.packet(secs, true, message(2, 92, &[index + 1000, index]))
    }

    /// A cookie reply to our initiation `index`.
    pub fn cookie(&mut self, secs: f64, index: u32) -> &mut Self {
        self.packet(secs, false, message(3, 64, &[index]))
    }

    /// A cookie reply of ours to the peer's initiation `index`.
    pub fn give_cookie(&mut self, secs: f64, index: u32) -> &mut Self {
        self.packet(secs, true, message(3, 64, &[index]))
    }

    /// What our keys say of the peer's initiation `index`: for whom it was made, who made it, and at which second after
    /// the start by that clock.
    pub fn checked(
        &mut self,
        secs: f64,
        index: u32,
        made_for: Option<PublicKey>,
        opened: Option<(PublicKey, i64)>,
    ) -> &mut Self {
        let opened = opened.map(|(initiator, secs)| OpenedInitiation {
            initiator,
            stamp: Bytes(Tai64n::new(at(secs as f64), Scale::Kernel).0.to_vec()),
        });
        self.check_fact(secs, PEER, index, made_for, opened)
    }

    /// As [`Host::checked`], of somebody else's initiation that does not open.
    pub fn checked_from(
        &mut self,
        secs: f64,
        from: &str,
        index: u32,
        made_for: Option<PublicKey>,
    ) -> &mut Self {
        self.check_fact(secs, from, index, made_for, None)
    }

    fn check_fact(
        &mut self,
        secs: f64,
        from: &str,
        index: u32,
        made_for: Option<PublicKey>,
        opened: Option<OpenedInitiation>,
    ) -> &mut Self {
        let checked = CheckedMessage {
            message: CheckedKind::Initiation,
            source: sock(from),
            destination: sock(US),
            sender: SessionIndex(index),
            mac1: Bytes(index.to_le_bytes().repeat(4)),
            reached: Some(OURS),
            made_for,
            opened,
            is_listed: None,
        };
        self.see(secs, Source::Keys, Body::Checked(checked));
        self
    }

    /// A message that is forwarded: in by eth0, out by eth1, under other addresses where it is translated.
    pub fn forwarded(
        &mut self,
        secs: f64,
        came: Option<(&str, &str)>,
        left: Option<(&str, &str)>,
        payload: &[u8],
    ) -> &mut Self {
        for (way, direction, index) in [(came, Direction::In, ETH0), (left, Direction::Out, IfIndex(3))] {
            let Some((from, to)) = way else { continue };
            let packet = WirePacket {
                direction,
                if_index: Some(index),
                source: sock(from),
                destination: sock(to),
                tos: 0,
                payload_len: u32::try_from(payload.len()).unwrap(),
                payload: Bytes(payload.to_vec()),
            };
            self.see(secs, Source::Capture, Body::Packet(packet));
        }
        self
    }

    /// An ICMP error about our initiation `index`.
    pub fn icmp(&mut self, secs: f64, from: &str, kind: (u8, u8), index: u32) -> &mut Self {
        let error = IcmpError {
            direction: Direction::In,
            from: from.parse().unwrap(),
            icmp_type: kind.0,
            code: kind.1,
            mtu: None,
            quoted_source: sock(US),
            quoted_destination: sock(PEER),
            quoted_payload: Bytes(message(1, 148, &[index])),
        };
        self.see(secs, Source::Capture, Body::IcmpError(error));
        self
    }

    /// The tap, where there is one, looks a last time.
    pub fn until(&mut self, secs: f64) -> &mut Self {
        if self.world.sources.sees(Source::Capture) {
            self.see(secs, Source::Capture, Body::Status(SourceStatus::ok()));
        }
        self.world.handle_timeout(at(secs));
        self
    }

    pub fn due(&self) -> Option<Due> {
        self.world.due()
    }

    /// Every rule of this area, evaluated now.
    pub fn evaluate(&self) -> Evaluation {
        let rules: Vec<_> = RULES.iter().collect();
        let thresholds = Thresholds::default();
        evaluate(
            &rules,
            &Input {
                world: &self.world,
                thresholds: &thresholds,
            },
        )
    }

    /// Codes of what is found, and of what is folded beneath.
    pub fn codes(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let evaluation = self.evaluate();
        check_texts(&evaluation);
        (
            evaluation.findings.iter().map(|f| f.code).collect(),
            evaluation.suppressed.iter().map(|s| s.finding.code).collect(),
        )
    }

    /// The finding with `code`, folded or not.
    pub fn find(&self, code: &str) -> Option<Finding> {
        let evaluation = self.evaluate();
        check_texts(&evaluation);
        let folded = evaluation.suppressed.into_iter().map(|s| s.finding);
        evaluation
            .findings
            .into_iter()
            .chain(folded)
            .find(|f| f.code == code)
    }
}

/// What holds for the texts of every finding.
fn check_texts(evaluation: &Evaluation) {
    for finding in &evaluation.findings {
        let text = format!("{finding:?}");
        assert!(
            !finding.title.is_empty() && !finding.title.ends_with('.'),
            "{text}"
        );
        assert!(finding.title.chars().count() <= 90, "{}", finding.title);
        assert!(
            !finding.summary.is_empty() && !finding.impact.is_empty(),
            "{text}"
        );
        assert!(!finding.evidence.0.is_empty(), "{text}");
        for (name, _) in &finding.evidence.0 {
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{name}"
            );
        }
        assert!(!text.contains("  "), "a doubled space: {text}");
    }
}

/// A message of that kind and length with these indices.
pub fn message(kind: u8, len: usize, indices: &[u32]) -> Vec<u8> {
    let mut payload = vec![kind, 0, 0, 0];
    for index in indices {
        payload.extend(index.to_le_bytes());
    }
    payload.resize(len, 0);
    payload
}

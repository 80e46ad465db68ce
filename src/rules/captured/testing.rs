//! For tests: a wire between two addresses.

use std::net::SocketAddr;

use crate::config::Thresholds;
use crate::finding::Finding;
use crate::observation::packet::{Bytes, Direction, IcmpError, WirePacket};
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::rules::{Input, Rule};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::track::sessions::DataMessage;
use crate::types::SessionIndex;

/// The initiator.
pub const A: &str = "192.0.2.1:40000";
/// The responder.
pub const B: &str = "198.51.100.2:51820";

/// A world that a capture fills.
pub struct Wire(pub World);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl Wire {
    pub fn new() -> Self {
        let mut wire = Self(World::new(at(0)));
        wire.see(0, Body::Status(SourceStatus::ok()));
        wire
    }

    fn see(&mut self, millis: i64, body: Body) {
        self.0.apply(&Observation {
            at: at(millis),
            took: Span::ZERO,
            source: Source::Capture,
            body,
        });
    }

    pub fn packet(&mut self, millis: i64, (from, to): (&str, &str), payload: Vec<u8>) -> &mut Self {
        let packet = WirePacket {
            direction: Direction::Unknown,
            if_index: None,
            source: addr(from),
            destination: addr(to),
            tos: 0,
            payload_len: u32::try_from(payload.len()).unwrap(),
            payload: Bytes(payload),
        };
        self.see(millis, Body::Packet(packet));
        self
    }

    /// A to B.
    pub fn initiation(&mut self, millis: i64, sender: u32) -> &mut Self {
        self.packet(millis, (A, B), initiation(sender))
    }

    /// Somebody else to B.
    pub fn initiation_from(&mut self, millis: i64, from: &str, sender: u32) -> &mut Self {
        self.packet(millis, (from, B), initiation(sender))
    }

    /// B to A.
    pub fn response(&mut self, millis: i64, receiver: u32, sender: u32) -> &mut Self {
        self.response_to(millis, A, receiver, sender)
    }

    /// B to somebody else.
    pub fn response_to(&mut self, millis: i64, to: &str, receiver: u32, sender: u32) -> &mut Self {
        let mut payload = vec![2, 0, 0, 0];
        payload.extend(sender.to_le_bytes());
        payload.extend(receiver.to_le_bytes());
        payload.resize(92, 7);
        self.packet(millis, (B, to), payload)
    }

    /// B to A.
    pub fn cookie(&mut self, millis: i64, receiver: u32) -> &mut Self {
        let mut payload = vec![3, 0, 0, 0];
        payload.extend(receiver.to_le_bytes());
        payload.resize(64, 7);
        self.packet(millis, (B, A), payload)
    }

    /// A to B.
    pub fn data(&mut self, millis: i64, index: u32, counter: u64) -> &mut Self {
        self.data_between(millis, (A, B), index, counter)
    }

    /// B to A.
    pub fn data_back(&mut self, millis: i64, index: u32, counter: u64) -> &mut Self {
        self.data_between(millis, (B, A), index, counter)
    }

    pub fn data_between(&mut self, millis: i64, way: (&str, &str), index: u32, counter: u64) -> &mut Self {
        self.message(millis, way, (index, counter, 128))
    }

    /// A to B, `len` bytes of UDP payload.
    pub fn data_of(&mut self, millis: i64, index: u32, counter: u64, len: u32) -> &mut Self {
        self.message(millis, (A, B), (index, counter, len))
    }

    fn message(
        &mut self,
        millis: i64,
        way: (&str, &str),
        (index, counter, len): (u32, u64, u32),
    ) -> &mut Self {
        self.0.sessions.data(&DataMessage {
            at: at(millis),
            source: addr(way.0),
            destination: addr(way.1),
            receiver: SessionIndex(index),
            counter,
            len,
        });
        self
    }

    /// An ICMP error from B's address about A's message.
    pub fn icmp(&mut self, millis: i64, (icmp_type, code): (u8, u8), about: u32) -> &mut Self {
        let error = IcmpError {
            direction: Direction::Unknown,
            from: addr(B).ip(),
            icmp_type,
            code,
            mtu: None,
            quoted_source: addr(A),
            quoted_destination: addr(B),
            quoted_payload: Bytes(initiation(about)[..16].to_vec()),
        };
        self.see(millis, Body::IcmpError(error));
        self
    }

    /// What `rule` says at `millis`.
    pub fn check(&mut self, rule: &Rule, millis: i64) -> Vec<Finding> {
        self.0.handle_timeout(at(millis));
        self.0.sessions.finish();
        (rule.check)(&Input {
            world: &self.0,
            thresholds: &Thresholds::default(),
        })
    }
}

fn initiation(sender: u32) -> Vec<u8> {
    let mut payload = vec![1, 0, 0, 0];
    payload.extend(sender.to_le_bytes());
    payload.resize(116, 7);
    payload.extend(sender.to_le_bytes().repeat(4));
    payload.resize(148, 0);
    payload
}

/// The codes of `findings`.
pub fn codes(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|f| f.code).collect()
}

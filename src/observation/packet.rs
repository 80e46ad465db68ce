//! WireGuard messages and ICMP errors as they were on the wire.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::types::{IfIndex, PublicKey, SessionIndex};

/// Which way a packet went past this host's tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Came in.
    In,
    /// Went out.
    Out,
    /// A capture file does not say.
    Unknown,
}

/// A UDP datagram that has the shape of a WireGuard message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WirePacket {
    /// Which way it went.
    pub direction: Direction,
    /// On which interface.
    pub if_index: Option<IfIndex>,
    /// The sender's outer address and port.
    pub source: SocketAddr,
    /// The receiver's outer address and port.
    pub destination: SocketAddr,
    /// The TOS or traffic class byte (DSCP and ECN).
    pub tos: u8,
    /// The UDP payload's length on the wire, in bytes.
    pub payload_len: u32,
    /// The payload: whole for handshake messages (at most 148 bytes), the first 16 bytes for data.
    pub payload: Bytes,
}

impl WirePacket {
    /// Whether it is a data message (or a keepalive), by its type byte.
    pub fn is_data(&self) -> bool {
        self.payload.0.first() == Some(&4)
    }
}

/// How data messages are sampled: those of each session whose counter is a multiple of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// One in so many, at the coarsest so far; 1 is all of them.
    pub one_in: u32,
    /// Samples that were lost so far (full buffer).
    pub lost: u64,
}

impl Sampling {
    /// Whether every message was seen.
    pub fn is_whole(&self) -> bool {
        self.one_in == 1 && self.lost == 0
    }
}

/// An ICMP or ICMPv6 error that quotes a WireGuard message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpError {
    /// Which way it went (`out`: this host sent it).
    pub direction: Direction,
    /// Who sent it.
    pub from: IpAddr,
    /// ICMP type (RFC 792) or ICMPv6 type (RFC 4443), by the family of `from`.
    pub icmp_type: u8,
    /// The code within the type.
    pub code: u8,
    /// The next-hop MTU of "fragmentation needed" or "packet too big".
    pub mtu: Option<u32>,
    /// The quoted packet's source.
    pub quoted_source: SocketAddr,
    /// The quoted packet's destination.
    pub quoted_destination: SocketAddr,
    /// What is quoted of the UDP payload (it starts with the message type and the sender's index).
    pub quoted_payload: Bytes,
}

/// What known keys say of a handshake message that came to a device, or that a capture file holds: facts, and no key
/// but public ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedMessage {
    /// Which message.
    pub message: CheckedKind,
    /// The sender's outer address and port.
    pub source: SocketAddr,
    /// The receiver's outer address and port.
    pub destination: SocketAddr,
    /// The sender's session index.
    pub sender: SessionIndex,
    /// Its first MAC: with the index it tells one message from another.
    pub mac1: Bytes,
    /// The public key of the device of this host that listens on the destination's port; a capture file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<PublicKey>,
    /// For whom it was made, of the keys that are known (mac1 is keyed by the receiver's public key).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_for: Option<PublicKey>,
    /// What that key's private half opened of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<OpenedInitiation>,
    /// Whether a configuration file lists its maker; a live host's devices say it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_listed: Option<bool>,
}

/// Which handshake message was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckedKind {
    /// Type 1.
    Initiation,
    /// Type 2.
    Response,
}

/// What an initiation says to its responder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedInitiation {
    /// Its maker.
    pub initiator: PublicKey,
    /// Its maker's time, as TAI64N (12 bytes).
    pub stamp: Bytes,
}

/// Initiations to one address that were counted and not shown one by one, for there were too many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitiationTally {
    /// On which interface they came.
    pub if_index: Option<IfIndex>,
    /// To whom.
    pub destination: SocketAddr,
    /// How many; where a sample of them was taken, an estimate.
    pub count: u64,
    /// One in so many was taken, at the coarsest; 1 is all of them, and the count is exact.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub one_in: u32,
    /// The estimate's variance: of `count` the sum of N × (N - 1) over the messages that were taken, one in N each.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub variance: u64,
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_one(n: &u32) -> bool {
    *n == 1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Bytes, in JSON as base64.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        BASE64
            .decode(text.as_bytes())
            .map(Self)
            .map_err(de::Error::custom)
    }
}

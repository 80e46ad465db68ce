//! What the wire showed between this host and one peer's endpoint, in the words that tunnels need.
//!
//! In: [`Handshakes`]. Out: [`PeerWire`]. Why a step between: a conversation on the wire is addresses, a peer is a
//! device and a key; this is the one place where the two meet.

use std::net::{IpAddr, SocketAddr};

use super::super::handshake::Handshakes;
use crate::time::Timestamp;
use crate::types::IfIndex;

/// The wire between this host and a peer's present endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerWire {
    /// This side's outer address, where a packet showed it.
    pub local: Option<SocketAddr>,
    /// This side's handshake attempts, oldest first.
    pub attempts: Vec<Attempt>,
    /// The peer's handshake attempts towards us: when, and whether a response left.
    pub called: Vec<Call>,
    /// The interfaces through which our attempts left.
    pub out_through: Vec<IfIndex>,
    /// The newest ICMP error about one of our messages.
    pub icmp: Option<IcmpSeen>,
}

/// One handshake attempt of this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When the initiation left.
    pub at: Timestamp,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// REKEY_TIMEOUT is not over.
    Pending,
    /// A response came at this time. Whether the device accepted it only the device knows.
    Answered(Timestamp),
    /// Nothing came.
    Unanswered,
    /// A cookie reply came: the responder is under load and cannot be fooled about who we are.
    Cookie,
    /// An ICMP error came.
    Unreachable,
}

/// One handshake attempt of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When the initiation arrived.
    pub at: Timestamp,
    /// Whether a response left.
    pub answered: bool,
}

/// An ICMP error about a message of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpSeen {
    /// When it arrived.
    pub at: Timestamp,
    /// Who sent it.
    pub from: IpAddr,
    /// ICMP or ICMPv6 type, by the family of `from`.
    pub icmp_type: u8,
    /// The code within it.
    pub code: u8,
}

impl PeerWire {
    /// What `handshakes` holds about `remote`, of the device that listens on `local_port` where that is known.
    pub fn of(
        _handshakes: &Handshakes,
        _remote: SocketAddr,
        _local_port: Option<u16>,
        _now: Timestamp,
    ) -> Self {
        Self::default()
    }
}

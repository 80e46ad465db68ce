//! What the wire showed between this host and one peer's endpoint, in the words that tunnels need.
//!
//! In: [`Handshakes`]. Out: [`PeerWire`]. Why a step between: a conversation on the wire is addresses, a peer is a
//! device and a key; this is the one place where the two meet.

use std::net::SocketAddr;

use crate::time::Timestamp;
use crate::track::handshake::{self, End, Handshakes, IcmpNote, IcmpTally};
use crate::types::IfIndex;
use crate::wire::icmp::IcmpClass;
use crate::wire::wireguard::Kind;

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

/// An ICMP error about a message of ours: that it could not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpSeen {
    /// When it was last seen.
    pub at: Timestamp,
    /// Who sent it and what it said.
    pub note: IcmpNote,
    /// Which of our messages it is about, where the quote tells.
    pub about: Option<Kind>,
    /// How often it was seen.
    pub count: u64,
}

impl PeerWire {
    /// What `handshakes` holds about `remote`, of the device that listens on `local_port` where that is known.
    pub fn of(handshakes: &Handshakes, remote: SocketAddr, local_port: Option<u16>, now: Timestamp) -> Self {
        let conversation = match local_port {
            Some(port) => handshakes.between(port, remote),
            None => handshakes.conversation(None, remote),
        };
        let Some((conversation, ours)) = conversation.and_then(|c| Some((c, c.other(remote)?))) else {
            return Self::default();
        };
        let mut out_through: Vec<IfIndex> = ours.attempts().flat_map(|a| a.taps.out_through()).collect();
        out_through.sort_unstable();
        out_through.dedup();
        Self {
            local: Some(ours.address),
            attempts: attempts(ours, now),
            called: conversation
                .end(remote)
                .into_iter()
                .flat_map(End::attempts)
                .map(|a| Call {
                    at: a.at,
                    answered: a.answer.is_some(),
                })
                .collect(),
            out_through,
            icmp: conversation
                .errors()
                .iter()
                .filter(|tally| tally.about == ours.address && undelivered(tally.first.class()))
                .max_by_key(|tally| tally.last_at)
                .map(IcmpSeen::of),
        }
    }
}

fn attempts(end: &End, now: Timestamp) -> Vec<Attempt> {
    let newest = end.attempts().len().saturating_sub(1);
    end.attempts()
        .enumerate()
        .map(|(index, attempt)| Attempt {
            at: attempt.at,
            outcome: match (attempt.outcome(now), attempt.answer) {
                (_, Some(answer)) => Outcome::Answered(answer.at),
                (handshake::Outcome::Cookie { .. }, _) => Outcome::Cookie,
                (handshake::Outcome::Unreachable { .. }, _) => Outcome::Unreachable,
                // An initiator forgets an attempt when it makes the next.
                (handshake::Outcome::Pending, _) if index == newest => Outcome::Pending,
                _ => Outcome::Unanswered,
            },
        })
        .collect()
}

/// Whether an error of this class says that the datagram did not get there. One that is too big for a link, or odd,
/// is another matter.
fn undelivered(class: IcmpClass) -> bool {
    match class {
        IcmpClass::NetUnreachable
        | IcmpClass::HostUnreachable
        | IcmpClass::ProtocolUnreachable
        | IcmpClass::PortUnreachable
        | IcmpClass::Prohibited
        | IcmpClass::TimeExceeded => true,
        IcmpClass::TooBig | IcmpClass::ParameterProblem | IcmpClass::Other => false,
    }
}

impl IcmpSeen {
    fn of(tally: &IcmpTally) -> Self {
        Self {
            at: tally.last_at,
            note: tally.first,
            about: tally.kind,
            count: tally.count,
        }
    }
}

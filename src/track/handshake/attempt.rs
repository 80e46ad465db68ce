//! One handshake attempt: an initiation and what came of it.

use std::net::{IpAddr, SocketAddr};

use crate::observation::packet::Direction;
use crate::time::{Span, Timestamp};
use crate::types::{IfIndex, SessionIndex};
use crate::wire::icmp::{self, IcmpClass};
use crate::wire::wireguard::{REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER};

/// How long an initiator waits: REKEY_TIMEOUT with the most jitter.
pub const ANSWER_WITHIN: Span = REKEY_TIMEOUT.saturating_add(REKEY_TIMEOUT_JITTER);

/// An initiation and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was first seen.
    pub at: Timestamp,
    /// Who sent it.
    pub initiator: SocketAddr,
    /// To whom.
    pub responder: SocketAddr,
    /// The initiator's session index: new with every attempt.
    pub sender: SessionIndex,
    /// Its mac1: with the index it tells one message from another, also across a NAT.
    pub mac1: [u8; 16],
    /// The initiator had a cookie.
    pub mac2_set: bool,
    /// The TOS byte: the kernel marks handshakes 0x88 (AF41), userspace implementations do not.
    pub tos: u8,
    /// 1 for a first attempt, 2 for the first retry, and so on: retries follow an unanswered attempt within twice
    /// the time that an initiator waits.
    pub try_number: u32,
    /// Where it passed.
    pub taps: Taps,
    /// The first response to it.
    pub answer: Option<Answer>,
    /// When a cookie reply to it was first seen.
    pub cookie_at: Option<Timestamp>,
    /// The first ICMP error about it.
    pub icmp: Option<IcmpNote>,
}

impl Attempt {
    /// What came of it, as known at `now`. A response counts more than a cookie reply, and that more than an error.
    pub fn outcome(&self, now: Timestamp) -> Outcome {
        if let Some(answer) = &self.answer {
            return Outcome::Answered {
                rtt: answer.at - self.at,
            };
        }
        if let Some(at) = self.cookie_at {
            return Outcome::Cookie { after: at - self.at };
        }
        match self.icmp {
            Some(icmp) => Outcome::Unreachable { icmp },
            None if now < self.due() => Outcome::Pending,
            None => Outcome::Unanswered,
        }
    }

    /// When its answer is overdue and a retry is due.
    pub fn due(&self) -> Timestamp {
        self.at + ANSWER_WITHIN
    }

    /// Whether the peer answered it in any way.
    pub fn is_answered(&self) -> bool {
        self.answer.is_some() || self.cookie_at.is_some()
    }
}

/// A response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it was first seen.
    pub at: Timestamp,
    /// Who sent it: the responder, unless its answers leave from another address.
    pub from: SocketAddr,
    /// The responder's session index.
    pub sender: SessionIndex,
    /// Where it passed.
    pub taps: Taps,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet, and there is time.
    Pending,
    /// A response came.
    Answered {
        /// From initiation to response, where it was captured.
        rtt: Span,
    },
    /// Nothing came in time.
    Unanswered,
    /// The responder is under load and asks for proof of the address.
    Cookie {
        /// From initiation to cookie reply.
        after: Span,
    },
    /// The network answered that it cannot be delivered.
    Unreachable {
        /// What it said.
        icmp: IcmpNote,
    },
}

/// An ICMP error in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpNote {
    /// When it was first seen.
    pub at: Timestamp,
    /// Who sent it.
    pub from: IpAddr,
    /// ICMP or ICMPv6 type, by the family of `from`.
    pub icmp_type: u8,
    /// The code within the type.
    pub code: u8,
    /// This host sent it.
    pub sent_here: bool,
}

impl IcmpNote {
    /// Its class.
    pub fn class(&self) -> IcmpClass {
        icmp::meaning(self.from.is_ipv6(), self.icmp_type, self.code).0
    }

    /// The standard's words for it.
    pub fn words(&self) -> &'static str {
        icmp::meaning(self.from.is_ipv6(), self.icmp_type, self.code).1
    }

    /// Whether both are the same error from the same router.
    pub(super) fn same(&self, other: &Self) -> bool {
        (self.from, self.icmp_type, self.code) == (other.from, other.icmp_type, other.code)
    }
}

/// Where a message passed this host: which interfaces, which way. Bridges, VLANs, the loopback and forwarding show
/// one message several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps {
    /// Thousands of these are kept, so directions and interfaces lie apart: half the size. Interface 0 is none.
    directions: [Option<Direction>; Self::KEPT],
    interfaces: [u32; Self::KEPT],
    /// Sightings in all.
    pub sightings: u32,
}

impl Taps {
    /// Different taps that are kept of one message; further ones are only counted.
    pub const KEPT: usize = 4;

    /// The first sighting.
    pub(super) fn first(direction: Direction, if_index: Option<IfIndex>) -> Self {
        let mut taps = Self {
            directions: [None; Self::KEPT],
            interfaces: [0; Self::KEPT],
            sightings: 0,
        };
        taps.add(direction, if_index);
        taps
    }

    /// One more sighting.
    pub(super) fn add(&mut self, direction: Direction, if_index: Option<IfIndex>) {
        self.sightings = self.sightings.saturating_add(1);
        if self.iter().any(|tap| tap == (direction, if_index)) {
            return;
        }
        let mut places = self.directions.iter_mut().zip(&mut self.interfaces);
        if let Some((seen, interface)) = places.find(|(seen, _)| seen.is_none()) {
            *seen = Some(direction);
            *interface = if_index.map_or(0, |index| index.0);
        }
    }

    /// The taps, in the order in which it passed them.
    pub fn iter(&self) -> impl Iterator<Item = (Direction, Option<IfIndex>)> + '_ {
        let places = self.directions.iter().zip(&self.interfaces);
        places.filter_map(|(direction, interface)| {
            Some(((*direction)?, (*interface != 0).then_some(IfIndex(*interface))))
        })
    }

    /// Whether it was seen to come in.
    pub fn came_in(&self) -> bool {
        self.iter().any(|(direction, _)| direction == Direction::In)
    }

    /// Whether it was seen to go out.
    pub fn went_out(&self) -> bool {
        self.iter().any(|(direction, _)| direction == Direction::Out)
    }

    /// The interfaces through which it left.
    pub fn out_through(&self) -> impl Iterator<Item = IfIndex> + '_ {
        self.through(Direction::Out)
    }

    /// The interfaces through which it came.
    pub fn in_through(&self) -> impl Iterator<Item = IfIndex> + '_ {
        self.through(Direction::In)
    }

    fn through(&self, direction: Direction) -> impl Iterator<Item = IfIndex> + '_ {
        self.iter()
            .filter(move |(d, _)| *d == direction)
            .filter_map(|(_, i)| i)
    }
}

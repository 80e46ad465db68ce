//! Two parties that share sessions, wherever each of them moves.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::answers::Answers;
use super::stream::{DataCounts, Lengths};
use crate::time::{Span, Timestamp};

/// Moves that are kept of a tunnel; further ones push the oldest out and are counted.
pub const MOVES_KEPT: usize = 16;
/// Other addresses that are kept of a tunnel's ends, as translations show them.
const ALIASES_KEPT: usize = 4;
/// Tunnels that are known to be of the same parties.
pub(super) const KIN_KEPT: usize = 8;
/// Sessions of a tunnel that are live at a time: previous, current and next (kernel noise.h), and one in doubt.
pub(super) const LIVE_KEPT: usize = 4;

/// Which of a tunnel's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The initiator of the first handshake seen, or the sender of the first data.
    First,
    /// The other one.
    Second,
}

impl Side {
    /// The other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    pub(super) fn of<T>(self, [first, second]: &[T; 2]) -> &T {
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }

    pub(super) fn of_mut<T>(self, [first, second]: &mut [T; 2]) -> &mut T {
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }
}

/// Two parties.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Where each side was last.
    pub ends: [SocketAddr; 2],
    /// When its first message was seen.
    pub first_at: Timestamp,
    /// When a message was last noted; live streams may be newer.
    pub last_at: Timestamp,
    /// Sessions whose handshake was seen.
    pub handshakes: u64,
    /// Sessions that began before the capture or whose handshake it missed.
    pub without_handshake: u64,
    /// How often, and how soon, a session followed another.
    pub rekeys: Rekeys,
    /// Moves beyond those kept.
    pub moves_forgotten: u64,
    /// Data that was still sent to where the other side had been, long after it moved: the sender did not follow.
    pub to_old_address: u64,
    /// Proof that two hosts use one key at the same time.
    pub rivalry: Option<Rivalry>,
    pub(super) moves: VecDeque<Move>,
    pub(super) before: [Option<(SocketAddr, Timestamp)>; 2],
    pub(super) aliases: VecDeque<Alias>,
    pub(super) pending: Option<Pending>,
    pub(super) kin: Vec<usize>,
    pub(super) live: Vec<usize>,
    /// What sessions that are over have left: what each side sent.
    pub(super) past: [DataCounts; 2],
    pub(super) lengths: [Lengths; 2],
    pub(super) answers: [Answers; 2],
    pub(super) newest_began: Option<Timestamp>,
}

impl Tunnel {
    pub(super) fn new(ends: [SocketAddr; 2], at: Timestamp) -> Self {
        Self {
            ends,
            first_at: at,
            last_at: at,
            handshakes: 0,
            without_handshake: 0,
            rekeys: Rekeys::default(),
            moves_forgotten: 0,
            to_old_address: 0,
            rivalry: None,
            moves: VecDeque::new(),
            before: [None; 2],
            aliases: VecDeque::new(),
            pending: None,
            kin: Vec::new(),
            live: Vec::new(),
            past: [DataCounts::default(); 2],
            lengths: [Lengths::default(); 2],
            answers: [Answers::default(); 2],
            newest_began: None,
        }
    }

    /// Moves, oldest first, as far as they are kept.
    pub fn moves(&self) -> impl DoubleEndedIterator<Item = &Move> + ExactSizeIterator {
        self.moves.iter()
    }

    /// Other addresses under which its messages were seen too: a translation within the capture's sight.
    pub fn aliases(&self) -> impl DoubleEndedIterator<Item = &Alias> + ExactSizeIterator {
        self.aliases.iter()
    }

    /// When the last session whose handshake was seen began.
    pub fn newest_began(&self) -> Option<Timestamp> {
        self.newest_began
    }

    pub(super) fn side_at(&self, address: SocketAddr) -> Option<Side> {
        let [first, second] = self.ends;
        match address {
            a if a == first => Some(Side::First),
            a if a == second => Some(Side::Second),
            _ => None,
        }
    }

    pub(super) fn is_alias(&self, address: SocketAddr) -> bool {
        self.aliases.iter().any(|alias| alias.address == address)
    }

    /// Another address of one of its ends. Of many the newest are kept.
    pub(super) fn add_alias(&mut self, address: SocketAddr, at: Timestamp, silence: Option<Span>) {
        if self.is_alias(address) || self.ends.contains(&address) {
            return;
        }
        if self.aliases.len() == ALIASES_KEPT {
            self.aliases.pop_front();
        }
        self.aliases.push_back(Alias { address, at, silence });
    }

    pub(super) fn add_move(&mut self, moved: Move) {
        if self.moves.len() == MOVES_KEPT {
            self.moves.pop_front();
            self.moves_forgotten += 1;
        }
        self.moves.push_back(moved);
    }
}

/// Another address under which one of a tunnel's ends was seen at the same time: a translation within sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The address.
    pub address: SocketAddr,
    /// When it was first seen.
    pub at: Timestamp,
    /// How long the end behind it had sent nothing before; `None` where that is not known.
    pub silence: Option<Span>,
}

/// One side came from another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// When it was first seen at the new address.
    pub at: Timestamp,
    /// Which side.
    pub side: Side,
    /// Where it was.
    pub from: SocketAddr,
    /// Where it is.
    pub to: SocketAddr,
    /// How long it had sent nothing before.
    pub silence: Span,
    /// How long the tunnel had been silent both ways before: what keeps a NAT's mapping alive.
    pub quiet: Span,
    /// What proves it.
    pub proof: Proof,
}

impl Move {
    /// Whether only the port changed.
    pub fn is_port_only(&self) -> bool {
        self.from.ip() == self.to.ip()
    }
}

/// What proves that two addresses are one party.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its data under the same session, counters going on.
    SameSession,
    /// The other side sent data under the same session to the new address.
    OtherSideFollowed,
}

/// A possible move, until a second message proves it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub at: Timestamp,
    pub side: Side,
    pub to: SocketAddr,
    pub silence: Span,
    pub quiet: Span,
}

/// Sessions that followed one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rekeys {
    /// How often.
    pub count: u64,
    /// Of these sooner than REKEY_AFTER_TIME, less a retry's jitter: something forced them.
    pub early: u64,
    /// The shortest time between two beginnings.
    pub shortest: Option<Span>,
    /// The longest.
    pub longest: Option<Span>,
}

impl Rekeys {
    pub(super) fn note(&mut self, after: Span, early: bool) {
        self.count += 1;
        self.early += u64::from(early);
        self.shortest = Some(self.shortest.map_or(after, |s| s.min(after)));
        self.longest = Some(self.longest.map_or(after, |l| l.max(after)));
    }
}

/// Two hosts with one key: one went on with its older session after the other had begun a newer one. A host that
/// has a newer session sends with that (kernel noise.c, current_keypair), so this is not one host that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rivalry {
    /// When it was first proven.
    pub first_at: Timestamp,
    /// When it was last seen.
    pub last_at: Timestamp,
    /// Where the two hosts are.
    pub hosts: [SocketAddr; 2],
    /// The party that both talk to.
    pub with: SocketAddr,
    /// How often sessions contradicted each other so.
    pub count: u64,
}

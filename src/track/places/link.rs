//! Two parties whose messages pass both places: what passed which way, what was lost between, and how it was mapped.

use std::net::SocketAddr;

use crate::time::{Span, Timestamp};

/// Mappings that are kept of a link; further ones are counted.
pub const MAPPINGS_KEPT: usize = 32;

/// Which way between the places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the first place to the second.
    Onward,
    /// From the second place to the first.
    Back,
}

/// Inner sizes that passed, or did not, in bytes (padding included).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The largest that arrived.
    pub largest_arrived: u32,
    /// The smallest that was lost.
    pub smallest_lost: u32,
    /// The largest that was lost.
    pub largest_lost: u32,
    /// Of the lost ones how many are larger than all that arrived.
    pub lost_above: u64,
    /// How many arrived.
    pub arrived: u64,
}

/// What passed one way. All counts are of messages whose passing the other place could have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// Seen at the place where it comes from.
    pub initiations: u64,
    /// Of these seen at the other place too.
    pub initiations_arrived: u64,
    /// As above, of responses.
    pub responses: u64,
    /// See `responses`.
    pub responses_arrived: u64,
    /// As above, of data: those whose counters are kept.
    pub data: u64,
    /// See `data`.
    pub data_arrived: u64,
    /// Messages, of all kinds, that passed when the other capture had shown its last packet: lost, or that capture had
    /// ended.
    pub after_end: u64,
    /// When, by the first place's clock, the first message was lost.
    pub lost_from: Option<Timestamp>,
    /// When the last one was.
    pub lost_until: Option<Timestamp>,
    /// When, by the first place's clock, the last one arrived.
    pub arrived_until: Option<Timestamp>,
    /// Sizes of data; `None` where none was lost, or none arrived.
    pub size: Option<Size>,
}

impl Passage {
    /// Messages of all kinds, at the place where they come from.
    pub fn sent(&self) -> u64 {
        self.initiations + self.responses + self.data
    }

    /// Of these at the other.
    pub fn arrived(&self) -> u64 {
        self.initiations_arrived + self.responses_arrived + self.data_arrived
    }

    /// Lost between the places.
    pub fn lost(&self) -> u64 {
        self.sent().saturating_sub(self.arrived())
    }

    pub(super) fn note_loss(&mut self, at: Timestamp) {
        self.lost_from = Some(self.lost_from.map_or(at, |known| known.min(at)));
        self.lost_until = self.lost_until.max(Some(at));
    }
}

/// One party's address at either place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// At the first place.
    pub first: SocketAddr,
    /// At the second.
    pub second: SocketAddr,
    /// From when on, by the first place's clock.
    pub from: Timestamp,
    /// How long the party had sent nothing before, where that was seen.
    pub silence: Option<Span>,
}

impl Mapping {
    /// Whether something between the places translates.
    pub fn is_translated(&self) -> bool {
        self.first != self.second
    }
}

/// Two parties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The party on the first place's side and the one on the second's, as the first place sees them; as the second does
    /// where the first saw nothing.
    pub ends: [SocketAddr; 2],
    /// The same, as the second place sees them last; `None` where it saw nothing.
    pub ends_at_second: Option<[SocketAddr; 2]>,
    /// Whether which party is on which side is known; else the order means nothing.
    pub oriented: bool,
    /// What passed from the first place to the second.
    pub onward: Passage,
    /// What passed from the second to the first.
    pub back: Passage,
    /// Each party's addresses, oldest first: another one later is another mapping of the same party.
    pub mappings: Vec<Mapping>,
    /// Mappings beyond those kept.
    pub mappings_left_out: u64,
    /// Messages that both places saw.
    pub common: u64,
}

impl Link {
    /// What passed this way.
    pub fn passage(&self, direction: Direction) -> &Passage {
        match direction {
            Direction::Onward => &self.onward,
            Direction::Back => &self.back,
        }
    }

    /// Mappings of one party that changed while it stayed where it is: `(before, after)`.
    pub fn remapped(&self) -> impl Iterator<Item = (&Mapping, &Mapping)> {
        self.mappings.iter().enumerate().filter_map(|(n, after)| {
            let earlier = self.mappings.get(..n)?;
            let before = earlier.iter().rev().find(|b| b.first == after.first)?;
            (before.second != after.second).then_some((before, after))
        })
    }
}

//! What two captures have in common, in version 1.

use schemars::JsonSchema;
use serde::Serialize;

use super::time;
use crate::report::places::{LinkRow, MappingRow, PlacesRow};
use crate::track::places::Passage;

/// Two captures side by side: what passed between their places, and what was lost which way.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Places {
    /// The first capture, as it was named.
    pub first: String,
    /// The second.
    pub second: String,
    /// Messages that both hold: the same initiations by index and mac1, responses by their indices, data by index and
    /// counter.
    pub messages_in_common: u64,
    /// The second capture's clock less the first's, in seconds; null where nothing common tells.
    pub clock_offset_seconds: Option<f64>,
    /// By how much that may be wrong, in seconds; null where messages of one direction only tell.
    pub clock_uncertainty_seconds: Option<f64>,
    /// Of each session's data one message in so many was compared (1: all).
    pub compared_one_in: u64,
    /// Parties whose messages pass both places, those with the most messages first.
    pub links: Vec<Link>,
    /// Links that are not listed.
    pub links_left_out: u64,
}

/// Two parties whose messages pass both places.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Link {
    /// The party on the first capture's side, as the first capture has it.
    pub near: String,
    /// The party on the second capture's side, as the first capture has it.
    pub far: String,
    /// The party on the first capture's side, as the second has it; null where it has none of its messages.
    pub near_at_second: Option<String>,
    /// The party on the second capture's side, as the second has it.
    pub far_at_second: Option<String>,
    /// Whether it is known which party is on which side; else `near` and `far` mean nothing.
    pub oriented: bool,
    /// What went from the first capture's side to the second's.
    pub onward: Way,
    /// What went back.
    pub back: Way,
    /// Each party's address at either place, oldest first: a later one of the same address is another mapping of it.
    pub mappings: Vec<Mapping>,
    /// Mappings that are not listed.
    pub mappings_left_out: u64,
}

/// What went one way. Counted is what the other capture could have seen.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Way {
    /// Handshake initiations at the capture where they come from.
    pub initiations: u64,
    /// Of these at the other capture too.
    pub initiations_arrived: u64,
    /// Handshake responses, as above.
    pub responses: u64,
    /// See `responses`.
    pub responses_arrived: u64,
    /// Data messages, as above.
    pub data: u64,
    /// See `data`.
    pub data_arrived: u64,
    /// Messages of all kinds that were lost between the two.
    pub lost: u64,
    /// Messages that left after the other capture's last packet: lost, or that capture had ended.
    pub after_end: u64,
    /// When the first one was lost, by the first capture's clock.
    #[schemars(extend("format" = "date-time"))]
    pub lost_from: Option<String>,
    /// When the last one was lost.
    #[schemars(extend("format" = "date-time"))]
    pub lost_until: Option<String>,
    /// The largest inner packet that arrived, in bytes; null where no data was lost or none arrived.
    pub largest_arrived_bytes: Option<u32>,
    /// The smallest inner packet that was lost, in bytes.
    pub smallest_lost_bytes: Option<u32>,
}

/// One party's address at either place.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Mapping {
    /// At the first capture.
    pub first: String,
    /// At the second.
    pub second: String,
    /// From when on, by the first capture's clock.
    #[schemars(extend("format" = "date-time"))]
    pub from: String,
    /// How long the party had been silent before, in seconds, where that was seen.
    pub silence_seconds: Option<f64>,
}

pub(super) fn places(p: &PlacesRow) -> Places {
    let [first, second] = p.files.clone();
    Places {
        first,
        second,
        messages_in_common: p.common,
        clock_offset_seconds: p.clock_offset,
        clock_uncertainty_seconds: p.clock_uncertainty,
        compared_one_in: p.one_in,
        links: p.links.iter().map(link).collect(),
        links_left_out: p.links_left_out,
    }
}

fn link(l: &LinkRow) -> Link {
    let [near, far] = l.ends.map(|e| e.to_string());
    let second = |n: usize| l.ends_at_second.and_then(|e| Some(e.get(n)?.to_string()));
    Link {
        near,
        far,
        near_at_second: second(0),
        far_at_second: second(1),
        oriented: l.oriented,
        onward: way(&l.onward),
        back: way(&l.back),
        mappings: l.mappings.iter().map(mapping).collect(),
        mappings_left_out: l.mappings_left_out,
    }
}

fn way(p: &Passage) -> Way {
    Way {
        initiations: p.initiations,
        initiations_arrived: p.initiations_arrived,
        responses: p.responses,
        responses_arrived: p.responses_arrived,
        data: p.data,
        data_arrived: p.data_arrived,
        lost: p.lost(),
        after_end: p.after_end,
        lost_from: p.lost_from.map(time),
        lost_until: p.lost_until.map(time),
        largest_arrived_bytes: p.size.map(|s| s.largest_arrived),
        smallest_lost_bytes: p.size.map(|s| s.smallest_lost),
    }
}

fn mapping(m: &MappingRow) -> Mapping {
    Mapping {
        first: m.first.to_string(),
        second: m.second.to_string(),
        from: time(m.from),
        silence_seconds: m.silence.map(|s| s.as_secs_f64()),
    }
}

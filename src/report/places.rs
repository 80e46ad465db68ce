//! What two captures have in common, as a section of the report.

use std::net::SocketAddr;

use crate::time::{Span, Timestamp};
use crate::track::places::{Comparison, Link, Mapping, Passage};

/// Links that a report lists; of more, those with the most messages.
pub const LISTED: usize = 100;

/// Two captures side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacesRow {
    /// The first capture and the second, as they were named.
    pub files: [String; 2],
    /// Messages that both hold.
    pub common: u64,
    /// The second's clock less the first's, in seconds; `None` where nothing common tells.
    pub clock_offset: Option<f64>,
    /// By how much that may be wrong, in seconds; `None` where messages of one direction only tell.
    pub clock_uncertainty: Option<f64>,
    /// Of each session's data one message in so many was compared.
    pub one_in: u64,
    /// The links.
    pub links: Vec<LinkRow>,
    /// Links that are not listed.
    pub links_left_out: u64,
}

/// Two parties whose messages pass both places.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkRow {
    /// The party on the first capture's side and the one on the second's, as the first capture has them.
    pub ends: [SocketAddr; 2],
    /// As the second has them; `None` where it has none of their messages.
    pub ends_at_second: Option<[SocketAddr; 2]>,
    /// Whether it is known which party is on which side.
    pub oriented: bool,
    /// What went from the first capture's side to the second's.
    pub onward: Passage,
    /// What went back.
    pub back: Passage,
    /// Each party's address at either place, oldest first.
    pub mappings: Vec<MappingRow>,
    /// Mappings that are not listed.
    pub mappings_left_out: u64,
}

/// One party's address at either place.
#[derive(Clone, Debug, PartialEq)]
pub struct MappingRow {
    /// At the first.
    pub first: SocketAddr,
    /// At the second.
    pub second: SocketAddr,
    /// From when on, by the first capture's clock.
    pub from: Timestamp,
    /// How long the party had been silent before, where that was seen.
    pub silence: Option<Span>,
}

/// The section.
#[allow(clippy::cast_precision_loss)] // nanoseconds as seconds
pub fn section(c: &Comparison, files: [String; 2]) -> PlacesRow {
    let links: Vec<LinkRow> = c.links.iter().take(LISTED).map(link).collect();
    PlacesRow {
        files,
        common: c.common,
        clock_offset: c.clocks.offset().map(|nanos| nanos as f64 / 1e9),
        clock_uncertainty: c.clocks.uncertainty().map(|nanos| nanos as f64 / 1e9),
        one_in: c.one_in,
        links_left_out: c.links_left_out + (c.links.len() - links.len()) as u64,
        links,
    }
}

fn link(l: &Link) -> LinkRow {
    LinkRow {
        ends: l.ends,
        ends_at_second: l.ends_at_second,
        oriented: l.oriented,
        onward: l.onward,
        back: l.back,
        mappings: l.mappings.iter().map(mapping).collect(),
        mappings_left_out: l.mappings_left_out,
    }
}

fn mapping(m: &Mapping) -> MappingRow {
    MappingRow {
        first: m.first,
        second: m.second,
        from: m.from,
        silence: m.silence,
    }
}

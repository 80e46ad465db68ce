//! Two captures side by side, as compact tables: what passed which way, and how it was mapped.

use super::page::Role;
use super::table::{Cell, Column, Table};
use crate::output::human;
use crate::report::Report;
use crate::report::places::{LinkRow, PlacesRow};
use crate::time::Span;
use crate::track::places::Passage;

/// Links of the table.
const LINKS: usize = 6;
/// Mappings of the table.
const MAPPINGS: usize = 6;

/// Both tables, where two captures were compared.
pub fn tables(report: &Report) -> Vec<Table> {
    let Some(places) = &report.places else {
        return Vec::new();
    };
    [ways(places), mappings(places)].into_iter().flatten().collect()
}

/// The comparison in a line.
pub fn line(report: &Report) -> Option<String> {
    let p = report.places.as_ref()?;
    let [first, second] = &p.files;
    let clocks = match (p.clock_offset, p.clock_uncertainty) {
        (Some(offset), Some(off)) => format!(
            "the second's clock is {} {} (± {})",
            seconds(offset.abs()),
            if offset < 0.0 { "behind" } else { "ahead" },
            seconds(off)
        ),
        (Some(_), None) => {
            "messages came one way only, so the clocks' difference is not known well".to_owned()
        }
        _ => "nothing common tells the clocks' difference".to_owned(),
    };
    let part = match p.one_in {
        1 => String::new(),
        n => format!("; of data one message in {} was compared", human::count(n)),
    };
    Some(format!(
        "{first} and {second} have {} in common; {clocks}{part}",
        human::counted(p.common, "message", "messages")
    ))
}

fn seconds(value: f64) -> String {
    match Span::try_from_secs_f64(value) {
        Ok(span) => human::span(span),
        Err(_) => "0 s".to_owned(),
    }
}

fn ways(p: &PlacesRow) -> Option<Table> {
    if p.links.is_empty() {
        return None;
    }
    let left_out = p.links.len().saturating_sub(LINKS) as u64 + p.links_left_out;
    Some(Table {
        columns: vec![
            Column::text("Between", 16),
            Column::text("to", 16),
            Column::number("sent"),
            Column::number("arrived"),
            Column::number("lost"),
            Column::fixed("handshakes"),
        ],
        rows: p.links.iter().take(LINKS).flat_map(rows).collect(),
        note: (left_out > 0).then(|| format!("and {} more in --json", human::count(left_out))),
    })
}

fn rows(link: &LinkRow) -> Vec<Vec<Cell>> {
    let [near, far] = link.ends;
    [(near, far, &link.onward), (far, near, &link.back)]
        .into_iter()
        .map(|(from, to, passage)| {
            let lost = lost(passage);
            let role = match passage.lost() + passage.after_end {
                0 => Role::Good,
                _ if passage.arrived() == 0 => Role::Critical,
                _ => Role::Warning,
            };
            vec![
                Cell::plain(from.to_string()),
                Cell::plain(to.to_string()),
                Cell::plain(human::count(passage.sent() + passage.after_end)),
                Cell::plain(human::count(passage.arrived())),
                Cell::of(role, lost),
                Cell::plain(handshakes(passage)),
            ]
        })
        .collect()
}

#[allow(clippy::cast_precision_loss)] // a share
fn lost(p: &Passage) -> String {
    match (p.lost(), p.sent(), p.after_end) {
        (0, _, n) if n > 0 => format!("{}?", human::count(n)),
        (0, 0, _) => "–".to_owned(),
        (lost, sent, _) => format!("{:.1} %", lost as f64 / sent as f64 * 100.0),
    }
}

fn handshakes(p: &Passage) -> String {
    let of = |arrived: u64, sent: u64, what: &str| (sent > 0).then(|| format!("{arrived}/{sent} {what}"));
    let parts: Vec<String> = [
        of(p.initiations_arrived, p.initiations, "initiations"),
        of(p.responses_arrived, p.responses, "responses"),
    ]
    .into_iter()
    .flatten()
    .collect();
    parts.join(", ")
}

fn mappings(p: &PlacesRow) -> Option<Table> {
    let all: Vec<_> = p
        .links
        .iter()
        .flat_map(|l| &l.mappings)
        .filter(|m| m.first != m.second)
        .collect();
    if all.is_empty() {
        return None;
    }
    let left_out = all.len().saturating_sub(MAPPINGS) as u64;
    Some(Table {
        columns: vec![
            Column::text("NAT maps", 16),
            Column::text("to", 16),
            Column::fixed("since (UTC)"),
            Column::fixed("after a silence of"),
        ],
        rows: all
            .iter()
            .rev()
            .take(MAPPINGS)
            .rev()
            .map(|m| {
                vec![
                    Cell::plain(m.first.to_string()),
                    Cell::plain(m.second.to_string()),
                    Cell::plain(super::captured::clock(m.from, false)),
                    Cell::plain(m.silence.map_or_else(|| "–".to_owned(), human::span)),
                ]
            })
            .collect(),
        note: (left_out > 0).then(|| format!("and {} before, see --json", human::count(left_out))),
    })
}

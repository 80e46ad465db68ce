//! Tunnels and the timeline of handshakes that a capture shows, as compact tables.
//!
//! In: a [`Report`]. Out: a few rows each; the whole is in the JSON. Pure.

use super::page::Role;
use super::table::{Cell, Column, Table};
use crate::output::human;
use crate::report::captured::{SideRow, TunnelRow};
use crate::report::{HandshakeRow, Report};
use crate::time::{Span, Timestamp};

/// Rows of the tunnels' table.
pub const TUNNELS: usize = 10;
/// Lines of the timeline.
pub const TIMELINE: usize = 16;

/// Both tables, where a capture file was read.
pub fn tables(report: &Report) -> Vec<Table> {
    if report.captures.is_empty() {
        return Vec::new();
    }
    [tunnels(report), timeline(report)]
        .into_iter()
        .flatten()
        .collect()
}

fn tunnels(report: &Report) -> Option<Table> {
    let all = &report.wireguard.tunnels;
    if all.is_empty() {
        return None;
    }
    let left_out = all.len().saturating_sub(TUNNELS) as u64 + report.wireguard.tunnels_left_out;
    Some(Table {
        columns: vec![
            Column::text("Tunnels", 16),
            Column::text("with", 16),
            Column::number("sent / back"),
            Column::number("lost / back"),
            Column::fixed("state"),
        ],
        rows: all.iter().take(TUNNELS).map(tunnel).collect(),
        note: (left_out > 0).then(|| format!("and {} more in --json", human::count(left_out))),
    })
}

fn tunnel(t: &TunnelRow) -> Vec<Cell> {
    let [one, two] = &t.sides;
    let (role, state) = match t.state {
        "established" => (
            Role::Good,
            human::counted(t.handshakes, "handshake", "handshakes"),
        ),
        "unknown" => (Role::Dim, "began before".to_owned()),
        _ => (Role::Warning, "no data yet".to_owned()),
    };
    let state = if t.moves > 0 {
        format!("{state}, moved")
    } else {
        state
    };
    vec![
        Cell::plain(one.address.to_string()),
        Cell::plain(two.address.to_string()),
        Cell::plain(format!(
            "{} / {}",
            human::bytes_short(one.data.bytes),
            human::bytes_short(two.data.bytes)
        )),
        Cell::plain(format!("{} / {}", loss(one), loss(two))),
        Cell::of(role, state),
    ]
}

fn loss(side: &SideRow) -> String {
    match side.data.loss_share() {
        None => "–".to_owned(),
        Some(share) if side.data.lost > 0 && share < 0.001 => "<0.1 %".to_owned(),
        Some(share) => format!("{:.1} %", share * 100.0),
    }
}

/// Attempts of one initiator in a row with the same outcome.
struct Run<'a> {
    first: &'a HandshakeRow,
    last: &'a HandshakeRow,
    count: usize,
    rtts: Vec<Span>,
}

fn timeline(report: &Report) -> Option<Table> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    for row in &report.wireguard.handshakes {
        let same = |run: &&mut Run<'_>| {
            (run.last.initiator, run.last.responder, run.last.outcome)
                == (row.initiator, row.responder, row.outcome)
        };
        match runs.last_mut().filter(same) {
            Some(run) => {
                (run.last, run.count) = (row, run.count + 1);
                run.rtts.extend(row.rtt);
            }
            None => runs.push(Run {
                first: row,
                last: row,
                count: 1,
                rtts: row.rtt.into_iter().collect(),
            }),
        }
    }
    if runs.is_empty() {
        return None;
    }
    let left_out = runs.len().saturating_sub(TIMELINE);
    let start = report.generated_at;
    let earliest = report.wireguard.handshakes.first().map_or(start, |row| row.at);
    let many_days = report.generated_at - earliest > Span::from_secs(86_400);
    Some(Table {
        columns: vec![
            Column::text("Handshakes", 16),
            Column::text("to", 16),
            Column::fixed("at (UTC)"),
            Column::number("tries"),
            Column::fixed("outcome"),
        ],
        rows: runs
            .iter()
            .skip(left_out)
            .map(|run| line(run, many_days))
            .collect(),
        note: match (left_out, report.wireguard.handshakes_left_out) {
            (0, 0) => None,
            (_, forgotten) => {
                let before: usize = runs.iter().take(left_out).map(|run| run.count).sum();
                Some(format!(
                    "and {} before, see --json",
                    human::count(before as u64 + forgotten)
                ))
            }
        },
    })
}

fn line(run: &Run<'_>, with_date: bool) -> Vec<Cell> {
    let role = match run.first.outcome {
        "answered" => Role::Good,
        "pending" => Role::Dim,
        "cookie" => Role::Warning,
        _ => Role::Critical,
    };
    let mut outcome = run.first.outcome.to_owned();
    let mut rtts = run.rtts.clone();
    rtts.sort_unstable();
    if let Some(median) = rtts.get(rtts.len() / 2) {
        outcome.push_str(&format!(", RTT {}", human::span(*median)));
    }
    let at = match run.count {
        1 => clock(run.first.at, with_date),
        _ => format!(
            "{} – {}",
            clock(run.first.at, with_date),
            clock(run.last.at, with_date)
        ),
    };
    vec![
        Cell::plain(run.first.initiator.to_string()),
        Cell::plain(run.first.responder.to_string()),
        Cell::plain(at),
        Cell::plain(run.count.to_string()),
        Cell::of(role, outcome),
    ]
}

/// The time of day, or date and time where a capture is longer than one.
pub(super) fn clock(at: Timestamp, with_date: bool) -> String {
    let text = at.to_string();
    let (date, time) = text.split_once('T').unwrap_or(("", &text));
    let time: String = time
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ':')
        .collect();
    if with_date {
        format!("{} {time}", date.get(5..).unwrap_or(date))
    } else {
        time
    }
}

//! The four numbers that tell most, each a link to its section.

use std::fmt::Write as _;

use crate::output::html::escape;
use crate::output::human;
use crate::report::{PeerState, Report};
use crate::words;

struct Tile {
    to: &'static str,
    name: &'static str,
    class: &'static str,
    value: String,
    more: String,
}

pub(super) fn write(report: &Report, html: &mut String) {
    let tiles = [peers(report), ports(report), conntrack(report), opens(report)];
    let mut inner = String::new();
    for tile in tiles.into_iter().flatten() {
        let sign = match tile.class {
            "critical" => "✗ ",
            "warning" => "! ",
            _ => "",
        };
        let _ = writeln!(
            inner,
            "<li><a id=\"to-{0}\" href=\"#{0}\"><span class=\"of\">{1}</span> <b class=\"{2}\">{sign}{3}</b> <span class=\"of\">{4}</span></a></li>",
            tile.to,
            tile.name,
            tile.class,
            escape(&tile.value),
            escape(&tile.more)
        );
    }
    if !inner.is_empty() {
        let _ = write!(html, "<ul class=\"tiles\">\n{inner}</ul>\n");
    }
}

fn peers(report: &Report) -> Option<Tile> {
    let peers = &report.wireguard.peers;
    if peers.is_empty() {
        return None;
    }
    let of = |state| peers.iter().filter(|p| p.state == state).count();
    let (failing, up) = (of(PeerState::Failing), of(PeerState::Up));
    let (class, value) = match failing {
        0 => ("plain", format!("{} up", words::count(up as u64))),
        n => ("critical", format!("{} failing", words::count(n as u64))),
    };
    Some(Tile {
        to: "peers",
        name: "WireGuard",
        class,
        value,
        more: format!("of {}", words::counted(peers.len() as u64, "peer", "peers")),
    })
}

/// The destination that is nearest to its end.
fn ports(report: &Report) -> Option<Tile> {
    let share = |held: u32, all: u32| f64::from(held) / f64::from(all.max(1));
    let (row, available) = report
        .sockets
        .destinations
        .iter()
        .filter_map(|row| Some((row, row.available?)))
        .max_by(|a, b| share(a.0.held, a.1).total_cmp(&share(b.0.held, b.1)))?;
    let class = super::ports::class(report, row);
    Some(Tile {
        to: "ports",
        name: "Ports",
        class,
        value: human::percent(row.held.into(), available.into()),
        more: format!("held towards {}", row.destination),
    })
}

fn conntrack(report: &Report) -> Option<Tile> {
    let table = report.conntrack.as_ref()?;
    let (count, max) = (table.count?, table.max?);
    let found = report
        .findings
        .iter()
        .filter(|f| matches!(f.subject, crate::finding::Subject::Conntrack))
        .map(|f| f.severity)
        .max();
    Some(Tile {
        to: "conntrack",
        name: "Conntrack",
        class: match found {
            Some(crate::finding::Severity::Critical) => "critical",
            Some(crate::finding::Severity::Warning) => "warning",
            _ => "plain",
        },
        value: human::percent(count.into(), max.into()),
        more: format!("of {} entries", words::count(max)),
    })
}

/// Connections opened in all, where that could be told of any.
fn opens(report: &Report) -> Option<Tile> {
    let rates = report
        .sockets
        .destinations
        .iter()
        .filter_map(|row| row.opens_per_second);
    let sum = rates.reduce(|a, b| a + b)?;
    let processes = !report.sockets.processes.is_empty();
    Some(Tile {
        to: if processes { "processes" } else { "ports" },
        name: "Connections",
        class: "plain",
        value: format!("{}/s", human::float(sum)),
        more: "opened".to_owned(),
    })
    .filter(|_| processes)
}

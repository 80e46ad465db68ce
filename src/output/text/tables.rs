//! Peers, ports, SNAT and conntrack as compact tables.
//!
//! In: a [`Report`]. Out: a few rows each; the whole is in the JSON. Pure.

use std::net::SocketAddr;

use super::page::{Page, Role, piece};
use super::table::{self, Cell, Column, Table};
use crate::finding::ProcessRef;
use crate::observation::{Source, SourceState};
use crate::output::human;
use crate::report::namespaces::NamespaceState;
use crate::report::{Conntrack, DestinationRow, PeerRow, PeerState, Report, SnatRow};
use crate::time::Timestamp;
use crate::types::Proto;

/// Rows of the peers' table.
pub const PEERS: usize = 10;
/// Rows of the destinations' table.
pub const DESTINATIONS: usize = 6;
/// Rows of the SNAT table.
pub const SNAT: usize = 4;
/// Columns of a bar.
const BAR: usize = 16;
/// Where the text of one-line sections begins.
const INDENT: usize = 12;

/// All tables that have something to say.
pub fn tables(report: &Report, unicode: bool) -> Vec<Table> {
    let tables = [
        // A probe's targets have a table of their own.
        peers(report).filter(|_| report.wireguard.probes.is_empty() || !report.wireguard.devices.is_empty()),
        super::probed::table(report),
        ports(report, unicode),
        report.conntrack.as_ref().and_then(|c| snat(c, unicode)),
    ];
    let captured = super::captured::tables(report);
    let paths = super::paths::tables(report);
    let places = super::places::tables(report);
    tables
        .into_iter()
        .flatten()
        .chain(captured)
        .chain(paths)
        .chain(places)
        .collect()
}

/// Those of measured paths.
pub fn paths(report: &Report) -> Vec<Table> {
    super::paths::tables(report)
}

/// What is told in a line each, by name.
pub fn lines(report: &Report) -> Vec<(&'static str, String)> {
    let lines = [
        ("Two places", super::places::line(report)),
        ("WireGuard", no_peers(report)),
        ("Sockets", sockets(report)),
        ("Conntrack", report.conntrack.as_ref().and_then(table_fill)),
        ("Namespaces", namespaces(report)),
        ("Fly", super::fly::line(report)),
    ];
    lines
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
        .chain(super::nat::lines(report))
        .collect()
}

/// Writes both onto `page`.
pub fn write(page: &mut Page, report: &Report) {
    let indent = table::write(page, tables(report, page.unicode())).max(INDENT);
    for (name, text) in lines(report) {
        page.paragraph(piece(Role::Strong, name), indent, &[piece(Role::Plain, text)]);
    }
}

fn peers(report: &Report) -> Option<Table> {
    let mut rows: Vec<&PeerRow> = report.wireguard.peers.iter().collect();
    if rows.is_empty() {
        return None;
    }
    // What fails must not be hidden by what works.
    rows.sort_by_key(|p| match p.state {
        PeerState::Failing => 0,
        PeerState::Handshaking | PeerState::Never => 1,
        PeerState::Up => 2,
        PeerState::Idle | PeerState::NoEndpoint | PeerState::Unknown => 3,
    });
    Some(Table {
        columns: vec![
            Column::text("Peers", 10),
            Column::text("endpoint", 16),
            Column::fixed("handshake"),
            Column::number("rx / tx"),
            Column::fixed("state"),
        ],
        rows: rows
            .iter()
            .take(PEERS)
            .map(|p| peer(p, report.generated_at))
            .collect(),
        note: more(
            rows.len(),
            PEERS,
            report.wireguard.peers_left_out,
            "peer",
            "peers",
        ),
    })
}

/// That there is no peer, where that is known.
fn no_peers(report: &Report) -> Option<String> {
    // History keeps no tables: that there is no peer in this one tells nothing.
    if !report.wireguard.peers.is_empty() || report.period.is_some() {
        return None;
    }
    let looked = [Source::WireguardNetlink, Source::WireguardUapi]
        .iter()
        .all(|wanted| {
            let status = report.collectors.iter().find(|(s, _)| s == wanted);
            status.is_some_and(|(_, s)| s.state == SourceState::Ok)
        });
    match report.wireguard.devices.len() {
        0 if !looked => None,
        0 => Some("no device on this host".to_owned()),
        n => Some(format!(
            "{}, no peers",
            human::counted(n as u64, "device", "devices")
        )),
    }
}

fn peer(p: &PeerRow, now: Timestamp) -> Vec<Cell> {
    let key = p.public_key.short();
    let name = match &p.device {
        Some(device) => format!("{device} {key}"),
        None => key,
    };
    let traffic = match (p.rx_bytes, p.tx_bytes) {
        (Some(rx), Some(tx)) => format!("{} / {}", human::bytes_short(rx), human::bytes_short(tx)),
        _ => "–".to_owned(),
    };
    let handshake = match (p.last_handshake, p.state) {
        (Some(at), _) => human::ago_short(now, at),
        (None, PeerState::Unknown) => "–".to_owned(),
        (None, _) => "never".to_owned(),
    };
    let (role, mut state) = match p.state {
        PeerState::Up => (Role::Good, "up".to_owned()),
        PeerState::Failing => (Role::Critical, "failing".to_owned()),
        PeerState::Handshaking | PeerState::Never => (Role::Warning, p.state.name().to_owned()),
        PeerState::NoEndpoint => (Role::Dim, "no endpoint".to_owned()),
        PeerState::Idle | PeerState::Unknown => (Role::Dim, p.state.name().to_owned()),
    };
    if let Some(rtt) = p.rtt.filter(|_| p.state == PeerState::Up) {
        state.push_str(&format!(", RTT {}", human::span(rtt)));
    }
    if let Some(n) = p.unanswered.filter(|n| *n > 0) {
        state.push_str(&format!(" ({n} {})", if n == 1 { "try" } else { "tries" }));
    }
    vec![
        Cell::plain(name),
        Cell::plain(p.endpoint.map_or_else(|| "–".to_owned(), |e| e.to_string())),
        Cell::plain(handshake),
        Cell::plain(traffic),
        Cell::of(role, state),
    ]
}

fn ports(report: &Report, unicode: bool) -> Option<Table> {
    let rows: Vec<&DestinationRow> = held(report).collect();
    if rows.is_empty() {
        return None;
    }
    let heading = report
        .sockets
        .ports_available
        .map_or_else(|| "held".to_owned(), |n| format!("held of {}", human::count(n)));
    Some(Table {
        columns: use_columns("Ports", &heading),
        rows: rows
            .iter()
            .take(DESTINATIONS)
            .map(|d| {
                let owner = d.process.as_ref().map_or_else(|| d.source.to_string(), process);
                let towards = towards(d.proto, d.destination);
                use_row(owner, towards, d.held, d.available, d.state, unicode)
            })
            .collect(),
        note: more(
            rows.len(),
            DESTINATIONS,
            report.sockets.destinations_left_out,
            "destination",
            "destinations",
        ),
    })
}

fn held(report: &Report) -> impl Iterator<Item = &DestinationRow> {
    report.sockets.destinations.iter().filter(|d| d.held > 0)
}

/// TCP sockets in all, and that none holds an ephemeral port, where that is known.
fn sockets(report: &Report) -> Option<String> {
    let tcp = report.sockets.tcp_total?;
    let mut text = human::counted(tcp, "TCP socket", "TCP sockets");
    if let Some(tw) = report.sockets.time_wait_total {
        text.push_str(&format!(", {} in TIME_WAIT", human::count(tw)));
    }
    if held(report).next().is_none() {
        text.push_str(", no outbound connection");
    }
    Some(text)
}

fn snat(conntrack: &Conntrack, unicode: bool) -> Option<Table> {
    if conntrack.snat.is_empty() {
        return None;
    }
    Some(Table {
        columns: use_columns("SNAT", "NAT ports held"),
        rows: conntrack
            .snat
            .iter()
            .take(SNAT)
            .map(|row| snat_row(row, unicode))
            .collect(),
        note: more(
            conntrack.snat.len(),
            SNAT,
            conntrack.tally.as_ref().map_or(0, |t| t.snat_left_out.items),
            "destination",
            "destinations",
        ),
    })
}

fn snat_row(row: &SnatRow, unicode: bool) -> Vec<Cell> {
    let t = &row.tally;
    let state = match row.range {
        Some(range) if row.range_inferred => format!("of ~{}", human::count(range)),
        Some(range) => format!("of {}", human::count(range)),
        None => "of an unknown range".to_owned(),
    };
    let mut cells = use_row(
        t.nat_address.to_string(),
        towards(t.proto, t.destination),
        row.held,
        row.range,
        "",
        unicode,
    );
    if let Some(last) = cells.last_mut() {
        *last = Cell::of(Role::Dim, state);
    }
    cells
}

/// The columns of a table of port use. The bar's is as wide as a full bar in all of them, so that numbers stand
/// beneath one another.
fn use_columns(name: &'static str, held: &str) -> Vec<Column> {
    vec![
        Column::text(name, 10),
        Column::text("towards", 16),
        Column::fixed(format!("{held:<BAR$}")),
        Column::number(""),
        Column::number(""),
        Column::fixed(""),
    ]
}

/// Who, towards whom, a bar, how many, which share, and how that goes on.
fn use_row(
    owner: String,
    towards: String,
    held: u32,
    available: Option<u32>,
    state: &str,
    unicode: bool,
) -> Vec<Cell> {
    let share = available.map_or(0.0, |n| f64::from(held) / f64::from(n.max(1)));
    let role = match state {
        "exhausted" => Role::Critical,
        "low" | "rising" => Role::Warning,
        _ if share >= 0.9 => Role::Critical,
        _ if share >= 0.7 => Role::Warning,
        "" => Role::Plain,
        _ => Role::Dim,
    };
    let bar_role = if role == Role::Dim { Role::Plain } else { role };
    vec![
        Cell::plain(owner),
        Cell::plain(towards),
        Cell::of(bar_role, human::bar(share, BAR, unicode)),
        Cell::plain(human::count(held)),
        Cell::plain(available.map_or_else(|| "–".to_owned(), |n| human::percent(held.into(), n.into()))),
        Cell::of(role, state),
    ]
}

fn process(p: &ProcessRef) -> String {
    format!("{} {}", p.comm, p.pid)
}

fn towards(proto: Proto, destination: SocketAddr) -> String {
    match proto {
        Proto::Tcp => destination.to_string(),
        Proto::Udp => format!("udp {destination}"),
    }
}

/// `18,204 of 262,144 (6 %), +120/s`, and which counters of trouble moved.
fn table_fill(c: &Conntrack) -> Option<String> {
    let count = c.count?;
    let mut text = human::count(count);
    if let Some(max) = c.max {
        text.push_str(&format!(
            " of {} ({})",
            human::count(max),
            human::percent(count.into(), max.into())
        ));
    }
    text.push_str(" entries");
    if let Some(rate) = c.per_second {
        let sign = if rate > 0.0 { "+" } else { "" };
        text.push_str(&format!(", {sign}{}/s", human::float(rate)));
    }
    let moved: Vec<String> = c
        .counters
        .iter()
        .flatten()
        .filter(|(name, n)| *n > 0 && TROUBLE.contains(name))
        .map(|(name, n)| format!("{name} +{}", human::count(*n)))
        .collect();
    if !moved.is_empty() {
        text.push_str(&format!("; {}", moved.join(", ")));
    }
    Some(text)
}

/// How many other namespaces there are, and those of which there is something to say.
fn namespaces(report: &Report) -> Option<String> {
    let all = &report.namespaces;
    if all.is_empty() {
        return None;
    }
    let of = |state| all.iter().filter(|n| n.state == state).count();
    let mut text = human::counted(all.len() as u64, "other namespace", "other namespaces");
    for state in [
        NamespaceState::Gone,
        NamespaceState::Unavailable,
        NamespaceState::Degraded,
    ] {
        match of(state) {
            0 => {}
            n => text.push_str(&format!(", {n} {}", state.name())),
        }
    }
    let found = all.iter().filter(|n| n.findings > 0).count();
    text.push_str(&match found {
        0 => "; nothing found in them".to_owned(),
        n => format!("; findings in {n}"),
    });
    Some(text)
}

/// Counters whose movement is worth a word even where no finding holds.
const TROUBLE: [&str; 5] = ["insert_failed", "drop", "early_drop", "chain_toolong", "error"];

/// Says how many of `all` rows are not shown, and how many there are of which the report itself holds nothing.
fn more(all: usize, shown: usize, left_out: u64, one: &str, many: &str) -> Option<String> {
    let rest = all.saturating_sub(shown);
    let rows = |n| human::counted(n, &format!("more {one}"), &format!("more {many}"));
    match (rest, left_out) {
        (0, 0) => None,
        (0, n) => Some(format!("and {}, not listed anywhere", rows(n))),
        (n, 0) => Some(format!("and {} (--json has all)", rows(n as u64))),
        (n, m) => Some(format!(
            "and {} ({} of them in --json)",
            rows(m.saturating_add(n as u64)),
            human::count(n as u64)
        )),
    }
}

//! From a [`Snapshot`] to the rows of each tab.

use std::net::SocketAddr;

use super::cells::{Cell, Column, number, prose, text, word};
use super::{Snapshot, Tone};
use crate::finding::{Finding, ProcessRef, Severity, Subject};
use crate::observation::SourceState;
use crate::output::{clean, human};
use crate::report::{DestinationRow, PeerRow, PeerState, SnatRow};
use crate::time::Timestamp;
use crate::track::sockets::Key as Tuple;
use crate::types::{Proto, PublicKey};

/// The tabs, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // their names
pub enum Tab {
    #[default]
    Destinations,
    Processes,
    Conntrack,
    Peers,
    Findings,
    Sources,
}

impl Tab {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Destinations,
        Self::Processes,
        Self::Conntrack,
        Self::Peers,
        Self::Findings,
        Self::Sources,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Destinations => "Destinations",
            Self::Processes => "Processes",
            Self::Conntrack => "Conntrack",
            Self::Peers => "Peers",
            Self::Findings => "Findings",
            Self::Sources => "Sources",
        }
    }
}

impl Tab {
    /// Its name where there is little room.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Destinations => "Dest",
            Self::Processes => "Proc",
            Self::Conntrack => "Conn",
            Self::Peers => "Peer",
            Self::Findings => "Find",
            Self::Sources => "Src",
        }
    }
}

/// What a row is, whatever its numbers are now.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // their names
pub enum RowId {
    Destination(Tuple),
    Process(u32),
    /// A line about the table, or a NAT's ports towards a destination.
    Conntrack(String),
    Peer(Option<String>, PublicKey),
    /// By what [`identity`] gives.
    Finding(String),
    Source(String),
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is.
    pub id: RowId,
    /// One cell for each column.
    pub cells: Vec<Cell>,
}

/// A table, in the order in which the report has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows.
    pub rows: Vec<Row>,
    /// What the whole is, in one line.
    pub summary: String,
    /// What is said where there are no rows.
    pub empty: &'static str,
}

/// The table of `tab`.
pub fn of(tab: Tab, snapshot: &Snapshot) -> Table {
    match tab {
        Tab::Destinations => destinations(snapshot),
        Tab::Processes => processes(snapshot),
        Tab::Conntrack => conntrack(snapshot),
        Tab::Peers => peers(snapshot),
        Tab::Findings => findings(snapshot),
        Tab::Sources => sources(snapshot),
    }
}

/// `node 812`, `node`, `?`.
pub fn process_name(process: Option<&ProcessRef>) -> String {
    process.map_or_else(|| "?".to_owned(), |p| format!("{} {}", p.comm, p.pid))
}

fn towards(proto: Proto, to: SocketAddr) -> String {
    match proto {
        Proto::Tcp => to.to_string(),
        Proto::Udp => format!("{to}/udp"),
    }
}

/// The tuple of a row of the report.
pub fn tuple(row: &DestinationRow) -> Tuple {
    Tuple {
        proto: row.proto,
        source: row.source,
        destination: row.destination,
    }
}

fn destinations(snapshot: &Snapshot) -> Table {
    let sockets = &snapshot.report.sockets;
    let rows = sockets.destinations.iter().map(|d| {
        let state = match d.state {
            "exhausted" => (Tone::Critical, 0.0),
            "low" => (Tone::Warning, 1.0),
            "rising" => (Tone::Info, 2.0),
            _ => (Tone::Dim, 3.0),
        };
        Row {
            id: RowId::Destination(tuple(d)),
            cells: vec![
                Cell::text(process_name(d.process.as_ref())),
                Cell::text(d.source.to_string()),
                Cell::text(towards(d.proto, d.destination)),
                Cell::count(d.held.into()),
                Cell::share(d.held.into(), d.available.map(u64::from)),
                Cell::count(d.established.into()),
                Cell::count(d.time_wait.into()),
                match d.opens_per_second {
                    Some(rate) => Cell::number(rate, human::float((rate * 10.0).round() / 10.0)),
                    None => Cell::unknown(),
                },
                Cell::text(d.state).shown(state.0).rank(state.1),
            ],
        }
    });
    let rows: Vec<Row> = rows.collect();
    let mut summary = match sockets.ports_available {
        Some(ports) => format!("{} local ports towards each destination", human::count(ports)),
        None => "the range of local ports is not known".to_owned(),
    };
    if let (Some(tcp), Some(waiting)) = (sockets.tcp_total, sockets.time_wait_total) {
        summary.push_str(&format!(
            " · {}, {} in TIME_WAIT",
            human::counted(tcp, "TCP socket", "TCP sockets"),
            human::count(waiting)
        ));
    }
    left_out(&mut summary, sockets.destinations_left_out);
    Table {
        columns: vec![
            text("process", 9, 0),
            text("from", 15, 7),
            text("towards", 21, 0),
            number("held", 0),
            number("used", 3),
            number("open", 5),
            number("t-wait", 4),
            number("opens/s", 2),
            word("state", 1),
        ],
        rows,
        summary,
        empty: if sockets.tcp_total.is_some() {
            "No outbound connection."
        } else {
            "Sockets are not observed (see Sources)."
        },
    }
}

fn left_out(summary: &mut String, n: u64) {
    if n > 0 {
        summary.push_str(&format!(" · {} more not shown", human::count(n)));
    }
}

fn processes(snapshot: &Snapshot) -> Table {
    let sockets = &snapshot.report.sockets;
    let rows = sockets.processes.iter().map(|p| Row {
        id: RowId::Process(p.process.pid),
        cells: vec![
            Cell::text(&p.process.comm),
            Cell::count(p.process.pid.into()).pid(p.process.pid),
            p.process.runtime.as_ref().map_or_else(Cell::unknown, Cell::text),
            Cell::count(p.sockets.into()),
            Cell::count(p.fds.into()),
            Cell::maybe(p.fd_limit),
            Cell::share(p.fds.into(), p.fd_limit),
            p.process.exe.as_ref().map_or_else(Cell::unknown, Cell::text),
        ],
    });
    let rows: Vec<Row> = rows.collect();
    let mut summary = human::counted(
        rows.len() as u64,
        "process with many sockets or files",
        "processes with many sockets or files",
    );
    left_out(&mut summary, sockets.processes_left_out);
    Table {
        columns: vec![
            text("process", 9, 0),
            number("pid", 2),
            word("runtime", 3),
            number("sockets", 0),
            number("files", 1),
            number("limit", 4),
            number("used", 0),
            text("executable", 12, 5),
        ],
        rows,
        summary,
        empty: "No process with many sockets.",
    }
}

/// From which NAT address towards which destination.
pub fn snat_name(row: &SnatRow) -> String {
    let t = &row.tally;
    format!("{} → {}", t.nat_address, towards(t.proto, t.destination))
}

fn conntrack(snapshot: &Snapshot) -> Table {
    let mut rows = Vec::new();
    let mut summary = "not observed (see Sources)".to_owned();
    if let Some(c) = &snapshot.report.conntrack {
        summary = match (c.count, c.max) {
            (Some(count), Some(max)) => format!(
                "{} of {} entries ({})",
                human::count(count),
                human::count(max),
                human::percent(count.into(), max.into())
            ),
            (Some(count), None) => format!("{} entries", human::count(count)),
            (None, _) => "the number of entries is not known".to_owned(),
        };
        if let Some(rate) = c.per_second.filter(|r| r.abs() >= 0.05) {
            summary.push_str(&format!(", {rate:+.1} a second"));
        }
        let mut line = |name: &str, value: Cell, share: Cell, note: Cell| {
            rows.push(Row {
                id: RowId::Conntrack(name.to_owned()),
                cells: vec![Cell::text(name), value, share, note],
            });
        };
        for row in &c.snat {
            line(
                &snat_name(row),
                Cell::count(row.held.into()),
                Cell::share(row.held.into(), row.range.map(u64::from)),
                Cell::of_range(row),
            );
        }
        if let Some(count) = c.count {
            let max = c.max.map(u64::from);
            let note = max.map_or_else(Cell::unknown, |m| {
                Cell::text(format!("of {} entries", human::count(m)))
            });
            line(
                "entries",
                Cell::count(count.into()),
                Cell::share(count.into(), max),
                note,
            );
        }
        if let Some(t) = c.tally.as_ref().filter(|t| t.entries > 0) {
            for (name, n) in [
                ("TCP", t.tcp),
                ("TCP established", t.tcp_established),
                ("TCP closing", t.tcp_closing),
                ("UDP", t.udp),
                ("other protocols", t.other),
                ("towards DNS", t.dns),
                ("without a reply", t.unreplied),
            ] {
                let share = Cell::share(n, Some(t.entries)).shown(Tone::Plain);
                line(name, Cell::count(n), share, Cell::text("of all entries"));
            }
        }
        for (name, n) in c.counters.iter().flatten().filter(|(_, n)| *n > 0) {
            line(
                name,
                Cell::count(*n).shown(Tone::Warning),
                Cell::unknown(),
                Cell::text("counted since the start"),
            );
        }
    }
    Table {
        columns: vec![
            text("what", 14, 0),
            number("count", 0),
            number("share", 1),
            text("", 8, 2),
        ],
        rows,
        summary,
        empty: "Conntrack is not observed, or this host tracks no connections (see Sources).",
    }
}

fn peers(snapshot: &Snapshot) -> Table {
    let report = &snapshot.report;
    let now = report.generated_at;
    let rows: Vec<Row> = report.wireguard.peers.iter().map(|p| peer(p, now)).collect();
    let mut summary = format!(
        "{}, {}",
        human::counted(report.wireguard.devices.len() as u64, "device", "devices"),
        human::counted(rows.len() as u64, "peer", "peers")
    );
    left_out(&mut summary, report.wireguard.peers_left_out);
    Table {
        columns: vec![
            text("peer", 8, 0),
            text("endpoint", 21, 2),
            word("handshake", 1),
            number("received", 3),
            number("sent", 3),
            number("RTT", 4),
            word("state", 0),
        ],
        rows,
        summary,
        empty: "No WireGuard peer on this host.",
    }
}

fn peer(p: &PeerRow, now: Timestamp) -> Row {
    let key = p.public_key.short();
    let (tone, rank) = match p.state {
        PeerState::Failing => (Tone::Critical, 0.0),
        PeerState::Never => (Tone::Warning, 1.0),
        PeerState::Handshaking => (Tone::Warning, 2.0),
        PeerState::Up => (Tone::Good, 3.0),
        PeerState::Idle | PeerState::NoEndpoint | PeerState::Unknown => (Tone::Dim, 4.0),
    };
    let bytes = |n: Option<u64>| {
        n.map_or_else(Cell::unknown, |n| Cell {
            text: human::bytes(n),
            ..Cell::count(n)
        })
    };
    Row {
        id: RowId::Peer(p.device.clone(), p.public_key),
        cells: vec![
            Cell::text(match &p.device {
                Some(device) => format!("{device} {key}"),
                None => key,
            }),
            p.endpoint
                .map_or_else(Cell::unknown, |e| Cell::text(e.to_string())),
            match p.last_handshake {
                Some(at) => Cell::text(human::ago_short(now, at)).rank(now.since(at).as_secs_f64()),
                None => Cell::text("never").shown(Tone::Dim).rank(f64::MAX),
            },
            bytes(p.rx_bytes),
            bytes(p.tx_bytes),
            p.rtt.map_or_else(Cell::unknown, |rtt| {
                Cell::number(rtt.as_secs_f64(), human::span(rtt))
            }),
            Cell::text(p.state.name()).shown(tone).rank(rank),
        ],
    }
}

/// What a finding is, whatever it says now.
pub fn identity(finding: &Finding) -> String {
    let about = match &finding.subject {
        Subject::Peer {
            device, public_key, ..
        } => format!(
            "{device:?} {}",
            public_key.map(|k| k.to_string()).unwrap_or_default()
        ),
        Subject::Device { name } => name.clone(),
        Subject::Destination {
            proto,
            source,
            address,
            port,
            ..
        } => format!("{proto:?} {source:?} {address} {port}"),
        Subject::Process(process) => process.pid.to_string(),
        other => format!("{other:?}"),
    };
    format!("{} {about}", finding.code)
}

/// The mark of a severity.
pub const fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "✗",
        Severity::Warning => "!",
        Severity::Info => "i",
    }
}

fn findings(snapshot: &Snapshot) -> Table {
    let report = &snapshot.report;
    let told = report.findings.iter().map(|f| (f, false));
    let folded = report.suppressed.iter().map(|s| (&s.finding, true));
    let rows = told.chain(folded).enumerate().map(|(at, (f, folded))| {
        #[allow(clippy::cast_precision_loss)] // a place in a list
        let place = at as f64;
        let tone = if folded { Tone::Dim } else { Tone::of(f.severity) };
        Row {
            id: RowId::Finding(identity(f)),
            cells: vec![
                Cell::text(format!("{} {}", mark(f.severity), f.severity.name()))
                    .shown(tone)
                    .rank(place),
                Cell::text(clean::shorten_keys(&f.title)).shown(if folded { Tone::Dim } else { Tone::Plain }),
                Cell::text(f.code),
                Cell::text(if folded { "explained" } else { f.confidence.name() }).shown(Tone::Dim),
                Cell::text(human::ago_short(report.generated_at, f.first_seen))
                    .rank(report.generated_at.since(f.first_seen).as_secs_f64()),
            ],
        }
    });
    Table {
        columns: vec![
            word("", 0),
            prose("finding", 40, 0),
            text("code", 12, 2),
            word("confidence", 4),
            word("since", 3),
        ],
        rows: rows.collect(),
        summary: String::new(),
        empty: "Nothing is wrong, as far as it can be seen (see Sources).",
    }
}

fn sources(snapshot: &Snapshot) -> Table {
    let rows = snapshot.report.collectors.iter().map(|(source, status)| {
        let (word, tone, rank) = match status.state {
            SourceState::Unavailable => ("unavailable", Tone::Warning, 0.0),
            SourceState::Degraded => ("in part", Tone::Warning, 1.0),
            SourceState::Ok => ("ok", Tone::Good, 2.0),
        };
        Row {
            id: RowId::Source(source.name().to_owned()),
            cells: vec![
                Cell::text(source.name()),
                Cell::text(word).shown(tone).rank(rank),
                Cell::number(status.cost_cpu.as_secs_f64(), human::span(status.cost_cpu)),
                Cell::count(status.lost).shown(if status.lost > 0 { Tone::Warning } else { Tone::Dim }),
                Cell::text(status.reason.clone().unwrap_or_default()),
            ],
        }
    });
    Table {
        columns: vec![
            word("source", 0),
            word("sees", 0),
            number("CPU time", 2),
            number("lost", 3),
            prose("what is missing, and why", 40, 1),
        ],
        rows: rows.collect(),
        summary: "what wgnat looks at, and what it could not see".to_owned(),
        empty: "No source has looked yet.",
    }
}

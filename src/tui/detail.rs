//! One row in full: its numbers, what is found of it, and what to change.

use super::table::{RowId, identity, process_name, snat_name, tuple};
use super::{Snapshot, Tone};
use crate::finding::{Finding, Fix, Subject};
use crate::output::{clean, evidence, human, told, unseen};
use crate::pooling::{Advice, Remedy};
use crate::report::{DestinationRow, PeerRow, ProcessRow, Report};
use crate::track::sockets::Key as Tuple;

/// Of the ports this share must be held for advice on what is open for long.
const WORTH_ADVICE: f64 = 0.05;

/// A line, before it is wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What stands at the left: a name; empty for none.
    pub label: String,
    /// The text.
    pub text: String,
    /// How it is drawn.
    pub tone: Tone,
    /// It is something to paste: kept as it is.
    pub code: bool,
}

fn line(label: &str, text: impl Into<String>) -> Line {
    Line {
        label: label.to_owned(),
        text: clean::line(&text.into()),
        tone: Tone::Plain,
        code: false,
    }
}

fn heading(text: impl Into<String>, tone: Tone) -> Line {
    Line {
        tone,
        ..line("", text)
    }
}

fn gap() -> Line {
    line("", "")
}

fn paste(code: &str) -> impl Iterator<Item = Line> {
    clean::block(code).into_iter().map(|text| Line {
        label: String::new(),
        text,
        tone: Tone::Code,
        code: true,
    })
}

/// The lines of `id` as it is now.
pub fn of(id: &RowId, snapshot: &Snapshot) -> Vec<Line> {
    let report = &snapshot.report;
    let lines = match id {
        RowId::Destination(key) => {
            let row = report.sockets.destinations.iter().find(|d| tuple(d) == *key);
            row.map(|row| destination(row, key, snapshot))
        }
        RowId::Process(pid) => {
            let row = report.sockets.processes.iter().find(|p| p.process.pid == *pid);
            row.map(|row| process(row, report))
        }
        RowId::Peer(device, key) => {
            let row = report
                .wireguard
                .peers
                .iter()
                .find(|p| p.device == *device && p.public_key == *key);
            row.map(|row| peer(row, report))
        }
        RowId::Finding(wanted) => {
            let folded = report.suppressed.iter().map(|s| &s.finding);
            let mut all = report.findings.iter().chain(folded);
            all.find(|f| identity(f) == *wanted).map(|f| finding(f, report))
        }
        RowId::Source(name) => Some(source(name, report)),
        RowId::Conntrack(name) => conntrack(name, snapshot),
    };
    lines.unwrap_or_else(|| vec![heading("It is no longer there.", Tone::Dim)])
}

fn destination(d: &DestinationRow, key: &Tuple, snapshot: &Snapshot) -> Vec<Line> {
    let report = &snapshot.report;
    let held = match d.available {
        Some(all) => format!(
            "{} of {} local ports ({})",
            human::count(d.held),
            human::count(all),
            human::percent(d.held.into(), all.into())
        ),
        None => format!(
            "{} local ports; how many there are is not known",
            human::count(d.held)
        ),
    };
    let states = format!(
        "{} established, {} in TIME_WAIT, {} in SYN_SENT, {} in CLOSE_WAIT",
        human::count(d.established),
        human::count(d.time_wait),
        human::count(d.syn_sent),
        human::count(d.close_wait)
    );
    let mut lines = vec![
        heading(
            format!("{} → {}", process_name(d.process.as_ref()), d.destination),
            Tone::Strong,
        ),
        line("From", d.source.to_string()),
        line("Held", held),
        line("States", states),
        line(
            "Opens",
            d.opens_per_second.map_or_else(
                || "not known".to_owned(),
                |rate| format!("{} a second", human::float((rate * 10.0).round() / 10.0)),
            ),
        ),
    ];
    if let Some(process) = &d.process {
        lines.push(line(
            "Runtime",
            process
                .runtime
                .clone()
                .unwrap_or_else(|| "not recognised".to_owned()),
        ));
        lines.extend(process.exe.as_ref().map(|exe| line("Executable", exe)));
    } else {
        lines.push(line(
            "Process",
            "not known: TIME_WAIT has no owner; with CAP_BPF and CAP_PERFMON each connect names its process",
        ));
    }
    let about = |f: &&Finding| match &f.subject {
        Subject::Destination {
            proto,
            source,
            address,
            port,
            ..
        } => {
            (*proto, *address, *port) == (key.proto, key.destination.ip(), key.destination.port())
                && source.is_none_or(|s| s == key.source)
        }
        _ => false,
    };
    let found: Vec<&Finding> = report.findings.iter().filter(about).collect();
    for f in &found {
        lines.push(gap());
        lines.extend(finding(f, report));
    }
    if found.is_empty() {
        let advice = snapshot.advice.iter().find(|(k, _)| k == key).map(|(_, a)| a);
        lines.push(gap());
        lines.extend(match advice.filter(|a| worth(a, d)) {
            Some(advice) => fixes("Advice", &advice.fixes),
            None => vec![line(
                "Advice",
                "nothing to change: few ports are held here, and few connections opened.",
            )],
        });
    }
    lines
}

/// Whether advice on a destination that nothing was found of is worth reading.
fn worth(advice: &Advice, d: &DestinationRow) -> bool {
    let share = d
        .available
        .filter(|a| *a > 0)
        .map_or(0.0, |all| f64::from(d.held) / f64::from(all));
    match advice.remedy {
        Remedy::Pool | Remedy::PoolOutside => advice.sizing.is_some(),
        Remedy::Close | Remedy::Reach => d.held > 0,
        Remedy::Spread => share >= WORTH_ADVICE,
    }
}

fn process(p: &ProcessRow, report: &Report) -> Vec<Line> {
    let who = &p.process;
    let files = match p.fd_limit {
        Some(limit) => format!(
            "{} of {} ({})",
            human::count(p.fds),
            human::count(limit),
            human::percent(p.fds.into(), limit)
        ),
        None => format!("{}; the limit is not known", human::count(p.fds)),
    };
    let mut lines = vec![
        heading(format!("{} (pid {})", who.comm, who.pid), Tone::Strong),
        line(
            "Executable",
            who.exe.clone().unwrap_or_else(|| "not readable".to_owned()),
        ),
        line(
            "Runtime",
            who.runtime.clone().unwrap_or_else(|| "not recognised".to_owned()),
        ),
        line("Sockets", human::count(p.sockets)),
        line("Open files", files),
    ];
    let theirs = report
        .sockets
        .destinations
        .iter()
        .filter(|d| d.process.as_ref().is_some_and(|o| o.pid == who.pid));
    for (at, d) in theirs.take(10).enumerate() {
        lines.push(line(
            if at == 0 { "Towards" } else { "" },
            format!("{}: {}", d.destination, human::counted(d.held, "port", "ports")),
        ));
    }
    let found = report
        .findings
        .iter()
        .filter(|f| matches!(&f.subject, Subject::Process(o) if o.pid == who.pid));
    for f in found {
        lines.push(gap());
        lines.extend(finding(f, report));
    }
    lines
}

fn peer(p: &PeerRow, report: &Report) -> Vec<Line> {
    let now = report.generated_at;
    let bytes = |n: Option<u64>| n.map_or_else(|| "not known".to_owned(), human::bytes);
    let allowed: Vec<String> = p.allowed_ips.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        heading(
            format!(
                "{} {}",
                p.device.as_deref().unwrap_or("configured peer"),
                p.public_key
            ),
            Tone::Strong,
        ),
        line("State", p.state.name()),
        line(
            "Endpoint",
            p.endpoint
                .map_or_else(|| "not known".to_owned(), |e| e.to_string()),
        ),
        line(
            "Handshake",
            p.last_handshake
                .map_or_else(|| "never".to_owned(), |at| human::ago(now, at)),
        ),
        line("Received", bytes(p.rx_bytes)),
        line("Sent", bytes(p.tx_bytes)),
        line(
            "RTT",
            p.rtt
                .map_or_else(|| "no handshake was seen".to_owned(), human::span),
        ),
        line(
            "Keepalive",
            p.keepalive.map_or_else(|| "off".to_owned(), |s| format!("{s} s")),
        ),
        line(
            "AllowedIPs",
            if allowed.is_empty() {
                "none".to_owned()
            } else {
                allowed.join(", ")
            },
        ),
    ];
    let about = |f: &&Finding| match &f.subject {
        Subject::Peer { public_key, .. } => *public_key == Some(p.public_key),
        Subject::Device { name } => p.device.as_ref() == Some(name),
        _ => false,
    };
    for f in report.findings.iter().filter(about) {
        lines.push(gap());
        lines.extend(finding(f, report));
    }
    lines
}

fn conntrack(name: &str, snapshot: &Snapshot) -> Option<Vec<Line>> {
    let report = &snapshot.report;
    let conntrack = report.conntrack.as_ref()?;
    let mut lines = vec![heading(name, Tone::Strong)];
    if let Some(row) = conntrack.snat.iter().find(|row| snat_name(row) == name) {
        let t = &row.tally;
        let range = match row.range {
            Some(range) if row.range_inferred => {
                format!("about {} ports, as those in use show", human::count(range))
            }
            Some(range) => human::counted(range, "port", "ports"),
            None => "not known".to_owned(),
        };
        lines.extend([
            line("Held", human::counted(row.held, "NAT port", "NAT ports")),
            line("Range", range),
            line("In use", format!("{} to {}", t.min_port, t.max_port)),
            line(
                "Preserved",
                format!(
                    "{} kept the port that the client chose",
                    human::count(t.preserved)
                ),
            ),
            line("Closing", human::count(t.closing)),
            line("No reply", human::count(t.unreplied)),
        ]);
    } else {
        let table = super::table::of(super::table::Tab::Conntrack, snapshot);
        let row = table
            .rows
            .iter()
            .find(|row| row.id == RowId::Conntrack(name.to_owned()))?;
        for (label, cell) in ["", "Count", "Share", ""].iter().zip(&row.cells).skip(1) {
            lines.push(line(label, cell.text.as_str()));
        }
    }
    let about = |f: &&Finding| matches!(f.subject, Subject::Conntrack | Subject::Nat { .. });
    let found: Vec<&Finding> = report.findings.iter().filter(about).collect();
    if found.is_empty() {
        lines.push(gap());
        lines.push(line("", "Nothing is found of conntrack or of source NAT."));
    }
    for f in found {
        lines.push(gap());
        lines.extend(finding(f, report));
    }
    Some(lines)
}

fn source(name: &str, report: &Report) -> Vec<Line> {
    let mut lines = vec![heading(name, Tone::Strong)];
    let status = report.collectors.iter().find(|(s, _)| s.name() == name);
    if let Some((_, status)) = status {
        lines.push(line(
            "Cost",
            format!("{} of processor time so far", human::span(status.cost_cpu)),
        ));
        if status.lost > 0 {
            lines.push(line("Lost", human::counted(status.lost, "event", "events")));
        }
    }
    let gaps = unseen::gaps(report);
    let mut gaps = gaps
        .iter()
        .filter(|gap| gap.sources.iter().any(|s| s == name))
        .peekable();
    if gaps.peek().is_none() {
        lines.push(line("Sees", "all that it looks for."));
    }
    for gap in gaps {
        lines.push(line(
            if gap.partly { "In part" } else { "Not seen" },
            gap.reason.as_str(),
        ));
        if !gap.unchecked.is_empty() {
            lines.push(line("Unchecked", gap.unchecked.join(", ")));
        }
        if !gap.in_part.is_empty() {
            lines.push(line(
                "Elsewhere",
                format!("may hold too: {}", gap.in_part.join(", ")),
            ));
        }
    }
    lines
}

fn finding(f: &Finding, report: &Report) -> Vec<Line> {
    let mut lines = vec![
        heading(
            format!(
                "{} {}",
                super::table::mark(f.severity),
                clean::shorten_keys(&f.title)
            ),
            Tone::of(f.severity),
        ),
        line("", clean::shorten_keys(&told(f))),
        Line {
            tone: Tone::Dim,
            ..line(
                "Code",
                format!("{} · {} · wgnat explain {}", f.code, f.confidence.name(), f.code),
            )
        },
    ];
    let pairs: Vec<String> = evidence::pairs(&f.evidence, report.generated_at)
        .iter()
        .map(|(name, value)| format!("{name} {}", clean::shorten_keys(value)))
        .collect();
    if !pairs.is_empty() {
        lines.push(line("Seen", pairs.join(" · ")));
    }
    for (at, c) in f.candidates.iter().enumerate() {
        lines.push(line(
            if at == 0 { "Could be" } else { "" },
            format!(
                "{} → {}",
                clean::shorten_keys(&c.cause),
                clean::shorten_keys(&c.settle)
            ),
        ));
    }
    lines.extend(fixes("Fix", &f.fixes));
    lines
}

fn fixes(first: &str, fixes: &[Fix]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (at, fix) in fixes.iter().enumerate() {
        let title = fix.title.trim_end_matches('.');
        lines.push(Line {
            tone: Tone::Good,
            ..line(if at == 0 { first } else { "Or" }, clean::shorten_keys(title))
        });
        if !fix.why.is_empty() {
            lines.push(line("", clean::shorten_keys(&fix.why)));
        }
        for code in [&fix.command, &fix.snippet].into_iter().flatten() {
            lines.extend(paste(code));
        }
    }
    lines
}

//! Findings with their fixes, processes and their churn, paths, and what could not be seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::view::View;
use super::{rest, section, shown, table};
use crate::agent::ledger::{Entry, identity};
use crate::agent::shared::Snapshot;
use crate::finding::ProcessRef;
use crate::output::html::{self, escape};
use crate::output::{clean, human};
use crate::report::Status;
use crate::words;

/// Findings that are over and still told.
const OVER: usize = 10;

/// What holds, with what to change; what is just over.
pub(super) fn findings(snapshot: &Snapshot, out: &mut String) {
    let report = &snapshot.report;
    let mut inner = String::new();
    if report.findings.is_empty() {
        let words = match (report.status, report.not_checked.len()) {
            (Status::Unknown, _) => "Nothing could be observed, so nothing could be judged.".to_owned(),
            (_, 0) => "No problem found.".to_owned(),
            (_, n) => {
                format!("No problem seen; {n} kinds of findings could not be checked (see “Not observed”).")
            }
        };
        let _ = writeln!(inner, "<p>{words}</p>");
    }
    for (index, finding) in report.findings.iter().enumerate() {
        let explains: Vec<&str> = report.explained_by(index).map(|f| f.code).collect();
        let subject = identity(&finding.subject);
        let entry = snapshot
            .findings
            .iter()
            .find(|e| e.finding.code == finding.code && identity(&e.finding.subject) == subject);
        let since = entry.map_or_else(String::new, |entry| {
            let since = human::ago(report.generated_at, entry.first_seen);
            let often = match entry.count {
                0 | 1 => String::new(),
                n => format!(", began {} times", words::count(n)),
            };
            format!("first seen {since}{often}")
        });
        let id = format!("f-{} {subject}", finding.code);
        html::finding(&id, &since, finding, &explains, report.generated_at, &mut inner);
    }
    over(snapshot, &mut inner);
    section("findings", "Findings", &inner, out);
}

fn over(snapshot: &Snapshot, html: &mut String) {
    let mut gone: Vec<&Entry> = snapshot
        .findings
        .iter()
        // What is not known to be gone is told above.
        .filter(|e| !["active", "unknown"].contains(&e.state()))
        .collect();
    if gone.is_empty() {
        return;
    }
    gone.sort_by_key(|e| std::cmp::Reverse(e.cleared_at.unwrap_or(e.last_seen)));
    html.push_str("<h3>Seen in the last hour, and not now</h3>\n<ul>\n");
    let now = snapshot.report.generated_at;
    for entry in gone.iter().take(OVER) {
        let _ = writeln!(
            html,
            "<li>{} <span class=\"note\">({}, <code>{}</code>, last seen {}{})</span></li>",
            escape(&clean::shorten_keys(&entry.finding.title)),
            entry.finding.severity.name(),
            entry.finding.code,
            human::ago(now, entry.last_seen),
            match entry.count {
                0 | 1 => String::new(),
                n => format!(", began {} times", words::count(n)),
            }
        );
    }
    html.push_str("</ul>\n");
    if gone.len() > OVER {
        let _ = writeln!(
            html,
            "<p class=\"note\">{} more: <a href=\"/api/v1/findings\">all findings</a></p>",
            gone.len() - OVER
        );
    }
}

/// What a process does to the network.
#[derive(Default)]
struct Use<'a> {
    name: Option<&'a ProcessRef>,
    opens: Option<f64>,
    destinations: u32,
    held: u32,
    time_wait: u32,
    sockets: Option<u32>,
    fds: Option<u32>,
    fd_limit: Option<u64>,
}

/// Who opens how many connections, the busiest first.
pub(super) fn processes(snapshot: &Snapshot, view: View, out: &mut String) {
    let sockets = &snapshot.report.sockets;
    let mut uses: BTreeMap<u32, Use<'_>> = BTreeMap::new();
    for row in &sockets.processes {
        let own = uses.entry(row.process.pid).or_default();
        own.name = Some(&row.process);
        (own.sockets, own.fds, own.fd_limit) = (Some(row.sockets), Some(row.fds), row.fd_limit);
    }
    for row in &sockets.destinations {
        let Some(process) = &row.process else { continue };
        let own = uses.entry(process.pid).or_default();
        own.name.get_or_insert(process);
        if let Some(opens) = row.opens_per_second {
            *own.opens.get_or_insert(0.0) += opens;
        }
        own.destinations += 1;
        own.held += row.held;
        own.time_wait += row.time_wait;
    }
    let mut uses: Vec<Use<'_>> = uses.into_values().collect();
    uses.sort_by(|a, b| {
        let key = |u: &Use<'_>| {
            (
                u.opens.unwrap_or(0.0),
                f64::from(u.held),
                f64::from(u.sockets.unwrap_or(0)),
            )
        };
        let (a, b) = (key(a), key(b));
        b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal)
    });
    let number = |n: Option<u32>| n.map_or_else(|| "–".to_owned(), words::count);
    let rows: Vec<Vec<String>> = uses
        .iter()
        .take(shown(view))
        .filter_map(|own| {
            let process = own.name?;
            let fds = match (own.fds, own.fd_limit) {
                (Some(fds), Some(limit)) => format!("{} of {}", words::count(fds), words::count(limit)),
                (fds, _) => number(fds),
            };
            Some(vec![
                escape(&format!("{} {}", process.comm, process.pid)),
                escape(process.runtime.as_deref().unwrap_or("–")),
                own.opens
                    .map_or_else(|| "–".to_owned(), |v| format!("{}/s", human::float(v))),
                words::count(own.destinations),
                words::count(own.held),
                words::count(own.time_wait),
                number(own.sockets),
                fds,
            ])
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    let columns = [
        ("process", false),
        ("runtime", false),
        ("connections opened", true),
        ("destinations", true),
        ("ports held", true),
        ("in TIME_WAIT", true),
        ("sockets", true),
        ("descriptors", true),
    ];
    let caption = "Processes by connections opened per second";
    let mut inner = table("processes-t", caption, &columns, &rows);
    inner.push_str(&rest(
        view,
        uses.len(),
        sockets.processes_left_out,
        "processes",
        "processes",
    ));
    section("processes", "Connections by process", &inner, out);
}

/// Measured paths.
pub(super) fn paths(snapshot: &Snapshot, out: &mut String) {
    section("paths", "Paths", &html::paths(&snapshot.report), out);
}

/// What could not be seen, and what that leaves open.
pub(super) fn not_observed(snapshot: &Snapshot, out: &mut String) {
    html::not_observed(&snapshot.report, out);
}

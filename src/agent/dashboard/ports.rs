//! Port use towards each destination and the conntrack table, against their limits, with where they are going.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::past::{Key, Past};
use super::view::View;
use super::{rest, section, shown, table};
use crate::agent::shared::Snapshot;
use crate::finding::{Finding, Severity, Subject};
use crate::output::html::chart::{Forecast, Limit, Line, Mark, Plot, Point, Times, Unit};
use crate::output::html::escape;
use crate::output::human;
use crate::report::{DestinationRow, Report, SnatRow};
use crate::types::Proto;
use crate::words;

const ENTRIES: &str = "wgnat_conntrack_entries";
const EVENTS: &str = "wgnat_conntrack_events";
const HELD: &str = "wgnat_destination_ports";
const SNAT: &str = "wgnat_snat_ports";

/// Counters of conntrack whose movement is trouble, and what each is.
const TROUBLE: [(&str, &str); 3] = [
    ("drop", "table full"),
    ("early_drop", "evicted early"),
    ("insert_failed", "insert failed"),
];

/// Pictures of destinations and of NAT ports; tables have all of them.
const PICTURES: usize = 6;

fn held_key(row: &DestinationRow) -> Key {
    let labels = vec![
        ("proto", row.proto.name().to_owned()),
        ("source", row.source.to_string()),
        ("destination", row.destination.to_string()),
    ];
    (HELD, labels)
}

fn snat_key(row: &SnatRow) -> Key {
    let labels = vec![
        ("proto", row.tally.proto.name().to_owned()),
        ("nat_address", row.tally.nat_address.to_string()),
        ("destination", row.tally.destination.to_string()),
    ];
    (SNAT, labels)
}

/// The fullest first.
fn worst(snapshot: &Snapshot) -> Vec<&DestinationRow> {
    let all = &snapshot.report.sockets.destinations;
    let mut rows: Vec<&DestinationRow> = all.iter().filter(|d| d.held > 0).collect();
    let share =
        |row: &DestinationRow| f64::from(row.held) / f64::from(row.available.unwrap_or(u32::MAX).max(1));
    let order = |row: &DestinationRow| match row.state {
        "exhausted" => 0,
        "low" => 1,
        "rising" => 2,
        _ => 3,
    };
    rows.sort_by(|a, b| order(a).cmp(&order(b)).then(share(b).total_cmp(&share(a))));
    rows
}

fn snat(snapshot: &Snapshot) -> &[SnatRow] {
    snapshot
        .report
        .conntrack
        .as_ref()
        .map_or(&[], |table| table.snat.as_slice())
}

/// The series that are shown.
pub(super) fn series(snapshot: &Snapshot, most: usize) -> Vec<Key> {
    let most = most.min(PICTURES);
    let mut keys: Vec<Key> = worst(snapshot).into_iter().take(most).map(held_key).collect();
    keys.extend(snat(snapshot).iter().take(most).map(snat_key));
    if snapshot.report.conntrack.is_some() {
        keys.push((ENTRIES, Vec::new()));
        keys.extend(TROUBLE.map(|(event, _)| (EVENTS, vec![("event", event.to_owned())])));
    }
    keys
}

/// The section of destinations.
pub(super) fn destinations(snapshot: &Snapshot, past: &Past, view: View, out: &mut String) {
    let report = &snapshot.report;
    let rows = worst(snapshot);
    let mut inner = String::new();
    if rows.is_empty() {
        if report.sockets.tcp_total.is_some() {
            inner.push_str("<p>No outbound connection holds a port.</p>\n");
        }
        section("ports", "Ports towards destinations", &inner, out);
        return;
    }
    inner.push_str("<div class=\"grid\">\n");
    for (row, index) in rows.iter().take(PICTURES).zip(0_usize..) {
        let about = |subject: &Subject| is_about(subject, row);
        let title = format!("{} {}", row.proto.name(), row.destination);
        let words = told(row.held, row.available, false);
        let plot = Filled {
            id: format!("ports-{index}"),
            title: format!("Local ports held towards {title}"),
            unit: Unit::Count("ports"),
            points: past.series(&held_key(row)),
            now: f64::from(row.held),
            limit: row.available.map(|n| ("usable", f64::from(n))),
        };
        let owner = row.process.as_ref().map_or_else(
            || format!("from {}", row.source),
            |p| format!("{} {} from {}", p.comm, p.pid, row.source),
        );
        let how = match row.state {
            "steady" => String::new(),
            how => format!(" {}", state(how, class(report, row))),
        };
        card(
            &title,
            &how,
            &format!("{owner}: {words}"),
            &plot.svg(snapshot, past, &about),
            &mut inner,
        );
    }
    inner.push_str("</div>\n");
    let columns = [
        ("towards", false),
        ("from", false),
        ("process", false),
        ("state", false),
        ("held", true),
        ("usable", true),
        ("share", true),
        ("opened", true),
        ("established", true),
        ("TIME_WAIT", true),
    ];
    let cells: Vec<Vec<String>> = rows
        .iter()
        .take(shown(view))
        .map(|row| cells(report, row))
        .collect();
    inner.push_str(&table(
        "ports-t",
        "Destinations by the share of ports held",
        &columns,
        &cells,
    ));
    inner.push_str(&rest(
        view,
        rows.len(),
        report.sockets.destinations_left_out,
        "destinations",
        "ports",
    ));
    section("ports", "Ports towards destinations", &inner, out);
}

fn is_about(subject: &Subject, row: &DestinationRow) -> bool {
    match subject {
        Subject::Destination {
            proto,
            source,
            address,
            port,
            ..
        } => {
            *proto == row.proto
                && source.is_none_or(|s| s == row.source)
                && *address == row.destination.ip()
                && *port == row.destination.port()
        }
        _ => false,
    }
}

fn cells(report: &Report, row: &DestinationRow) -> Vec<String> {
    let tcp = |n: u32| {
        if row.proto == Proto::Tcp {
            words::count(n)
        } else {
            "–".to_owned()
        }
    };
    let process = row
        .process
        .as_ref()
        .map_or_else(|| "–".to_owned(), |p| format!("{} {}", p.comm, p.pid));
    vec![
        escape(&format!("{} {}", row.proto.name(), row.destination)),
        escape(&row.source.to_string()),
        escape(&process),
        state(row.state, class(report, row)),
        words::count(row.held),
        row.available.map_or_else(|| "–".to_owned(), words::count),
        row.available
            .map_or_else(|| "–".to_owned(), |n| human::percent(row.held.into(), n.into())),
        row.opens_per_second
            .map_or_else(|| "–".to_owned(), |v| format!("{}/s", human::float(v))),
        tcp(row.established),
        tcp(row.time_wait),
    ]
}

/// How bad `row` is: what the findings about it say, and else what its state does.
pub(super) fn class(report: &Report, row: &DestinationRow) -> &'static str {
    let about = report
        .findings
        .iter()
        .chain(report.suppressed.iter().map(|s| &s.finding));
    let worst = about
        .filter(|f| is_about(&f.subject, row))
        .map(|f| f.severity)
        .max();
    match (worst, row.state) {
        (Some(Severity::Critical), _) | (_, "exhausted") => "critical",
        (Some(Severity::Warning), _) | (_, "low" | "rising") => "warning",
        _ => "note",
    }
}

/// A state with a sign beside its colour.
fn state(state: &str, class: &str) -> String {
    let sign = match class {
        "critical" => "✗ ",
        "warning" => "! ",
        _ => "",
    };
    format!("<span class=\"{class}\">{sign}{}</span>", escape(state))
}

fn told(held: u32, available: Option<u32>, inferred: bool) -> String {
    let about = if inferred { "about " } else { "" };
    match available {
        Some(n) => format!(
            "{} of {about}{} ports held ({})",
            words::count(held),
            words::count(n),
            human::percent(held.into(), n.into())
        ),
        None => format!(
            "{} held of an unknown number",
            words::counted(held, "port", "ports")
        ),
    }
}

/// A picture with its title, `how` it stands (HTML) and words.
fn card(title: &str, how: &str, words: &str, svg: &str, html: &mut String) {
    let _ = writeln!(
        html,
        "<figure class=\"card\">\n<figcaption><b>{}</b>{how}<br>{}</figcaption>\n{svg}</figure>",
        escape(title),
        escape(words)
    );
}

/// Something that fills, over time.
struct Filled<'a> {
    id: String,
    title: String,
    unit: Unit,
    points: &'a [Point],
    now: f64,
    limit: Option<(&'a str, f64)>,
}

impl Filled<'_> {
    /// The picture, with what is known of what `about` names: when findings began and were over, and the forecast.
    fn svg(&self, snapshot: &Snapshot, past: &Past, about: &dyn Fn(&Subject) -> bool) -> String {
        // What holds now, so that the line ends where the words say.
        let mut points = self.points.to_vec();
        points.retain(|point| point.0 < past.to);
        points.push((past.to, self.now, self.now, self.now));
        let report = &snapshot.report;
        let forecast = report
            .findings
            .iter()
            .chain(report.suppressed.iter().map(|s| &s.finding))
            .filter(|finding| about(&finding.subject))
            .find_map(|finding| self.forecast(finding, past.to));
        Plot {
            id: &self.id,
            title: &self.title,
            unit: self.unit,
            times: Times::Before(past.to),
            from: past.from,
            to: past.to,
            step: past.step,
            lines: vec![Line {
                name: "held",
                points: &points,
            }],
            limit: self.limit.map(|(name, value)| Limit { name, value }),
            forecast,
            marks: marks(snapshot, about),
        }
        .svg()
    }

    /// The rule's own forecast, so that picture and finding say the same.
    fn forecast(&self, finding: &Finding, now: i64) -> Option<Forecast> {
        let get = |name| finding.evidence.get(name).and_then(serde_json::Value::as_f64);
        let at = |seconds: f64| {
            #[allow(clippy::cast_possible_truncation)] // saturates, and is bounded
            let seconds = seconds.clamp(1.0, 1e9) as i64;
            now.saturating_add(seconds)
        };
        let full = at(get("exhausted_in_seconds")?);
        let low = get("exhausted_in_seconds_low").map_or(full, at);
        let high = get("exhausted_in_seconds_high").map_or(full, at);
        Some(Forecast {
            from: now,
            value: self.now,
            reaches: self.limit?.1,
            full,
            soonest: low.min(full),
            latest: high.max(full),
        })
    }
}

/// When findings began and were over.
fn marks(snapshot: &Snapshot, about: &dyn Fn(&Subject) -> bool) -> Vec<Mark<'static>> {
    let seconds = |at: crate::time::Timestamp| at.as_nanos().div_euclid(1_000_000_000);
    let own = snapshot
        .findings
        .iter()
        .filter(|entry| about(&entry.finding.subject));
    own.flat_map(|entry| {
        let began = Mark {
            at: seconds(entry.first_seen),
            label: Cow::Owned(format!("{} began", entry.finding.code)),
        };
        let over = entry.cleared_at.map(|at| Mark {
            at: seconds(at),
            label: Cow::Owned(format!("{} over", entry.finding.code)),
        });
        std::iter::once(began).chain(over)
    })
    .collect()
}

/// The section of the conntrack table and of NAT ports.
pub(super) fn conntrack(snapshot: &Snapshot, past: &Past, view: View, out: &mut String) {
    let Some(table) = &snapshot.report.conntrack else {
        return;
    };
    let mut inner = String::from("<div class=\"grid\">\n");
    if let Some(count) = table.count {
        let about = |subject: &Subject| matches!(subject, Subject::Conntrack);
        let plot = Filled {
            id: "conntrack-entries".to_owned(),
            title: "Entries of the conntrack table".to_owned(),
            unit: Unit::Count("entries"),
            points: past.series(&(ENTRIES, Vec::new())),
            now: f64::from(count),
            limit: table.max.map(|n| ("limit", f64::from(n))),
        };
        let mut words = match table.max {
            Some(max) => format!(
                "{} of {} ({})",
                words::count(count),
                words::count(max),
                human::percent(count.into(), max.into())
            ),
            None => words::count(count),
        };
        if let Some(rate) = table.per_second {
            let sign = if rate > 0.0 { "+" } else { "" };
            let _ = write!(words, ", {sign}{} a second", human::float(rate));
        }
        card(
            "Entries",
            "",
            &words,
            &plot.svg(snapshot, past, &about),
            &mut inner,
        );
    }
    drops(snapshot, past, &mut inner);
    for (row, index) in snat(snapshot).iter().take(PICTURES).zip(0_usize..) {
        let t = &row.tally;
        let about = |subject: &Subject| match subject {
            Subject::Nat {
                address,
                proto,
                destination,
            } => {
                address.is_none_or(|a| a == t.nat_address)
                    && proto.is_none_or(|p| p == t.proto)
                    && destination.is_some_and(|d| d == t.destination)
            }
            _ => false,
        };
        let title = format!("{} {}", t.proto.name(), t.destination);
        let plot = Filled {
            id: format!("snat-{index}"),
            title: format!("NAT ports held towards {title}"),
            unit: Unit::Count("ports"),
            points: past.series(&snat_key(row)),
            now: f64::from(row.held),
            limit: row.range.map(|n| ("usable", f64::from(n))),
        };
        let words = format!(
            "NAT by {}: {}",
            t.nat_address,
            told(row.held, row.range, row.range_inferred)
        );
        card(&title, "", &words, &plot.svg(snapshot, past, &about), &mut inner);
    }
    inner.push_str("</div>\n");
    if snat(snapshot).len() > PICTURES {
        nat_table(snapshot, view, &mut inner);
    }
    section("conntrack", "Connection tracking and NAT", &inner, out);
}

/// All NAT port use as a table.
fn nat_table(snapshot: &Snapshot, view: View, inner: &mut String) {
    let rows = snat(snapshot);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .take(shown(view))
        .map(|row| {
            let t = &row.tally;
            vec![
                escape(&format!("{} {}", t.proto.name(), t.destination)),
                escape(&t.nat_address.to_string()),
                words::count(row.held),
                row.range.map_or_else(|| "–".to_owned(), words::count),
                row.range
                    .map_or_else(|| "–".to_owned(), |n| human::percent(row.held.into(), n.into())),
            ]
        })
        .collect();
    let columns = [
        ("towards", false),
        ("NAT address", false),
        ("held", true),
        ("usable", true),
        ("share", true),
    ];
    inner.push_str(&table("snat-t", "NAT ports by the share held", &columns, &cells));
    let left_out = snapshot.report.conntrack.as_ref().and_then(|c| c.tally.as_ref());
    let left_out = left_out.map_or(0, |tally| tally.snat_left_out.items);
    inner.push_str(&rest(view, rows.len(), left_out, "NAT destinations", "conntrack"));
}

/// What the table dropped, as pace: its counters only grow.
fn drops(snapshot: &Snapshot, past: &Past, inner: &mut String) {
    let known = snapshot.stats.totals.conntrack.as_deref().unwrap_or_default();
    let total = |event: &str| {
        known
            .iter()
            .find(|(name, _)| *name == event)
            .map_or(0, |(_, n)| *n)
    };
    if known.is_empty() {
        return;
    }
    let paces: Vec<(&str, Vec<Point>)> = TROUBLE
        .iter()
        .map(|(event, name)| {
            (
                *name,
                pace(
                    past.series(&(EVENTS, vec![("event", (*event).to_owned())])),
                    past.step,
                ),
            )
        })
        .collect();
    let words: Vec<String> = TROUBLE
        .iter()
        .map(|(event, name)| format!("{name} {}", words::count(total(event))))
        .collect();
    let words = format!("Since the agent began: {}", words.join(", "));
    let svg = Plot {
        id: "conntrack-drops",
        title: "What the conntrack table refused",
        unit: Unit::PerSecond("entries"),
        times: Times::Before(past.to),
        from: past.from,
        to: past.to,
        step: past.step,
        lines: paces.iter().map(|(name, points)| Line { name, points }).collect(),
        limit: None,
        forecast: None,
        marks: Vec::new(),
    }
    .svg();
    card("Refused and dropped", "", &words, &svg, inner);
}

/// A counter's growth per second from point to point; where it fell, it began anew.
pub(super) fn pace(points: &[Point], step: i64) -> Vec<Point> {
    let mut found = Vec::new();
    for pair in points.windows(2) {
        let [before, after] = pair else { continue };
        let span = after.0.saturating_sub(before.0);
        if span <= 0 || span > step.max(1).saturating_mul(3) {
            continue;
        }
        let grown = if after.1 >= before.1 {
            after.1 - before.1
        } else {
            after.1
        };
        #[allow(clippy::cast_precision_loss)] // minutes
        let rate = grown / span as f64;
        found.push((after.0, rate, rate, rate));
    }
    found
}

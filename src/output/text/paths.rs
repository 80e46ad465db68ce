//! Measured paths as tables: the targets side by side, Fly's regions, and the routers on each way.

use std::collections::BTreeMap;

use super::page::Role;
use super::table::{Cell, Column, Table};
use crate::observation::path::{Certificate, CertificateVerdict, Usual};
use crate::output::human;
use crate::report::Report;
use crate::report::paths::PathRow;
use crate::time::Span;

/// All tables that have something to say.
pub(super) fn tables(report: &Report) -> Vec<Table> {
    let rows = &report.paths;
    if rows.is_empty() {
        return Vec::new();
    }
    let mut tables = vec![targets(rows)];
    tables.extend(certificates(rows));
    tables.extend(regions(rows));
    tables.extend(rows.iter().filter(|row| !row.hops.is_empty()).map(hops));
    tables
}

fn targets(rows: &[PathRow]) -> Table {
    Table {
        columns: vec![
            Column::text("Paths", 12),
            Column::number("lost"),
            Column::number("median"),
            Column::number("95 %"),
            Column::number("jitter"),
            Column::text("", 12),
        ],
        rows: rows
            .iter()
            .map(|row| {
                let summary = &row.summary;
                vec![
                    Cell::plain(&row.target),
                    lost(row),
                    Cell::plain(time(summary.median)),
                    Cell::plain(time(summary.p95)),
                    Cell::plain(time(summary.jitter)),
                    Cell::plain(notes(row)),
                ]
            })
            .collect(),
        note: None,
    }
}

/// What is to be said against certificates; it would not fit beside the times.
fn certificates(rows: &[PathRow]) -> Option<Table> {
    let judged = rows
        .iter()
        .filter_map(|row| Some((row, certificate(row.certificate.as_ref()?)?)));
    let rows: Vec<Vec<Cell>> = judged
        .map(|(row, says)| vec![Cell::plain(&row.target), Cell::plain(says)])
        .collect();
    (!rows.is_empty()).then(|| Table {
        columns: vec![Column::text("Certificates", 12), Column::text("", 30)],
        rows,
        note: None,
    })
}

fn time(span: Option<Span>) -> String {
    span.map_or_else(|| "–".to_owned(), |span| human::seconds(span.as_secs_f64()))
}

fn lost(row: &PathRow) -> Cell {
    let summary = &row.summary;
    let all = summary.lost + summary.answered;
    let role = match (summary.lost, summary.answered) {
        (0, _) => Role::Plain,
        (_, 0) => Role::Critical,
        _ => Role::Warning,
    };
    match all {
        0 => Cell::plain("–"),
        all => Cell::of(role, format!("{} of {all}", summary.lost)),
    }
}

/// What else there is to say, in a few words.
fn notes(row: &PathRow) -> String {
    let mut notes = Vec::new();
    notes.extend(row.http_status.map(|status| format!("HTTP {status}")));
    notes.extend(row.usual.as_ref().and_then(usual));
    notes.extend(row.mtu.map(|mtu| format!("MTU {}", mtu.passed)));
    let stages = row.stages.iter().filter(|_| row.stages.len() > 1);
    notes.extend(stages.map(|(stage, span)| format!("{} {}", stage.name(), time(Some(*span)))));
    notes.extend(
        row.failures
            .iter()
            .take(2)
            .map(|(words, n)| format!("{n}× {words}")),
    );
    if summary_is_empty(row) {
        notes.extend(row.problems.iter().cloned());
    }
    notes.join(", ")
}

/// What is to be said against a certificate, and since when where it is time.
fn certificate(certificate: &Certificate) -> Option<String> {
    let says = certificate.verdict.says()?;
    Some(match (&certificate.verdict, certificate.not_after) {
        (CertificateVerdict::Expired, Some(at)) => {
            let day: String = at.to_string().chars().take_while(|c| *c != 'T').collect();
            format!("{says} {day}")
        }
        _ => says,
    })
}

/// What is usual, for comparison.
fn usual(usual: &Usual) -> Option<String> {
    let median = usual.median()?;
    Some(format!(
        "usually {} ({})",
        time(Some(median)),
        human::seconds(usual.over.as_secs_f64())
    ))
}

/// Whether nothing was tried, so that only a problem tells why.
fn summary_is_empty(row: &PathRow) -> bool {
    row.summary.sent == 0
}

/// How the machines of each Fly region fare from here.
fn regions(rows: &[PathRow]) -> Option<Table> {
    let mut by_region: BTreeMap<&str, Vec<&PathRow>> = BTreeMap::new();
    for row in rows {
        if let Some(sibling) = &row.sibling {
            by_region.entry(&sibling.region).or_default().push(row);
        }
    }
    if by_region.is_empty() {
        return None;
    }
    let rows = by_region
        .into_iter()
        .map(|(region, rows)| {
            let lost: u32 = rows.iter().map(|row| row.summary.lost).sum();
            let all: u32 = rows
                .iter()
                .map(|row| row.summary.lost + row.summary.answered)
                .sum();
            let mut medians: Vec<Span> = rows.iter().filter_map(|row| row.summary.median).collect();
            medians.sort_unstable();
            vec![
                Cell::plain(region),
                Cell::plain(rows.len().to_string()),
                Cell::plain(format!("{lost} of {all}")),
                Cell::plain(time(crate::track::stats::quantile(&medians, 0.5))),
            ]
        })
        .collect();
    Some(Table {
        columns: vec![
            Column::text("Regions", 8),
            Column::number("machines"),
            Column::number("lost"),
            Column::number("median"),
        ],
        rows,
        note: None,
    })
}

fn hops(row: &PathRow) -> Table {
    let rows = row.hops.iter().map(|hop| {
        let who: Vec<String> = hop.addresses.iter().map(ToString::to_string).collect();
        vec![
            Cell::plain(hop.ttl.to_string()),
            Cell::plain(if who.is_empty() {
                "no answer".to_owned()
            } else {
                who.join(", ")
            }),
            Cell::plain(format!("{} of {}", hop.answered, hop.sent)),
            Cell::plain(time(hop.rtt)),
        ]
    });
    Table {
        columns: vec![
            Column::text(format!("Hops to {}", row.target), 8),
            Column::text("router", 15),
            Column::number("answered"),
            Column::number("mean"),
        ],
        rows: rows.collect(),
        note: None,
    }
}

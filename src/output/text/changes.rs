//! What changed, and how numbers moved, at a terminal or in a mail.

use super::page::{Page, Piece, Role, piece};
use super::table::{self, Cell, Column, Table};
use crate::output::changes as words;
use crate::output::{clean, human};
use crate::report::changes::{Change, Changes};
use crate::report::period::{Period, Trend};
use crate::time::Timestamp;

/// Where a change's title begins.
const INDENT: usize = 10;
/// Rows of the numbers.
const TRENDS: usize = 12;

/// What changed since the report before.
pub fn write(page: &mut Page, changes: &Changes, now: Timestamp) {
    page.gap();
    page.paragraph(
        piece(Role::Strong, ""),
        0,
        &[
            piece(Role::Strong, format!("{}:", words::since(changes, now))),
            piece(Role::Plain, words::summary(changes)),
        ],
    );
    for (kind, list) in changes.kinds() {
        for change in list.iter().take(words::TOLD) {
            one(page, kind, change, now);
        }
        let more = list.len().saturating_sub(words::TOLD);
        if more > 0 {
            let text = format!("and {} more (--json tells each)", human::count(more as u64));
            page.paragraph(piece(Role::Plain, "  ..."), INDENT, &[piece(Role::Dim, text)]);
        }
    }
}

fn one(page: &mut Page, kind: &str, change: &Change, now: Timestamp) {
    let known = &change.known;
    let severe = super::finding::role(known.severity);
    let (role, tone) = match kind {
        "new" | "worse" => (severe, Role::Strong),
        "gone" | "better" => (Role::Good, Role::Plain),
        _ => (Role::Dim, Role::Plain),
    };
    // The longer words have lines of their own: the column stays narrow.
    let short = if kind == "passed" { "passed" } else { kind };
    let text: Vec<Piece> = vec![
        piece(severe, known.severity.name()),
        piece(tone, clean::shorten_keys(&known.title)),
        piece(
            Role::Dim,
            format!("({}, {})", known.code, words::times(kind, change, now)),
        ),
    ];
    page.paragraph(
        piece(role, format!("{} {short}", words::mark(kind))),
        INDENT,
        &text,
    );
}

/// How numbers moved.
pub fn numbers(period: &Period) -> Option<Table> {
    let told: Vec<&Trend> = period.trends.iter().filter(|trend| trend.tells()).collect();
    if told.is_empty() {
        return None;
    }
    let mut columns = vec![Column::text("Numbers", 24)];
    columns.extend(["least", "mean", "most", "now"].map(Column::number));
    let rows = told.iter().take(TRENDS).map(|trend| {
        let value = |v| Cell::plain(words::value(trend.unit, v));
        vec![
            Cell::plain(words::name(trend)),
            value(trend.least()),
            value(trend.mean()),
            value(trend.greatest()),
            value(trend.last),
        ]
    });
    let more = told.len().saturating_sub(TRENDS);
    Some(Table {
        columns,
        rows: rows.collect(),
        note: (more > 0).then(|| format!("and {more} more (--json)")),
    })
}

/// Writes the numbers, and how much was watched.
pub fn period(page: &mut Page, period: &Period) {
    page.gap();
    let indent = numbers(period).map_or(INDENT, |table| table::write(page, vec![table]).min(INDENT));
    page.paragraph(
        piece(Role::Strong, "Watched"),
        indent,
        &[piece(Role::Plain, words::watched(period))],
    );
    if let Some(text) = words::unknown_findings(period) {
        page.paragraph(
            piece(Role::Strong, "Unknown"),
            indent,
            &[piece(Role::Plain, text)],
        );
    }
}

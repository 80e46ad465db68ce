//! Which columns are shown, how wide each is, and a row laid out in them.

use ratatui::style::Style;
use ratatui::text::{Line as TextLine, Span as TextSpan};

use super::{Look, cut};
use crate::output::clean;
use crate::tui::Tone;
use crate::tui::cells::Column;
use crate::tui::table::Table;

/// A column that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Which.
    pub at: usize,
    width: usize,
    /// Spaces before it.
    gap: usize,
}

/// The name of a column, with the mark of the order.
pub fn heading(column: &Column, at: usize, sort: Option<(usize, bool)>) -> String {
    match sort {
        Some((by, true)) if by == at => format!("{}▾", column.name),
        Some((by, false)) if by == at => format!("{}▴", column.name),
        _ => column.name.to_owned(),
    }
}

/// Chooses columns and their widths: with two spaces between them, with one, with the long ones cut, and without those that
/// tell least.
pub fn columns(table: &Table, sort: Option<(usize, bool)>, width: usize, look: Look) -> Vec<Shown> {
    let natural: Vec<usize> = table
        .columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = table.rows.iter().filter_map(|row| row.cells.get(at));
            cells
                .map(|cell| clean::width(&look.shown(&cell.text)))
                .chain([clean::width(&heading(column, at, sort))])
                .max()
                .unwrap_or(0)
        })
        .collect();
    // What tells most comes first; what no longer fits is left out, and something narrower may still fit.
    let least = |at: usize| {
        table.columns[at]
            .least
            .map_or(natural[at], |least| least.min(natural[at]))
    };
    let mut by_rank: Vec<usize> = (0..natural.len()).collect();
    by_rank.sort_by_key(|at| table.columns[*at].rank);
    let mut kept: Vec<usize> = Vec::new();
    let mut used = 2;
    for at in by_rank {
        let more = least(at) + usize::from(!kept.is_empty());
        if table.columns[at].rank == 0 || used + more <= width {
            kept.push(at);
            used += more;
        }
    }
    kept.sort_unstable();
    let room = |gap: usize| width.saturating_sub(2 + gap * kept.len().saturating_sub(1));
    let wanted: usize = kept.iter().map(|at| natural[*at]).sum();
    // Prose is cut before the spaces are.
    let close: usize = kept
        .iter()
        .map(|at| {
            if table.columns[*at].prose {
                least(*at)
            } else {
                natural[*at]
            }
        })
        .sum();
    let gap = if close <= room(2) { 2 } else { 1 };
    let mut widths: Vec<usize> = kept.iter().map(|at| natural[*at]).collect();
    for _ in room(gap)..wanted {
        // The widest of those that may be cut gives a column.
        let widest = kept
            .iter()
            .zip(&mut widths)
            .filter(|(at, width)| **width > least(**at))
            .max_by_key(|(_, width)| **width);
        let Some((_, width)) = widest else { break };
        *width -= 1;
    }
    kept.iter()
        .zip(widths)
        .enumerate()
        .map(|(place, (at, width))| Shown {
            at: *at,
            width,
            gap: if place == 0 { 0 } else { gap },
        })
        .collect()
}

/// A row or the heading.
pub fn row_line(
    look: Look,
    shown: &[Shown],
    table: &Table,
    cells: impl Iterator<Item = (String, Tone)>,
    gutter: &str,
    style: Style,
) -> TextLine<'static> {
    let mut spans = vec![TextSpan::raw(gutter.to_owned())];
    for (column, (text, tone)) in shown.iter().zip(cells) {
        // Prose tells most at its beginning; and ASCII has no ellipsis of one column.
        let prose = table.columns[column.at].prose;
        let text = if look.unicode && !prose {
            clean::elide(&text, column.width).into_owned()
        } else {
            cut(&text, column.width, look.unicode)
        };
        let pad = " ".repeat(column.width.saturating_sub(clean::width(&text)));
        let gap = " ".repeat(column.gap);
        let padded = if table.columns[column.at].number {
            format!("{gap}{pad}{text}")
        } else {
            format!("{gap}{text}{pad}")
        };
        spans.push(TextSpan::styled(padded, look.style(tone)));
    }
    TextLine::from(spans).style(style)
}

//! Tables whose columns share the width of the page.
//!
//! In: cells. Out: rows that fit; columns that may shrink do so, longest first, and lose the middle of their text.
//! Pure.

use std::borrow::Cow;

use super::page::{Page, Role, piece};
use crate::output::clean;

/// The gap between two columns.
const GAP: usize = 2;

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its heading.
    pub heading: Cow<'static, str>,
    /// Whether its text is set to the right.
    pub right: bool,
    /// The width below which it does not shrink; a column that must not lose text has a large one.
    pub least: usize,
}

impl Column {
    /// A column of text that may be cut to `least` columns.
    pub fn text(heading: impl Into<Cow<'static, str>>, least: usize) -> Self {
        Self {
            heading: heading.into(),
            right: false,
            least,
        }
    }

    /// A column of text that is never cut.
    pub fn fixed(heading: impl Into<Cow<'static, str>>) -> Self {
        Self::text(heading, usize::MAX)
    }

    /// A column of numbers, which are never cut.
    pub fn number(heading: impl Into<Cow<'static, str>>) -> Self {
        Self {
            heading: heading.into(),
            right: true,
            least: usize::MAX,
        }
    }
}

/// A cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its colour.
    pub role: Role,
    /// Its text.
    pub text: String,
}

impl Cell {
    /// A plain cell.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::of(Role::Plain, text)
    }

    /// A cell of a role.
    pub fn of(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            text: text.into(),
        }
    }
}

/// A table: headings (the first is its name) and rows.
#[derive(Debug)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows.
    pub rows: Vec<Vec<Cell>>,
    /// A line below it.
    pub note: Option<String>,
}

/// How many columns from the left have the same width in all tables that stand together; tables with equally many
/// columns share all.
const ALIGNED: usize = 2;

/// Writes tables beneath one another with their first columns aligned; rows are indented by two. Returns where the
/// second column begins.
pub fn write(page: &mut Page, mut tables: Vec<Table>) -> usize {
    let mut widths: Vec<Vec<usize>> = Vec::new();
    for table in &mut tables {
        for row in &mut table.rows {
            for (i, cell) in row.iter_mut().enumerate() {
                let text = page.shown(&cell.text);
                cell.text = if i == 0 { format!("  {text}") } else { text };
            }
        }
        let mut own: Vec<usize> = table.columns.iter().map(|c| clean::width(&c.heading)).collect();
        for row in &table.rows {
            for (width, cell) in own.iter_mut().zip(row) {
                *width = (*width).max(clean::width(&cell.text));
            }
        }
        shrink(&table.columns, &mut own, page.width());
        widths.push(own);
    }
    let second = widths.iter().filter_map(|own| own.first()).max().copied();
    for table in tables {
        let alike = |own: &&Vec<usize>| own.len() == table.columns.len();
        let mut shared: Vec<usize> = (0..table.columns.len())
            .map(|i| {
                let all = widths.iter().filter(|own| i < ALIGNED || alike(own));
                all.filter_map(|own| own.get(i)).max().copied().unwrap_or(0)
            })
            .collect();
        shrink(&table.columns, &mut shared, page.width());
        rows(page, table, &shared);
    }
    second.map_or(0, |width| width + GAP)
}

fn rows(page: &mut Page, table: Table, widths: &[usize]) {
    let columns = &table.columns;
    let headings = columns.iter().zip(widths).enumerate();
    page.row(
        headings
            .map(|(i, (column, width))| {
                let role = if i == 0 { Role::Strong } else { Role::Dim };
                piece(role, set(&column.heading, *width, column.right, i == 0))
            })
            .collect(),
    );
    for row in table.rows {
        let cells = row.into_iter().zip(columns).zip(widths).enumerate();
        page.row(
            cells
                .map(|(i, ((cell, column), width))| {
                    let text = clean::elide(&cell.text, *width);
                    piece(cell.role, set(&text, *width, column.right, i == 0))
                })
                .collect(),
        );
    }
    if let Some(note) = table.note {
        page.row(vec![piece(Role::Dim, format!("  {note}"))]);
    }
}

/// `text` in `width` columns, after the gap to the column before.
fn set(text: &str, width: usize, right: bool, first: bool) -> String {
    let pad = " ".repeat(width.saturating_sub(clean::width(text)));
    let gap = if first { 0 } else { GAP };
    let gap = " ".repeat(gap);
    if right {
        format!("{gap}{pad}{text}")
    } else {
        format!("{gap}{text}{pad}")
    }
}

/// Takes from the widest column that may still shrink, one step at a time, until all fits `page`.
fn shrink(columns: &[Column], widths: &mut [usize], page: usize) {
    loop {
        let total: usize = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        if total <= page {
            return;
        }
        let widest = widths
            .iter_mut()
            .zip(columns)
            .filter(|(width, column)| **width > column.least)
            .max_by_key(|(width, _)| **width);
        match widest {
            Some((width, _)) => *width -= 1,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Options;

    fn two_tables(width: usize) -> String {
        let mut page = Page::new(Options {
            width,
            ..Options::default()
        });
        let peers = Table {
            columns: vec![
                Column::text("Peers", 5),
                Column::text("at", 6),
                Column::number("n"),
            ],
            rows: vec![
                vec![
                    Cell::plain("wg0"),
                    Cell::plain("[2001:db8::1:2:3]:51820"),
                    Cell::plain("12,345"),
                ],
                vec![Cell::plain("a"), Cell::plain("b"), Cell::plain("7")],
            ],
            note: None,
        };
        let ports = Table {
            columns: vec![
                Column::text("Ports", 5),
                Column::text("to", 6),
                Column::fixed("x"),
            ],
            rows: vec![vec![Cell::plain("node 8"), Cell::plain("c"), Cell::plain("d")]],
            note: Some("and 3 more".to_owned()),
        };
        write(&mut page, vec![peers, ports]);
        let mut out = Vec::new();
        page.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_share_their_first_columns() {
        assert_eq!(
            two_tables(60),
            "Peers     at                            n\n\
             \x20 wg0     [2001:db8::1:2:3]:51820  12,345\n\
             \x20 a       b                             7\n\
             Ports     to                       x\n\
             \x20 node 8  c                        d\n\
             \x20 and 3 more\n"
        );
    }

    #[test]
    fn the_widest_column_gives_way_and_numbers_do_not() {
        assert_eq!(two_tables(24).lines().nth(1).unwrap(), "  wg0    [20…820  12,345");
    }
}

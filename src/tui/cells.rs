//! Columns and cells: what is shown, how, and what it is sorted by.

use super::Tone;
use crate::output::{clean, human};
use crate::report::SnatRow;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// Numbers stand at the right.
    pub number: bool,
    /// It may be cut to so many columns; one that may not is as wide as its widest cell.
    pub least: Option<usize>,
    /// It is read from its beginning: cut at its end, and before anything else.
    pub prose: bool,
    /// Where there is no room the highest goes first; 0 stays.
    pub rank: u8,
}

pub(super) const fn text(name: &'static str, least: usize, rank: u8) -> Column {
    Column {
        name,
        number: false,
        least: Some(least),
        prose: false,
        rank,
    }
}

pub(super) const fn prose(name: &'static str, least: usize, rank: u8) -> Column {
    Column {
        prose: true,
        ..text(name, least, rank)
    }
}

pub(super) const fn number(name: &'static str, rank: u8) -> Column {
    Column {
        name,
        number: true,
        least: None,
        prose: false,
        rank,
    }
}

pub(super) const fn word(name: &'static str, rank: u8) -> Column {
    Column {
        name,
        number: false,
        least: None,
        prose: false,
        rank,
    }
}

/// What a cell is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// Not known: last, whichever way.
    Nothing,
    /// A number.
    Number(f64),
    /// Text, capitals and small letters alike.
    Text(String),
}

/// A cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// What is shown.
    pub text: String,
    /// How.
    pub tone: Tone,
    /// What it is sorted by.
    pub by: By,
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        let text = clean::line(&text.into());
        Self {
            by: By::Text(text.to_lowercase()),
            text,
            tone: Tone::Plain,
        }
    }

    pub(super) fn shown(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    pub(super) fn rank(self, rank: f64) -> Self {
        Self {
            by: By::Number(rank),
            ..self
        }
    }

    pub(super) fn number(value: f64, text: String) -> Self {
        Self {
            text,
            tone: Tone::Plain,
            by: By::Number(value),
        }
    }

    pub(super) fn count(n: u64) -> Self {
        #[allow(clippy::cast_precision_loss)] // to sort by
        let value = n as f64;
        Self::number(value, human::count(n))
    }

    pub(super) fn unknown() -> Self {
        Self {
            text: "–".to_owned(),
            tone: Tone::Dim,
            by: By::Nothing,
        }
    }

    pub(super) fn maybe(n: Option<u64>) -> Self {
        n.map_or_else(Self::unknown, Self::count)
    }

    pub(super) fn share(part: u64, whole: Option<u64>) -> Self {
        match whole.filter(|w| *w > 0) {
            Some(whole) => {
                #[allow(clippy::cast_precision_loss)] // to sort by
                let value = part as f64 / whole as f64;
                let tone = match value {
                    v if v >= 0.9 => Tone::Critical,
                    v if v >= 0.7 => Tone::Warning,
                    _ => Tone::Plain,
                };
                Self::number(value, human::percent(part, whole)).shown(tone)
            }
            None => Self::unknown(),
        }
    }
}

impl Cell {
    /// A process id has no separators.
    pub(super) fn pid(self, pid: u32) -> Self {
        Self {
            text: pid.to_string(),
            ..self
        }
    }

    pub(super) fn of_range(row: &SnatRow) -> Self {
        match row.range {
            Some(range) if row.range_inferred => {
                Self::text(format!("of about {} ports", human::count(range)))
            }
            Some(range) => Self::text(format!("of {} ports", human::count(range))),
            None => Self::unknown(),
        }
    }
}

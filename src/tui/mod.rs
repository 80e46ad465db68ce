//! The live view: tables of what the report holds, one row in detail, findings as they come.
//!
//! In: keys and [`Snapshot`]s. Out: cells on a screen. [`model`] decides what is shown and knows no terminal, [`view`] lays it
//! out; the command reads the keyboard and the clock. Pure.

pub mod cells;
pub mod detail;
pub mod model;
pub mod news;
pub mod table;
pub mod view;

use crate::pooling::Advice;
use crate::report::Report;
use crate::track::sockets::Key as Tuple;

/// What was seen at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// The verdict and the tables.
    pub report: Report,
    /// What would help each of the busiest destinations.
    pub advice: Vec<(Tuple, Advice)>,
    /// A source has not looked yet, or a request is unanswered.
    pub looking: bool,
}

/// A key, as far as it means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // their names
pub enum Key {
    Char(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Tab,
    BackTab,
    /// Ctrl-C.
    Interrupt,
}

/// What a piece of text is; it decides how it is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // their names
pub enum Tone {
    #[default]
    Plain,
    Strong,
    Dim,
    Critical,
    Warning,
    Info,
    Good,
    Code,
}

impl Tone {
    /// Of a severity.
    pub const fn of(severity: crate::finding::Severity) -> Self {
        match severity {
            crate::finding::Severity::Critical => Self::Critical,
            crate::finding::Severity::Warning => Self::Warning,
            crate::finding::Severity::Info => Self::Info,
        }
    }
}

#[cfg(test)]
mod testing;

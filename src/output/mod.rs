//! From a [`Report`] to bytes: for a person, a ticket or a program.
//!
//! In: a [`Report`] and [`Options`]. Out: text, JSON, Markdown, HTML or a status line, written to any [`Write`]. Pure: no clock is read (ages
//! are told as of [`Report::generated_at`]) and nothing is asked of the terminal; the command does that and says so
//! in [`Options`].

pub mod catalogue;
pub mod changes;
pub mod clean;
pub mod evidence;
pub mod explain;
pub mod html;
pub mod human;
pub mod json;
pub mod markdown;
pub mod nagios;
pub mod prometheus;
pub mod slack;
pub mod text;
pub mod unseen;

use std::io::{self, Write};

use crate::finding::Finding;
use crate::report::Report;

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For a person at a terminal.
    #[default]
    Text,
    /// For a program: `wgnat.report/1`.
    Json,
    /// For a ticket.
    Markdown,
    /// One self-contained page.
    Html,
    /// One status line with performance data.
    Nagios,
}

/// What the place of the output can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether to colour (ANSI escape sequences). Text only.
    pub color: bool,
    /// Columns of the terminal; kept between [`text::MIN_WIDTH`] and [`text::MAX_WIDTH`]. Text only.
    pub width: usize,
    /// Whether anything but ASCII can be shown. Text only.
    pub unicode: bool,
}

impl Default for Options {
    /// 80 columns of Unicode without colour.
    fn default() -> Self {
        Self {
            color: false,
            width: 80,
            unicode: true,
        }
    }
}

/// Writes `report` as `format`.
pub fn render(report: &Report, format: Format, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Text => text::render(report, options, out),
        Format::Json => json::render(report, out),
        Format::Markdown => markdown::render(report, out),
        Format::Html => html::render(report, out),
        Format::Nagios => nagios::render(report, out),
    }
}

/// What happens, why, and what that does to traffic, as one text. A rule may have said the latter already.
pub(crate) fn told(finding: &Finding) -> String {
    let mut text = finding.summary.trim().to_owned();
    let impact = finding.impact.trim();
    if text.contains(impact) {
        return text;
    }
    if !text.is_empty() {
        if !text.ends_with(['.', '!', '?', ':']) {
            text.push('.');
        }
        text.push(' ');
    }
    text.push_str(impact);
    text
}

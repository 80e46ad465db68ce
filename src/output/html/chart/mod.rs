//! Numbers over time as pictures: inline SVG without script, that a screen reader can tell and a printer can print.
//!
//! In: series as history keeps them ([`Point`]s; where they are missing there is a gap). Out: one `<svg>` as text: a line
//! with its least-greatest band, a limit, a forecast, marks ([`Plot`]); or rows of states and marks ([`Timeline`]). Pure.
//! Every picture has `role="img"`, a title, and a description that tells in words what the lines tell; what differs, differs
//! by shape or dash too, and not by colour alone. Colours come from `chart.css` by the page's variables; without it
//! `currentColor` draws. No inline style, so a strict Content-Security-Policy holds. Bounds: [`POINTS`] of a line,
//! [`LINES`], [`MARKS`], [`ROWS`], [`SPANS`].

mod data;
mod plot;
mod scale;
#[cfg(test)]
mod tests;
mod timeline;

pub use data::Point;
pub use plot::{Forecast, Limit, Line, Mark, Plot};
pub use scale::{Times, Unit};
pub use timeline::{Row, Shape, Span, State, Timeline};

/// The style of the pictures, for a page's own `<style>`.
pub const STYLE: &str = include_str!("chart.css");

/// Points drawn of one line; more are drawn together by neighbours.
pub const POINTS: usize = 240;
/// Lines of one plot; further ones are not drawn, and that is said.
pub const LINES: usize = 4;
/// Marks of one plot or of one timeline's row; further ones are not drawn, and that is said.
pub const MARKS: usize = 60;
/// Rows of one timeline; further ones are not drawn, and that is said.
pub const ROWS: usize = 20;
/// Spans of one timeline's row, the newest.
pub const SPANS: usize = 120;

/// Width of every picture in its own units; text is 12 of them high, so it should be shown about as wide in pixels.
const WIDTH: f64 = 400.0;

/// A coordinate: a tenth of a unit is finer than any screen shows.
fn at(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0")
        .map_or_else(|| text.clone(), ToOwned::to_owned)
}

/// An `id` of letters, digits, `-` and `_` only, whatever was given.
fn identifier(text: &str) -> String {
    let kept: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '-'
            }
        })
        .take(80)
        .collect();
    if kept.starts_with(|c: char| c.is_ascii_alphabetic()) {
        kept
    } else {
        format!("c{kept}")
    }
}

/// `text` within `most` characters, with an ellipsis where it was cut.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

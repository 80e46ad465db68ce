//! Rows of states and marks over time: when a peer had a session, when it shook hands, when its endpoint changed.

use std::fmt::Write as _;

use super::plot::{share, times_axis};
use super::scale::Times;
use super::{MARKS, Mark, ROWS, SPANS, WIDTH, at, cut, identifier};
use crate::output::html::escape;

const LEFT: f64 = 8.0;
const RIGHT: f64 = WIDTH - 12.0;
/// A row's name stands above its bar.
const ROW: f64 = 42.0;
const BAR_AT: f64 = 20.0;
const BAR: f64 = 14.0;
/// Below the rows: times, and the legend.
const BELOW: f64 = 60.0;

/// How it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be: a full bar.
    Good,
    /// Not: a thin line at the bottom.
    Bad,
}

/// A state over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From when, in seconds since 1970.
    pub from: i64,
    /// Until when.
    pub to: i64,
    /// How it was.
    pub state: State,
}

/// What a mark looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A stroke: what happens as it should.
    Tick,
    /// A cross: what failed.
    Cross,
    /// A diamond: a change.
    Diamond,
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Whose it is.
    pub name: &'a str,
    /// States; where there is none it is not known.
    pub spans: Vec<Span>,
    /// What happened.
    pub marks: Vec<(Shape, Mark<'a>)>,
}

/// A picture of rows.
#[derive(Clone, Debug)]
pub struct Timeline<'a> {
    /// Unique in its page.
    pub id: &'a str,
    /// What it shows.
    pub title: &'a str,
    /// How times are written.
    pub times: Times,
    /// From when, in seconds since 1970.
    pub from: i64,
    /// Until when.
    pub to: i64,
    /// What the two states are called.
    pub states: [(State, &'a str); 2],
    /// What the shapes are called, in the order of the legend.
    pub shapes: [(Shape, &'a str); 3],
    /// The rows.
    pub rows: Vec<Row<'a>>,
}

impl Timeline<'_> {
    /// The picture.
    pub fn svg(&self) -> String {
        let rows: Vec<&Row<'_>> = self.rows.iter().take(ROWS).collect();
        #[allow(clippy::cast_precision_loss)] // twenty at most
        let bottom = 4.0 + ROW * rows.len() as f64;
        let id = identifier(self.id);
        let mut svg = format!(
            "<svg class=\"chart\" id=\"{id}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" fill=\"none\" \
             font-size=\"12\">\n<title id=\"{id}-t\">{}</title>\n<desc id=\"{id}-d\">{}</desc>\n",
            at(WIDTH),
            at(bottom + BELOW),
            escape(self.title),
            escape(&self.description(&rows))
        );
        let mut top = 4.0;
        for row in rows {
            self.row(row, top, &mut svg);
            top += ROW;
        }
        let to = self.to.max(self.from.saturating_add(1));
        times_axis(self.times, self.from, to, (LEFT, RIGHT), bottom, &mut svg);
        self.legend(bottom + BELOW - 10.0, &mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn x(&self, when: i64) -> f64 {
        LEFT + (RIGHT - LEFT) * share(self.from, self.to, when)
    }

    fn row(&self, row: &Row<'_>, top: f64, svg: &mut String) {
        let _ = writeln!(
            svg,
            "<text class=\"name\" x=\"{}\" y=\"{}\" fill=\"currentColor\">{}</text>",
            at(LEFT),
            at(top + 14.0),
            escape(&cut(row.name, 52))
        );
        let bar = top + BAR_AT;
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{} {}H{}\" stroke=\"currentColor\" stroke-opacity=\".35\"/>",
            at(LEFT),
            at(bar + BAR),
            at(RIGHT)
        );
        for span in self.shown_spans(row) {
            let (from, to) = (self.x(span.from), self.x(span.to));
            let (class, y, height, opacity) = match span.state {
                State::Good => ("good", bar, BAR, ".35"),
                State::Bad => ("bad", bar + BAR - 4.0, 4.0, "1"),
            };
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"currentColor\" \
                 fill-opacity=\"{opacity}\"/>",
                at(from),
                at(y),
                at((to - from).max(1.0)),
                at(height)
            );
        }
        for (shape, mark) in self.shown_marks(row) {
            let words = format!("{}: {}", self.times.words(mark.at), mark.label);
            let _ = write!(svg, "<g><title>{}</title>", escape(&words));
            draw(*shape, self.x(mark.at), bar + BAR / 2.0, svg);
            svg.push_str("</g>\n");
        }
    }

    fn shown_spans<'r>(&self, row: &'r Row<'_>) -> impl Iterator<Item = &'r Span> {
        let (from, to) = (self.from, self.to);
        let skipped = row.spans.len().saturating_sub(SPANS);
        row.spans
            .iter()
            .skip(skipped)
            .filter(move |span| span.from <= span.to && span.to >= from && span.from <= to)
    }

    /// The newest that fit, in order.
    fn shown_marks<'r>(&self, row: &'r Row<'_>) -> Vec<&'r (Shape, Mark<'r>)> {
        let mut marks: Vec<_> = row
            .marks
            .iter()
            .filter(|(_, mark)| (self.from..=self.to).contains(&mark.at))
            .collect();
        marks.sort_by_key(|(_, mark)| mark.at);
        marks.split_off(marks.len().saturating_sub(MARKS))
    }

    fn legend(&self, y: f64, svg: &mut String) {
        let mut x = LEFT;
        // Writes the name beside what stands at `x`, and returns where the next one begins.
        let name = |x: f64, name: &str, svg: &mut String| {
            let name = cut(name, 12);
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" fill=\"currentColor\" font-size=\"11\">{}</text>",
                at(x + 17.0),
                at(y + 4.0),
                escape(&name)
            );
            // A letter is about six units wide.
            #[allow(clippy::cast_precision_loss)] // twelve at most
            let letters = name.chars().count() as f64;
            x + 24.0 + letters * 6.2
        };
        for (state, text) in self.states {
            let (class, top, height, opacity) = match state {
                State::Good => ("good", y - 6.0, 12.0, ".35"),
                State::Bad => ("bad", y + 2.0, 4.0, "1"),
            };
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"12\" height=\"{}\" fill=\"currentColor\" \
                 fill-opacity=\"{opacity}\"/>",
                at(x),
                at(top),
                at(height)
            );
            x = name(x, text, svg);
        }
        for (shape, text) in self.shapes {
            draw(shape, x + 6.0, y, svg);
            x = name(x, text, svg);
        }
    }

    /// What the picture shows, in words.
    fn description(&self, rows: &[&Row<'_>]) -> String {
        let time = |when| self.times.words(when);
        let mut text = format!("From {} to {}.", time(self.from), time(self.to));
        for row in rows {
            let mut parts = Vec::new();
            for (state, name) in self.states {
                let times = self.shown_spans(row).filter(|span| span.state == state).count();
                if times > 0 {
                    parts.push(format!(
                        "{name} in {}",
                        crate::words::counted(times as u64, "stretch", "stretches")
                    ));
                }
            }
            for (shape, name) in self.shapes {
                let marks = self.shown_marks(row);
                let mut own = marks.iter().filter(|(own, _)| *own == shape);
                if let Some((_, last)) = own.next_back() {
                    parts.push(format!("{name}: {}, the last {}", own.count() + 1, time(last.at)));
                }
            }
            let told = if parts.is_empty() {
                "nothing known".to_owned()
            } else {
                parts.join("; ")
            };
            let _ = write!(text, " {}: {told}.", row.name);
        }
        let more = self.rows.len().saturating_sub(rows.len());
        if more > 0 {
            let _ = write!(text, " {more} more rows are not drawn.");
        }
        text
    }
}

fn draw(shape: Shape, x: f64, y: f64, svg: &mut String) {
    let _ = match shape {
        Shape::Tick => write!(
            svg,
            "<path class=\"tick\" d=\"M{} {}v12\" stroke=\"currentColor\" stroke-width=\"1.5\"/>",
            at(x),
            at(y - 6.0)
        ),
        Shape::Cross => write!(
            svg,
            "<path class=\"cross\" d=\"M{l} {t}L{r} {b}M{l} {b}L{r} {t}\" stroke=\"currentColor\" stroke-width=\"2\"/>",
            l = at(x - 4.0),
            r = at(x + 4.0),
            t = at(y - 4.0),
            b = at(y + 4.0)
        ),
        Shape::Diamond => write!(
            svg,
            "<path class=\"diamond\" d=\"M{x} {}L{} {y}L{x} {}L{} {y}Z\" fill=\"currentColor\"/>",
            at(y - 6.0),
            at(x + 5.0),
            at(y + 6.0),
            at(x - 5.0),
            x = at(x),
            y = at(y)
        ),
    };
}

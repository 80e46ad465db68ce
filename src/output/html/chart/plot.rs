//! A line over time, with its band, its limit, where it is going, and what happened meanwhile.

use std::fmt::Write as _;

use super::data::{Point, runs};
use super::scale::{Times, Unit, Values};
use super::{LINES, MARKS, WIDTH, at, cut, identifier};
use crate::output::html::escape;

/// Edges of the field that lines are drawn in.
const LEFT: f64 = 46.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 146.0;
/// Below it: times, and the legend where there is one.
const HEIGHT: f64 = 182.0;
const LEGEND: f64 = 18.0;

/// A limit this many times higher than all values is told in words: drawn, it would press them flat.
const FAR: f64 = 6.0;

/// The most that the future takes of the width, as a share of the past.
const AHEAD: f64 = 0.5;

/// A line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// What it is.
    pub name: &'a str,
    /// Its points in any order; where some are missing there is a gap.
    pub points: &'a [Point],
}

/// What the values must stay below.
#[derive(Clone, Copy, Debug)]
pub struct Limit<'a> {
    /// What it is: `limit`, `usable ports`.
    pub name: &'a str,
    /// How much.
    pub value: f64,
}

/// Where it is going: a straight line from now to the moment when it is full.
#[derive(Clone, Copy, Debug)]
pub struct Forecast {
    /// From when, in seconds since 1970.
    pub from: i64,
    /// The value then.
    pub value: f64,
    /// What it reaches.
    pub reaches: f64,
    /// When, in seconds since 1970.
    pub full: i64,
    /// The soonest that the pace allows.
    pub soonest: i64,
    /// The latest.
    pub latest: i64,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Mark<'a> {
    /// When, in seconds since 1970.
    pub at: i64,
    /// What.
    pub label: std::borrow::Cow<'a, str>,
}

/// A picture of lines.
#[derive(Clone, Debug)]
pub struct Plot<'a> {
    /// Unique in its page.
    pub id: &'a str,
    /// What it shows.
    pub title: &'a str,
    /// What the values are.
    pub unit: Unit,
    /// How times are written.
    pub times: Times,
    /// From when, in seconds since 1970.
    pub from: i64,
    /// Until when.
    pub to: i64,
    /// Seconds between points; 0 to take it from them. Points three times as far apart have a gap between them.
    pub step: i64,
    /// The lines; with one alone, its least-greatest band is drawn.
    pub lines: Vec<Line<'a>>,
    /// The limit.
    pub limit: Option<Limit<'a>>,
    /// The forecast.
    pub forecast: Option<Forecast>,
    /// Events.
    pub marks: Vec<Mark<'a>>,
}

/// One line, ready to be drawn.
struct Drawn<'a> {
    name: &'a str,
    runs: Vec<Vec<Point>>,
}

impl Drawn<'_> {
    fn points(&self) -> impl Iterator<Item = &Point> {
        self.runs.iter().flatten()
    }
}

/// Where things are in the picture.
struct Field {
    values: Values,
    from: i64,
    to: i64,
}

impl Field {
    fn x(&self, when: i64) -> f64 {
        LEFT + (RIGHT - LEFT) * share(self.from, self.to, when)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * self.values.share(value)
    }
}

/// Where `when` lies between `from` (0) and `to` (1).
#[allow(clippy::cast_precision_loss)] // a share of the width
pub(super) fn share(from: i64, to: i64, when: i64) -> f64 {
    let span = to.saturating_sub(from).max(1) as f64;
    (when.saturating_sub(from) as f64 / span).clamp(0.0, 1.0)
}

impl Plot<'_> {
    /// The picture with its title above it.
    pub fn figure(&self) -> String {
        format!(
            "<figure class=\"plot\">\n<figcaption>{}</figcaption>\n{}</figure>\n",
            escape(self.title),
            self.svg()
        )
    }

    /// The picture.
    pub fn svg(&self) -> String {
        let lines: Vec<Drawn<'_>> = self
            .lines
            .iter()
            .take(LINES)
            .map(|line| Drawn {
                name: line.name,
                runs: runs(line.points, self.from, self.to, self.step),
            })
            .collect();
        let forecast = self.forecast.filter(sound);
        let field = self.field(&lines, forecast);
        let legend = self.legend(&lines, forecast.is_some());
        let height = HEIGHT + if legend.is_empty() { 0.0 } else { LEGEND };
        let id = identifier(self.id);
        let mut svg = format!(
            "<svg class=\"chart\" id=\"{id}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\" fill=\"none\" \
             font-size=\"12\">\n<title id=\"{id}-t\">{}</title>\n<desc id=\"{id}-d\">{}</desc>\n",
            at(WIDTH),
            at(height),
            escape(self.title),
            escape(&self.description(&lines, forecast))
        );
        self.axes(&field, &mut svg);
        if lines.iter().all(|line| line.runs.is_empty()) {
            let (x, y) = (LEFT.midpoint(RIGHT), TOP.midpoint(BOTTOM));
            let _ = writeln!(
                svg,
                "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"currentColor\">no points in this time</text>",
                at(x),
                at(y)
            );
        }
        self.draw_limit(&field, &mut svg);
        if let Some(forecast) = forecast {
            draw_forecast(&field, forecast, &mut svg);
        }
        for (line, number) in lines.iter().zip(1..) {
            draw_line(&field, line, number, lines.len() == 1, &mut svg);
        }
        self.draw_marks(&field, &mut svg);
        svg.push_str(&legend);
        svg.push_str("</svg>\n");
        svg
    }

    fn field(&self, lines: &[Drawn<'_>], forecast: Option<Forecast>) -> Field {
        let all = || lines.iter().flat_map(Drawn::points);
        let mut least = all().map(|p| p.2).fold(0.0, f64::min);
        let mut greatest = all().map(|p| p.3).fold(0.0, f64::max);
        if let Some(limit) = self.limit_drawn(greatest, forecast) {
            greatest = greatest.max(limit);
            least = least.min(limit);
        }
        let mut to = self.to.max(self.from.saturating_add(1));
        if let Some(forecast) = forecast {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // a share of the width
            let ahead = (to.saturating_sub(self.from) as f64 * AHEAD) as i64;
            to = forecast.latest.clamp(to, to.saturating_add(ahead.max(1)));
        }
        Field {
            values: Values::of(least, greatest, self.unit),
            from: self.from,
            to,
        }
    }

    /// The limit, where it is not so far above everything that it would press the lines flat.
    fn limit_drawn(&self, greatest: f64, forecast: Option<Forecast>) -> Option<f64> {
        let limit = self
            .limit
            .map(|limit| limit.value)
            .filter(|v| v.is_finite() && v.abs() <= 1e15)?;
        (limit <= greatest * FAR || forecast.is_some()).then_some(limit)
    }

    fn axes(&self, field: &Field, svg: &mut String) {
        let _ = writeln!(
            svg,
            "<text x=\"2\" y=\"12\" fill=\"currentColor\">{}</text>",
            escape(&self.unit.name())
        );
        for value in field.values.ticks() {
            let y = field.y(value);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{} {y}H{}\" stroke=\"currentColor\" stroke-opacity=\".35\"/>\
                 <text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"currentColor\">{}</text>",
                at(LEFT),
                at(RIGHT),
                at(LEFT - 5.0),
                at(y + 4.0),
                escape(&self.unit.short(value)),
                y = at(y)
            );
        }
        times_axis(self.times, field.from, field.to, (LEFT, RIGHT), BOTTOM, svg);
    }

    fn draw_limit(&self, field: &Field, svg: &mut String) {
        let Some(limit) = self.limit.filter(|limit| limit.value.is_finite()) else {
            return;
        };
        let words = format!("{} {}", cut(limit.name, 20), self.unit.short(limit.value));
        let inside = limit.value <= field.values.high && limit.value >= field.values.low;
        if inside {
            let _ = writeln!(
                svg,
                "<path class=\"limit\" d=\"M{} {y}H{}\" stroke=\"currentColor\" stroke-width=\"1.5\" stroke-dasharray=\"8 3\"/>",
                at(LEFT),
                at(RIGHT),
                y = at(field.y(limit.value))
            );
        }
        let above = if inside { "" } else { ", far above" };
        let _ = writeln!(
            svg,
            "<text class=\"over\" x=\"{}\" y=\"12\" text-anchor=\"end\" fill=\"currentColor\">{}{above}</text>",
            at(RIGHT),
            escape(&words)
        );
    }

    fn draw_marks(&self, field: &Field, svg: &mut String) {
        let mut last = f64::NEG_INFINITY;
        for mark in self.shown_marks() {
            let x = field.x(mark.at);
            let _ = write!(
                svg,
                "<g><title>{}</title>",
                escape(&format!("{}: {}", self.times.words(mark.at), mark.label))
            );
            // Marks on top of each other are one mark.
            if x - last >= 3.0 {
                last = x;
                let _ = write!(
                    svg,
                    "<path class=\"mark\" d=\"M{x} {}V{}\" stroke=\"currentColor\" stroke-dasharray=\"1 3\"/>\
                     <path class=\"flag\" d=\"M{x} {}L{} {}H{}Z\" fill=\"currentColor\"/>",
                    at(TOP),
                    at(BOTTOM),
                    at(TOP),
                    at(x - 4.0),
                    at(TOP - 7.0),
                    at(x + 4.0),
                    x = at(x)
                );
            }
            svg.push_str("</g>\n");
        }
    }

    /// The newest that fit, in order.
    fn shown_marks(&self) -> Vec<&Mark<'_>> {
        let mut marks: Vec<_> = self
            .marks
            .iter()
            .filter(|mark| (self.from..=self.to).contains(&mark.at))
            .collect();
        marks.sort_by_key(|mark| mark.at);
        marks.split_off(marks.len().saturating_sub(MARKS))
    }

    /// What tells lines apart, where there is more than one thing to tell.
    fn legend(&self, lines: &[Drawn<'_>], forecast: bool) -> String {
        let mut entries: Vec<(String, &str, &str)> = Vec::new();
        if lines.len() > 1 || forecast {
            for (line, number) in lines.iter().zip(1..) {
                entries.push((format!("l{number}"), dash(number), line.name));
            }
        }
        if forecast {
            entries.push(("future".to_owned(), "3 3", "forecast"));
        }
        let mut svg = String::new();
        #[allow(clippy::cast_precision_loss)] // five at most
        let each = (RIGHT - 4.0) / entries.len().max(1) as f64;
        // A letter is about seven units wide.
        let letters = crate::words::whole32((each - 30.0) / 6.5) as usize;
        let mut x = 4.0;
        for (class, dash, name) in &entries {
            let _ = writeln!(
                svg,
                "<path class=\"{class}\" d=\"M{} {}h20\" stroke=\"currentColor\" stroke-width=\"2\"{dash}/>\
                 <text x=\"{}\" y=\"{}\" fill=\"currentColor\">{}</text>",
                at(x),
                at(HEIGHT + 6.0),
                at(x + 25.0),
                at(HEIGHT + 10.0),
                escape(&cut(name, letters)),
                dash = dashes(dash)
            );
            x += each;
        }
        svg
    }

    /// What the picture shows, in words.
    fn description(&self, lines: &[Drawn<'_>], forecast: Option<Forecast>) -> String {
        let time = |when| self.times.words(when);
        let mut text = format!("From {} to {}.", time(self.from), time(self.to));
        for line in lines {
            let least = line.points().map(|p| p.2).fold(f64::INFINITY, f64::min);
            let greatest = line.points().map(|p| p.3).fold(f64::NEG_INFINITY, f64::max);
            let _ = match line.points().last() {
                None => write!(text, " {}: no points.", line.name),
                Some(last) => write!(
                    text,
                    " {}: between {} and {}, last {} ({}){}.",
                    line.name,
                    self.unit.words(least),
                    self.unit.words(greatest),
                    self.unit.words(last.1),
                    time(last.0),
                    match line.runs.len() {
                        0 | 1 => String::new(),
                        2 => ", with a gap".to_owned(),
                        n => format!(", with {} gaps", n - 1),
                    }
                ),
            };
        }
        if self.lines.len() > lines.len() {
            let _ = write!(
                text,
                " {} more lines are not drawn.",
                self.lines.len() - lines.len()
            );
        }
        if let Some(limit) = self.limit.filter(|limit| limit.value.is_finite()) {
            let _ = write!(text, " {}: {}.", limit.name, self.unit.words(limit.value));
        }
        if let Some(f) = forecast {
            let in_time = |when: i64| {
                #[allow(clippy::cast_precision_loss)] // days, not aeons
                crate::words::seconds(when.saturating_sub(f.from).max(0) as f64)
            };
            let _ = write!(
                text,
                " Forecast at the present pace: {} in {} ({} to {}).",
                self.unit.words(f.reaches),
                in_time(f.full),
                in_time(f.soonest),
                in_time(f.latest)
            );
        }
        let marks = self.shown_marks();
        if !marks.is_empty() {
            let told: Vec<String> = marks
                .iter()
                .rev()
                .take(5)
                .map(|mark| format!("{} ({})", mark.label, time(mark.at)))
                .collect();
            let more = marks.len().saturating_sub(told.len());
            let and = if more > 0 {
                format!(", and {more} more")
            } else {
                String::new()
            };
            let _ = write!(text, " Marked: {}{and}.", told.join("; "));
        }
        text
    }
}

/// Whether a forecast can be drawn.
fn sound(forecast: &Forecast) -> bool {
    forecast.value.is_finite()
        && forecast.reaches.is_finite()
        && forecast.value.abs() <= 1e15
        && forecast.reaches.abs() <= 1e15
        && forecast.from < forecast.full
        && (forecast.from..=forecast.full).contains(&forecast.soonest)
        && forecast.latest >= forecast.full
}

const fn dash(number: usize) -> &'static str {
    match number {
        2 => "6 3",
        3 => "2 3",
        4 => "9 3 2 3",
        _ => "",
    }
}

fn dashes(dash: &str) -> String {
    match dash {
        "" => String::new(),
        dash => format!(" stroke-dasharray=\"{dash}\""),
    }
}

/// Times below a field from `left` to `right`, whose lower edge is at `y`.
pub(super) fn times_axis(
    times: Times,
    from: i64,
    to: i64,
    (left, right): (f64, f64),
    y: f64,
    svg: &mut String,
) {
    let _ = writeln!(
        svg,
        "<path class=\"axis\" d=\"M{} {}H{}\" stroke=\"currentColor\"/>",
        at(left),
        at(y),
        at(right)
    );
    let span = to.saturating_sub(from);
    for when in times.ticks(from, to, 4) {
        let x = left + (right - left) * share(from, to, when);
        // A label at an edge stays inside.
        let anchor = if x > right - 24.0 {
            "end"
        } else if x < left + 24.0 {
            "start"
        } else {
            "middle"
        };
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{} {}v4\" stroke=\"currentColor\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"currentColor\">{}</text>",
            at(x),
            at(y),
            at(x),
            at(y + 17.0),
            escape(&times.short(when, span))
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"currentColor\">{}</text>",
        at(left.midpoint(right)),
        at(y + 32.0),
        times.name()
    );
}

fn draw_line(field: &Field, line: &Drawn<'_>, number: usize, band: bool, svg: &mut String) {
    for run in &line.runs {
        let place = |when: i64, value: f64| format!("{} {}", at(field.x(when)), at(field.y(value)));
        if let [only] = run.as_slice() {
            let _ = writeln!(
                svg,
                "<circle class=\"d{number}\" cx=\"{}\" cy=\"{}\" r=\"2.5\" fill=\"currentColor\"/>",
                at(field.x(only.0)),
                at(field.y(only.1))
            );
            continue;
        }
        if band && run.iter().any(|p| p.2 < p.3) {
            let upper = run.iter().map(|p| place(p.0, p.3));
            let lower = run.iter().rev().map(|p| place(p.0, p.2));
            let path: Vec<String> = upper.chain(lower).collect();
            let _ = writeln!(
                svg,
                "<path class=\"b{number}\" d=\"M{}Z\" fill=\"currentColor\" fill-opacity=\".22\"/>",
                path.join("L")
            );
        }
        let path: Vec<String> = run.iter().map(|p| place(p.0, p.1)).collect();
        let _ = writeln!(
            svg,
            "<path class=\"l{number}\" d=\"M{}\" stroke=\"currentColor\" stroke-width=\"2\" stroke-linejoin=\"round\"{}/>",
            path.join("L"),
            dashes(dash(number))
        );
    }
}

/// The forecast from its beginning as far as the field goes, between the soonest and the latest.
fn draw_forecast(field: &Field, f: Forecast, svg: &mut String) {
    let start = (field.x(f.from), field.y(f.value));
    let towards = |full: i64| {
        let part = if full <= f.from {
            1.0
        } else {
            share(f.from, full, field.to.max(f.from))
        };
        let end = full.min(field.to).max(f.from);
        (field.x(end), field.y(f.value + (f.reaches - f.value) * part))
    };
    let point = |(x, y): (f64, f64)| format!("{} {}", at(x), at(y));
    let (soonest, full, latest) = (towards(f.soonest), towards(f.full), towards(f.latest));
    let _ = writeln!(
        svg,
        "<path class=\"cone\" d=\"M{}L{}L{}L{}Z\" fill=\"currentColor\" fill-opacity=\".18\"/>\
         <path class=\"future\" d=\"M{}L{}\" stroke=\"currentColor\" stroke-width=\"2\" stroke-dasharray=\"3 3\"/>",
        point(start),
        point(soonest),
        point(full),
        point(latest),
        point(start),
        point(full)
    );
    // Where the past ends.
    let _ = writeln!(
        svg,
        "<path class=\"axis\" d=\"M{} {}V{}\" stroke=\"currentColor\" stroke-dasharray=\"2 2\"/>",
        at(start.0),
        at(TOP),
        at(BOTTOM)
    );
}

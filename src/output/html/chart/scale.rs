//! Axes: round values, round times, and how both are written.

use crate::output::human;
use crate::time::{Span, Timestamp};
use crate::words;

/// What the values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of these: `ports`.
    Count(&'static str),
    /// A number of these in each second: `connections`.
    PerSecond(&'static str),
    /// A share: 1 is all.
    Ratio,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// The axis's name.
    pub fn name(self) -> String {
        match self {
            Self::Count(what) => what.to_owned(),
            Self::PerSecond(what) => format!("{what} per second"),
            Self::Ratio => "percent".to_owned(),
            Self::Seconds => "time".to_owned(),
            Self::Bytes => "bytes".to_owned(),
        }
    }

    /// A value at the axis.
    pub(super) fn short(self, value: f64) -> String {
        match self {
            Self::Count(_) | Self::PerSecond(_) => thousands(value),
            Self::Ratio => format!("{} %", human::float((value * 1000.0).round() / 10.0)),
            Self::Seconds => words::seconds(value.max(0.0)).replace("under 1 ms", "0 s"),
            Self::Bytes => human::bytes_short(words::whole(value)),
        }
    }

    /// A value in a sentence.
    pub(super) fn words(self, value: f64) -> String {
        match self {
            Self::Count(what) => format!("{} {what}", human::float(value)),
            Self::PerSecond(what) => format!("{} {what} per second", human::float(value)),
            Self::Ratio => format!("{} %", human::float((value * 1000.0).round() / 10.0)),
            Self::Seconds => human::seconds(value),
            Self::Bytes => human::bytes(words::whole(value)),
        }
    }

    /// The step between two values at the axis is never less: half a port is none.
    const fn least_step(self) -> f64 {
        match self {
            Self::Count(_) | Self::Bytes => 1.0,
            _ => 0.0,
        }
    }
}

/// `28k`, `1.5M`: a number where room is short.
fn thousands(value: f64) -> String {
    for (size, letter) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if value.abs() >= size {
            let unit = if letter == "k" { 1e3 } else { size };
            let text = format!("{:.1}", value / unit);
            return format!("{}{letter}", text.strip_suffix(".0").unwrap_or(&text));
        }
    }
    human::float(value)
}

/// The values from `least` to at least `greatest`: a round step, the lowest and the highest line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Values {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) step: f64,
}

impl Values {
    /// Both are finite. Zero is always part of it, so that heights can be compared.
    pub(super) fn of(least: f64, greatest: f64, unit: Unit) -> Self {
        let (least, greatest) = (least.min(0.0), greatest.max(0.0));
        let size = greatest - least;
        let size = if size > 0.0 { size } else { 1.0 };
        let rough = (size / 4.0).max(1e-12);
        let power = 10_f64.powf(rough.log10().floor());
        let round = [1.0, 2.0, 2.5, 5.0, 10.0];
        let step = round.into_iter().map(|n| n * power).find(|n| *n >= rough * 0.999);
        let step = step.unwrap_or(power * 10.0).max(unit.least_step());
        let step = if unit.least_step() > 0.0 {
            step.ceil()
        } else {
            step
        };
        let low = (least / step).floor() * step;
        let high = (greatest / step).ceil() * step;
        Self {
            low,
            high: if high > low { high } else { low + step },
            step,
        }
    }

    /// Where the lines are: six at most.
    pub(super) fn ticks(self) -> impl Iterator<Item = f64> {
        (0..=6_u32)
            .map(move |n| self.low + self.step * f64::from(n))
            .take_while(move |value| *value <= self.high + self.step / 2.0)
    }

    /// From 0 at the bottom to 1 at the top.
    pub(super) fn share(self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

/// How times are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As time of day (UTC): for what is read later.
    Utc,
    /// As time before this moment (seconds since 1970): for a page that is live.
    Before(i64),
}

/// Round steps of time in seconds, from 10 s to 4 weeks.
const STEPS: [i64; 18] = [
    10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    1_209_600, 2_419_200,
];

impl Times {
    /// Round times between `from` and `to`, about `most` of them at most.
    pub(super) fn ticks(self, from: i64, to: i64, most: i64) -> Vec<i64> {
        let span = to.saturating_sub(from).max(1);
        let step = STEPS.into_iter().find(|step| span / step <= most.max(1));
        let step = step.unwrap_or_else(|| (span / most.max(1)).max(1));
        let base = match self {
            Self::Utc => 0,
            Self::Before(now) => now,
        };
        let offset = from.saturating_sub(base).rem_euclid(step);
        let first = from.saturating_add((step - offset) % step);
        (0..=most.saturating_add(1))
            .map(|n| first.saturating_add(step.saturating_mul(n)))
            .take_while(|at| *at <= to)
            .collect()
    }

    /// A time at the axis of a picture that spans `span` seconds.
    pub(super) fn short(self, at: i64, span: i64) -> String {
        match self {
            Self::Before(now) if at == now => "now".to_owned(),
            Self::Before(now) if at < now => format!("−{}", length(now.saturating_sub(at))),
            Self::Before(now) => format!("+{}", length(at.saturating_sub(now))),
            Self::Utc => {
                let text = Timestamp::from_secs(at).to_string();
                let part = if span > 2 * 86_400 { 5..10 } else { 11..16 };
                text.get(part).unwrap_or_default().to_owned()
            }
        }
    }

    /// A time in a sentence.
    pub(super) fn words(self, at: i64) -> String {
        match self {
            Self::Before(now) if at >= now => "now".to_owned(),
            Self::Before(now) => format!("{} ago", length(now.saturating_sub(at))),
            Self::Utc => {
                let text = Timestamp::from_secs(at).to_string();
                let (day, time) = (text.get(..10), text.get(11..16));
                format!("{} {} UTC", day.unwrap_or_default(), time.unwrap_or_default())
            }
        }
    }

    /// The axis's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Utc => "time (UTC)",
            Self::Before(_) => "time before now",
        }
    }
}

fn length(secs: i64) -> String {
    let secs = secs.unsigned_abs();
    match secs {
        0..120 => format!("{secs} s"),
        120..7200 => format!("{} min", secs / 60),
        7200..172_800 if secs.is_multiple_of(3600) => format!("{} h", secs / 3600),
        7200..172_800 => human::span(Span::from_secs(secs / 60 * 60)),
        _ => format!("{} days", secs / 86_400),
    }
}

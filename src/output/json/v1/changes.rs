//! What changed since the report before, and the time that a report from history is about, in version 1.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::finding::{Severity, severity};
use super::{Status, status, time};
use crate::report::past::Episode;
use crate::report::{changes as model, period};

/// What changed since the report before. What is folded beneath a cause is told with its cause, and no change of its own.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Changes {
    /// What this report is compared with; null for a first one, in which everything is new.
    pub compared_with: Option<Compared>,
    /// Findings that hold and did not before.
    pub new: Vec<Change>,
    /// Findings that hold as before and are more severe.
    pub worse: Vec<Change>,
    /// Findings that hold as before and are less severe.
    pub better: Vec<Change>,
    /// Findings that held before and do no longer.
    pub gone: Vec<Change>,
    /// Findings that began and were over again since. Only history can tell.
    pub passed: Vec<Change>,
    /// Findings that held before and of which nobody knows: what would tell could not be observed.
    pub unclear: Vec<Change>,
    /// How many findings hold as before.
    pub unchanged: u64,
    /// Changes for which there was no room.
    pub left_out: u64,
}

/// What a report is compared with.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Compared {
    /// `report`: the report before; `history`: what history says held when the period began.
    pub with: &'static str,
    /// Of when that is.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// The verdict then, where it is known.
    pub status: Option<Status>,
}

/// One change.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Change {
    /// The finding's code.
    pub code: String,
    /// How bad it is, or was last.
    pub severity: Severity,
    /// How bad it was before, where that differs.
    pub severity_was: Option<Severity>,
    /// What it is about, as one text that is the same each time.
    pub about: String,
    /// Its title.
    pub title: String,
    /// Since when it holds, or held.
    #[schemars(extend("format" = "date-time"))]
    pub since: String,
    /// When it was over; null where it is not, or where that is not known.
    #[schemars(extend("format" = "date-time"))]
    pub over_at: Option<String>,
}

/// The stretch of time that a report from history is about. `findings` hold at its end. History keeps numbers and findings, no
/// tables: the devices, peers, sockets and conntrack of such a report are empty, and `trends` has their numbers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Period {
    /// From when.
    #[schemars(extend("format" = "date-time"))]
    pub from: String,
    /// Until when.
    #[schemars(extend("format" = "date-time"))]
    pub to: String,
    /// How much of it an agent was running, in seconds.
    pub watched_seconds: f64,
    /// Until when history reaches; null where it holds nothing.
    #[schemars(extend("format" = "date-time"))]
    pub reaches: Option<String>,
    /// Whether history ends too long ago for a verdict about now: then the status is `unknown`.
    pub stale: bool,
    /// When no agent was running: the longest such times.
    pub gaps: Vec<Gap>,
    /// Gaps for which there was no room.
    pub gaps_left_out: u64,
    /// What held when, in the order in which it began.
    pub episodes: Vec<Held>,
    /// Findings that another version of wgnat wrote and this one does not know.
    pub unknown_findings: u64,
    /// How numbers moved.
    pub trends: Vec<Trend>,
}

/// A time that nobody watched.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Gap {
    /// From when.
    #[schemars(extend("format" = "date-time"))]
    pub from: String,
    /// Until when.
    #[schemars(extend("format" = "date-time"))]
    pub to: String,
}

/// One time that a finding held.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Held {
    /// The finding's code.
    pub code: String,
    /// How bad it was at its worst.
    pub severity: Severity,
    /// What it is about, as one text.
    pub about: String,
    /// Its title.
    pub title: String,
    /// From when.
    #[schemars(extend("format" = "date-time"))]
    pub from: String,
    /// Until when it was seen; null where it holds.
    #[schemars(extend("format" = "date-time"))]
    pub to: Option<String>,
    /// Whether another finding explained it, as far as it was last said.
    pub explained: bool,
}

/// How one number moved.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Trend {
    /// The metric, by its name in `/metrics`; of a counter, how fast it rose.
    pub metric: &'static str,
    /// Its labels there.
    pub labels: BTreeMap<String, String>,
    /// `count`, `per_second`, `ratio` (of 1) or `seconds`.
    pub unit: &'static str,
    /// The most that it can be, where that is known.
    pub limit: Option<f64>,
    /// The least value.
    pub least: Option<f64>,
    /// The mean of the points.
    pub mean: Option<f64>,
    /// The greatest value.
    pub greatest: Option<f64>,
    /// The newest value; null where there was none in the last minutes.
    pub last: Option<f64>,
    /// Seconds from one point to the next; where points are missing nobody watched.
    pub step_seconds: i64,
    /// Seconds since 1970, then mean, least and greatest until the next point.
    pub points: Vec<(i64, f64, f64, f64)>,
}

pub(super) fn changes(c: &model::Changes) -> Changes {
    let list = |changes: &[model::Change]| changes.iter().map(change).collect();
    Changes {
        compared_with: c.compared.map(|(with, at)| Compared {
            with: with.name(),
            at: time(at),
            status: c.status_was.map(status),
        }),
        new: list(&c.new),
        worse: list(&c.worse),
        better: list(&c.better),
        gone: list(&c.gone),
        passed: list(&c.passed),
        unclear: list(&c.unclear),
        unchanged: c.unchanged,
        left_out: c.left_out,
    }
}

fn change(c: &model::Change) -> Change {
    Change {
        code: c.known.code.clone(),
        severity: severity(c.known.severity),
        severity_was: c.was.map(severity),
        about: c.known.about.clone(),
        title: c.known.title.clone(),
        since: time(c.known.since),
        over_at: c.over_at.map(time),
    }
}

pub(super) fn period(p: &period::Period) -> Period {
    Period {
        from: time(p.from),
        to: time(p.to),
        watched_seconds: p.watched.as_secs_f64(),
        reaches: p.reaches.map(time),
        stale: p.stale,
        gaps: p
            .gaps
            .iter()
            .map(|(from, to)| Gap {
                from: time(*from),
                to: time(*to),
            })
            .collect(),
        gaps_left_out: p.gaps_left_out,
        episodes: p.episodes.iter().map(held).collect(),
        unknown_findings: p.unknown_codes,
        trends: p.trends.iter().map(trend).collect(),
    }
}

fn held(e: &Episode) -> Held {
    Held {
        code: e.known.code.clone(),
        severity: severity(e.worst()),
        about: e.known.about.clone(),
        title: e.known.title.clone(),
        from: time(e.began),
        to: e.ended.map(time),
        explained: e.known.explained,
    }
}

fn trend(t: &period::Trend) -> Trend {
    Trend {
        metric: t.metric,
        labels: t.labels.iter().cloned().collect(),
        unit: t.unit.name(),
        limit: t.limit,
        least: t.least(),
        mean: t.mean(),
        greatest: t.greatest(),
        last: t.last,
        step_seconds: t.step,
        points: t.points.clone(),
    }
}

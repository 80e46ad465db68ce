//! What the page knows of the time before: series and events, from the history or, without one, of the last hour from memory.
//!
//! In: a [`Snapshot`], which says whose series are wanted; the history or a [`Recent`]. Out: [`Past`], plain data. Only what
//! the page shows is read.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use super::view::View;
use super::{peers, ports, shown};
use crate::agent::shared::{Event, Snapshot};
use crate::output::html::chart::Point;
use crate::store::{self, Reader, SeriesQuery};
use crate::time::{Span, Timestamp};

/// The newest events that are told.
const EVENTS: usize = 30;
/// Points of each series that memory holds: an hour at one in ten seconds.
const POINTS: usize = 360;
/// Series that memory holds; further ones are not kept.
const SERIES: usize = 120;
/// History's least step, which memory keeps to as well, in seconds.
const STEP: i64 = 10;
/// Points that are asked of the history: a week of ten minutes each.
const ASKED: usize = 1100;

/// The pictures show at least so many seconds.
const LEAST: i64 = 300;

/// A series by name and labels.
pub type Key = (&'static str, Vec<(&'static str, String)>);

/// The time before.
#[derive(Debug, Default)]
pub struct Past {
    /// From when, in seconds since 1970.
    pub from: i64,
    /// Until when.
    pub to: i64,
    /// Seconds between points.
    pub step: i64,
    /// Points by series.
    series: BTreeMap<Key, Vec<Point>>,
    /// The newest events, newest first.
    pub events: Vec<(Timestamp, String, Value)>,
    /// Whether a history is kept.
    pub kept: bool,
    /// Why it could not be read.
    pub error: Option<String>,
}

impl Past {
    /// A series' points; none where nothing is known.
    pub fn series(&self, key: &Key) -> &[Point] {
        self.series.get(key).map_or(&[], Vec::as_slice)
    }

    fn bare(snapshot: &Snapshot, view: View) -> Self {
        let to = snapshot.report.generated_at.as_nanos().div_euclid(1_000_000_000);
        Self {
            from: to - view.back.seconds(),
            to,
            step: STEP,
            ..Self::default()
        }
    }

    /// From the history.
    pub fn read(snapshot: &Snapshot, view: View, reader: &Reader) -> Self {
        let mut past = Self::bare(snapshot, view);
        past.kept = true;
        let (from, to) = (Timestamp::from_secs(past.from), Timestamp::from_secs(past.to));
        for key in wanted(snapshot, view) {
            let labels = key.1.iter().map(|(name, value)| format!("{name}={value}"));
            let query = SeriesQuery {
                name: Some(key.0.to_owned()),
                labels: Some(labels.collect::<Vec<_>>().join(",")),
                from,
                to,
                points: ASKED.min(store::POINTS_MAX),
            };
            match reader.series(&query) {
                Ok((step, rows)) => {
                    past.step = step;
                    // With all labels given there is one.
                    if let Some(row) = rows.into_iter().next() {
                        past.series.insert(key, row.points);
                    }
                }
                Err(error) => {
                    past.error = Some(error.to_string());
                    return past;
                }
            }
        }
        match reader.newest_events(from, EVENTS) {
            Ok(rows) => past.events = rows.into_iter().map(|row| (row.at, row.kind, row.data)).collect(),
            Err(error) => past.error = Some(error.to_string()),
        }
        past.cut();
        past
    }

    /// From memory.
    pub fn remembered(snapshot: &Snapshot, view: View, recent: &Recent) -> Self {
        let mut past = Self::bare(snapshot, view);
        for key in wanted(snapshot, view) {
            if let Some(points) = recent.series.get(&key) {
                let points = points.iter().map(|(at, value)| (*at, *value, *value, *value));
                past.series.insert(key, points.collect());
            }
        }
        past.events = recent.events.iter().rev().cloned().collect();
        past.cut();
        past
    }

    /// Begins where the first point is: an agent that began a moment ago has no empty hour to show.
    fn cut(&mut self) {
        let first = self
            .series
            .values()
            .filter_map(|points| points.first())
            .map(|point| point.0)
            .min();
        let latest = self.to - LEAST;
        self.from = first.unwrap_or(latest).clamp(self.from.min(latest), latest);
    }
}

/// The series that the page shows.
fn wanted(snapshot: &Snapshot, view: View) -> Vec<Key> {
    let mut keys = peers::series(snapshot, shown(view));
    keys.extend(ports::series(snapshot, shown(view)));
    keys
}

/// The last hour, for an agent without history: as many points and series as stated, and no more.
#[derive(Debug, Default)]
pub struct Recent {
    series: BTreeMap<Key, VecDeque<(i64, f64)>>,
    events: VecDeque<(Timestamp, String, Value)>,
    next: i64,
}

impl Recent {
    /// Takes the page's numbers of `snapshot` in, once in ten seconds.
    pub fn add(&mut self, snapshot: &Snapshot) {
        let now = snapshot.report.generated_at.as_nanos().div_euclid(1_000_000_000);
        // A clock that was set back begins anew.
        if now < self.next && self.next - now <= STEP {
            return;
        }
        if now < self.next {
            self.series.clear();
        }
        self.next = now - now.rem_euclid(STEP) + STEP;
        let horizon = now - STEP * i64::try_from(POINTS).unwrap_or(i64::MAX);
        self.series
            .retain(|_, points| points.back().is_some_and(|last| last.0 >= horizon));
        let wanted = wanted(snapshot, View::default());
        for family in snapshot.families() {
            for sample in &family.samples {
                if !wanted
                    .iter()
                    .any(|(name, labels)| *name == family.name && *labels == sample.labels)
                {
                    continue;
                }
                let key = (family.name, sample.labels.clone());
                if self.series.len() >= SERIES && !self.series.contains_key(&key) {
                    continue;
                }
                let points = self.series.entry(key).or_default();
                if points.len() >= POINTS {
                    points.pop_front();
                }
                points.push_back((now, sample.value));
            }
        }
    }

    /// Takes what happened in.
    pub fn note(&mut self, event: &Event) {
        // That it was judged again is no news.
        if event.kind == "report" {
            return;
        }
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events
            .push_back((event.at, event.kind.to_owned(), event.data.clone()));
    }
}

/// How far memory reaches.
pub const REMEMBERED: Span = Span::from_secs(3600);

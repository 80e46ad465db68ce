//! A report from the agent's history: what holds at its end, what came and went, how numbers moved. Read-only.

use std::path::Path;

use anyhow::Context as _;
use rusqlite::Connection;
use serde_json::Value;

use crate::agent::ledger;
use crate::config::Settings;
use crate::observation::host::HostFacts;
use crate::observation::{Body, Observation, Source, SourceState, SourceStatus};
use crate::report::changes::{Basis, Before, Ended, Known};
use crate::report::past::{self, Episode, Kept, Note, What};
use crate::report::period::{self, Period};
use crate::report::{self, Report, Status, kept};
use crate::rules::evaluate::Missed;
use crate::rules::{self, Input, NotChecked, evaluate};
use crate::store::{self, EventRow, FindingRow, query};
use crate::time::{Span, Timestamp};
use crate::track::World;

/// Notes on findings that are read: those of the newest ten thousand comings and goings.
const NOTES: usize = 10_000;
/// Notes on how sources fare that are read.
const STATES: usize = 2_000;
/// A pause of a restart is no gap.
const GAP: Span = Span::from_secs(60);
/// Events that a bundle holds.
const EVENTS: usize = 5_000;

/// What was read.
pub struct Past {
    /// The report; its `changes` are not there yet.
    pub report: Report,
    /// What held when the period began: to compare with where no report is remembered.
    pub at_start: Before,
    /// What was over by the end.
    pub ended: Vec<Ended>,
    /// Everything that happened in the period, for a bundle.
    pub events: Vec<EventRow>,
}

/// Reads the last `since` of the history at `path`; what was over since `last` is told too.
pub fn read(
    path: &Path,
    since: Span,
    last: Option<Timestamp>,
    now: Timestamp,
    settings: &Settings,
) -> anyhow::Result<Past> {
    let connection = store::open_readonly(path)?;
    let doing = || format!("history {}: it cannot be read", path.display());
    // All that follows sees one moment of it, whatever an agent writes meanwhile.
    let moment = connection.unchecked_transaction().with_context(doing)?;
    let raw = Raw::read(&moment, now.before(since), last, now).with_context(doing)?;
    Ok(raw.tell(now.before(since), now, settings))
}

/// What the tables hold.
struct Raw {
    rows: Vec<FindingRow>,
    notes: Vec<EventRow>,
    states: Vec<EventRow>,
    agents: Vec<EventRow>,
    events: Vec<EventRow>,
    runs: Vec<(Timestamp, Timestamp)>,
    trends: Vec<period::Trend>,
}

impl Raw {
    fn read(
        connection: &Connection,
        from: Timestamp,
        last: Option<Timestamp>,
        now: Timestamp,
    ) -> rusqlite::Result<Self> {
        let earliest = last.map_or(from, |last| last.min(from));
        let runs: Vec<_> = query::runs(connection, Timestamp::EPOCH)?
            .into_iter()
            .map(|run| (run.began, run.last))
            .collect();
        // Seen from a young history's begin there are finer points.
        let begun = runs
            .iter()
            .find(|(_, last)| *last > from)
            .map_or(from, |(began, _)| *began);
        // How sources fare is said when it changes, so since the newest agent began.
        let newest = runs
            .last()
            .map_or(Timestamp::EPOCH, |(began, _)| began.before(GAP));
        Ok(Self {
            rows: query::findings(connection, earliest)?,
            notes: query::events_of(connection, "finding", Timestamp::EPOCH, NOTES)?,
            states: query::events_of(connection, "collector", newest, STATES)?,
            agents: query::events_of(connection, "agent", Timestamp::EPOCH, STATES)?,
            events: oldest_first(query::newest_events(connection, from, EVENTS)?),
            trends: super::trends::read(connection, from.max(begun), now)?,
            runs,
        })
    }

    fn tell(self, from: Timestamp, now: Timestamp, settings: &Settings) -> Past {
        let notes: Vec<Note> = self.notes.iter().filter_map(note).collect();
        let rows: Vec<Kept> = self.rows.iter().map(row).collect();
        let mut episodes = past::episodes(&rows, &notes, &self.runs, ledger::absent_for);
        let reaches = self.runs.iter().map(|(_, last)| *last).max();
        let stale = reaches.is_none_or(|reaches| now - reaches > settings.report.stale_after);
        let mut world = World::new(now);
        let states = states(&self.states);
        if let Some(host) = self.agents.iter().rev().find_map(host) {
            world.apply(&observed(now, Source::Host, Body::Host(host)));
        }
        for (source, status) in &states {
            world.apply(&observed(now, *source, Body::Status(status.clone())));
        }
        let catalogue: Vec<_> = rules::registry::rules().collect();
        let input = Input {
            world: &world,
            thresholds: &settings.thresholds,
        };
        let holding: Vec<_> = rows
            .iter()
            .filter(|row| holds(row, &episodes))
            .filter_map(|row| row.finding.clone())
            .collect();
        let unseen: Vec<NotChecked> = if states.is_empty() {
            Vec::new()
        } else {
            evaluate::unseen(&catalogue, &input)
        };
        let held = |n: &NotChecked| holding.iter().any(|finding| finding.code == n.code);
        let (in_part, not_checked) = unseen.into_iter().partition(held);
        let missed = Missed { not_checked, in_part };
        let evaluation = evaluate::fold_again(&catalogue, holding, missed);
        let mut report = report::build::build(&world, evaluation, env!("CARGO_PKG_VERSION"));
        let all = report
            .findings
            .iter()
            .chain(report.suppressed.iter().map(|s| &s.finding));
        let blind = !states.is_empty() && report.status == Status::Unknown;
        report.status = if stale || blind {
            Status::Unknown
        } else {
            Status::of(all, true)
        };
        let at_start = Before {
            basis: Basis::History,
            at: from,
            status: None,
            findings: past::held_at(&episodes, from),
        };
        let ended = past::ended(&episodes);
        let (gaps, watched) = period::gaps(&self.runs, from, now, GAP);
        episodes.retain(|episode| episode.ended.is_none_or(|end| end > from));
        report.duration = watched;
        report.period = Some(Period {
            from,
            to: now,
            watched,
            gaps_left_out: gaps.len().saturating_sub(period::GAPS) as u64,
            gaps: longest(gaps),
            reaches,
            stale,
            episodes,
            unknown_codes: rows.iter().filter(|row| row.finding.is_none()).count() as u64,
            trends: self.trends,
        });
        Past {
            report,
            at_start,
            ended,
            events: self.events,
        }
    }
}

fn oldest_first(mut events: Vec<EventRow>) -> Vec<EventRow> {
    events.reverse();
    events
}

/// The longest, in the order of time.
fn longest(mut gaps: Vec<(Timestamp, Timestamp)>) -> Vec<(Timestamp, Timestamp)> {
    gaps.sort_by_key(|(a, b)| std::cmp::Reverse(*b - *a));
    gaps.truncate(period::GAPS);
    gaps.sort();
    gaps
}

fn observed(at: Timestamp, source: Source, body: Body) -> Observation {
    Observation {
        at,
        took: Span::ZERO,
        source,
        body,
    }
}

fn row(row: &FindingRow) -> Kept {
    let read = kept::read(&row.data);
    let explained = read.as_ref().is_some_and(|kept| kept.explained);
    let unseen = read.as_ref().and_then(|kept| kept.unseen.clone());
    let finding = read.map(|kept| {
        let mut finding = kept.finding;
        // The row is newer than what is within it where a finding was taken up by another agent.
        (finding.first_seen, finding.last_seen) = (row.first_seen, row.last_seen);
        finding.count = finding.count.max(row.count);
        match &unseen {
            Some(unseen) => unseen.mark(finding),
            None => finding,
        }
    });
    Kept {
        known: Known {
            code: row.code.clone(),
            about: row.subject.clone(),
            severity: kept::severity(&row.severity).unwrap_or(crate::finding::Severity::Info),
            title: row.title.clone(),
            since: row.first_seen,
            explained,
        },
        last_seen: row.last_seen,
        count: row.count,
        cleared_at: row.cleared_at,
        unseen: unseen.is_some(),
        finding,
    }
}

fn holds(row: &Kept, episodes: &[Episode]) -> bool {
    let same = |e: &&Episode| e.known.code == row.known.code && e.known.about == row.known.about;
    episodes
        .iter()
        .filter(same)
        .any(|episode| episode.ended.is_none())
}

fn text<'a>(data: &'a Value, name: &str) -> Option<&'a str> {
    data.get(name)?.as_str()
}

fn note(event: &EventRow) -> Option<Note> {
    let what = match text(&event.data, "what")? {
        "began" => What::Began,
        "returned" => What::Returned,
        "worsened" => What::Worsened,
        "eased" => What::Eased,
        "cleared" => What::Cleared,
        _ => return None,
    };
    Some(Note {
        at: event.at,
        what,
        code: text(&event.data, "code")?.to_owned(),
        about: text(&event.data, "subject")?.to_owned(),
        severity: kept::severity(text(&event.data, "severity")?)?,
        first_seen: text(&event.data, "first_seen")?.parse().ok()?,
    })
}

/// How each source fares, as last said.
fn states(events: &[EventRow]) -> Vec<(Source, SourceStatus)> {
    let mut states: Vec<(Source, SourceStatus)> = Vec::new();
    for event in events {
        let Some(name) = text(&event.data, "collector") else {
            continue;
        };
        let Some(source) = Source::ALL.into_iter().find(|source| source.name() == name) else {
            continue;
        };
        let state = match text(&event.data, "state") {
            Some("ok") => SourceState::Ok,
            Some("degraded") => SourceState::Degraded,
            Some("unavailable") => SourceState::Unavailable,
            _ => continue,
        };
        let status = SourceStatus {
            state,
            reason: text(&event.data, "reason").map(str::to_owned),
            ..SourceStatus::ok()
        };
        match states.iter_mut().find(|(known, _)| *known == source) {
            Some(known) => known.1 = status,
            None => states.push((source, status)),
        }
    }
    states
}

fn host(event: &EventRow) -> Option<HostFacts> {
    serde_json::from_value(event.data.get("host")?.clone()).ok()
}

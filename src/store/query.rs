//! What history can be asked: points of series, events, findings. On any connection, the agent's own or a reader's.

use rusqlite::{Connection, params};
use serde::Serialize;
use serde_json::{Value, json};

use super::retain;
use crate::time::Timestamp;

/// Series of one answer.
const SERIES: usize = 200;
/// Events and findings of one answer, the newest.
const ROWS: usize = 2_000;

/// Which points are wanted.
#[derive(Clone, Debug)]
pub struct SeriesQuery {
    /// The metric's name; with none, names are told and no points.
    pub name: Option<String>,
    /// `label=value` with commas: only series that have them all.
    pub labels: Option<String>,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// The most points of a series.
    pub points: usize,
}

/// A series with its points.
#[derive(Clone, Debug, Serialize)]
pub struct SeriesRow {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: Value,
    /// Seconds since 1970, mean, least and greatest.
    pub points: Vec<(i64, f64, f64, f64)>,
}

/// An event.
#[derive(Clone, Debug, Serialize)]
pub struct EventRow {
    /// When.
    pub at: Timestamp,
    /// Which kind.
    pub kind: String,
    /// What.
    pub data: Value,
}

/// A finding.
#[derive(Clone, Debug, Serialize)]
pub struct FindingRow {
    /// Its code.
    pub code: String,
    /// What it is about, as one text.
    pub subject: String,
    /// How bad it was last.
    pub severity: String,
    /// Its title.
    pub title: String,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// How often it began.
    pub count: u32,
    /// When it was over.
    pub cleared_at: Option<Timestamp>,
    /// As `wgnat.report/1` has it.
    pub finding: Value,
    /// The same as the text that was written, in which names keep their order.
    #[serde(skip)]
    pub data: String,
}

/// When an agent was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RunRow {
    /// From when.
    pub began: Timestamp,
    /// Until when, as far as it was written down.
    pub last: Timestamp,
}

/// The metrics that there are.
pub fn names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT DISTINCT name FROM series ORDER BY name")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The series that are asked for, and how far apart their points are in seconds. The whole stretch of time is told: where that are
/// more points than are wanted, several become one.
pub fn series(connection: &Connection, query: &SeriesQuery) -> rusqlite::Result<(i64, Vec<SeriesRow>)> {
    let step = retain::step_for(query.from, query.to, query.points);
    let apart = apart(step.seconds(), query);
    let mut found = Vec::new();
    let mut statement =
        connection.prepare_cached("SELECT id, name, labels FROM series WHERE name = ?1 ORDER BY labels")?;
    let mut rows = statement.query([query.name.as_deref().unwrap_or_default()])?;
    while let Some(row) = rows.next()? {
        let (id, name, labels): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let labels: Value = serde_json::from_str(&labels).unwrap_or_default();
        if found.len() >= SERIES || !has(&labels, query.labels.as_deref()) {
            continue;
        }
        let mut points = connection.prepare_cached(
            "SELECT at - at % ?6 AS begun, CASE count(*) WHEN 1 THEN value ELSE sum(value * n) / sum(n) END, min(low), max(high)
             FROM samples WHERE step = ?1 AND series = ?2 AND at BETWEEN ?3 AND ?4
             GROUP BY begun ORDER BY begun DESC LIMIT ?5",
        )?;
        let bounds = params![
            step.seconds(),
            id,
            query.from.as_nanos().div_euclid(1_000_000_000),
            query.to.as_nanos().div_euclid(1_000_000_000),
            i64::try_from(query.points).unwrap_or(i64::MAX),
            apart,
        ];
        let mut points: Vec<_> = points
            .query_map(bounds, |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        points.reverse();
        if !points.is_empty() {
            found.push(SeriesRow { name, labels, points });
        }
    }
    Ok((apart, found))
}

/// Seconds between points that are told: so many steps that they are no more than are wanted.
fn apart(step: i64, query: &SeriesQuery) -> i64 {
    let wanted = i64::try_from(query.points).unwrap_or(i64::MAX).max(1);
    let span = i64::try_from((query.to - query.from).as_secs()).unwrap_or(i64::MAX);
    let there = span.div_euclid(step);
    let each = there.saturating_add(wanted - 1).div_euclid(wanted).max(1);
    step.saturating_mul(each)
}

fn has(labels: &Value, wanted: Option<&str>) -> bool {
    wanted
        .into_iter()
        .flat_map(|wanted| wanted.split(','))
        .filter_map(|pair| pair.split_once('='))
        .all(|(name, value)| labels.get(name).and_then(Value::as_str) == Some(value))
}

/// Events since `from`, oldest first; the newest where there are too many.
pub fn events(connection: &Connection, from: Timestamp) -> rusqlite::Result<Vec<EventRow>> {
    let mut events = newest_events(connection, from, ROWS)?;
    events.reverse();
    Ok(events)
}

/// The newest events since `from`, newest first, `most` of them at most.
pub fn newest_events(
    connection: &Connection,
    from: Timestamp,
    most: usize,
) -> rusqlite::Result<Vec<EventRow>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT at, kind, data FROM events WHERE at >= ?1 ORDER BY at DESC, id DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![from.as_nanos(), most], |row| {
        Ok(EventRow {
            at: Timestamp::from_nanos(row.get(0)?),
            kind: row.get(1)?,
            data: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
        })
    })?;
    rows.collect()
}

/// Events of `kind` since `from`, oldest first; the newest `most` where there are too many.
pub fn events_of(
    connection: &Connection,
    kind: &str,
    from: Timestamp,
    most: usize,
) -> rusqlite::Result<Vec<EventRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT at, data FROM events WHERE at >= ?1 AND kind = ?2 ORDER BY at DESC, id DESC LIMIT ?3",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let rows = statement.query_map(params![from.as_nanos(), kind, most], |row| {
        Ok(EventRow {
            at: Timestamp::from_nanos(row.get(0)?),
            kind: kind.to_owned(),
            data: serde_json::from_str(&row.get::<_, String>(1)?).unwrap_or_default(),
        })
    })?;
    let mut events: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    events.reverse();
    Ok(events)
}

/// Findings that were seen since `from`, the last seen first.
pub fn findings(connection: &Connection, from: Timestamp) -> rusqlite::Result<Vec<FindingRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT code, subject, severity, title, first_seen, last_seen, count, cleared_at, data
         FROM findings WHERE last_seen >= ?1 ORDER BY last_seen DESC, code, subject LIMIT ?2",
    )?;
    let rows = statement.query_map(params![from.as_nanos(), ROWS as i64], |row| {
        let data: String = row.get(8)?;
        Ok(FindingRow {
            code: row.get(0)?,
            subject: row.get(1)?,
            severity: row.get(2)?,
            title: row.get(3)?,
            first_seen: Timestamp::from_nanos(row.get(4)?),
            last_seen: Timestamp::from_nanos(row.get(5)?),
            count: row.get(6)?,
            cleared_at: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_nanos),
            finding: serde_json::from_str(&data).unwrap_or_default(),
            data,
        })
    })?;
    rows.collect()
}

/// When agents were running since `from`, oldest first; the newest where there are too many.
pub fn runs(connection: &Connection, from: Timestamp) -> rusqlite::Result<Vec<RunRow>> {
    let mut statement = connection
        .prepare_cached("SELECT began, last FROM runs WHERE last >= ?1 ORDER BY began DESC LIMIT ?2")?;
    let rows = statement.query_map(params![from.as_nanos(), ROWS as i64], |row| {
        Ok(RunRow {
            began: Timestamp::from_nanos(row.get(0)?),
            last: Timestamp::from_nanos(row.get(1)?),
        })
    })?;
    let mut runs: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    runs.reverse();
    Ok(runs)
}

/// The answer to `/api/v1/series`.
pub fn series_json(connection: &Connection, query: &SeriesQuery) -> rusqlite::Result<String> {
    let answer = match query.name {
        None => json!({ "names": names(connection)? }),
        Some(_) => {
            let (step, series) = series(connection, query)?;
            json!({ "from": query.from, "to": query.to, "step_seconds": step, "series": series })
        }
    };
    Ok(answer.to_string())
}

/// The answer to `/api/v1/history`.
pub fn history_json(connection: &Connection, from: Timestamp) -> rusqlite::Result<String> {
    let answer = json!({
        "from": from,
        "runs": runs(connection, from)?,
        "findings": findings(connection, from)?,
        "events": events(connection, from)?,
    });
    Ok(answer.to_string())
}

//! What is kept how long, and how coarse: every ten seconds for hours, every minute for days, every ten minutes for a month.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::Limits;
use crate::time::{Span, Timestamp};

/// Points this far apart are kept this long.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    every: Span,
    keep: Span,
}

/// From fine to coarse.
pub const STEPS: [Step; 3] = [
    Step {
        every: Span::from_secs(10),
        keep: Span::from_secs(6 * 3600),
    },
    Step {
        every: Span::from_secs(60),
        keep: Span::from_secs(2 * 86_400),
    },
    Step {
        every: Span::from_secs(600),
        keep: Span::MAX,
    },
];

/// Events kept; the oldest make room.
const EVENTS: i64 = 50_000;
/// Findings kept; those that are over longest make room.
const FINDINGS: i64 = 5_000;
/// What lies further ahead than this was dated by a clock that was wrong.
const AHEAD: Span = Span::from_secs(86_400);
/// Rounds of throwing away in one go, where the file is too large.
const ROUNDS: usize = 8;
/// What is too old is looked for this often, in seconds: nobody sees whether a point of six hours is there for a few minutes more.
const THROW_EVERY: i64 = 600;
/// An agent that ended has tidied what is so many seconds older than the last it wrote: it tidies each minute.
const UNTIDIED: i64 = 120;

impl Step {
    /// Seconds between two points.
    pub fn seconds(self) -> i64 {
        seconds(self.every)
    }

    /// How long its points are kept.
    pub const fn keep(self) -> Span {
        self.keep
    }

    /// The point that `at` belongs to, in seconds since 1970.
    pub fn floor(self, at: Timestamp) -> i64 {
        self.floor_second(seconds_at(at))
    }

    fn floor_second(self, second: i64) -> i64 {
        second - second.rem_euclid(self.seconds())
    }
}

fn seconds(span: Span) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

/// The finest step that still reaches back to `from`, seen from `now`, with no more than `points` points.
pub fn step_for(from: Timestamp, now: Timestamp, points: usize) -> Step {
    let span = now - from;
    let points = u32::try_from(points).unwrap_or(u32::MAX).max(1);
    let fits = |step: &&Step| step.keep >= span && step.every * points >= span;
    let reaches = |step: &&Step| step.keep >= span;
    let fitting = STEPS.iter().find(fits).or_else(|| STEPS.iter().find(reaches));
    *fitting.unwrap_or(&STEPS[2])
}

/// What has been written and is not rolled up yet. Without it every point would have to be read each minute to find out.
#[derive(Debug, Default)]
pub struct Fresh {
    /// When it was tidied last, in seconds since 1970: until then everything is rolled up.
    tidied: Option<i64>,
    /// The earliest second that was written although it was rolled up already: a batch came late, or the clock was set back.
    late: Option<i64>,
    /// The newest second of each series that was written lately. The writer bounds how many there are in a minute, and after
    /// ten they are dropped.
    written: HashMap<i64, i64>,
    /// When what is too old was thrown away last.
    thrown: Option<i64>,
}

impl Fresh {
    /// A point of `series` was written.
    pub fn note(&mut self, series: i64, at: i64) {
        self.note_newest(series, at);
        if self.tidied.is_none_or(|tidied| at < tidied) {
            self.note_late(at);
        }
    }

    fn note_newest(&mut self, series: i64, at: i64) {
        let newest = self.written.entry(series).or_insert(at);
        *newest = (*newest).max(at);
    }

    fn note_late(&mut self, at: i64) {
        self.late = Some(self.late.map_or(at, |late| late.min(at)));
    }

    /// From where on points of `coarse` are made; `None` where all series must be asked how far they are.
    fn from(&self, coarse: Step) -> Option<i64> {
        let tidied = coarse.floor_second(self.tidied?);
        Some(self.late(coarse).map_or(tidied, |late| late.min(tidied)))
    }

    fn late(&self, coarse: Step) -> Option<i64> {
        self.late.map(|late| coarse.floor_second(late))
    }

    /// Everything until `now` is rolled up.
    fn done(&mut self, now: i64) {
        self.tidied = Some(now);
        self.late = None;
        let open = STEPS[2].floor_second(now);
        self.written.retain(|_, at| *at >= open);
    }

    /// What the agent before this one wrote last may belong to points that are not over yet.
    fn take_up(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut newest =
            connection.prepare_cached("SELECT max(at) FROM samples WHERE step = ?1 AND series = ?2")?;
        for series in all_series(connection)? {
            let at: Option<i64> = newest.query_row(params![STEPS[0].seconds(), series], |row| row.get(0))?;
            if let Some(at) = at {
                self.note_newest(series, at);
            }
        }
        // Where its clock had been set back, there are newer points than its last.
        let mut ends = connection.prepare_cached("SELECT last FROM runs ORDER BY id DESC LIMIT 2")?;
        for end in ends.query_map([], |row| row.get(0))? {
            self.note_late(seconds_at(Timestamp::from_nanos(end?)) - UNTIDIED);
        }
        Ok(())
    }

    fn throws(&self, now: i64) -> bool {
        self.thrown
            .is_none_or(|then| !(0..THROW_EVERY).contains(&(now - then)))
    }
}

/// Rolls fine points up into coarse ones and throws away what is too old or too much. Where the clock is not `trusted`
/// nothing is too old.
pub fn tidy(
    connection: &mut Connection,
    fresh: &mut Fresh,
    limits: Limits,
    now: Timestamp,
    trusted: bool,
) -> rusqlite::Result<()> {
    let second = seconds_at(now);
    let transaction = connection.transaction()?;
    if fresh.tidied.is_none() {
        fresh.take_up(&transaction)?;
    }
    for (fine, coarse) in STEPS.iter().zip(STEPS.iter().skip(1)) {
        roll_up(&transaction, fresh, *fine, *coarse, now)?;
    }
    let throws = trusted && fresh.throws(second);
    if throws {
        throw_away(&transaction, limits, now)?;
    }
    transaction.execute(
        "DELETE FROM events WHERE id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?1)",
        [EVENTS],
    )?;
    transaction.execute(
        "DELETE FROM findings WHERE (code, subject) IN
         (SELECT code, subject FROM findings ORDER BY cleared_at IS NULL DESC, last_seen DESC LIMIT -1 OFFSET ?1)",
        [FINDINGS],
    )?;
    transaction.commit()?;
    fresh.done(second);
    if throws {
        fresh.thrown = Some(second);
    }
    shrink(connection, limits.bytes)
}

fn seconds_at(at: Timestamp) -> i64 {
    at.as_nanos().div_euclid(1_000_000_000)
}

/// What is older than its step is kept, or than anything is; and what a clock that was wrong has dated far ahead.
fn throw_away(connection: &Connection, limits: Limits, now: Timestamp) -> rusqlite::Result<()> {
    let oldest = |keep: Span| seconds_at(now.before(keep.min(limits.age)));
    let ahead = seconds_at(now + AHEAD);
    {
        // One series after the other: so the old ones are found without reading the others.
        let mut before =
            connection.prepare_cached("DELETE FROM samples WHERE step = ?1 AND series = ?2 AND at < ?3")?;
        let mut after =
            connection.prepare_cached("DELETE FROM samples WHERE step = ?1 AND series = ?2 AND at > ?3")?;
        for series in all_series(connection)? {
            for step in STEPS {
                before.execute(params![step.seconds(), series, oldest(step.keep)])?;
                after.execute(params![step.seconds(), series, ahead])?;
            }
        }
    }
    let oldest = now.before(limits.age).as_nanos();
    connection.execute("DELETE FROM events WHERE at < ?1", [oldest])?;
    connection.execute("DELETE FROM runs WHERE last < ?1", [oldest])?;
    connection.execute(
        "DELETE FROM findings WHERE cleared_at IS NOT NULL AND last_seen < ?1",
        [oldest],
    )?;
    connection.execute(
        "DELETE FROM series WHERE NOT EXISTS
         (SELECT 1 FROM samples WHERE samples.series = series.id AND step IN (10, 60, 600))",
        [],
    )?;
    Ok(())
}

fn all_series(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare_cached("SELECT id FROM series")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Makes coarse points of those fine ones that are fresh, as far as they are over. What is there already is made anew: the
/// fine points of a minute may have changed since.
fn roll_up(
    connection: &Connection,
    fresh: &Fresh,
    fine: Step,
    coarse: Step,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let until = coarse.floor(now);
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO samples (step, series, at, value, low, high, n)
         SELECT ?1, series, at - at % ?1, sum(value * n) / sum(n), min(low), max(high), sum(n)
         FROM samples WHERE step = ?2 AND series = ?3 AND at >= ?4 AND at < ?5 GROUP BY at - at % ?1",
    )?;
    let mut make = |series: i64, from: i64| {
        insert.execute(params![coarse.seconds(), fine.seconds(), series, from, until])
    };
    if let Some(from) = fresh.from(coarse) {
        for (series, _) in fresh.written.iter().filter(|(_, at)| **at >= from) {
            make(*series, from)?;
        }
        return Ok(());
    }
    // The agent before this one got as far as the newest coarse point.
    let mut last = connection
        .prepare_cached("SELECT max(at) FROM samples WHERE step = ?1 AND series = ?2 AND at < ?3")?;
    for series in all_series(connection)? {
        let last: Option<i64> = last.query_row(params![coarse.seconds(), series, until], |row| row.get(0))?;
        let from = last.map_or(0, |last| last + coarse.seconds());
        make(series, fresh.late(coarse).map_or(from, |late| late.min(from)))?;
    }
    Ok(())
}

/// Bytes that the database takes, free pages at its end left out.
pub fn bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| -> rusqlite::Result<i64> {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
    };
    let pages = pragma("page_count")? - pragma("freelist_count")?;
    Ok(u64::try_from(pages * pragma("page_size")?).unwrap_or(0))
}

/// Throws the oldest tenth of the finest points away until what is left fits.
fn shrink(connection: &Connection, limit: u64) -> rusqlite::Result<()> {
    for _ in 0..ROUNDS {
        if bytes(connection)? <= limit {
            break;
        }
        if !drop_a_part(connection)? {
            break;
        }
    }
    // Without a number it gives all free pages back.
    connection.execute_batch("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(PASSIVE);")
}

/// False where there is nothing left to throw away.
fn drop_a_part(connection: &Connection) -> rusqlite::Result<bool> {
    for step in STEPS {
        let (first, last): (Option<i64>, Option<i64>) = connection.query_row(
            "SELECT min(at), max(at) FROM samples WHERE step = ?1",
            [step.seconds()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if let (Some(first), Some(last)) = (first, last) {
            let before = first + (last - first) / 5 + 1;
            let gone = connection.execute(
                "DELETE FROM samples WHERE step = ?1 AND at < ?2",
                params![step.seconds(), before],
            )?;
            if gone > 0 {
                return Ok(true);
            }
        }
    }
    let gone = connection.execute(
        "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT (SELECT count(*) / 5 + 1 FROM events))",
        [],
    )?;
    Ok(gone > 0)
}

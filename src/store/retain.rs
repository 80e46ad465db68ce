//! What is kept how long, and how coarse: every ten seconds for hours, every minute for days, every ten minutes for a month.

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
        let second = at.as_nanos().div_euclid(1_000_000_000);
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

/// Rolls fine points up into coarse ones and throws away what is too old or too much. Where the clock is not `trusted`
/// nothing is too old.
pub fn tidy(
    connection: &mut Connection,
    limits: Limits,
    now: Timestamp,
    trusted: bool,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (fine, coarse) in STEPS.iter().zip(STEPS.iter().skip(1)) {
        roll_up(&transaction, *fine, *coarse, now)?;
    }
    if trusted {
        let oldest = |keep: Span| seconds_at(now.before(keep.min(limits.age)));
        for step in STEPS {
            transaction.execute(
                "DELETE FROM samples WHERE step = ?1 AND (at < ?2 OR at > ?3)",
                params![step.seconds(), oldest(step.keep), seconds_at(now + AHEAD)],
            )?;
        }
        let oldest = now.before(limits.age).as_nanos();
        transaction.execute("DELETE FROM events WHERE at < ?1", [oldest])?;
        transaction.execute("DELETE FROM runs WHERE last < ?1", [oldest])?;
        transaction.execute(
            "DELETE FROM findings WHERE cleared_at IS NOT NULL AND last_seen < ?1",
            [oldest],
        )?;
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
    transaction.execute(
        "DELETE FROM series WHERE NOT EXISTS
         (SELECT 1 FROM samples WHERE samples.series = series.id AND step IN (10, 60, 600))",
        [],
    )?;
    transaction.commit()?;
    shrink(connection, limits.bytes)
}

fn seconds_at(at: Timestamp) -> i64 {
    at.as_nanos().div_euclid(1_000_000_000)
}

/// Whole coarse points that have fine ones and are not there yet, or are from the last hour.
fn roll_up(connection: &Connection, fine: Step, coarse: Step, now: Timestamp) -> rusqlite::Result<()> {
    let until = coarse.floor(now);
    let last: Option<i64> = connection.query_row(
        "SELECT max(at) FROM samples WHERE step = ?1 AND at < ?2",
        params![coarse.seconds(), until],
        |row| row.get(0),
    )?;
    let from = last.map_or(0, |last| last + coarse.seconds());
    connection.execute(
        "INSERT OR REPLACE INTO samples (step, series, at, value, low, high, n)
         SELECT ?1, series, at - at % ?1, sum(value * n) / sum(n), min(low), max(high), sum(n)
         FROM samples WHERE step = ?2 AND at >= ?3 AND at < ?4 GROUP BY series, at - at % ?1",
        params![coarse.seconds(), fine.seconds(), from, until],
    )?;
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

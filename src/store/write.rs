//! The writing thread: batches, samples by step, and what it does when the file fails.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, InterruptHandle, params};

use super::{Limits, Record, Shared, file, retain};
use crate::sys::clock;
use crate::time::{Span, Timestamp};

/// A kill loses at most this.
const BATCH_EVERY: Span = Span::from_secs(5);
/// Records of one batch.
const BATCH_MAX: usize = 512;
/// How often old records are looked for.
const TIDY_EVERY: Span = Span::from_secs(60);
/// How often a file that failed is tried again.
const RETRY_EVERY: Span = Span::from_secs(15);
/// For so long after the clock was set nothing is thrown away for its age.
const DISTRUST: Span = Span::from_secs(3600);
/// Nor for so long after the beginning: a machine that boots may not know the time yet.
const TRUST_AFTER: Span = Span::from_secs(60);
/// Series followed; numbers of further ones are dropped and counted.
const SERIES: usize = 2_000;
/// What is kept while the file cannot be written.
const MEMORY_BYTES: u64 = 4 * 1024 * 1024;

/// What the thread is told.
pub(super) enum Message {
    /// Keep this.
    Record(Record),
}

/// The open database.
pub(super) struct Db {
    path: PathBuf,
    /// Held while this lives.
    _lock: File,
    pub(super) connection: Connection,
    in_memory: bool,
    pub(super) limits: Limits,
    series: HashMap<(&'static str, String), i64>,
    fresh: retain::Fresh,
    run: Option<i64>,
    /// Breaks off what the connection is doing.
    interrupt: Interrupt,
}

/// The handle of the connection that is open now.
pub(super) type Interrupt = Arc<Mutex<InterruptHandle>>;

/// A batch that was broken off is written again; so often at most.
const INTERRUPTIONS: usize = 20;

impl Db {
    pub(super) fn new(
        path: PathBuf,
        lock: File,
        connection: Connection,
        in_memory: bool,
        limits: Limits,
    ) -> Self {
        let interrupt = Arc::new(Mutex::new(connection.get_interrupt_handle()));
        Self {
            path,
            _lock: lock,
            connection,
            in_memory,
            limits,
            series: HashMap::new(),
            fresh: retain::Fresh::default(),
            run: None,
            interrupt,
        }
    }

    pub(super) fn interrupt(&self) -> Interrupt {
        Arc::clone(&self.interrupt)
    }

    /// Goes on with `connection`, of which nothing is known.
    fn turn_to(&mut self, connection: Connection, in_memory: bool) {
        *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = connection.get_interrupt_handle();
        self.connection = connection;
        self.in_memory = in_memory;
        self.series.clear();
        self.fresh = retain::Fresh::default();
        self.run = None;
    }

    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a batch as a whole or not at all. How many points had no place comes back.
    pub(super) fn write(&mut self, batch: &[Record], now: Timestamp) -> rusqlite::Result<u64> {
        let mut dropped = 0;
        let transaction = self.connection.transaction()?;
        // Ids that were made in a batch that failed do not exist.
        let mut new_series = Vec::new();
        for record in batch {
            match record {
                Record::Samples { at, points } => {
                    let at = retain::STEPS[0].floor(*at);
                    let mut insert = transaction.prepare_cached(
                        "INSERT OR REPLACE INTO samples (step, series, at, value, low, high, n)
                         VALUES (?1, ?2, ?3, ?4, ?4, ?4, 1)",
                    )?;
                    for point in points.iter().filter(|p| p.value.is_finite()) {
                        let key = (point.name, point.labels.clone());
                        let id = match self.series.get(&key) {
                            Some(id) => *id,
                            None if self.series.len() >= SERIES => {
                                dropped += 1;
                                continue;
                            }
                            None => {
                                let id = series_id(&transaction, point.name, &point.labels)?;
                                self.series.insert(key.clone(), id);
                                new_series.push(key);
                                id
                            }
                        };
                        insert.execute(params![retain::STEPS[0].seconds(), id, at, point.value])?;
                        self.fresh.note(id, at);
                    }
                }
                Record::Event { at, kind, data } => {
                    transaction
                        .prepare_cached("INSERT INTO events (at, kind, data) VALUES (?1, ?2, ?3)")?
                        .execute(params![at.as_nanos(), kind, data])?;
                }
                Record::Finding(finding) => {
                    transaction
                        .prepare_cached(
                            "INSERT OR REPLACE INTO findings
                             (code, subject, severity, title, first_seen, last_seen, count, cleared_at, data)
                             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                        )?
                        .execute(params![
                            finding.code,
                            finding.subject,
                            finding.severity,
                            finding.title,
                            finding.first_seen.as_nanos(),
                            finding.last_seen.as_nanos(),
                            finding.count,
                            finding.cleared_at.map(Timestamp::as_nanos),
                            finding.data,
                        ])?;
                }
                Record::Stepped => {}
            }
        }
        let run = note_run(&transaction, self.run, now);
        let done = run.and_then(|run| transaction.commit().map(|()| run));
        match done {
            Ok(run) => {
                self.run = Some(run);
                Ok(dropped)
            }
            Err(error) => {
                for key in new_series {
                    self.series.remove(&key);
                }
                Err(error)
            }
        }
    }

    /// Rolls up, throws away, gives room back.
    pub(super) fn tidy(&mut self, now: Timestamp, trusted: bool) -> rusqlite::Result<()> {
        let limits = if self.in_memory {
            Limits {
                bytes: MEMORY_BYTES.min(self.limits.bytes),
                ..self.limits
            }
        } else {
            self.limits
        };
        retain::tidy(&mut self.connection, &mut self.fresh, limits, now, trusted)?;
        let known = self.series.len();
        if known >= SERIES / 2 {
            // Series that are gone make room; those that live are found again.
            self.series.clear();
        }
        Ok(())
    }

    /// As if this agent had just begun.
    #[cfg(test)]
    pub(super) fn forget_what_is_fresh(&mut self) {
        self.fresh = retain::Fresh::default();
        self.series.clear();
        self.run = None;
    }

    /// Goes on in memory.
    fn go_to_memory(&mut self) -> rusqlite::Result<()> {
        self.turn_to(file::in_memory()?, true);
        Ok(())
    }

    /// Goes back to the file, and takes along what memory holds.
    fn go_to_file(&mut self) -> Result<(), super::StoreError> {
        let target = file::open(&self.path)?;
        let copied = copy(&self.connection, &target);
        copied.map_err(|source| super::StoreError::Sqlite {
            path: self.path.clone(),
            doing: "what was kept in memory cannot be written to it",
            source,
        })?;
        self.turn_to(target, false);
        Ok(())
    }

    /// The file is no database any more: begins a new one.
    fn begin_anew(&mut self) -> Result<PathBuf, super::StoreError> {
        // Closed first: what it still holds must not be written into the new one.
        let nothing = Connection::open_in_memory().map_err(|source| super::StoreError::Sqlite {
            path: self.path.clone(),
            doing: "it cannot be closed",
            source,
        })?;
        drop(std::mem::replace(&mut self.connection, nothing));
        let aside = file::set_it_aside(&self.path)?;
        self.turn_to(file::open(&self.path)?, false);
        Ok(aside)
    }
}

fn series_id(connection: &Connection, name: &str, labels: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO series (name, labels) VALUES (?1, ?2)")?
        .execute(params![name, labels])?;
    connection
        .prepare_cached("SELECT id FROM series WHERE name = ?1 AND labels = ?2")?
        .query_row(params![name, labels], |row| row.get(0))
}

/// Notes that the agent ran until `now`.
fn note_run(connection: &Connection, known: Option<i64>, now: Timestamp) -> rusqlite::Result<i64> {
    match known {
        Some(id) => {
            connection
                .prepare_cached("UPDATE runs SET last = ?2 WHERE id = ?1")?
                .execute(params![id, now.as_nanos()])?;
            Ok(id)
        }
        None => {
            connection
                .prepare_cached("INSERT INTO runs (began, last, version) VALUES (?1, ?1, ?2)")?
                .execute(params![now.as_nanos(), env!("CARGO_PKG_VERSION")])?;
            Ok(connection.last_insert_rowid())
        }
    }
}

/// Copies everything but runs.
fn copy(from: &Connection, to: &Connection) -> rusqlite::Result<()> {
    let to = to.unchecked_transaction()?;
    let mut samples = from.prepare(
        "SELECT name, labels, step, at, value, low, high, n FROM samples JOIN series ON series.id = series",
    )?;
    let mut rows = samples.query([])?;
    while let Some(row) = rows.next()? {
        let (name, labels): (String, String) = (row.get(0)?, row.get(1)?);
        let id = series_id(&to, &name, &labels)?;
        to.prepare_cached("INSERT OR REPLACE INTO samples VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                row.get::<_, i64>(2)?,
                id,
                row.get::<_, i64>(3)?,
                row.get::<_, f64>(4)?,
                row.get::<_, f64>(5)?,
                row.get::<_, f64>(6)?,
                row.get::<_, i64>(7)?,
            ])?;
    }
    let mut events = from.prepare("SELECT at, kind, data FROM events ORDER BY id")?;
    let mut rows = events.query([])?;
    while let Some(row) = rows.next()? {
        to.prepare_cached("INSERT INTO events (at, kind, data) VALUES (?1, ?2, ?3)")?
            .execute(params![
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?
            ])?;
    }
    let mut findings = from.prepare(
        "SELECT code, subject, severity, title, first_seen, last_seen, count, cleared_at, data FROM findings",
    )?;
    let mut rows = findings.query([])?;
    while let Some(row) = rows.next()? {
        to.prepare_cached("INSERT OR REPLACE INTO findings VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?
            .execute(params![
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, String>(3)?,
                row.get::<_, i64>(4)?,
                row.get::<_, i64>(5)?,
                row.get::<_, i64>(6)?,
                row.get::<_, Option<i64>>(7)?,
                row.get::<_, String>(8)?,
            ])?;
    }
    to.commit()
}

/// Writes until every sender is gone, then the rest.
fn write_until_end(shared: &Shared, records: &Receiver<Message>) {
    let mut batch = Vec::new();
    let mut next_batch = clock::instant() + BATCH_EVERY;
    // Soon: what the agent before left is brought in order. For a while the clock may be one that nobody has set yet.
    let mut next_tidy = clock::instant() + BATCH_EVERY;
    let trust_from = clock::instant() + TRUST_AFTER;
    let mut next_retry = clock::instant() + RETRY_EVERY;
    let mut distrust_until: Option<Instant> = None;
    loop {
        let left = next_batch.saturating_duration_since(clock::instant());
        let ended = match records.recv_timeout(left) {
            Ok(Message::Record(record)) => {
                if matches!(record, Record::Stepped) {
                    distrust_until = Some(clock::instant() + DISTRUST);
                }
                batch.push(record);
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        let now = clock::instant();
        if ended || now >= next_batch || batch.len() >= BATCH_MAX {
            next_batch = now + BATCH_EVERY;
            write_batch(shared, &mut batch);
        }
        if ended {
            return;
        }
        if now >= next_retry {
            next_retry = now + RETRY_EVERY;
            retry(shared);
        }
        if now >= next_tidy {
            next_tidy = now + TIDY_EVERY;
            let trusted = now >= trust_from && distrust_until.is_none_or(|until| now >= until);
            // It may take a while, and may wait for the next time.
            let tidied = shared.leisurely(|db| db.tidy(clock::now(), trusted));
            if let Some(Err(error)) = tidied
                && !is_interrupted(&error)
            {
                failed(shared, &error);
            }
        }
    }
}

pub(super) fn run(shared: &Shared, records: &Receiver<Message>) {
    measure(shared);
    write_until_end(shared, records);
}

fn write_batch(shared: &Shared, batch: &mut Vec<Record>) {
    let records = std::mem::take(batch);
    if records.is_empty() {
        return;
    }
    let now = clock::now();
    let mut written = shared.db().write(&records, now);
    for _ in 0..INTERRUPTIONS {
        // Somebody else's reading was meant.
        if !written.as_ref().is_err_and(is_interrupted) {
            break;
        }
        written = shared.db().write(&records, now);
    }
    let written = match written {
        Err(error) => {
            failed(shared, &error);
            // Once more, into whatever takes its place.
            shared.db().write(&records, now)
        }
        written => written,
    };
    match written {
        Ok(dropped) => shared.stats().dropped += dropped,
        Err(error) => {
            tracing::warn!("history: a batch of {} records is lost: {error}", records.len());
            shared.stats().dropped += records.len() as u64;
        }
    }
    measure(shared);
}

/// What to do when the file fails: it is set aside where it is broken, and left alone where it only takes no more.
fn failed(shared: &Shared, error: &rusqlite::Error) {
    let mut db = shared.db();
    let path = db.path().display().to_string();
    if db.in_memory {
        tracing::warn!("history: memory fails too: {error}");
        return;
    }
    if file::is_broken(error) {
        match db.begin_anew() {
            Ok(aside) => {
                tracing::warn!(
                    "history {path}: no database any more ({error}); set aside as {}",
                    aside.display()
                );
                let mut stats = shared.stats();
                stats.set_aside += 1;
                stats.reason = Some(format!(
                    "it was no database any more and is now {}",
                    aside.display()
                ));
                return;
            }
            Err(error) => tracing::warn!("{error}"),
        }
    } else if !file::is_full(error) {
        tracing::warn!("history {path}: {error}");
        return;
    }
    match db.go_to_memory() {
        Ok(()) => {
            tracing::warn!("history {path}: {error}; going on in memory");
            let mut stats = shared.stats();
            stats.state = "memory";
            stats.reason = Some(error.to_string());
        }
        Err(error) => tracing::warn!("history: no database can be made in memory: {error}"),
    }
}

fn retry(shared: &Shared) {
    let mut db = shared.db();
    if !db.in_memory {
        return;
    }
    match db.go_to_file() {
        Ok(()) => {
            tracing::info!("history {}: written to again", db.path().display());
            let mut stats = shared.stats();
            (stats.state, stats.reason) = ("file", None);
        }
        Err(error) => tracing::debug!("{error}"),
    }
}

/// Whether it was broken off because the agent ends.
fn is_interrupted(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

fn measure(shared: &Shared) {
    let db = shared.db();
    let size = |ending: &str| {
        let mut name = db.path().as_os_str().to_owned();
        name.push(ending);
        std::fs::metadata(PathBuf::from(name)).map_or(0, |m| m.len())
    };
    let bytes = if db.in_memory {
        retain::bytes(db.connection()).unwrap_or(0)
    } else {
        size("") + size("-wal")
    };
    drop(db);
    shared.stats().bytes = bytes;
}

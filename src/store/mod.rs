//! History: samples, events and findings over time, in an embedded SQLite file.
//!
//! In: [`Record`]s, written by one thread in batches. Out: queries ([`query`]). It survives a kill at any moment (WAL, one
//! transaction a batch), a full disk (it goes on in memory, and says so), a file that is no database any more (set aside,
//! a new one begun) and a clock that is set. One agent a file: a lock file says whose it is. Readers (`wgnat report`)
//! need no lock.

mod file;
pub mod paths;
pub mod query;
mod retain;
mod schema;
mod write;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

pub use file::{Store, open_readonly};
pub use query::{EventRow, FindingRow, SeriesQuery, SeriesRow};
pub use schema::VERSION;

use crate::report::agent::StoreStats;
use crate::sys::clock;
use crate::time::{Span, Timestamp};

/// Points of a series that are answered with by default, and at most.
pub const POINTS: usize = 360;
/// See [`POINTS`].
pub const POINTS_MAX: usize = 5_000;

/// Records waiting to be written; further ones are dropped and counted.
const QUEUE: usize = 1024;

/// How long the last batch may take when the agent ends.
pub const LAST_BATCH: Span = Span::from_millis(600);

/// So often whoever reads or tidies is told to break off then.
const BREAK_OFF_EVERY: Span = Span::from_millis(10);

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The path is none of a file.
    #[error("history {}: {what}", path.display())]
    Path {
        /// Which path.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
    /// Another agent writes to it.
    #[error("history {}: another wgnat agent is writing to it (it holds {}.lock): give each agent its own --store", path.display(), path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// Made by a newer wgnat.
    #[error("history {}: it has schema {found}, and this wgnat knows up to {known}: use the newer wgnat, or another --store", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// Made by an older wgnat, and only an agent may change it; of schema 0 is a file to which nothing was written yet.
    #[error("history {}: it has schema {found}: start an agent of this wgnat on it, which brings it up to date", path.display())]
    Older {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// The agent is about to end.
    #[error("history: the agent is about to end")]
    Ending,
    /// The database refused.
    #[error("history {}: {doing}", path.display())]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        source: rusqlite::Error,
    },
    /// A lock or a name could not be had.
    #[error("history {}: {doing}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes on disk.
    pub bytes: u64,
    /// Nothing is older.
    pub age: Span,
}

/// A number at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The metric's name.
    pub name: &'static str,
    /// Its labels as a JSON object.
    pub labels: String,
    /// The value.
    pub value: f64,
}

/// A finding as history keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct FindingRecord {
    /// Its code.
    pub code: String,
    /// What it is about, as one text.
    pub subject: String,
    /// How bad.
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
    /// The finding as `wgnat.report/1` has it.
    pub data: String,
}

/// Something to be kept.
#[derive(Clone, Debug)]
pub enum Record {
    /// Numbers at one moment.
    Samples {
        /// When.
        at: Timestamp,
        /// The numbers.
        points: Vec<Point>,
    },
    /// Something that happened.
    Event {
        /// When.
        at: Timestamp,
        /// Which kind.
        kind: &'static str,
        /// What, as JSON.
        data: String,
    },
    /// A finding as it is now: it takes the place of what was known of it.
    Finding(Box<FindingRecord>),
    /// The clock was set: for a while nothing is thrown away for its age.
    Stepped,
}

/// The database, and how it fares; shared between the writer and readers within the agent.
pub(crate) struct Shared {
    db: Mutex<write::Db>,
    stats: Mutex<StoreStats>,
    interrupt: write::Interrupt,
    /// The agent ends: nothing is read or tidied any more.
    ending: AtomicBool,
    /// What is done now can be broken off.
    leisurely: AtomicBool,
}

impl Shared {
    fn db(&self) -> MutexGuard<'_, write::Db> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> MutexGuard<'_, StoreStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what may be broken off at the agent's end; nothing where that has come.
    fn leisurely<T>(&self, work: impl FnOnce(&mut write::Db) -> T) -> Option<T> {
        let mut db = self.db();
        self.leisurely.store(true, Ordering::SeqCst);
        // Asked after it was marked: whoever ends it either is seen here or sees the mark.
        let done = (!self.ending.load(Ordering::SeqCst)).then(|| work(&mut db));
        self.leisurely.store(false, Ordering::SeqCst);
        done
    }

    /// Breaks off what can be.
    fn break_off(&self) {
        self.ending.store(true, Ordering::SeqCst);
        if self.leisurely.load(Ordering::SeqCst) {
            let handle = self.interrupt.lock().unwrap_or_else(PoisonError::into_inner);
            handle.interrupt();
        }
    }
}

/// Takes records.
pub struct Writer {
    records: SyncSender<write::Message>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    ended: Receiver<()>,
}

impl Writer {
    /// Hands `record` to the writing thread; where its queue is full, it is dropped and counted.
    pub fn write(&self, record: Record) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.records.try_send(write::Message::Record(record))
        {
            self.shared.stats().dropped += 1;
        }
    }

    /// How it fares.
    pub fn stats(&self) -> StoreStats {
        self.shared.stats().clone()
    }

    /// Writes what is waiting, and ends. False where that took too long; the file is whole all the same.
    pub fn stop(mut self) -> bool {
        // A full queue is being written: there is no place for the word, so the channel's end is the word.
        let (sender, _) = sync_channel(0);
        drop(std::mem::replace(&mut self.records, sender));
        let end = clock::instant() + LAST_BATCH;
        let in_time = loop {
            self.shared.break_off();
            let left = end.saturating_duration_since(clock::instant());
            match self.ended.recv_timeout(left.min(BREAK_OFF_EVERY)) {
                Ok(()) => break true,
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) if left.is_zero() => break false,
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        if in_time && let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        in_time
    }
}

/// Reads what the agent has written, also where that is in memory.
#[derive(Clone)]
pub struct Reader(Arc<Shared>);

impl Reader {
    fn read<T>(
        &self,
        read: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let failed = |db: &write::Db, source| StoreError::Sqlite {
            path: db.path().to_owned(),
            doing: "it could not be read",
            source,
        };
        let done = self
            .0
            .leisurely(|db| read(db.connection()).map_err(|source| failed(db, source)));
        done.unwrap_or(Err(StoreError::Ending))
    }

    /// Series with their points, or where no name is given the names that there are, as JSON.
    pub fn series_json(&self, query: &SeriesQuery) -> Result<String, StoreError> {
        self.read(|connection| query::series_json(connection, query))
    }

    /// Series with their points, and how far apart these are in seconds.
    pub fn series(&self, query: &SeriesQuery) -> Result<(i64, Vec<SeriesRow>), StoreError> {
        self.read(|connection| query::series(connection, query))
    }

    /// The newest events since `from`, newest first, `most` of them at most.
    pub fn newest_events(&self, from: Timestamp, most: usize) -> Result<Vec<EventRow>, StoreError> {
        self.read(|connection| query::newest_events(connection, from, most))
    }

    /// Findings and events since `from`, as JSON.
    pub fn history_json(&self, from: Timestamp) -> Result<String, StoreError> {
        self.read(|connection| query::history_json(connection, from))
    }

    /// Findings that were seen since `from`.
    pub fn findings(&self, from: Timestamp) -> Result<Vec<FindingRow>, StoreError> {
        self.read(|connection| query::findings(connection, from))
    }
}

/// Starts the writing thread, which does `first` before anything else.
pub fn start(
    store: Store,
    limits: Limits,
    first: impl FnOnce() + Send + 'static,
) -> std::io::Result<(Writer, Reader)> {
    let (records, receiver) = sync_channel(QUEUE);
    let (done, ended) = sync_channel(1);
    let (db, stats) = store.into_db(limits);
    let shared = Arc::new(Shared {
        interrupt: db.interrupt(),
        db: Mutex::new(db),
        stats: Mutex::new(stats),
        ending: AtomicBool::new(false),
        leisurely: AtomicBool::new(false),
    });
    let theirs = Arc::clone(&shared);
    let thread = std::thread::Builder::new()
        .name("store".to_owned())
        .stack_size(512 * 1024)
        .spawn(move || {
            first();
            write::run(&theirs, &receiver);
            // With it goes the lock, where nobody else has it.
            drop(theirs);
            let _ = done.send(());
        })?;
    let writer = Writer {
        records,
        shared: Arc::clone(&shared),
        thread: Some(thread),
        ended,
    };
    Ok((writer, Reader(shared)))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

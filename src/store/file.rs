//! The file: its lock, how it is opened, and what is done with one that is no database.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Limits, StoreError, schema, write};
use crate::report::agent::StoreStats;
use crate::sys::clock;
use crate::time::Timestamp;

/// Files set aside that are left lying; older ones are removed.
const ASIDE_KEPT: usize = 2;

/// An open history that nobody writes to yet.
pub struct Store {
    path: PathBuf,
    lock: File,
    connection: Connection,
    set_aside: u64,
    reason: Option<String>,
    in_memory: bool,
}

impl Store {
    /// Takes `path` for this agent alone. What is not a database is set aside; where the disk is full it begins in memory.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let wrong = |what: &str| StoreError::Path {
            path: path.to_owned(),
            what: what.to_owned(),
        };
        match std::fs::metadata(path) {
            Ok(there) if there.is_dir() => {
                return Err(wrong(
                    "it is a directory: expected a file, or a name for a new one in it",
                ));
            }
            Ok(there) if !there.is_file() => return Err(wrong("it is no regular file")),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
                if parent.is_some_and(|parent| !parent.is_dir()) {
                    return Err(wrong("its directory does not exist: make it first"));
                }
            }
            Err(source) => {
                return Err(StoreError::Io {
                    path: path.to_owned(),
                    doing: "it cannot be looked at",
                    source,
                });
            }
        }
        let lock = take_lock(path)?;
        let mut set_aside = 0;
        let mut reason = None;
        let opened = match open(path) {
            Err(StoreError::Sqlite { source, .. }) if is_broken(&source) => {
                let aside = set_it_aside(path)?;
                set_aside = 1;
                reason = Some(format!(
                    "it was no database any more and is now {}",
                    aside.display()
                ));
                tracing::warn!(
                    "history {}: no database any more ({source}); set aside as {}, a new one is begun",
                    path.display(),
                    aside.display()
                );
                open(path)
            }
            other => other,
        };
        let (connection, in_memory) = match opened {
            Ok(connection) => (connection, false),
            Err(StoreError::Sqlite { source, .. }) if is_full(&source) => {
                tracing::warn!("history {}: {source}; going on in memory", path.display());
                reason = Some(source.to_string());
                let memory = in_memory().map_err(|source| StoreError::Sqlite {
                    path: path.to_owned(),
                    doing: "no database can be made in memory",
                    source,
                })?;
                (memory, true)
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            lock,
            connection,
            set_aside,
            reason,
            in_memory,
        })
    }

    /// Findings that were not over when the agent before ended.
    pub fn open_findings(&self) -> Vec<super::FindingRow> {
        let all = super::query::findings(&self.connection, Timestamp::EPOCH).unwrap_or_default();
        all.into_iter().filter(|row| row.cleared_at.is_none()).collect()
    }

    pub(super) fn into_db(self, limits: Limits) -> (write::Db, StoreStats) {
        let stats = StoreStats {
            state: if self.in_memory { "memory" } else { "file" },
            reason: self.reason,
            bytes: 0,
            dropped: 0,
            set_aside: self.set_aside,
        };
        let db = write::Db::new(self.path, self.lock, self.connection, self.in_memory, limits);
        (db, stats)
    }
}

/// Opens a history for reading, whoever writes to it.
pub fn open_readonly(path: &Path) -> Result<Connection, StoreError> {
    let sqlite = |doing| {
        move |source| StoreError::Sqlite {
            path: path.to_owned(),
            doing,
            source,
        }
    };
    if !path.is_file() {
        return Err(StoreError::Path {
            path: path.to_owned(),
            what: "there is no such file: expected what an agent's --store names".to_owned(),
        });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite("it cannot be opened"))?;
    connection
        .busy_timeout(std::time::Duration::from_secs(5))
        .map_err(sqlite("it cannot be opened"))?;
    let found = schema::version(&connection).map_err(sqlite("it cannot be read"))?;
    if found > schema::VERSION {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: schema::VERSION,
        });
    }
    if found < schema::VERSION {
        return Err(StoreError::Older {
            path: path.to_owned(),
            found,
        });
    }
    Ok(connection)
}

fn take_lock(path: &Path) -> Result<File, StoreError> {
    let failed = |doing| {
        move |source| StoreError::Io {
            path: path.to_owned(),
            doing,
            source,
        }
    };
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, ".lock"))
        .map_err(failed("its lock cannot be made beside it"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed("its lock cannot be taken")(source)),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Opens `path` for writing, brings it up to date and tries whether it can be written.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let sqlite = |doing| {
        move |source| StoreError::Sqlite {
            path: path.to_owned(),
            doing,
            source,
        }
    };
    // Made here and not by SQLite, so that only its owner can read it.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| StoreError::Io {
            path: path.to_owned(),
            doing: "it cannot be written",
            source,
        })?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite("it cannot be opened"))?;
    tune(&connection).map_err(sqlite("it cannot be opened"))?;
    let found = schema::version(&connection).map_err(sqlite("it cannot be read"))?;
    if found > schema::VERSION {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: schema::VERSION,
        });
    }
    schema::migrate(&mut connection).map_err(sqlite("its schema cannot be brought up to date"))?;
    Ok(connection)
}

/// A history that ends with the process.
pub(super) fn in_memory() -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    tune(&connection)?;
    schema::migrate(&mut connection)?;
    Ok(connection)
}

fn tune(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(2))?;
    // NORMAL in WAL mode loses at most the last batches at a power cut, and nothing at a kill; the file stays whole.
    // auto_vacuum must be chosen before the first table.
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA wal_autocheckpoint = 256;
         PRAGMA journal_size_limit = 1048576;
         PRAGMA cache_size = -512;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;",
    )
}

/// Gives a file that is no database another name.
pub(super) fn set_it_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let stamp = clock::now().as_nanos() / 1_000_000;
    let aside = beside(path, &format!(".corrupt-{stamp}"));
    std::fs::rename(path, &aside).map_err(|source| StoreError::Io {
        path: path.to_owned(),
        doing: "it is no database any more and cannot be set aside",
        source,
    })?;
    for ending in ["-wal", "-shm"] {
        // They belong to the old file, and would spoil the new one.
        let _ = std::fs::remove_file(beside(path, ending));
    }
    forget_old_ones(path);
    Ok(aside)
}

fn forget_old_ones(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let prefix = format!("{}.corrupt-", name.to_string_lossy());
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    let mut aside: Vec<PathBuf> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    aside.sort();
    let surplus = aside.len().saturating_sub(ASIDE_KEPT);
    for old in aside.into_iter().take(surplus) {
        let _ = std::fs::remove_file(old);
    }
}

/// Whether the file is no database, or one with holes.
pub(super) fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Whether the disk takes no more, for now.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
        )
    )
}

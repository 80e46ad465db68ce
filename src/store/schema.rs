//! The tables, by version. A file of any version is brought up to the newest, step by step, each in one transaction.

use rusqlite::{Connection, Transaction};

/// Each step from one version to the next; never changed once released.
const STEPS: &[&str] = &[
    // 1: samples by how coarse they are, events, findings.
    "CREATE TABLE series (
         id INTEGER PRIMARY KEY,
         name TEXT NOT NULL,
         labels TEXT NOT NULL,
         UNIQUE (name, labels)
     ) STRICT;
     CREATE TABLE samples (
         step INTEGER NOT NULL,
         series INTEGER NOT NULL,
         at INTEGER NOT NULL,
         value REAL NOT NULL,
         low REAL NOT NULL,
         high REAL NOT NULL,
         n INTEGER NOT NULL,
         PRIMARY KEY (step, series, at)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE events (
         id INTEGER PRIMARY KEY,
         at INTEGER NOT NULL,
         kind TEXT NOT NULL,
         data TEXT NOT NULL
     ) STRICT;
     CREATE INDEX events_by_time ON events (at);
     CREATE TABLE findings (
         code TEXT NOT NULL,
         subject TEXT NOT NULL,
         severity TEXT NOT NULL,
         title TEXT NOT NULL,
         first_seen INTEGER NOT NULL,
         last_seen INTEGER NOT NULL,
         count INTEGER NOT NULL,
         cleared_at INTEGER,
         data TEXT NOT NULL,
         PRIMARY KEY (code, subject)
     ) STRICT, WITHOUT ROWID;",
    // 2: when an agent was running, so that a gap in the samples can be told from a quiet host.
    "CREATE TABLE runs (
         id INTEGER PRIMARY KEY,
         began INTEGER NOT NULL,
         last INTEGER NOT NULL,
         version TEXT NOT NULL
     ) STRICT;",
];

/// The newest version.
pub const VERSION: i64 = STEPS.len() as i64;

/// The version of a file; 0 for an empty one.
pub fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings a file up to the newest version.
pub fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let from = usize::try_from(version(connection)?).unwrap_or(0);
    for (done, step) in STEPS.iter().enumerate().skip(from) {
        let transaction = connection.transaction()?;
        apply(&transaction, step, done + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

fn apply(transaction: &Transaction<'_>, step: &str, version: usize) -> rusqlite::Result<()> {
    transaction.execute_batch(step)?;
    // A pragma takes no parameters; the number is ours.
    transaction.execute_batch(&format!("PRAGMA user_version = {version}"))
}

#[cfg(test)]
pub fn begin_at(connection: &mut Connection, version: usize) {
    for (done, step) in STEPS.iter().enumerate().take(version) {
        let transaction = connection.transaction().unwrap();
        apply(&transaction, step, done + 1).unwrap();
        transaction.commit().unwrap();
    }
}

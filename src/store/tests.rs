//! What history survives: other versions' files, broken files, full disks, other agents, clocks that are set.

use std::path::Path;

use rusqlite::Connection;

use super::*;
use crate::sys::clock;

const LIMITS: Limits = Limits {
    bytes: 64 * 1024 * 1024,
    age: Span::from_secs(31 * 86_400),
};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

fn samples(secs: i64, value: f64) -> Record {
    Record::Samples {
        at: at(secs),
        points: vec![Point {
            name: "wgnat_conntrack_entries",
            labels: "{}".to_owned(),
            value,
        }],
    }
}

fn finding(secs: i64, cleared: Option<i64>) -> Record {
    Record::Finding(Box::new(FindingRecord {
        code: "conntrack-low".to_owned(),
        subject: "conntrack".to_owned(),
        severity: "warning".to_owned(),
        title: "a title".to_owned(),
        first_seen: at(0),
        last_seen: at(secs),
        count: 2,
        cleared_at: cleared.map(at),
        data: "{}".to_owned(),
    }))
}

fn query(from: i64, to: i64) -> SeriesQuery {
    SeriesQuery {
        name: Some("wgnat_conntrack_entries".to_owned()),
        labels: None,
        from: at(from),
        to: at(to),
        points: 1000,
    }
}

/// Writes `records` and ends.
fn write(path: &Path, records: impl IntoIterator<Item = Record>) -> StoreStats {
    let store = Store::open(path).unwrap();
    let (writer, _) = start(store, LIMITS, || ()).unwrap();
    for record in records {
        writer.write(record);
    }
    let shared = Arc::clone(&writer.shared);
    drop(writer.records);
    writer.ended.recv().unwrap();
    shared.stats().clone()
}

#[test]
fn what_was_written_is_read_by_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let event = Record::Event {
        at: at(7),
        kind: "clock",
        data: "{\"a\":1}".to_owned(),
    };
    let stats = write(
        &path,
        [
            samples(0, 1.0),
            samples(10, 3.0),
            event,
            finding(5, None),
            finding(9, None),
        ],
    );
    assert_eq!((stats.state, stats.dropped, stats.set_aside), ("file", 0, 0));
    assert!(stats.bytes > 0);
    let reader = open_readonly(&path).unwrap();
    let (step, series) = query::series(&reader, &query(-100, 100)).unwrap();
    assert_eq!(step, 10);
    assert_eq!(
        series[0].points,
        [(1_700_000_000, 1.0, 1.0, 1.0), (1_700_000_010, 3.0, 3.0, 3.0)]
    );
    let events = query::events(&reader, at(0)).unwrap();
    assert_eq!((events.len(), events[0].data["a"].as_i64()), (1, Some(1)));
    let findings = query::findings(&reader, at(0)).unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].last_seen, findings[0].count), (at(9), 2));
    assert_eq!(query::runs(&reader, Timestamp::EPOCH).unwrap().len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
}

#[test]
fn a_file_of_each_version_is_brought_up_to_date_and_keeps_what_it_holds() {
    for version in 0..=usize::try_from(VERSION).unwrap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("h");
        let mut old = Connection::open(&path).unwrap();
        schema::begin_at(&mut old, version);
        if version >= 1 {
            old.execute_batch(
                "INSERT INTO series VALUES (1, 'wgnat_conntrack_entries', '{}');
                 INSERT INTO samples VALUES (10, 1, 1700000000, 5.0, 4.0, 6.0, 2);
                 INSERT INTO events (at, kind, data) VALUES (1700000000000000000, 'old', '{}');
                 INSERT INTO findings VALUES ('x', 'y', 'warning', 't', 1700000000000000000, 1700000000000000000, 1, NULL, '{}');",
            )
            .unwrap();
        }
        drop(old);
        write(&path, [samples(10, 7.0)]);
        let reader = open_readonly(&path).unwrap();
        assert_eq!(schema::version(&reader).unwrap(), VERSION);
        let (_, series) = query::series(&reader, &query(-100, 100)).unwrap();
        let expected = usize::from(version >= 1) + 1;
        assert_eq!(series[0].points.len(), expected, "version {version}");
        assert_eq!(query::events(&reader, at(-1)).unwrap().len(), expected - 1);
        assert_eq!(query::findings(&reader, at(-1)).unwrap().len(), expected - 1);
    }
}

#[test]
fn a_newer_file_is_left_alone_and_said_to_be_newer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let newer = Connection::open(&path).unwrap();
    newer.execute_batch("PRAGMA user_version = 99").unwrap();
    drop(newer);
    let before = std::fs::read(&path).unwrap();
    for error in [
        Store::open(&path).err().unwrap(),
        open_readonly(&path).err().unwrap(),
    ] {
        assert!(error.to_string().contains("schema 99"), "{error}");
    }
    // Its journal mode may be noted in it; what it holds is untouched.
    assert_eq!(std::fs::read(&path).unwrap()[100..], before[100..]);
}

#[test]
fn what_is_no_database_is_set_aside_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    for round in 1_u8..5 {
        std::fs::write(&path, [round; 8192]).unwrap();
        let stats = write(&path, [samples(0, 1.0)]);
        assert_eq!((stats.state, stats.set_aside), ("file", 1));
        assert!(stats.reason.unwrap().contains(".corrupt-"));
        let reader = open_readonly(&path).unwrap();
        assert_eq!(query::names(&reader).unwrap().len(), 1);
    }
    let aside = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains(".corrupt-")
        })
        .count();
    assert_eq!(aside, 2, "older ones are removed");
}

#[test]
fn a_file_that_breaks_while_it_is_written_is_set_aside_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    write(&path, (0..500).map(|n| samples(n * 10, 1.0)));
    let store = Store::open(&path).unwrap();
    // Every page but the first, behind the database's back.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let (writer, reader) = start(store, LIMITS, || ()).unwrap();
    writer.write(samples(6000, 2.0));
    writer.write(finding(5, None));
    drop(writer.records);
    writer.ended.recv().unwrap();
    let stats = writer.shared.stats().clone();
    assert_eq!((stats.state, stats.set_aside, stats.dropped), ("file", 1, 0));
    let text = reader.series_json(&query(5000, 7000)).unwrap();
    assert!(text.contains("[1700006000,2.0,2.0,2.0]"), "{text}");
}

#[test]
fn a_second_agent_on_one_file_is_refused_and_a_third_after_the_first_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let first = Store::open(&path).unwrap();
    let error = Store::open(&path).err().unwrap();
    assert!(error.to_string().contains("another wgnat agent"), "{error}");
    drop(first);
    assert!(Store::open(&path).is_ok());
}

#[test]
fn places_that_cannot_hold_a_history_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (path, what) in [
        (dir.path().to_owned(), "it is a directory"),
        (dir.path().join("no/h"), "its directory does not exist"),
        ("/dev/null".into(), "no regular file"),
    ] {
        let error = Store::open(&path).err().unwrap().to_string();
        assert!(
            error.contains(what) && error.contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn old_points_grow_coarse_and_then_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    // A day, each ten seconds: the value is the hour.
    let day = (0_u32..8640).map(|n| samples(i64::from(n) * 10, f64::from(n / 360)));
    let mut db = opened(&path);
    for batch in day.collect::<Vec<_>>().chunks(500) {
        db.write(batch, at(0)).unwrap();
    }
    tidy(&mut db, LIMITS, at(86_400), true).unwrap();
    let count = |db: &write::Db, step: i64| -> i64 {
        let sql = "SELECT count(*) FROM samples WHERE step = ?1";
        db.connection().query_row(sql, [step], |row| row.get(0)).unwrap()
    };
    assert_eq!(
        (count(&db, 10), count(&db, 60), count(&db, 600)),
        (2160, 1440, 144)
    );
    let (step, series) = query::series(db.connection(), &query(0, 86_400)).unwrap();
    assert_eq!(step, 600);
    let point = series[0].points[60];
    assert_eq!((point.1, point.2, point.3), (10.0, 10.0, 10.0));
    // A month later nothing of it is left but what is coarse, and then nothing.
    tidy(&mut db, LIMITS, at(30 * 86_400), true).unwrap();
    // The last ten minutes of the day were not over then.
    assert_eq!((count(&db, 10), count(&db, 60), count(&db, 600)), (0, 0, 145));
    tidy(&mut db, LIMITS, at(40 * 86_400), true).unwrap();
    assert_eq!(count(&db, 600), 0);
    assert_eq!(query::names(db.connection()).unwrap(), [] as [String; 0]);
}

fn tidy(db: &mut write::Db, limits: Limits, now: Timestamp, trusted: bool) -> rusqlite::Result<()> {
    db.limits = limits;
    db.tidy(now, trusted)
}

fn opened(path: &Path) -> write::Db {
    Store::open(path).unwrap().into_db(LIMITS).0
}

#[test]
fn a_clock_that_is_wrong_throws_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = opened(&dir.path().join("h"));
    db.write(&[samples(0, 1.0), finding(0, Some(0))], at(0)).unwrap();
    let count = |db: &write::Db| -> i64 {
        let sql = "SELECT (SELECT count(*) FROM samples WHERE step = 10) + (SELECT count(*) FROM findings)";
        db.connection().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    // Ten years ahead, and back to 1970.
    for now in [at(10 * 365 * 86_400), Timestamp::from_secs(5)] {
        tidy(&mut db, LIMITS, now, false).unwrap();
        assert_eq!(count(&db), 2);
    }
    tidy(&mut db, LIMITS, at(10 * 365 * 86_400), true).unwrap();
    assert_eq!(count(&db), 0);
}

#[test]
fn the_size_is_kept_and_the_newest_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h");
    let mut db = opened(&path);
    let limits = Limits {
        bytes: 300 * 1024,
        ..LIMITS
    };
    let names: Vec<String> = (0..100).map(|n| format!("{{\"n\":\"{n}\"}}")).collect();
    for second in 0..400_i64 {
        let points = names.iter().map(|labels| Point {
            name: "wgnat_x",
            labels: labels.clone(),
            value: 1.0,
        });
        let record = Record::Samples {
            at: at(second * 10),
            points: points.collect(),
        };
        db.write(&[record], at(0)).unwrap();
        if second % 50 == 0 {
            tidy(&mut db, limits, at(second * 10), true).unwrap();
            let bytes = retain::bytes(db.connection()).unwrap();
            assert!(bytes <= limits.bytes, "{bytes} after {second}");
        }
    }
    let sql = "SELECT max(at) FROM samples WHERE step = 10";
    let newest: i64 = db.connection().query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(newest, 1_700_003_990);
    drop(db);
    assert!(std::fs::metadata(&path).unwrap().len() < 2 * 1024 * 1024);
}

#[test]
fn a_queue_that_is_full_drops_and_counts_and_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("h")).unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (writer, _) = start(store, LIMITS, move || {
        let _ = wait.recv();
    })
    .unwrap();
    let begun = clock::instant();
    for n in 0..2000 {
        writer.write(samples(n, 1.0));
    }
    assert!(clock::instant() - begun < Span::from_secs(30));
    assert_eq!(writer.stats().dropped, 2000 - QUEUE as u64);
    go.send(()).unwrap();
    drop(writer.records);
    writer.ended.recv().unwrap();
}

//! SIGKILL at any moment, while history is written as fast as it can be and while an agent begins: what was there before is there
//! afterwards, the file is whole, and the next one goes on with it.

// A panic is how a test fails; the seed is for whoever wants the same moments again.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod agent;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use agent::{Agent, PATIENCE, free_port};
use wgnat::store::{self, FindingRecord, Limits, Point, Record, Store, open_readonly, query};
use wgnat::sys::{clock, random};
use wgnat::time::{Span, Timestamp};

/// Where the writer below is to write; it writes nowhere else.
const PLACE: &str = "WGNAT_TEST_HAMMER";
/// Findings that it writes over and over, each time with the next number as its count: so the file does not grow.
const FINDINGS: u32 = 50;
/// What it says when its history holds this number.
const HOLDS: &str = "hammer-holds ";
/// No more kills than this, and none after so long.
const KILLS: usize = 40;
const LONG_ENOUGH: Duration = Duration::from_secs(25);

const LIMITS: Limits = Limits {
    bytes: 2 * 1024 * 1024,
    age: Span::from_secs(31 * 86_400),
};

/// A number that looks random (SplitMix64, from "Fast splittable pseudorandom number generators", 2014).
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// Not a test: writes to the history that is named, by the store's own writer, until it is killed. It says how much of it can be
/// read back. Passes at once elsewhere.
#[test]
fn hammer() {
    let Some(path) = std::env::var_os(PLACE) else {
        return;
    };
    let path = Path::new(&path);
    let (writer, _) = store::start(Store::open(path).unwrap(), LIMITS, || ()).unwrap();
    let reader = open_readonly(path).unwrap();
    let end = clock::instant() + PATIENCE;
    let mut number = newest(&reader);
    let mut told = number;
    while clock::instant() < end {
        // More than makes a batch, and no more than the queue holds.
        for _ in 0..600 {
            number += 1;
            writer.write(Record::Finding(Box::new(finding(number))));
        }
        writer.write(Record::Samples {
            at: clock::now(),
            points: (0..200).map(|n| point(n, f64::from(number))).collect(),
        });
        while newest(&reader) <= told && clock::instant() < end {
            std::thread::yield_now();
        }
        told = newest(&reader);
        println!("{HOLDS}{told}");
    }
}

fn point(n: u32, value: f64) -> Point {
    Point {
        name: "wgnat_x",
        labels: format!("{{\"n\":\"{n}\"}}"),
        value,
    }
}

fn finding(number: u32) -> FindingRecord {
    let now = clock::now();
    FindingRecord {
        code: "fd-limit".to_owned(),
        subject: format!("process {}", number % FINDINGS),
        severity: "info".to_owned(),
        title: "a title".to_owned(),
        first_seen: now,
        last_seen: now,
        count: number,
        cleared_at: None,
        data: "{}".to_owned(),
    }
}

/// The newest number that can be read back; 0 where there is none.
fn newest(reader: &rusqlite::Connection) -> u32 {
    let sql = "SELECT ifnull(max(count), 0) FROM findings WHERE code = 'fd-limit'";
    reader.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The writer, in a process of its own; and what it says.
fn start_hammer(path: &Path) -> (Child, Receiver<u32>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hammer", "--nocapture", "--test-threads=1"])
        .env(PLACE, path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, said) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let held = line.split_once(HOLDS).and_then(|(_, n)| n.parse().ok());
            if held.is_some_and(|held| sender.send(held).is_err()) {
                return;
            }
        }
    });
    (child, said)
}

/// The newest number that it told so far; `known` where it says nothing more within `span`.
fn newest_said(said: &Receiver<u32>, span: Duration, known: u32) -> u32 {
    let end = clock::instant() + span;
    let mut newest = known;
    loop {
        let left = end.saturating_duration_since(clock::instant());
        match said.recv_timeout(left) {
            Ok(held) => newest = held,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return newest,
        }
    }
}

/// The file is whole, has no gap, and holds at least what was read back before.
#[track_caller]
fn is_whole(path: &Path, least: u32, what: &str) -> u32 {
    // As the next agent opens it, which brings it up to date; and then as a reader.
    drop(Store::open(path).unwrap_or_else(|e| panic!("{what}: {e}")));
    let reader = open_readonly(path).unwrap();
    let check: String = reader
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok", "{what}");
    let held = newest(&reader);
    assert!(held >= least, "{what}: {held} of {least}");
    // A batch is there as a whole or not at all, and none is there without those before it: the newest numbers, all of them.
    let sql = "SELECT count(*), ifnull(min(count), 0) FROM findings WHERE code = 'fd-limit'";
    let (there, oldest): (u32, u32) = reader
        .query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(there, held.min(FINDINGS), "{what}");
    assert_eq!(
        oldest,
        (held + 1).saturating_sub(FINDINGS).max(held.min(1)),
        "{what}"
    );
    let orphans = "SELECT count(*) FROM samples WHERE series NOT IN (SELECT id FROM series)";
    let orphans: u32 = reader.query_row(orphans, [], |row| row.get(0)).unwrap();
    assert_eq!(orphans, 0, "{what}");
    held
}

fn set_aside(path: &Path) -> usize {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap();
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains(".corrupt-"))
        .count()
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_written_and_the_next_goes_on() {
    let seed = std::env::var("WGNAT_SEED").map_or_else(
        |_| u64::from_ne_bytes(random::bytes().unwrap()),
        |text| text.parse().expect("WGNAT_SEED is a number"),
    );
    eprintln!("WGNAT_SEED={seed}");
    let mut moments = Moments(seed);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    let begun = clock::instant();
    let mut held = 0;
    let mut by_hammer = 0;
    for kill in 0..KILLS {
        if clock::instant() - begun > LONG_ENOUGH {
            break;
        }
        let after = Duration::from_micros(moments.next(400_000));
        let what = format!("WGNAT_SEED={seed}, kill {kill} after {after:?}");
        if moments.next(3) == 0 {
            // At any moment of its beginning: opening, bringing up to date, the first batch.
            let mut command = agent::command();
            command.arg("--store").arg(&path);
            let mut agent = Agent::begun(command, free_port(), Box::new(std::net::TcpStream::connect));
            // The moment is what is tried, so it is waited for and nothing else.
            std::thread::sleep(after);
            agent.signal("KILL");
            agent.wait();
        } else {
            let (mut hammer, said) = start_hammer(&path);
            // Once it is at work, from any moment on.
            let known = said.recv_timeout(PATIENCE).expect("it writes");
            let known = newest_said(&said, after, known);
            hammer.kill().unwrap();
            hammer.wait().unwrap();
            held = known.max(newest_said(&said, Duration::ZERO, known));
            by_hammer += 1;
        }
        if path.exists() {
            held = is_whole(&path, held, &what);
        }
    }
    assert!(by_hammer >= 3, "{by_hammer} kills while it wrote");
    assert_eq!(set_aside(&path), 0, "WGNAT_SEED={seed}");
    // An agent goes on with all of it.
    let runs = || {
        let reader = open_readonly(&path).unwrap();
        query::runs(&reader, Timestamp::EPOCH).unwrap().len()
    };
    let before = runs();
    let agent = Agent::start(&["--store", path.to_str().unwrap()]);
    agent.until("it has written too", |_| runs() > before);
    assert_eq!(agent.metric("wgnat_store_state{state=\"file\"}"), Some(1.0));
    drop(agent);
    is_whole(&path, held, "the agent that went on");
}

//! Runs in the lab kept as cases that need no lab: an anonymised record, and what it must be judged to be.
//!
//! Only with `WGNAT_RECORD_CASES=1`; see tests/replays/README.md.

use super::Verdict;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;
use wgnat::observation::{Body, Observation, Source, log};
use wgnat::redact::Anonymiser;
use wgnat::time::Timestamp;

const VARIABLE: &str = "WGNAT_RECORD_CASES";
/// A case is read by people and kept for good.
const LARGEST: u64 = 200_000;

/// A record under way.
#[derive(Debug)]
pub struct Recording {
    name: String,
    raw: PathBuf,
}

impl Recording {
    /// Begins one where the environment asks for it.
    pub fn begin(name: &str) -> Option<Self> {
        std::env::var_os(VARIABLE)?;
        // The first part of the name lets the lab's sweep remove it, should this test be killed.
        let file = format!("wgnat-{}-0-case-{name}", std::process::id());
        Some(Self {
            name: name.to_owned(),
            raw: std::env::temp_dir().join(file),
        })
    }

    /// Where doctor shall record to.
    pub fn raw(&self) -> &Path {
        &self.raw
    }

    /// Keeps the record, anonymised, with the verdict that the lab's test has found right or will find wrong.
    #[track_caller]
    pub fn keep(self, verdict: &Verdict) {
        keep_copy(&self.name, &self.raw, verdict);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.raw);
    }
}

/// Keeps a record as the case `name`, where the environment asks for it.
#[track_caller]
pub fn keep_copy(name: &str, record: &Path, verdict: &Verdict) {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let file = directory().join(format!("{name}.jsonl"));
    anonymise(record, &file);
    let size = fs::metadata(&file).expect("it was written").len();
    assert!(
        size <= LARGEST,
        "the record of {name} has {size} bytes, more than {LARGEST}"
    );
    fs::write(file.with_extension("expect"), outline(verdict)).expect("the directory is writable");
}

/// Where cases are kept.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replays")
}

/// Copies a record with other names, addresses and keys.
#[track_caller]
pub fn anonymise(from: &Path, to: &Path) {
    // The same names stand for the same things in every case, so that recording anew changes what changed only.
    let mut anonymiser = Anonymiser::new([7; 32]);
    edit(from, to, |record| {
        thin(record);
        record.header.anonymised = true;
        for observation in &mut record.observations {
            *observation = anonymiser.observation(observation);
        }
    });
}

/// Leaves out what no verdict hangs on: a case is read by people. What was seen twice alike is kept once; of protocol
/// counters, most of which never move, the first and the last are kept, without the dull ones.
fn thin(record: &mut Record) {
    let is_counters = |o: &Observation| matches!(o.body, Body::Counters(_));
    let last_counters = record.observations.iter().rposition(is_counters);
    let mut newest: BTreeMap<(Source, &'static str), Body> = BTreeMap::new();
    let mut index = 0;
    record.observations.retain_mut(|observation| {
        index += 1;
        let kind = match &mut observation.body {
            Body::Counters(counters) => {
                counters.0.retain(|name, value| *value > 0 || !is_dull(name));
                let first = newest
                    .insert((observation.source, "counters"), Body::Counters(counters.clone()))
                    .is_none();
                return first || Some(index - 1) == last_counters;
            }
            Body::Status(_) => "status",
            Body::Sysctls(_) => "sysctls",
            Body::Routes(_) => "routes",
            _ => return true,
        };
        let mut body = observation.body.clone();
        if let Body::Status(status) = &mut body {
            status.cost_cpu = Duration::ZERO;
        }
        let same = newest.get(&(observation.source, kind)) == Some(&body);
        newest.insert((observation.source, kind), body);
        !same
    });
}

/// Groups of counters about protocols that wgnat says nothing of.
fn is_dull(counter: &str) -> bool {
    let group = counter.split('.').next().unwrap_or_default();
    ["MPTcpExt", "UdpLite", "UdpLite6", "TcpExt", "IcmpMsg"].contains(&group)
        && counter != "TcpExt.IPReversePathFilter"
}

/// A record in memory.
#[derive(Debug)]
pub struct Record {
    /// The first line.
    pub header: log::Header,
    /// What was seen.
    pub observations: Vec<Observation>,
    /// The last line's time.
    pub end: Timestamp,
}

/// Copies a whole record with changes.
#[track_caller]
pub fn edit(from: &Path, to: &Path, change: impl FnOnce(&mut Record)) {
    let file = fs::File::open(from).unwrap_or_else(|e| panic!("no record {}: {e}", from.display()));
    let mut observations = Vec::new();
    let (header, end) = log::read(BufReader::new(file), |_| (), |o| observations.push(o.clone()))
        .unwrap_or_else(|e| panic!("{} is no record: {e}", from.display()));
    let mut record = Record {
        header,
        observations,
        end: end.expect("the record is whole"),
    };
    change(&mut record);
    let out = fs::File::create(to).unwrap_or_else(|e| panic!("cannot write {}: {e}", to.display()));
    let mut writer = log::Writer::begin(BufWriter::new(out), &record.header).expect("the disk has room");
    for observation in &record.observations {
        writer.write(observation).expect("the disk has room");
    }
    writer.end(record.end).expect("the disk has room");
}

/// A verdict in a few lines: the exit code, then each finding's severity, confidence and code, those folded away last.
pub fn outline(verdict: &Verdict) -> String {
    let mut text = format!("exit {}\n", verdict.code);
    for found in verdict.findings() {
        let confidence = found.value["confidence"].as_str().unwrap_or_default();
        let _ = writeln!(text, "{} {confidence} {}", found.severity(), found.code());
    }
    for code in verdict.suppressed() {
        let _ = writeln!(text, "folded {code}");
    }
    text
}

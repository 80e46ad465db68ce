//! Observer of connects and closes: an eBPF program counts them in the kernel, by process and destination.
//!
//! Needs: CAP_BPF and CAP_PERFMON (or root), Linux 5.6 with BTF, no lockdown in confidentiality mode. Costs: about 60 ms
//! once, to load; 0.1 ms a look; one to three microseconds per TCP connection while it is attached, nothing per packet
//! (docs/benchmarks.md). It counts from then on: what was opened before is not in its numbers, which say since when.
//!
//! Bounds: 4,096 (process, source, destination)s in the kernel, the least recently used make room; 65,536 open connections
//! followed; the 256 rows with most attempts reported. What did not fit is counted.

mod load;
mod programs;

use std::collections::BTreeSet;

use aya::maps::{Array, Map, MapData};

use self::load::Loaded;
use self::programs::Names;
use super::{Emit, ObserveError, Observer};
use crate::observation::connect::{ConnectRow, ConnectTally, Failures};
use crate::observation::socket::LeftOut;
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::{bpf, clock, netns};
use crate::time::{Span, Timestamp};
use crate::wire::bpf_records::{self as records, KEY, Key, LOSSES, Losses, TALLY, Tally};

/// How often to look.
const INTERVAL: Span = Span::from_secs(1);

/// Rows in one observation.
const MAX_ROWS: usize = 256;

/// The observer. The program is detached when it is dropped.
pub struct Bpf {
    loaded: Loaded,
    since: Timestamp,
    names: Names,
}

impl Bpf {
    /// Loads and attaches the program for the calling thread's network namespace.
    pub fn open() -> Result<Self, ObserveError> {
        let here = netns::current().ok_or_else(|| ObserveError::Absent {
            what: "the network namespace is not known: /proc/thread-self/ns/net is not there".to_owned(),
        })?;
        let loaded = load::load(here)?;
        Ok(Self {
            loaded,
            since: clock::now(),
            names: Names::default(),
        })
    }

    fn read(&self) -> Result<(Vec<(Key, Tally)>, Losses), ObserveError> {
        let failed = |doing: &str| {
            let doing = doing.to_owned();
            move |source| ObserveError::System { doing, source }
        };
        let mut rows = Vec::new();
        bpf::for_each::<KEY, TALLY>(self.loaded.tallies()?, load::TALLIES, |key, tally| {
            rows.push((records::key(key), records::tally(tally)));
        })
        .map_err(failed("reading the counted connections (BPF_MAP_LOOKUP_BATCH)"))?;
        let losses = self.loaded.losses()?;
        Ok((rows, losses))
    }

    fn row(&mut self, key: &Key, tally: Tally, clocks: &Clocks) -> ConnectRow {
        let used = tally
            .lifetimes
            .iter()
            .rposition(|n| *n > 0)
            .map_or(0, |last| last + 1);
        let time = |at: u64| (at > 0).then(|| clocks.wall(at));
        ConnectRow {
            process: self.names.of(key, &tally.comm),
            source: key.source,
            destination: key.destination,
            attempts: tally.attempts,
            established: tally.established,
            failed: Failures {
                no_port: tally.no_port,
                no_port_first: time(tally.no_port_first),
                no_port_last: time(tally.no_port_last),
                tuple_taken: tally.tuple_taken,
                refused: tally.refused,
                timed_out: tally.timed_out,
                unreachable: tally.unreachable,
                given_up: tally.given_up,
                other: tally.failed_otherwise,
            },
            closed_here: tally.closed_here,
            closed_there: tally.closed_there,
            reset_there: tally.reset_there,
            open: tally.open,
            peak: tally.peak,
            lifetime_total: Span::from_nanos(tally.lifetime_ns),
            lifetimes: tally.lifetimes.into_iter().take(used).collect(),
        }
    }
}

/// The wall clock and the program's, read together.
struct Clocks {
    wall: Timestamp,
    monotonic: Span,
}

impl Clocks {
    /// A moment of the program's clock by the wall clock, as that stands now.
    fn wall(&self, monotonic_ns: u64) -> Timestamp {
        self.wall
            .before(self.monotonic.saturating_sub(Span::from_nanos(monotonic_ns)))
    }
}

impl Observer for Bpf {
    fn source(&self) -> Source {
        Source::Bpf
    }

    fn interval(&self) -> Span {
        INTERVAL
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let began = clock::instant();
        let clocks = Clocks {
            wall: clock::now(),
            monotonic: clock::monotonic(),
        };
        let (mut counted, losses) = self.read()?;
        let evicted = losses.made.saturating_sub(counted.len() as u64);
        counted.sort_by_key(|(key, tally)| {
            (
                std::cmp::Reverse(tally.attempts),
                key.destination,
                key.source,
                key.tgid,
                key.started,
            )
        });
        let beyond = counted.split_off(counted.len().min(MAX_ROWS));
        let shown: BTreeSet<_> = counted.iter().map(|(key, _)| (key.tgid, key.started)).collect();
        self.names.keep(&shown);
        let tally = ConnectTally {
            since: self.since,
            rows: counted
                .into_iter()
                .map(|(key, tally)| self.row(&key, tally, &clocks))
                .collect(),
            left_out: LeftOut {
                items: beyond.len() as u64,
                members: beyond.iter().map(|(_, tally)| tally.attempts).sum(),
            },
        };
        emit.emit(clocks.wall, began.elapsed(), Body::Connects(tally));
        Ok(status(&losses, evicted, self.loaded.misses()))
    }
}

fn status(losses: &Losses, evicted: u64, misses: u64) -> SourceStatus {
    let mut reasons = Vec::new();
    if evicted > 0 {
        reasons.push(format!(
            "{evicted} (process, destination)s beyond {} were forgotten, the least recently used first",
            load::TALLIES
        ));
    }
    if losses.not_followed > 0 {
        reasons.push(format!(
            "{} connections were not followed: more than 65,536 were open at a time",
            losses.not_followed
        ));
    }
    SourceStatus {
        lost: evicted
            .saturating_add(losses.not_followed)
            .saturating_add(losses.orphans)
            .saturating_add(misses),
        ..if reasons.is_empty() {
            SourceStatus::ok()
        } else {
            SourceStatus::degraded(reasons.join("; "))
        }
    }
}

/// The one entry of the array `losses`.
fn read_losses(map: &Map) -> Option<Losses> {
    let array: Array<&MapData, [u8; LOSSES]> = Array::try_from(map).ok()?;
    array.get(&0, 0).ok().map(|bytes| records::losses(&bytes))
}

#[cfg(test)]
mod tests;

//! Observer of connects and closes: an eBPF program counts them in the kernel, by process and destination.
//!
//! Needs: CAP_BPF and CAP_PERFMON (or root), no lockdown in confidentiality mode; Linux 5.6 with BTF for all, tracefs for less
//! ([`load`] is the ladder). Costs: some 20 ms once, to load; 0.1 ms a look; one to three microseconds per TCP connection while
//! it is attached, nothing per packet; some tens of nanoseconds per system call while [`denials`] is attached
//! (docs/benchmarks.md). It counts from then on: what was opened before is not in its numbers, which say since when.
//!
//! Bounds: 4,096 (process, source, destination)s in the kernel, the least recently used make room; 65,536 open connections
//! followed; the 256 rows with most attempts reported. What did not fit is counted.

pub mod denials;
mod holders;
pub mod load;
pub mod object;
mod programs;
pub mod tables;
mod words;

use std::collections::BTreeSet;

use self::denials::When;
use self::load::{Loaded, Rung};
use self::programs::{Counted, Names};
use super::{Emit, ObserveError, Observer};
use crate::observation::connect::{Bursts, ConnectRow, ConnectTally, Failures};
use crate::observation::socket::LeftOut;
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::{bpf, clock, netns};
use crate::time::{Span, Timestamp};
use crate::types::NetnsId;
use crate::wire::bpf_records::{self as records, KEY, Key, Losses, TALLY, Tally};

/// How often to look.
const INTERVAL: Span = Span::from_secs(1);

/// Rows in one observation.
const MAX_ROWS: usize = 256;

/// The observer. The programs are detached when it is dropped.
pub struct Bpf {
    loaded: Loaded,
    when: When,
    here: NetnsId,
    /// When counting began, by the program's clock: the wall clock may be set meanwhile.
    since: Span,
    names: Names,
    /// Why denied ports are not counted now, where they should be.
    unattended: Option<String>,
}

impl Bpf {
    /// Loads and attaches the programs for the calling thread's network namespace, for a look of some seconds.
    pub fn open() -> Result<Self, ObserveError> {
        Self::attending(When::Always)
    }

    /// As [`Bpf::open`], for who watches for good: what costs every system call is attached only while ports are short.
    pub fn open_steady() -> Result<Self, ObserveError> {
        Self::attending(When::PortsAreShort)
    }

    fn attending(when: When) -> Result<Self, ObserveError> {
        let here = netns::current().ok_or_else(|| ObserveError::Absent {
            what: "the network namespace is not known: /proc/thread-self/ns/net is not there".to_owned(),
        })?;
        let pidns = programs::own_pid_namespace();
        let mut observer = Self {
            loaded: load::load(here, pidns)?,
            when,
            here,
            since: clock::monotonic(),
            names: Names::new(pidns),
            unattended: None,
        };
        observer.attend();
        Ok(observer)
    }

    /// How connects are counted.
    pub fn rung(&self) -> Rung {
        self.loaded.rung
    }

    /// Tried at each look: what failed once (no descriptor was left, say) need not fail for good.
    fn attend(&mut self) {
        let denials = self.loaded.denials.as_mut();
        self.unattended = denials
            .and_then(|denials| denials.attend(self.when).err())
            .map(|why| format!("denied ports of UDP and of bind are not counted: {why}"));
    }

    fn read(&self) -> Result<(Vec<(Key, Tally)>, Losses), ObserveError> {
        // First: what is made after that is among the rows, and must not be missed there.
        let losses = self.loaded.losses()?;
        let mut rows = Vec::new();
        bpf::for_each::<KEY, TALLY>(self.loaded.tallies()?, load::TALLIES, |key, tally| {
            rows.push((records::key(key), records::tally(tally)));
        })
        .map_err(failed("reading the counted connections (BPF_MAP_LOOKUP_BATCH)"))?;
        Ok((rows, losses))
    }

    /// On the plain rung the kernel counts in all network namespaces: rows of other ones are taken out here. How many rows are
    /// of processes that have ended, so that nobody knows theirs, comes back.
    fn keep_here(&mut self, rows: &mut Vec<(Key, Tally)>) -> u64 {
        if self.loaded.rung == Rung::Typed {
            return 0;
        }
        let mut unknown = 0;
        rows.retain(
            |(key, tally)| match self.names.netns(counted(key, tally), &tally.comm) {
                Some(theirs) => theirs == self.here,
                None => {
                    unknown += 1;
                    false
                }
            },
        );
        unknown
    }

    fn row(&mut self, key: &Key, tally: Tally, clocks: &Clocks) -> ConnectRow {
        let used = tally
            .lifetimes
            .iter()
            .rposition(|n| *n > 0)
            .map_or(0, |last| last + 1);
        let time = |at: u64| (at > 0).then(|| clocks.wall(at));
        ConnectRow {
            process: self.names.of(counted(key, &tally), &tally.comm),
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
                unanswered: tally.unanswered,
                other: tally.failed_otherwise,
            },
            closed_here: tally.closed_here,
            closed_there: tally.closed_there,
            reset_there: tally.reset_there,
            open: tally.open,
            peak: tally.peak,
            lifetime_total: Span::from_nanos(tally.lifetime_ns),
            syn_retransmits: tally.syn_retransmits,
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            bursts: Bursts {
                count: tally.bursts,
                attempts: tally.burst_opens,
                first: time(tally.burst_first),
                last: time(tally.burst_last),
            },
            lifetimes: tally.lifetimes.into_iter().take(used).collect(),
        }
    }
}

/// An error of a system call while `doing` something.
fn failed(doing: &'static str) -> impl Fn(std::io::Error) -> ObserveError {
    move |source| ObserveError::System {
        doing: doing.to_owned(),
        source,
    }
}

fn counted(key: &Key, tally: &Tally) -> Counted {
    Counted {
        tgid: key.tgid,
        tgid_here: tally.tgid_here,
        started: key.started,
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
        self.wall_of(Span::from_nanos(monotonic_ns))
    }

    fn wall_of(&self, monotonic: Span) -> Timestamp {
        self.wall.before(self.monotonic.saturating_sub(monotonic))
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
        self.attend();
        let (mut rows, losses) = self.read()?;
        let mut told = Told {
            losses,
            evicted: losses.made.saturating_sub(rows.len() as u64),
            misses: self.loaded.misses(),
            missing: self
                .loaded
                .missing
                .iter()
                .chain(&self.unattended)
                .cloned()
                .collect(),
            ended: self.keep_here(&mut rows),
            ..Told::default()
        };
        rows.sort_by_key(|(key, tally)| {
            (
                std::cmp::Reverse(tally.attempts),
                key.destination,
                key.source,
                key.tgid,
                key.started,
            )
        });
        let beyond = rows.split_off(rows.len().min(MAX_ROWS));
        let mut shown: BTreeSet<_> = rows.iter().map(|(key, _)| (key.tgid, key.started)).collect();
        let denied = match &mut self.loaded.denials {
            Some(denials) if self.unattended.is_none() => {
                let (denied, lost) = denials.read(&mut self.names, &clocks, &mut shown)?;
                told.denials_lost = lost;
                Some(denied)
            }
            _ => None,
        };
        self.names.keep(&shown);
        let tally = ConnectTally {
            since: clocks.wall_of(self.since),
            rows: rows
                .into_iter()
                .map(|(key, tally)| self.row(&key, tally, &clocks))
                .collect(),
            left_out: LeftOut {
                items: beyond.len() as u64,
                members: beyond.iter().map(|(_, tally)| tally.attempts).sum(),
            },
            causes_unknown: self.loaded.rung == Rung::Plain,
            denied,
        };
        told.outside = self.names.outside();
        emit.emit(clocks.wall, began.elapsed(), Body::Connects(tally));
        Ok(told.status())
    }
}

/// What there is to say of a look: what was lost, and what cannot be seen.
#[derive(Debug, Default)]
struct Told {
    losses: Losses,
    evicted: u64,
    misses: u64,
    /// Denied ports that were forgotten or do not fit.
    denials_lost: u64,
    /// Rows of processes that have ended and whose network namespace is unknown.
    ended: u64,
    /// Processes that this PID namespace does not show.
    outside: usize,
    missing: Vec<String>,
}

impl Told {
    fn status(self) -> SourceStatus {
        let mut reasons = self.missing;
        if self.evicted > 0 {
            reasons.push(format!(
                "{} (process, destination)s beyond {} were forgotten, the least recently used first",
                self.evicted,
                load::TALLIES
            ));
        }
        if self.losses.not_followed > 0 {
            reasons.push(format!(
                "{} connections were not followed: more than 65,536 were open at a time",
                self.losses.not_followed
            ));
        }
        if self.denials_lost > 0 {
            reasons.push(format!("{} kinds of denied ports did not fit", self.denials_lost));
        }
        if self.ended > 0 {
            reasons.push(format!(
                "{} (process, destination)s are left out: their processes have ended, so their network namespace is not known",
                self.ended
            ));
        }
        if self.outside > 0 {
            reasons.push(format!(
                "{} of the processes are outside this PID namespace: their ids are as the host numbers them",
                self.outside
            ));
        }
        SourceStatus {
            lost: self
                .evicted
                .saturating_add(self.losses.not_followed)
                .saturating_add(self.losses.orphans)
                .saturating_add(self.denials_lost)
                .saturating_add(self.ended)
                .saturating_add(self.misses),
            ..if reasons.is_empty() {
                SourceStatus::ok()
            } else {
                SourceStatus::degraded(reasons.join("; "))
            }
        }
    }
}

#[cfg(test)]
mod tests;

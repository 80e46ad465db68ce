//! Connections as the kernel counted them, over time: how many are opened a second, how long each lives, who closes first,
//! whose they are, and which failed for want of a port.
//!
//! In: [`ConnectTally`]s, cumulative since counting began. Out: [`Seen`] by (source, destination). Where this is known it is
//! better than what [`super::sockets`] reads off the socket table: nothing falls between two looks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::processes::Owner;
use super::sockets::usable::TIME_WAIT;
use super::sockets::{Basis, Key, OpenRate};
use crate::observation::connect::{Bursts, ConnectRow, ConnectTally, Denial};
use crate::observation::socket::ProcessIdentity;
use crate::time::{Span, Timestamp};
use crate::track::stepped;
use crate::types::Proto;

/// The window of a rate.
const WINDOW: Span = Span::from_secs(10);

/// A rate over less than this says nothing.
const LEAST: Span = Span::from_millis(500);

/// The window in which failures count as recent.
const RECENT: Span = Span::from_secs(60);

/// Looks remembered of one destination; the oldest is forgotten.
const MAX_SAMPLES: usize = 64;

/// Counts at one look.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Timestamp,
    established: u64,
    closed: u64,
    failures: Counts,
}

/// How connects went, as counts that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `connect`.
    pub attempts: u64,
    /// Established.
    pub established: u64,
    /// ECONNREFUSED.
    pub refused: u64,
    /// ETIMEDOUT.
    pub timed_out: u64,
    /// EHOSTUNREACH or ENETUNREACH.
    pub unreachable: u64,
    /// Given up by the process after the first packet had been sent again.
    pub unanswered: u64,
    /// First packets sent again.
    pub syn_retransmits: u64,
}

impl Counts {
    fn of(row: &ConnectRow) -> Self {
        Self {
            attempts: row.attempts,
            established: row.established,
            refused: row.failed.refused,
            timed_out: row.failed.timed_out,
            unreachable: row.failed.unreachable,
            unanswered: row.failed.unanswered,
            syn_retransmits: row.syn_retransmits,
        }
    }

    fn merge(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            attempts: with(self.attempts, other.attempts),
            established: with(self.established, other.established),
            refused: with(self.refused, other.refused),
            timed_out: with(self.timed_out, other.timed_out),
            unreachable: with(self.unreachable, other.unreachable),
            unanswered: with(self.unanswered, other.unanswered),
            syn_retransmits: with(self.syn_retransmits, other.syn_retransmits),
        }
    }
}

/// How the newest connects towards one destination went.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent {
    /// The counts over that time.
    pub counts: Counts,
    /// How long it is: at most a minute.
    pub over: Span,
    /// Attempts that wait for an answer now.
    pub waiting: u64,
    /// Whose they are, all that was counted: for who is to be named by what.
    pub rows: Vec<Attempted>,
}

/// How one process's connects went, since counting began.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempted {
    /// The process.
    pub process: ProcessIdentity,
    /// Its counts.
    pub counts: Counts,
    /// Those of its attempts that wait for an answer now.
    pub waiting: u64,
}

/// What was counted of one destination after some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// Calls of `connect`.
    pub attempts: u64,
    /// Established.
    pub established: u64,
    /// Closed, of those that were opened since counting began.
    pub closed: u64,
}

/// Connections over time. Bounded by what a [`ConnectTally`] may hold.
#[derive(Debug, Default)]
pub struct ConnectState {
    newest: Option<(Timestamp, ConnectTally)>,
    samples: BTreeMap<(IpAddr, SocketAddr), VecDeque<Sample>>,
}

/// Processes that were refused a local port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPort {
    /// Connects that failed with EADDRNOTAVAIL because no port was free.
    pub count: u64,
    /// The first.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// The process that met most of them.
    pub process: ProcessIdentity,
    /// How many processes met some.
    pub processes: u32,
}

/// What is known of the connections from one source to one destination, all processes together.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// For how long it was counted.
    pub watched: Span,
    /// Calls of `connect` in that time.
    pub attempts: u64,
    /// Established in that time.
    pub established: u64,
    /// Opens per second, where it was watched long enough.
    pub opens: Option<OpenRate>,
    /// Established and closed in that time, by who closed first: this side…
    pub closed_here: u64,
    /// …the other side by a FIN…
    pub closed_there: u64,
    /// …or by a reset or a time-out.
    pub reset_there: u64,
    /// The mean from `connect` until the process let go, of those that are closed.
    pub mean_lifetime: Option<Span>,
    /// The most that were held at a time; where several processes share the load, an upper bound.
    pub peak: u32,
    /// Failed connects for want of a port.
    pub no_port: Option<NoPort>,
    /// Whose they are: the program that opened more than half of them.
    pub owner: Option<Owner>,
}

impl Seen {
    /// Established connections that are closed.
    pub fn closed(&self) -> u64 {
        self.closed_here + self.closed_there + self.reset_there
    }

    /// Whether these connections may be the ones that left `time_wait` sockets in TIME_WAIT: opened at half the pace or more
    /// that such a pile takes, or turned away for want of a port. A lone look by another program is neither.
    pub fn accounts_for(&self, time_wait: u32) -> bool {
        let minute = count(self.established) * TIME_WAIT.as_secs_f64();
        self.no_port.is_some() || minute * 2.0 >= f64::from(time_wait) * self.watched.as_secs_f64()
    }

    /// Whether what closed stands for what was opened: at least half of it is closed again.
    pub fn typical(&self) -> bool {
        self.established > 0 && self.closed() * 2 >= self.established
    }

    /// Connections held at a time on average, by Little's law from the two measured; `None` where those that are closed do not
    /// stand for all.
    pub fn mean_concurrency(&self) -> Option<f64> {
        let (opens, lifetime) = (self.opens?, self.mean_lifetime?);
        self.typical()
            .then_some(opens.per_second * lifetime.as_secs_f64())
    }
}

impl ConnectState {
    /// Takes counts in.
    pub fn apply(&mut self, at: Timestamp, tally: &ConnectTally) {
        let before = self.newest.as_ref().map_or(tally.since, |(before, _)| *before);
        let stepped = self.newest.is_some() && stepped(before, at);
        let mut sums: BTreeMap<(IpAddr, SocketAddr), (u64, Counts)> = BTreeMap::new();
        for row in &tally.rows {
            let sum = sums.entry((row.source, row.destination)).or_default();
            sum.0 += row.closed();
            sum.1 = sum.1.merge(Counts::of(row), u64::saturating_add);
        }
        self.samples.retain(|key, _| sums.contains_key(key));
        if stepped {
            // No rate can be told across; what comes is measured from here.
            self.samples.clear();
        }
        for (key, (closed, failures)) in sums {
            if stepped {
                let here = Sample {
                    at,
                    established: failures.established,
                    closed,
                    failures,
                };
                self.samples.insert(key, VecDeque::from([here]));
                continue;
            }
            let samples = self.samples.entry(key).or_insert_with(|| {
                // Not there before is none before: nothing that is counted vanishes.
                let none = Sample {
                    at: before,
                    established: 0,
                    closed: 0,
                    failures: Counts::default(),
                };
                VecDeque::from([none])
            });
            if samples.len() == MAX_SAMPLES {
                samples.pop_front();
            }
            samples.push_back(Sample {
                at,
                established: failures.established,
                closed,
                failures,
            });
        }
        self.newest = Some((at, tally.clone()));
    }

    /// The newest counts and when they were read.
    pub fn newest(&self) -> Option<(Timestamp, &ConnectTally)> {
        self.newest.as_ref().map(|(at, tally)| (*at, tally))
    }

    /// Every (source, destination) that was counted.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.samples.keys().map(|(source, destination)| Key {
            proto: Proto::Tcp,
            source: *source,
            destination: *destination,
        })
    }

    /// What is known of `key`; `None` where no connect was counted.
    pub fn seen(&self, key: &Key) -> Option<Seen> {
        if key.proto != Proto::Tcp {
            return None;
        }
        let (at, tally) = self.newest.as_ref()?;
        let rows: Vec<&ConnectRow> = tally
            .rows
            .iter()
            .filter(|r| (r.source, r.destination) == (key.source, key.destination))
            .collect();
        if rows.is_empty() {
            return None;
        }
        let sum = |field: fn(&ConnectRow) -> u64| rows.iter().map(|r| field(r)).sum::<u64>();
        let closed = sum(ConnectRow::closed);
        let lifetimes: Span = rows.iter().map(|r| r.lifetime_total).sum();
        Some(Seen {
            watched: at.since(tally.since),
            attempts: sum(|r| r.attempts),
            established: sum(|r| r.established),
            opens: self.opens(key),
            closed_here: sum(|r| r.closed_here),
            closed_there: sum(|r| r.closed_there),
            reset_there: sum(|r| r.reset_there),
            mean_lifetime: (closed > 0).then(|| lifetimes.div_f64(count(closed))),
            peak: u32::try_from(sum(|r| r.peak)).unwrap_or(u32::MAX),
            no_port: no_port(&rows),
            owner: owner(&rows),
        })
    }

    /// How the connects of the last minute towards `key` went; `None` where none was counted, or why they fail is not known.
    pub fn recent(&self, key: &Key) -> Option<Recent> {
        let (_, tally) = self.newest.as_ref().filter(|(_, t)| !t.causes_unknown)?;
        let samples = self.samples.get(&(key.source, key.destination))?;
        let newest = samples.back()?;
        let oldest = samples.iter().find(|s| newest.at.since(s.at) <= RECENT)?;
        let rows: Vec<Attempted> = self
            .rows(tally, key)
            .map(|r| Attempted {
                process: r.process.clone(),
                counts: Counts::of(r),
                waiting: r.open.saturating_sub(r.established.saturating_sub(r.closed())),
            })
            .collect();
        Some(Recent {
            // A process that was forgotten in between makes a sum smaller.
            counts: newest.failures.merge(oldest.failures, u64::saturating_sub),
            over: newest.at.since(oldest.at),
            waiting: rows.iter().map(|r| r.waiting).sum(),
            rows,
        })
    }

    /// What was counted towards `key` after `at`, as far as looks can tell: from the last look that is not later. `None` where
    /// connects are not counted at all, or not since then.
    pub fn after(&self, key: &Key, at: Timestamp) -> Option<After> {
        let (_, tally) = self.newest.as_ref().filter(|(_, tally)| tally.since <= at)?;
        let Some(samples) = self.samples.get(&(key.source, key.destination)) else {
            // A destination beyond the bound of a tally is not known to have none.
            return (tally.left_out.items == 0).then(After::default);
        };
        let newest = samples.back()?;
        let base = samples.iter().rfind(|s| s.at <= at).or_else(|| samples.front())?;
        let less = |of: fn(&Sample) -> u64| of(newest).saturating_sub(of(base));
        Some(After {
            attempts: less(|s| s.failures.attempts),
            established: less(|s| s.established),
            closed: less(|s| s.closed),
        })
    }

    fn rows<'a>(&self, tally: &'a ConnectTally, key: &Key) -> impl Iterator<Item = &'a ConnectRow> {
        let key = (key.source, key.destination);
        tally
            .rows
            .iter()
            .filter(move |r| (r.source, r.destination) == key)
    }

    /// The bursts of attempts towards `key`, of all processes, the time watched, and the process with most of them.
    pub fn bursts(&self, key: &Key) -> Option<(Bursts, u64, Span, ProcessIdentity)> {
        let (at, tally) = self.newest.as_ref()?;
        let bursting = || self.rows(tally, key).filter(|r| r.bursts.count > 0);
        let most = bursting().max_by_key(|r| r.bursts.attempts)?;
        let bursts = Bursts {
            count: bursting().map(|r| r.bursts.count).max()?,
            attempts: bursting().map(|r| r.bursts.attempts).sum(),
            first: bursting().filter_map(|r| r.bursts.first).min(),
            last: bursting().filter_map(|r| r.bursts.last).max(),
        };
        let attempts = self.rows(tally, key).map(|r| r.attempts).sum();
        Some((bursts, attempts, at.since(tally.since), most.process.clone()))
    }

    /// System calls that were denied a local port within the last minute.
    pub fn denied(&self) -> impl Iterator<Item = &Denial> {
        let newest = self.newest.as_ref();
        newest.into_iter().flat_map(|(at, tally)| {
            let all = tally.denied.iter().flatten();
            all.filter(|denial| at.since(denial.last) <= RECENT)
        })
    }

    /// Where a process opens most of its connections to from the address `source` (or from any, where that is unspecified).
    pub fn main_destination(&self, process: &ProcessIdentity, source: IpAddr) -> Option<SocketAddr> {
        let (_, tally) = self.newest.as_ref()?;
        let theirs = tally.rows.iter().filter(|r| {
            (r.process.pid, r.process.start_ticks) == (process.pid, process.start_ticks)
                && (source.is_unspecified() || r.source == source)
        });
        theirs.max_by_key(|r| r.attempts).map(|r| r.destination)
    }

    /// How many destinations the program of `process` opened connections to.
    pub fn destinations_of(&self, process: &ProcessIdentity) -> u32 {
        let rows = self.newest.as_ref().map_or(&[][..], |(_, tally)| &tally.rows);
        let theirs = rows
            .iter()
            .filter(|r| r.process.comm == process.comm && r.process.exe == process.exe);
        let destinations: BTreeSet<SocketAddr> = theirs.map(|r| r.destination).collect();
        u32::try_from(destinations.len()).unwrap_or(u32::MAX)
    }

    fn opens(&self, key: &Key) -> Option<OpenRate> {
        let samples = self.samples.get(&(key.source, key.destination))?;
        let newest = samples.back()?;
        let oldest = samples.iter().find(|s| newest.at.since(s.at) <= WINDOW)?;
        let seconds = newest.at.since(oldest.at);
        (seconds >= LEAST).then(|| OpenRate {
            per_second: count(newest.established.saturating_sub(oldest.established)) / seconds.as_secs_f64(),
            basis: Basis::Counted,
            lower_bound: false,
        })
    }

    /// Whether connections were closed at `per_second` or more between most looks of at least three: neither a pool that
    /// fills nor a program that ends looks like that.
    pub fn turns_over(&self, key: &Key, per_second: f64) -> bool {
        let Some(samples) = self.samples.get(&(key.source, key.destination)) else {
            return false;
        };
        let (mut steady, mut intervals) = (0_u32, 0_u32);
        for (before, after) in samples.iter().zip(samples.iter().skip(1)) {
            let seconds = after.at.since(before.at).as_secs_f64();
            // The first and the last look may follow another closely: too short to judge by.
            if seconds < 0.3 {
                continue;
            }
            intervals += 1;
            let closed = count(after.closed.saturating_sub(before.closed));
            steady += u32::from(closed / seconds >= per_second / 2.0);
        }
        intervals >= 2 && steady * 4 >= intervals * 3
    }
}

/// A count as a number to divide; beyond 2^53 the last digits are of no interest.
#[allow(clippy::cast_precision_loss)]
fn count(n: u64) -> f64 {
    n as f64
}

fn no_port(rows: &[&ConnectRow]) -> Option<NoPort> {
    let most = rows
        .iter()
        .filter(|r| r.failed.no_port > 0)
        .max_by_key(|r| r.failed.no_port)?;
    Some(NoPort {
        count: rows.iter().map(|r| r.failed.no_port).sum(),
        first: rows.iter().filter_map(|r| r.failed.no_port_first).min()?,
        last: rows.iter().filter_map(|r| r.failed.no_port_last).max()?,
        process: most.process.clone(),
        processes: rows.iter().filter(|r| r.failed.no_port > 0).map(|_| 1).sum(),
    })
}

/// The program that established most, or where none could, tried most. Workers of one program count together.
fn owner(rows: &[&ConnectRow]) -> Option<Owner> {
    let any = rows.iter().any(|r| r.established > 0);
    let weight = |r: &ConnectRow| if any { r.established } else { r.attempts };
    let mut programs: BTreeMap<(&str, Option<&str>), Vec<&ConnectRow>> = BTreeMap::new();
    for row in rows.iter().filter(|r| weight(r) > 0) {
        let program = (row.process.comm.as_str(), row.process.exe.as_deref());
        programs.entry(program).or_default().push(row);
    }
    let total = |rows: &[&ConnectRow]| rows.iter().map(|r| weight(r)).sum::<u64>();
    let known = total(rows);
    let most = programs.into_values().max_by_key(|rows| total(rows))?;
    let sockets = total(&most);
    let process = most.iter().max_by_key(|r| weight(r))?;
    let whole = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (sockets * 2 > known).then(|| Owner {
        process: process.process.clone(),
        processes: whole(most.len() as u64),
        sockets: whole(sockets),
        known: whole(known),
    })
}

#[cfg(test)]
#[path = "connects_tests.rs"]
mod tests;

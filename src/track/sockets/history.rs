//! One destination over several looks: how many connections it opens a second, how many are open at once, and where
//! the count of held ports is going.
//!
//! In: one [`DestinationTally`] a look. Out: estimates, each with what it rests on. Why estimates: the kernel counts no
//! opens, so they are read off the TIME_WAIT sockets that closes leave, off sockets that appear between looks, and
//! off growth. All of them miss connections that leave nothing behind: each is a lower bound in that sense.

use std::collections::VecDeque;

use super::usable::TIME_WAIT;
use crate::observation::socket::{DestinationTally, TIME_WAIT_CLASSES, TcpState};
use crate::time::{Span, Timestamp};
use crate::track::stepped;
use crate::track::trend::Trend;

/// Looks remembered of one destination; the oldest is forgotten.
pub const MAX_SAMPLES: usize = 64;

/// Inodes remembered of one destination; the oldest is forgotten.
pub const MAX_INODES: usize = 64;

/// The width of a TIME_WAIT class, in seconds.
const CLASS_SECONDS: f64 = 10.0;

/// A destination at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Ports held inside the ephemeral range, in any state.
    pub held: u32,
    /// Sockets in TIME_WAIT.
    pub time_wait: u32,
    /// Sockets in ESTABLISHED.
    pub established: u32,
    /// Sockets in SYN_SENT.
    pub syn_sent: u32,
    /// Sockets in CLOSE_WAIT: the other side has closed, this one has not.
    pub close_wait: u32,
    /// Sockets in any state but TIME_WAIT.
    pub live: u32,
    /// TIME_WAIT by remaining life; see [`DestinationTally::time_wait_left`].
    pub left: [u32; TIME_WAIT_CLASSES],
    /// Sockets that were not there at the look before: at least so many, where not all owned sockets were named.
    pub appeared: Option<u32>,
    /// Sockets of the look before that are no longer there, likewise.
    pub vanished: Option<u32>,
    /// Both looks named every owned socket, so these two are exact.
    pub all_named: bool,
}

impl Sample {
    /// Connections in use or being opened: what a pool would have to carry.
    pub fn concurrent(&self) -> u32 {
        self.established.saturating_add(self.syn_sent)
    }
}

/// What an estimate of opens per second rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Each connect, counted in the kernel.
    Counted,
    /// TIME_WAIT sockets of the last 10 s.
    TimeWait,
    /// What was added between looks.
    Growth,
    /// Sockets that appeared between looks; short ones in between are not seen.
    Appeared,
}

impl Basis {
    /// A stable word for evidence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::TimeWait => "time-wait",
            Self::Growth => "growth",
            Self::Appeared => "appeared",
        }
    }
}

/// Connections opened per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenRate {
    /// The estimate.
    pub per_second: f64,
    /// What it rests on.
    pub basis: Basis,
    /// It is known to miss some.
    pub lower_bound: bool,
}

/// One destination over time.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    inodes: VecDeque<u32>,
    last: Option<Named>,
}

/// The owned sockets that a look named: all, or those with the greatest inodes.
#[derive(Debug, Default)]
struct Named {
    inodes: Vec<u32>,
    owned: u32,
    all: bool,
}

impl Named {
    /// How many appeared since `before`, and how many vanished; at least.
    fn since(&self, before: &Self) -> (u32, u32) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let absent = |these: &[u32], from: &[u32]| count(these.iter().filter(|i| !from.contains(i)).count());
        let appeared = if before.all {
            absent(&self.inodes, &before.inodes)
        } else {
            // Greater than the greatest that were there: whatever was not named then was less.
            let greatest = before.inodes.iter().max();
            count(
                self.inodes
                    .iter()
                    .filter(|i| greatest.is_some_and(|g| *i > g))
                    .count(),
            )
        };
        let vanished = if self.all {
            absent(&before.inodes, &self.inodes)
        } else {
            // What came without making them more has taken the place of others.
            before.owned.saturating_add(appeared).saturating_sub(self.owned)
        };
        (appeared, vanished)
    }
}

impl History {
    /// Of a destination that the socket table never showed.
    pub const NONE: Self = Self {
        samples: VecDeque::new(),
        inodes: VecDeque::new(),
        last: None,
    };

    /// Takes one look in.
    pub(super) fn push(&mut self, at: Timestamp, tally: &DestinationTally) {
        let states = &tally.states;
        let time_wait = states.get(TcpState::TimeWait);
        let live = states.total().saturating_sub(time_wait);
        // Sockets that a process still holds have an inode; those that it closed (FIN_WAIT, LAST_ACK, …) mostly not.
        let owned = states.get(TcpState::Established)
            + states.get(TcpState::SynSent)
            + states.get(TcpState::CloseWait);
        let named = Named {
            inodes: tally.inodes.clone(),
            owned,
            all: u32::try_from(tally.inodes.len()).is_ok_and(|n| n >= owned),
        };
        let (appeared, vanished) = self.last.as_ref().map(|before| named.since(before)).unzip();
        let all_named = named.all && self.last.as_ref().is_some_and(|before| before.all);
        self.last = Some(named);
        for inode in &tally.inodes {
            if !self.inodes.contains(inode) {
                if self.inodes.len() == MAX_INODES {
                    self.inodes.pop_front();
                }
                self.inodes.push_back(*inode);
            }
        }
        self.add(Sample {
            at,
            held: tally.ports_in_range,
            time_wait,
            established: states.get(TcpState::Established),
            syn_sent: states.get(TcpState::SynSent),
            close_wait: states.get(TcpState::CloseWait),
            live,
            left: tally.time_wait_left,
            appeared,
            vanished,
            all_named,
        });
    }

    /// Takes in that a complete look did not show the destination.
    pub(super) fn push_absent(&mut self, at: Timestamp) {
        let none = Named {
            all: true,
            ..Named::default()
        };
        let before = self.last.replace(none);
        self.add(Sample {
            at,
            appeared: before.as_ref().map(|_| 0),
            vanished: before.as_ref().map(|b| b.owned),
            all_named: before.is_some_and(|b| b.all),
            ..Sample::default()
        });
    }

    fn add(&mut self, sample: Sample) {
        if self
            .samples
            .back()
            .is_some_and(|last| stepped(last.at, sample.at))
        {
            self.samples.clear();
        }
        if self.samples.len() == MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The newest look.
    pub fn newest(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// Every look that is remembered, oldest first.
    pub fn samples(&self) -> impl DoubleEndedIterator<Item = &Sample> + Clone {
        self.samples.iter()
    }

    /// Inodes of its live sockets, oldest first.
    pub fn inodes(&self) -> impl DoubleEndedIterator<Item = u32> {
        self.inodes.iter().copied()
    }

    /// Opens per second over the last ten seconds or the time watched; `None` where nothing tells.
    pub fn opens(&self) -> Option<OpenRate> {
        [
            self.opens_by_growth(),
            self.opens_by_time_wait(),
            self.opens_by_appearance(),
        ]
        .into_iter()
        .flatten()
        .reduce(|best, next| {
            if next.per_second > best.per_second {
                next
            } else {
                best
            }
        })
    }

    /// The newest TIME_WAIT class holds what was closed within the last 10 s; what closes must have been opened.
    fn opens_by_time_wait(&self) -> Option<OpenRate> {
        let newest = self.newest()?;
        let [.., before, last] = newest.left;
        (last > 0).then(|| OpenRate {
            per_second: f64::from(last) / CLASS_SECONDS,
            basis: Basis::TimeWait,
            // Nothing closed in the ten seconds before: it began within these ten, which the division spreads.
            lower_bound: before == 0,
        })
    }

    /// The balance between the first and the newest look of the last 10 s: what is there now, less what was there, plus the
    /// TIME_WAITs that have expired since. Only where the latter, known to a class of 10 s, cannot upset the sum.
    fn opens_by_growth(&self) -> Option<OpenRate> {
        let newest = self.newest()?;
        let oldest = self
            .samples()
            .find(|s| newest.at.since(s.at) <= Span::from_secs(10))?;
        let (opened, doubt) = balance(oldest, newest)?;
        (newest.at.since(oldest.at) >= Span::from_secs(1) && doubt <= opened / 4.0).then(|| OpenRate {
            per_second: opened / newest.at.since(oldest.at).as_secs_f64(),
            basis: Basis::Growth,
            lower_bound: false,
        })
    }

    fn opens_by_appearance(&self) -> Option<OpenRate> {
        let (mut appeared, mut seconds, mut all_named) = (0.0, 0.0, true);
        for (before, after) in self.samples().zip(self.samples().skip(1)) {
            if let Some(new) = after.appeared {
                appeared += f64::from(new);
                all_named &= after.all_named;
                seconds += after.at.since(before.at).as_secs_f64();
            }
        }
        // Among sockets that were not all named, none that is new is not known to be none.
        (seconds >= 1.0 && (all_named || appeared > 0.0)).then(|| OpenRate {
            per_second: appeared / seconds,
            basis: Basis::Appeared,
            lower_bound: true,
        })
    }

    /// Whether connections have been closed at `per_second` or more for a while, in two neighbouring TIME_WAIT classes or
    /// between most looks of at least three: neither a pool that fills nor a program that ends looks like that.
    pub fn turns_over(&self, per_second: f64) -> bool {
        let by_class = self.newest().is_some_and(|s| {
            let [.., before, last] = s.left;
            // A tenth is allowed for the edges of the classes.
            f64::from(last) >= per_second * CLASS_SECONDS * 0.9
                && f64::from(before) >= per_second * CLASS_SECONDS / 2.0
        });
        let (mut steady, mut intervals) = (0_u32, 0_u32);
        for (before, after) in self.samples().zip(self.samples().skip(1)) {
            let seconds = after.at.since(before.at).as_secs_f64();
            // The last look may follow the one before closely: too short to judge by.
            if seconds < 0.3 {
                continue;
            }
            intervals += 1;
            let closed = closes(before, after).0.max(after.vanished.map_or(0.0, f64::from));
            steady += u32::from(closed / seconds >= per_second / 2.0);
        }
        by_class || (intervals >= 2 && steady * 4 >= intervals * 3)
    }

    /// The mean count of open connections over the looks.
    pub fn mean_concurrency(&self) -> Option<f64> {
        let looks = u32::try_from(self.samples.len()).ok().filter(|n| *n > 0)?;
        let sum: f64 = self.samples().map(|s| f64::from(s.concurrent())).sum();
        Some(sum / f64::from(looks))
    }

    /// The highest count of open connections at any look.
    pub fn peak_concurrency(&self) -> u32 {
        self.samples().map(Sample::concurrent).max().unwrap_or(0)
    }

    /// Whether held ports grow by more than noise: along a line, and over the watch by half a percent of `usable` ports.
    pub fn rising(&self, usable: u32) -> bool {
        let (Some(first), Some(newest)) = (self.samples.front(), self.newest()) else {
            return false;
        };
        let grown = f64::from(newest.held) - f64::from(first.held);
        self.held_per_second().is_some_and(|slope| slope > 0.0) && grown >= f64::from(usable) * 0.005
    }

    /// Where the count of held ports is going.
    pub fn trend(&self) -> Option<Trend> {
        Trend::of(self.samples().map(|s| (s.at, f64::from(s.held))))
    }

    /// Growth of held ports per second, where the looks lie on a line.
    pub fn held_per_second(&self) -> Option<f64> {
        self.trend()?.pace()
    }
}

/// Connections that this side closed between two looks, and how many of these are in doubt because the TIME_WAITs that
/// expired in between are known to a class of 10 s only.
fn closes(before: &Sample, after: &Sample) -> (f64, f64) {
    let seconds = after
        .at
        .since(before.at)
        .as_secs_f64()
        .min(TIME_WAIT.as_secs_f64());
    let (mut expired, mut doubt) = (0.0, 0.0);
    for (class, count) in before.left.iter().enumerate() {
        #[allow(clippy::cast_precision_loss)] // 0..6
        let starts = class as f64 * CLASS_SECONDS;
        let share = ((seconds - starts) / CLASS_SECONDS).clamp(0.0, 1.0);
        expired += f64::from(*count) * share;
        if share > 0.0 && share < 1.0 {
            doubt = f64::from(*count) * share.max(1.0 - share);
        }
    }
    (
        f64::from(after.time_wait) - f64::from(before.time_wait) + expired,
        doubt,
    )
}

/// Connections opened between two looks, and how many of these are in doubt. `None` where more is gone than can have
/// expired.
fn balance(before: &Sample, after: &Sample) -> Option<(f64, f64)> {
    let (closed, doubt) = closes(before, after);
    let opened = closed + f64::from(after.live) - f64::from(before.live);
    (opened >= 0.0).then_some((opened, doubt))
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;

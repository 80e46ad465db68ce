//! Decides when the conntrack table is worth reading, and when that can be afforded: pure.
//!
//! In: the statistics of each look, the CPU time that reading took, and the monotonic clock as a number. Out: whether to read
//! the table now, whole or in slices. Statistics cost microseconds; the table costs some 2 to 4 µs an entry, nearly all of it
//! in the kernel. So the table is read at first, and then only when the statistics say that something moved, within a budget
//! of CPU time: a bucket that holds a minute's worth and fills at the budget's pace.

use crate::observation::conntrack::{CtStats, moved32};
use crate::time::Span;

/// CPU time of an entry, kernel's and ours, until a reading has shown it: 2 to 4 µs measured.
const PER_ENTRY: Span = Span::from_micros(4);

/// What the bucket holds: the budget of so long.
const BUCKET: Span = Span::from_secs(60);

/// The least that a slice of a reading is worth waking for.
const SLICE: Span = Span::from_millis(5);

/// Collisions a second from which on a NAT range may be near its end: few NATs meet that many with ports to spare.
const COLLISIONS_PER_SECOND: f64 = 10.0;

/// The same reason does not make the table be read again sooner than after this, while it goes on.
const AGAIN: Span = Span::from_secs(10);

/// Two readings for one who waits are at least so far apart.
const SOON: Span = Span::from_millis(500);

/// Entries more or less since the last reading that make it old: a tenth of the limit, or a quarter of what there was and
/// at least a thousand.
const OF_LIMIT: f64 = 0.10;
const OF_COUNT: f64 = 0.25;
const AT_LEAST: f64 = 1000.0;

/// From this share of the limit on, what fills the table is followed.
const NEAR_FULL: f64 = 0.75;

/// How full NAT's ranges are says the table alone, and the count of entries hardly moves with one of them. So where there is NAT
/// and anything moved the table is read again after this, or later where that would take more than half of the budget.
const OLD: Span = Span::from_secs(120);
const OLD_SHARE: f64 = 0.5;

/// What is read once more although it costs more than may be spent, for somebody who waits while NAT fails: no more than this,
/// or the answer would be late.
const CLOSER_AT_MOST: Span = Span::from_secs(2);

/// How much may be spent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Share of a core, on average.
    pub share: f64,
    /// CPU time that may be spent at once, on top, at the start.
    pub burst: Span,
    /// Whether the first reading is made at once whatever it costs, and later ones each second while the burst lasts.
    pub eager: bool,
}

/// Of a command that somebody waits for, one per cent.
impl Default for Budget {
    fn default() -> Self {
        Self::once(0.01)
    }
}

impl Budget {
    /// For a command that somebody waits for: it runs for seconds, once, and an answer without the table is half an answer, so
    /// the first reading is made whatever it costs. A second of CPU time beside it lets a table of a thousand NAT entries be
    /// followed each second, which a forecast needs, and is spent before a large one is read twice.
    pub const fn once(share: f64) -> Self {
        Self {
            share,
            burst: Span::from_secs(1),
            eager: true,
        }
    }

    /// For what runs for good: never more than the budget of a minute at once, the first reading included.
    pub fn steady(share: f64) -> Self {
        Self {
            share,
            burst: BUCKET.mul_f64(share),
            eager: false,
        }
    }
}

/// Why the table is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was not read yet.
    Start,
    /// Insertions fail, packets are dropped, or entries are evicted.
    Failing,
    /// NAT meets ports that are taken.
    Collisions,
    /// The count of entries is another than at the last reading, or near the limit.
    Filling,
    /// NAT fails, and how its ports lie together was not looked at.
    Closer,
    /// There is NAT, and the burst allows to follow it.
    Follow,
    /// There is NAT, and what was read of it is old.
    Old,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Rest,
    /// Read the whole table.
    Whole(Why),
    /// Begin to read it in slices: it costs more than may be spent at once.
    Slices(Why),
}

/// The plan.
#[derive(Debug)]
pub struct DumpPlan {
    budget: Budget,
    /// CPU time that may be spent, in seconds; below zero where a reading took more than it was thought to.
    purse: f64,
    /// When the purse was filled last.
    filled: Option<Span>,
    before: Option<(Span, CtStats)>,
    /// What moved since the last reading.
    failing: bool,
    collisions_per_second: f64,
    read: Option<Read>,
    per_entry: Span,
}

#[derive(Clone, Copy, Debug)]
struct Read {
    at: Span,
    count: u32,
    /// Whether it showed source NAT.
    nat: bool,
    /// Whether it showed crowded ports that were not looked at closely.
    unclear: bool,
}

/// What a reading showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Entries.
    pub entries: u64,
    /// Whether there was source NAT among them.
    pub nat: bool,
    /// Whether ports were crowded of which it was not looked at how they lie together; the next reading does.
    pub unclear: bool,
    /// CPU time that it took in all.
    pub cpu: Span,
}

impl DumpPlan {
    /// With nothing read yet.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            purse: budget.burst.as_secs_f64(),
            filled: None,
            before: None,
            failing: false,
            collisions_per_second: 0.0,
            read: None,
            per_entry: PER_ENTRY,
        }
    }

    /// Takes the statistics of a look at `now` in and decides. Not to be asked while slices are under way.
    pub fn look(&mut self, now: Span, stats: &CtStats) -> Decision {
        self.refill(now);
        self.notice(now, stats);
        let Some(why) = self.why(now, stats) else {
            return Decision::Rest;
        };
        let cost = self.per_entry.saturating_mul(stats.count).as_secs_f64();
        let dear = match why {
            Why::Start => self.budget.eager,
            Why::Closer => cost <= CLOSER_AT_MOST.as_secs_f64(),
            _ => false,
        };
        if cost <= self.purse || dear {
            return Decision::Whole(why);
        }
        // What nobody needs is not read in slices, and what can be paid for soon is waited for.
        let largest = BUCKET.mul_f64(self.budget.share).max(self.budget.burst);
        if matches!(why, Why::Follow | Why::Closer)
            || cost <= largest.as_secs_f64()
            || self.allowance().is_none()
        {
            return Decision::Rest;
        }
        Decision::Slices(why)
    }

    /// CPU time that a slice may take now, if any.
    pub fn allowance(&self) -> Option<Span> {
        (self.purse >= SLICE.as_secs_f64()).then(|| Span::from_secs_f64(self.purse))
    }

    /// Fills the purse by the time that passed until `now`.
    pub fn refill(&mut self, now: Span) {
        let passed = self
            .filled
            .map_or(Span::ZERO, |filled| now.saturating_sub(filled));
        self.filled = Some(now);
        let most = self
            .budget
            .burst
            .as_secs_f64()
            .max(BUCKET.as_secs_f64() * self.budget.share);
        self.purse = (self.purse + passed.as_secs_f64() * self.budget.share).min(most);
    }

    /// Says what was spent on reading.
    pub fn spent(&mut self, cpu: Span) {
        self.purse -= cpu.as_secs_f64();
    }

    /// Says that the table was read whole.
    pub fn read(&mut self, now: Span, reading: Reading) {
        let entries = u32::try_from(reading.entries).ok().filter(|n| *n >= 1000);
        if let Some(each) = entries.map(|n| reading.cpu / n) {
            self.per_entry = each;
        }
        self.read = Some(Read {
            at: now,
            count: self.before.as_ref().map_or(0, |(_, stats)| stats.count),
            nat: reading.nat,
            unclear: reading.unclear,
        });
        self.failing = false;
        self.collisions_per_second = 0.0;
    }

    fn notice(&mut self, now: Span, stats: &CtStats) {
        if let Some((at, before)) = &self.before {
            let (mut failures, mut found) = (0, 0);
            for (before, after) in before.cpus.iter().zip(&stats.cpus) {
                for (before, after) in [
                    (before.insert_failed, after.insert_failed),
                    (before.drop, after.drop),
                    (before.early_drop, after.early_drop),
                ] {
                    failures += moved32(before, after).unwrap_or(0);
                }
                found += moved32(before.found, after.found).unwrap_or(0);
            }
            self.failing |= failures > 0;
            let seconds = now.saturating_sub(*at).as_secs_f64();
            if seconds > 0.0 {
                #[allow(clippy::cast_precision_loss)] // a rate
                let rate = found as f64 / seconds;
                self.collisions_per_second = self.collisions_per_second.max(rate);
            }
        }
        self.before = Some((now, stats.clone()));
    }

    fn why(&self, now: Span, stats: &CtStats) -> Option<Why> {
        let Some(read) = self.read else {
            return Some(Why::Start);
        };
        let since = now.saturating_sub(read.at);
        if self.budget.eager && self.failing && read.unclear && since >= SOON {
            return Some(Why::Closer);
        }
        if self.budget.eager && read.nat && since >= SOON && stats.count != read.count {
            // Dearer reasons give the same reading.
            return Some(Why::Follow);
        }
        if since < AGAIN {
            return None;
        }
        if self.failing {
            return Some(Why::Failing);
        }
        if self.collisions_per_second >= COLLISIONS_PER_SECOND {
            return Some(Why::Collisions);
        }
        let (then, count) = (f64::from(read.count), f64::from(stats.count));
        let limit = stats.max.filter(|max| *max > 0).map_or(f64::INFINITY, f64::from);
        let old = (limit * OF_LIMIT).min((then * OF_COUNT).max(AT_LEAST));
        let near = count >= limit * NEAR_FULL && stats.count != read.count;
        if (count - then).abs() >= old || near {
            return Some(Why::Filling);
        }
        let cost = self.per_entry.saturating_mul(stats.count).as_secs_f64();
        let rests = (cost / (self.budget.share * OLD_SHARE)).max(OLD.as_secs_f64());
        let moved = stats.count != read.count;
        (read.nat && moved && since.as_secs_f64() >= rests).then_some(Why::Old)
    }
}

#[cfg(test)]
#[path = "dump_plan_tests.rs"]
mod tests;

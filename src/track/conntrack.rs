//! Conntrack over time: how far each counter moved while watched, how the count of entries grows, and the newest table.
//!
//! In: [`CtStats`] and [`CtTally`]. Out: movement over the looks that are remembered, per look and in all. What the counters
//! read when watching began is history, possibly of months, and is never told as current; nor is what moved before the oldest
//! look that is remembered.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::{AddAssign, SubAssign};

use super::trend::Trend;
use crate::observation::conntrack::{CtCpuStats, CtEvents, CtStats, CtTally, SnatTally, moved32};
use crate::observation::nat_rules::NatRules;
use crate::time::{Span, Timestamp};
use crate::types::Proto;

/// Looks remembered, ten minutes of them at one a second; the oldest is forgotten, and with it what moved then.
pub const MAX_LOOKS: usize = 600;

/// Two looks are no further apart than this, unless the clock was set or the machine slept…
const LONGEST_GAP: Span = Span::from_secs(60);

/// …and then they are taken to be as far apart as looks are meant to be.
const USUAL_GAP: Span = Span::from_secs(1);

/// Tables remembered of the NAT ports towards one destination; the oldest is forgotten. A tally lists 256 destinations at
/// most, and what the newest does not list is forgotten.
pub const MAX_TABLES: usize = 64;

/// What NAT ports are unique within: NAT address, transport, destination.
type NatKey = (IpAddr, Proto, SocketAddr, u16);

/// How far each counter moved, over all CPUs. The kernel's names; what they mean today is told at [`CtCpuStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // see CtCpuStats
pub struct Moved {
    pub found: u64,
    pub invalid: u64,
    pub insert: u64,
    pub insert_failed: u64,
    pub drop: u64,
    pub early_drop: u64,
    pub error: u64,
    pub search_restart: u64,
    pub clash_resolve: u64,
    pub chain_toolong: u64,
}

impl Moved {
    /// From one CPU's counters to its later ones.
    fn between(before: &CtCpuStats, after: &CtCpuStats) -> Self {
        let by = |before, after| moved32(before, after).unwrap_or(0);
        Self {
            found: by(before.found, after.found),
            invalid: by(before.invalid, after.invalid),
            insert: by(before.insert, after.insert),
            insert_failed: by(before.insert_failed, after.insert_failed),
            drop: by(before.drop, after.drop),
            early_drop: by(before.early_drop, after.early_drop),
            error: by(before.error, after.error),
            search_restart: by(before.search_restart, after.search_restart),
            clash_resolve: by(before.clash_resolve, after.clash_resolve),
            chain_toolong: by(before.chain_toolong, after.chain_toolong),
        }
    }

    /// From one look's counters to a later one's, over all CPUs.
    pub fn of(before: &CtStats, after: &CtStats) -> Self {
        let mut moved = Self::default();
        for (before, after) in before.cpus.iter().zip(&after.cpus) {
            moved += Self::between(before, after);
        }
        moved
    }

    /// Each counter by the kernel's name.
    pub fn by_name(&self) -> [(&'static str, u64); 10] {
        [
            ("found", self.found),
            ("invalid", self.invalid),
            ("insert", self.insert),
            ("insert_failed", self.insert_failed),
            ("drop", self.drop),
            ("early_drop", self.early_drop),
            ("error", self.error),
            ("search_restart", self.search_restart),
            ("clash_resolve", self.clash_resolve),
            ("chain_toolong", self.chain_toolong),
        ]
    }

    /// Packets dropped for another reason than a failed insertion: the table was full, memory was short, or a helper
    /// dropped. A lower bound: some failed insertions (a chain too long, an entry that is dying) count no drop.
    pub fn dropped_uninserted(&self) -> u64 {
        self.drop.saturating_sub(self.insert_failed)
    }
}

impl AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.found += other.found;
        self.invalid += other.invalid;
        self.insert += other.insert;
        self.insert_failed += other.insert_failed;
        self.drop += other.drop;
        self.early_drop += other.early_drop;
        self.error += other.error;
        self.search_restart += other.search_restart;
        self.clash_resolve += other.clash_resolve;
        self.chain_toolong += other.chain_toolong;
    }
}

impl SubAssign for Moved {
    fn sub_assign(&mut self, other: Self) {
        self.found -= other.found;
        self.invalid -= other.invalid;
        self.insert -= other.insert;
        self.insert_failed -= other.insert_failed;
        self.drop -= other.drop;
        self.early_drop -= other.early_drop;
        self.error -= other.error;
        self.search_restart -= other.search_restart;
        self.clash_resolve -= other.clash_resolve;
        self.chain_toolong -= other.chain_toolong;
    }
}

/// One look at the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub at: Timestamp,
    /// Entries.
    pub count: u32,
    /// Movement since the look before; nothing at the first.
    pub moved: Moved,
    /// Time since the look before, whatever the clock did; zero at the first.
    pub passed: Span,
}

/// Conntrack over time.
#[derive(Debug, Default)]
pub struct ConntrackState {
    newest: Option<CtStats>,
    looks: VecDeque<Look>,
    total: Moved,
    watched: Span,
    tally: Option<(Timestamp, CtTally)>,
    ports: BTreeMap<NatKey, VecDeque<(Timestamp, u32)>>,
    rules: Option<NatRules>,
    events: VecDeque<Counted>,
    /// `found` and time since the start, for what events are compared with.
    found: u64,
    elapsed: Span,
}

/// New entries by events at one look, and what else had been counted by then; all since the start.
#[derive(Clone, Copy, Debug)]
struct Counted {
    events: CtEvents,
    found: u64,
    elapsed: Span,
}

/// New entries over the looks that are remembered, as events told them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewEntries {
    /// How many.
    pub count: u64,
    /// A second.
    pub per_second: f64,
    /// Taken ports that NAT met for each; `None` where none was new.
    pub collisions: Option<f64>,
    /// Events were lost, so there were more.
    pub at_least: bool,
}

impl ConntrackState {
    /// Takes statistics in.
    pub fn apply_stats(&mut self, at: Timestamp, stats: &CtStats) {
        let before = self.newest.as_ref();
        let moved = before.map_or_else(Moved::default, |before| Moved::of(before, stats));
        let passed = self
            .looks
            .back()
            .map_or(Span::ZERO, |before| between(before.at, at));
        self.total += moved;
        self.watched += passed;
        self.found += moved.found;
        self.elapsed += passed;
        if self.looks.len() == MAX_LOOKS
            && let Some(oldest) = self.looks.pop_front()
        {
            self.total -= oldest.moved;
            self.watched = self.watched.saturating_sub(oldest.passed);
        }
        self.looks.push_back(Look {
            at,
            count: stats.count,
            moved,
            passed,
        });
        self.newest = Some(stats.clone());
    }

    /// Takes a folded table in.
    pub fn apply_tally(&mut self, at: Timestamp, tally: &CtTally) {
        let mut before = std::mem::take(&mut self.ports);
        for row in &tally.snat {
            let mut seen = before.remove(&key(row)).unwrap_or_default();
            if seen.len() == MAX_TABLES {
                seen.pop_front();
            }
            seen.push_back((at, row.ports));
            self.ports.insert(key(row), seen);
        }
        self.tally = Some((at, tally.clone()));
    }

    /// Takes counted events in, after the statistics of the same look.
    pub fn apply_events(&mut self, events: CtEvents) {
        // An observer that was started anew counts from nothing.
        if self
            .events
            .back()
            .is_some_and(|last| last.events.new > events.new)
        {
            self.events.clear();
        }
        if self.events.len() == MAX_LOOKS {
            self.events.pop_front();
        }
        self.events.push_back(Counted {
            events,
            found: self.found,
            elapsed: self.elapsed,
        });
    }

    /// New entries, where events were counted over at least two looks.
    pub fn new_entries(&self) -> Option<NewEntries> {
        let (first, last) = (self.events.front()?, self.events.back()?);
        let seconds = last.elapsed.saturating_sub(first.elapsed).as_secs_f64();
        let count = last.events.new.saturating_sub(first.events.new);
        #[allow(clippy::cast_precision_loss)] // rates
        (seconds > 0.0).then(|| NewEntries {
            count,
            per_second: count as f64 / seconds,
            collisions: (count > 0).then(|| last.found.saturating_sub(first.found) as f64 / count as f64),
            at_least: last.events.overruns > first.events.overruns,
        })
    }

    /// Takes NAT rules in.
    pub fn apply_rules(&mut self, rules: &NatRules) {
        self.rules = Some(rules.clone());
    }

    /// The newest NAT rules; `None` where they could not be read.
    pub fn rules(&self) -> Option<&NatRules> {
        self.rules.as_ref()
    }

    /// Where the count of NAT ports in use towards one destination is going, over the tables that were read.
    pub fn ports_trend(&self, row: &SnatTally) -> Option<Trend> {
        let seen = self.ports.get(&key(row))?;
        Trend::of(seen.iter().map(|(at, ports)| (*at, f64::from(*ports))))
    }

    /// The newest statistics.
    pub fn newest(&self) -> Option<&CtStats> {
        self.newest.as_ref()
    }

    /// Every look that is remembered, oldest first.
    pub fn looks(&self) -> impl DoubleEndedIterator<Item = &Look> + Clone {
        self.looks.iter()
    }

    /// How far the counters moved over the looks that are remembered; `None` before the second look, and where no CPU's could
    /// be read.
    pub fn moved(&self) -> Option<&Moved> {
        let read = self.newest.as_ref().is_some_and(|s| !s.cpus.is_empty());
        (read && self.watched > Span::ZERO).then_some(&self.total)
    }

    /// The time that these looks span.
    pub fn watched(&self) -> Span {
        self.watched
    }

    /// `n` events of the watch, per second.
    pub fn per_second(&self, n: u64) -> Option<f64> {
        let seconds = self.watched().as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // a rate
        (seconds > 0.0).then(|| n as f64 / seconds)
    }

    /// The most entries at any look.
    pub fn peak(&self) -> u32 {
        self.looks.iter().map(|l| l.count).max().unwrap_or(0)
    }

    /// The most entries at the looks between which `what` moved, and at the one before each.
    pub fn peak_where(&self, what: impl Fn(&Look) -> bool) -> u32 {
        let looks = self.looks.iter();
        let pairs = looks.clone().zip(looks.skip(1));
        let counts = pairs
            .filter(|(_, look)| what(look))
            .map(|(before, look)| before.count.max(look.count));
        counts.max().unwrap_or(0)
    }

    /// Where the count of entries is going.
    pub fn trend(&self) -> Option<Trend> {
        Trend::of(self.looks.iter().map(|l| (l.at, f64::from(l.count))))
    }

    /// Growth of the count of entries per second, where the looks lie on a line.
    pub fn growth_per_second(&self) -> Option<f64> {
        self.trend()?.pace()
    }

    /// The newest table and when it was read.
    pub fn tally(&self) -> Option<(Timestamp, &CtTally)> {
        self.tally.as_ref().map(|(at, tally)| (*at, tally))
    }
}

/// The time between two looks.
fn between(before: Timestamp, at: Timestamp) -> Span {
    let passed = at.since(before);
    if at < before || passed > LONGEST_GAP {
        USUAL_GAP
    } else {
        passed
    }
}

fn key(row: &SnatTally) -> NatKey {
    (row.nat_address, row.proto, row.destination, row.zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(count: u32, drops: &[u32]) -> CtStats {
        let cpu = |drop: &u32| CtCpuStats {
            drop: *drop,
            ..CtCpuStats::default()
        };
        CtStats {
            count,
            max: Some(100),
            cpus: drops.iter().map(cpu).collect(),
        }
    }

    fn state(looks: &[(i64, CtStats)]) -> ConntrackState {
        let mut state = ConntrackState::default();
        for (at, stats) in looks {
            state.apply_stats(Timestamp::from_secs(*at), stats);
        }
        state
    }

    #[test]
    fn counters_are_told_as_movement_only() {
        for (name, looks, expected) in [
            ("one look", vec![(0, stats(1, &[500]))], None),
            (
                "two looks",
                vec![(0, stats(1, &[500, 7])), (2, stats(1, &[510, 8]))],
                Some(11),
            ),
            ("no CPU read", vec![(0, stats(1, &[])), (2, stats(1, &[]))], None),
            (
                "wrapped",
                vec![(0, stats(1, &[u32::MAX - 1])), (2, stats(1, &[3]))],
                Some(5),
            ),
            (
                "reset",
                vec![(0, stats(1, &[5000])), (2, stats(1, &[3]))],
                Some(0),
            ),
            (
                "a CPU went",
                vec![(0, stats(1, &[5, 6])), (2, stats(1, &[6]))],
                Some(1),
            ),
            (
                "a CPU came: what it counted before is not known",
                vec![
                    (0, stats(1, &[5])),
                    (1, stats(1, &[6, 900])),
                    (2, stats(1, &[6, 901])),
                ],
                Some(2),
            ),
        ] {
            assert_eq!(state(&looks).moved().map(|m| m.drop), expected, "{name}");
        }
    }

    #[test]
    fn rates_and_growth() {
        let all: Vec<_> = (0..5).map(|i| (i64::from(i), stats(10 + i * 5, &[i]))).collect();
        let state = state(&all);
        assert_eq!(state.per_second(8), Some(2.0));
        assert_eq!(state.growth_per_second(), Some(5.0));
        assert_eq!(state.peak(), 30);
        assert_eq!(ConntrackState::default().per_second(8), None);
    }

    #[test]
    fn new_entries_by_events() {
        let mut state = ConntrackState::default();
        let events = |new, overruns| CtEvents { new, overruns };
        let mut look = |at: i64, found: u32, counted| {
            let mut stats = stats(10, &[0]);
            stats.cpus[0].found = found;
            state.apply_stats(Timestamp::from_secs(at), &stats);
            state.apply_events(counted);
            state.new_entries()
        };
        assert_eq!(look(0, 900, events(5, 0)), None);
        let quiet = look(1, 900, events(5, 0)).unwrap();
        assert_eq!((quiet.count, quiet.collisions), (0, None));
        let busy = look(4, 1300, events(205, 0)).unwrap();
        assert_eq!(
            (busy.per_second, busy.collisions, busy.at_least),
            (50.0, Some(2.0), false)
        );
        assert!(look(5, 1300, events(300, 1)).unwrap().at_least);
        assert_eq!(look(6, 1300, events(3, 0)), None, "started anew");
    }

    #[test]
    fn nat_ports_have_a_trend_of_their_own() {
        let row = |port: u16, ports| SnatTally {
            nat_address: [198, 51, 100, 1].into(),
            proto: Proto::Tcp,
            destination: ([203, 0, 113, 9], port).into(),
            zone: 0,
            ports,
            min_port: 1024,
            max_port: 65_535,
            preserved: 0,
            rewritten: None,
            closing: 0,
            unreplied: 0,
            runs: None,
        };
        let mut state = ConntrackState::default();
        for i in 0..200_u32 {
            let tally = CtTally {
                snat: vec![row(1, 100 + i * 7), row(u16::try_from(1000 + i).unwrap(), 5)],
                ..CtTally::default()
            };
            state.apply_tally(Timestamp::from_secs(i.into()), &tally);
        }
        let pace = state.ports_trend(&row(1, 0)).and_then(|t| t.pace());
        assert_eq!(pace, Some(7.0));
        assert_eq!(state.ports_trend(&row(2, 0)), None);
        assert_eq!(
            (state.ports.len(), state.ports.values().map(VecDeque::len).max()),
            (2, Some(MAX_TABLES))
        );
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_no_longer_told() {
        let all: Vec<_> = (0..200).map(|i| (i64::from(i), stats(1, &[i]))).collect();
        let state = state(&all);
        assert_eq!(state.moved().map(|m| m.drop), Some(199));
        assert_eq!(state.watched(), Span::from_secs(199));
        // A failure in the first minute of a day.
        let day: Vec<_> = (0..86_400)
            .map(|i| (i64::from(i), stats(1, &[u32::min(i, 60)])))
            .collect();
        let early = self::state(&day[..500]);
        assert_eq!(early.moved().map(|m| m.drop), Some(60));
        let late = self::state(&day[..2000]);
        assert_eq!(late.moved().map(|m| m.drop), Some(0));
        assert_eq!(late.looks().count(), MAX_LOOKS);
        assert_eq!(late.watched(), Span::from_secs(600));
    }

    #[test]
    fn a_clock_that_is_set_does_not_change_rates() {
        for step in [-3600, 3600] {
            let looks: Vec<_> = (0..10)
                .map(|i| {
                    let at = i64::from(i) + if i < 5 { 0 } else { step };
                    (at, stats(100 + i * 10, &[i * 20]))
                })
                .collect();
            let state = state(&looks);
            assert_eq!(state.moved().map(|m| m.drop), Some(180), "{step}");
            assert_eq!(state.watched(), Span::from_secs(9), "{step}");
            assert_eq!(state.per_second(180), Some(20.0), "{step}");
            assert_eq!(state.growth_per_second(), Some(10.0), "{step}");
        }
    }
}

//! When an observer that ended is started anew: after a second, then after twice as long each time, five minutes at most.
//!
//! In: who ended and who looked, with the time. Out: who is due. Why so patient: what is missing (a capability, a kernel
//! module) mostly stays so, and a bug that fails at once must not burn the host's CPU.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::observation::Source;
use crate::time::Span;

pub(super) const FIRST: Span = Span::from_secs(1);
const LONGEST: Span = Span::from_secs(300);
/// Whoever has looked for this long has recovered: its next failure is a first one.
const RECOVERED: Span = Span::from_secs(600);

/// Who is started anew, and when.
#[derive(Debug, Default)]
pub struct Restarts {
    by_source: BTreeMap<Source, State>,
}

#[derive(Debug, Default)]
struct State {
    wait: Span,
    due: Option<Instant>,
    begun: Option<Instant>,
    count: u64,
}

impl Restarts {
    /// The observer of `source` has ended.
    pub fn ended(&mut self, source: Source, now: Instant) {
        let state = self.by_source.entry(source).or_default();
        let recovered = state.begun.is_some_and(|begun| now - begun >= RECOVERED);
        state.wait = if state.wait.is_zero() || recovered {
            FIRST
        } else {
            (state.wait * 2).min(LONGEST)
        };
        state.due = Some(now + state.wait);
        state.begun = None;
    }

    /// The observer of `source` ended because another is to take its place.
    pub fn at_once(&mut self, source: Source, now: Instant) {
        let state = self.by_source.entry(source).or_default();
        (state.due, state.wait) = (Some(now), Span::ZERO);
    }

    /// The observer of `source` is not to be started by this.
    pub fn forget(&mut self, source: Source) {
        if let Some(state) = self.by_source.get_mut(&source) {
            (state.due, state.wait) = (None, Span::ZERO);
        }
    }

    /// The observer of `source` told how it fares.
    pub fn looked(&mut self, source: Source, now: Instant) {
        let state = self.by_source.entry(source).or_default();
        state.begun.get_or_insert(now);
    }

    /// Who is to be started now; each is returned once.
    pub fn due(&mut self, now: Instant) -> Vec<Source> {
        let mut due = Vec::new();
        for (source, state) in &mut self.by_source {
            if state.due.is_some_and(|at| at <= now) {
                state.due = None;
                state.begun = None;
                state.count += 1;
                due.push(*source);
            }
        }
        due
    }

    /// When the next is due.
    pub fn next(&self) -> Option<Instant> {
        self.by_source.values().filter_map(|state| state.due).min()
    }

    /// How often each was started anew.
    pub fn counts(&self) -> BTreeMap<Source, u64> {
        let counted = self.by_source.iter().filter(|(_, state)| state.count > 0);
        counted.map(|(source, state)| (*source, state.count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn each_failure_waits_longer_and_recovery_forgives() {
        let mut restarts = Restarts::default();
        let mut now = clock::instant();
        let mut waits = Vec::new();
        for _ in 0..11 {
            restarts.ended(Source::Host, now);
            assert_eq!(restarts.due(now), []);
            let next = restarts.next().unwrap();
            waits.push((next - now).as_secs());
            now = next;
            assert_eq!(restarts.due(now), [Source::Host]);
            assert_eq!(restarts.next(), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        restarts.looked(Source::Host, now);
        restarts.ended(Source::Host, now + RECOVERED);
        assert_eq!(restarts.next(), Some(now + RECOVERED + FIRST));
        assert_eq!(restarts.counts(), BTreeMap::from([(Source::Host, 11)]));
    }
}

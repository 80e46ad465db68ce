//! Protocol counters over time.
//!
//! In: [`Counters`], cumulative. Out: how far each moved while watched. Why: a counter of that very event
//! (`Ip.OutDiscards`, `Ip.OutNoRoutes`) proves what silence alone cannot.

use crate::observation::host::Counters;
use crate::time::Timestamp;

/// The first and the newest reading.
#[derive(Debug, Default)]
pub struct CounterState {
    first: Option<(Timestamp, Counters)>,
    newest: Option<(Timestamp, Counters)>,
}

impl CounterState {
    /// Takes counters in.
    pub fn apply(&mut self, at: Timestamp, counters: &Counters) {
        if self.first.is_none() {
            self.first = Some((at, counters.clone()));
        }
        self.newest = Some((at, counters.clone()));
    }

    /// The newest value of `name` (`Group.Name`).
    pub fn value(&self, name: &str) -> Option<u64> {
        self.newest.as_ref()?.1.0.get(name).copied()
    }

    /// The times of the first and the newest reading, where there were two.
    pub fn window(&self) -> Option<(Timestamp, Timestamp)> {
        let (first, newest) = (self.first.as_ref()?.0, self.newest.as_ref()?.0);
        (first < newest).then_some((first, newest))
    }

    /// How far `name` moved while watched. `None` where it was not read at least twice, or went back (then
    /// something reset it and the difference means nothing).
    pub fn delta(&self, name: &str) -> Option<u64> {
        let (first_at, first) = self.first.as_ref()?;
        let (newest_at, newest) = self.newest.as_ref()?;
        if first_at == newest_at {
            return None;
        }
        newest.0.get(name)?.checked_sub(*first.0.get(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(value: u64) -> Counters {
        Counters([("Ip.OutNoRoutes".to_owned(), value)].into())
    }

    #[test]
    fn one_reading_has_no_movement_and_a_reset_none_either() {
        let mut state = CounterState::default();
        assert_eq!(state.delta("Ip.OutNoRoutes"), None);
        state.apply(Timestamp::from_secs(1), &reading(5));
        assert_eq!(state.delta("Ip.OutNoRoutes"), None);
        assert_eq!(state.value("Ip.OutNoRoutes"), Some(5));
        state.apply(Timestamp::from_secs(2), &reading(7));
        assert_eq!(state.delta("Ip.OutNoRoutes"), Some(2));
        assert_eq!(state.delta("Ip.Nonsense"), None);
        state.apply(Timestamp::from_secs(3), &reading(1));
        assert_eq!(state.delta("Ip.OutNoRoutes"), None);
    }
}

//! (being written)

/// State.
#[derive(Debug, Default)]
pub struct CounterState {}

use crate::observation::host::Counters;
use crate::time::Timestamp;

impl CounterState {
    /// Takes counters in.
    pub fn apply(&mut self, _at: Timestamp, _counters: &Counters) {}
}

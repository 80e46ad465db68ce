//! (being written)

/// State.
#[derive(Debug, Default)]
pub struct ConntrackState {}

use crate::observation::conntrack::{CtStats, CtTally};
use crate::time::Timestamp;

impl ConntrackState {
    /// Takes statistics in.
    pub fn apply_stats(&mut self, _at: Timestamp, _stats: &CtStats) {}
    /// Takes a folded table in.
    pub fn apply_tally(&mut self, _at: Timestamp, _tally: &CtTally) {}
}

//! How each source fares: what a rule may rely on, and what the report must admit.

use std::collections::{BTreeMap, BTreeSet};

use crate::observation::{Source, SourceState, SourceStatus};
use crate::time::Timestamp;

/// The newest status of every source that was started.
#[derive(Debug, Default)]
pub struct Sources {
    by_source: BTreeMap<Source, (Timestamp, SourceStatus)>,
    /// Those that told a fact.
    told: BTreeSet<Source>,
}

impl Sources {
    /// Takes a status in. The worst state that a source ever had within one run is kept with its reason: what
    /// was missed in between stays missed.
    pub fn apply(&mut self, source: Source, at: Timestamp, status: &SourceStatus) {
        let entry = self
            .by_source
            .entry(source)
            .or_insert_with(|| (at, status.clone()));
        let keep_reason = entry.1.state > status.state;
        let (state, reason) = if keep_reason {
            (entry.1.state, entry.1.reason.clone())
        } else {
            (status.state, status.reason.clone())
        };
        *entry = (
            at,
            SourceStatus {
                state,
                reason,
                cost_cpu: entry.1.cost_cpu.max(status.cost_cpu),
                lost: entry.1.lost.max(status.lost),
            },
        );
        self.soften(source);
    }

    /// Notes that `source` told a fact. What it told stays true when a single look fails: it then sees a part.
    pub fn told(&mut self, source: Source) {
        if self.told.insert(source) {
            self.soften(source);
        }
    }

    fn soften(&mut self, source: Source) {
        if let Some((_, status)) = self.by_source.get_mut(&source)
            && status.state == SourceState::Unavailable
            && self.told.contains(&source)
        {
            status.state = SourceState::Degraded;
        }
    }

    /// Forgets `source`, as if it had never been started.
    pub fn forget(&mut self, source: Source) {
        self.by_source.remove(&source);
        self.told.remove(&source);
    }

    /// The status of `source`; `None` where it was never started.
    pub fn get(&self, source: Source) -> Option<&SourceStatus> {
        self.by_source.get(&source).map(|(_, s)| s)
    }

    /// Whether `source` sees at least a part.
    pub fn sees(&self, source: Source) -> bool {
        self.get(source)
            .is_some_and(|s| s.state != SourceState::Unavailable)
    }

    /// Every source that was started, in the report's order.
    pub fn iter(&self) -> impl Iterator<Item = (Source, &SourceStatus)> {
        self.by_source
            .iter()
            .map(|(source, (_, status))| (*source, status))
    }
}

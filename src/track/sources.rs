//! How each source fares: what a rule may rely on, and what the report must admit.

use std::collections::{BTreeMap, BTreeSet};

use crate::observation::{Source, SourceState, SourceStatus};
use crate::time::Timestamp;

/// The newest status of every source that was started.
#[derive(Debug, Default)]
pub struct Sources {
    by_source: BTreeMap<Source, Watched>,
    /// Those that told a fact.
    told: BTreeSet<Source>,
}

#[derive(Debug)]
struct Watched {
    first: Timestamp,
    newest: Timestamp,
    status: SourceStatus,
}

impl Sources {
    /// Takes a status in. The worst state that a source ever had within one run is kept with its reason: what
    /// was missed in between stays missed.
    pub fn apply(&mut self, source: Source, at: Timestamp, status: &SourceStatus) {
        let entry = self.by_source.entry(source).or_insert_with(|| Watched {
            first: at,
            newest: at,
            status: status.clone(),
        });
        let known = &mut entry.status;
        if known.state <= status.state {
            (known.state, known.reason) = (status.state, status.reason.clone());
        }
        known.cost_cpu = known.cost_cpu.max(status.cost_cpu);
        known.lost = known.lost.max(status.lost);
        entry.newest = at;
        self.soften(source);
    }

    /// Notes that `source` told a fact. What it told stays true when a single look fails: it then sees a part.
    pub fn told(&mut self, source: Source) {
        if self.told.insert(source) {
            self.soften(source);
        }
    }

    fn soften(&mut self, source: Source) {
        if let Some(entry) = self.by_source.get_mut(&source)
            && entry.status.state == SourceState::Unavailable
            && self.told.contains(&source)
        {
            entry.status.state = SourceState::Degraded;
        }
    }

    /// Forgets `source`, as if it had never been started.
    pub fn forget(&mut self, source: Source) {
        self.by_source.remove(&source);
        self.told.remove(&source);
    }

    /// The status of `source`; `None` where it was never started.
    pub fn get(&self, source: Source) -> Option<&SourceStatus> {
        self.by_source.get(&source).map(|entry| &entry.status)
    }

    /// The end of the first and of the newest look of `source`: what happened between them it can have seen.
    pub fn watched(&self, source: Source) -> Option<(Timestamp, Timestamp)> {
        self.by_source
            .get(&source)
            .map(|entry| (entry.first, entry.newest))
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
            .map(|(source, entry)| (*source, &entry.status))
    }
}

//! The observer that measures paths beside the others, for `doctor` and the agent.

use std::collections::{BTreeMap, HashSet};

use super::fly::Checks;
use super::{Plan, measure, mtu};
use crate::observation::path::PathMtu;
use crate::observation::{Body, Source, SourceStatus};
use crate::observe::jitter::jittered;
use crate::observe::{Emit, ObserveError, Observer};
use crate::sys::clock;
use crate::time::Span;

/// From one batch to the next.
const INTERVAL: Span = Span::from_secs(60);

/// Measures the same targets again and again.
pub struct PathObserver {
    plan: Plan,
    interval: Span,
    /// The largest packet is searched for once in so many rounds, where it is.
    mtu_every: Option<u32>,
    round: u32,
    /// What the last search found, by target.
    mtus: BTreeMap<String, PathMtu>,
    fly: Option<Checks>,
}

impl PathObserver {
    /// Of `plan`.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            interval: INTERVAL,
            mtu_every: None,
            round: 0,
            mtus: BTreeMap::new(),
            fly: None,
        }
    }

    /// For good: every `interval` or so, and once in `mtu_every` rounds the largest packet, where the target answers the
    /// echoes by which it is found. In between, the last one found is told.
    #[must_use]
    pub fn steady(mut self, interval: Span, mtu_every: u32) -> Self {
        (self.interval, self.mtu_every) = (interval, Some(mtu_every.max(1)));
        self
    }

    /// And of a Fly machine's private network.
    #[must_use]
    pub fn with_fly(mut self, checks: Option<Checks>) -> Self {
        self.fly = checks;
        self
    }
}

impl Observer for PathObserver {
    fn source(&self) -> Source {
        Source::Paths
    }

    fn interval(&self) -> Span {
        match self.mtu_every {
            Some(_) => jittered(self.interval),
            None => self.interval,
        }
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        if let Some(every) = self.mtu_every {
            self.plan.mtu = self.round.is_multiple_of(every);
            self.round = self.round.wrapping_add(1);
        }
        let failed = |source| ObserveError::System {
            doing: "measuring paths".to_owned(),
            source,
        };
        let mut plan = self.plan.clone();
        if let Some(checks) = &self.fly {
            let begun = clock::instant();
            let (mut aims, facts) = checks.look().map_err(failed)?;
            if self.mtu_every.is_some() {
                for aim in &mut aims {
                    aim.mtu &= self.plan.mtu;
                }
            }
            plan.aims.extend(aims);
            emit.emit(clock::now(), begun.elapsed(), Body::FlyNet(facts));
        }
        // Machines come and go.
        let aimed: HashSet<String> = plan.aims.iter().map(|aim| aim.target.to_string()).collect();
        self.mtus.retain(|target, _| aimed.contains(target));
        let measured = measure(&plan, &|| false).map_err(failed)?;
        let mut samples = Vec::with_capacity(measured.len());
        for (at, took, mut sample) in measured {
            if self.mtu_every.is_some() {
                // Not everybody answers echoes, and it was not asked for by name.
                sample.problems.retain(|why| !why.starts_with(mtu::PROBLEM));
                let target = sample.target.to_string();
                match sample.mtu {
                    Some(found) => drop(self.mtus.insert(target, found)),
                    None if self.plan.mtu => drop(self.mtus.remove(&target)),
                    None => sample.mtu = self.mtus.get(&target).copied(),
                }
            }
            emit.emit(at, took, Body::Path(Box::new(sample.clone())));
            samples.push(sample);
        }
        Ok(super::status(&samples))
    }
}

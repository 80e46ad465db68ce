//! The observer that measures paths beside the others, for `doctor` and the agent.

use super::fly::Checks;
use super::{Plan, measure};
use crate::observation::{Body, Source, SourceStatus};
use crate::observe::{Emit, ObserveError, Observer};
use crate::sys::clock;
use crate::time::Span;

/// From one batch to the next.
const INTERVAL: Span = Span::from_secs(60);

/// Measures the same targets again and again.
pub struct PathObserver {
    plan: Plan,
    fly: Option<Checks>,
}

impl PathObserver {
    /// Of `plan`.
    pub fn new(plan: Plan) -> Self {
        Self { plan, fly: None }
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
        INTERVAL
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let failed = |source| ObserveError::System {
            doing: "measuring paths".to_owned(),
            source,
        };
        let mut plan = self.plan.clone();
        if let Some(checks) = &self.fly {
            let begun = clock::instant();
            let (aims, facts) = checks.look().map_err(failed)?;
            plan.aims.extend(aims);
            emit.emit(clock::now(), begun.elapsed(), Body::FlyNet(facts));
        }
        let measured = measure(&plan, &|| false).map_err(failed)?;
        let mut samples = Vec::with_capacity(measured.len());
        for (at, took, sample) in measured {
            emit.emit(at, took, Body::Path(Box::new(sample.clone())));
            samples.push(sample);
        }
        Ok(super::status(&samples))
    }
}

//! The observer that measures paths beside the others, for `doctor` and the agent.

use super::{Plan, measure};
use crate::observation::{Body, Source, SourceStatus};
use crate::observe::{Emit, ObserveError, Observer};
use crate::time::Span;

/// From one batch to the next.
const INTERVAL: Span = Span::from_secs(60);

/// Measures the same targets again and again.
pub struct PathObserver {
    plan: Plan,
}

impl PathObserver {
    /// Of `plan`.
    pub fn new(plan: Plan) -> Self {
        Self { plan }
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
        let measured = measure(&self.plan, &|| false).map_err(|source| ObserveError::System {
            doing: "measuring paths".to_owned(),
            source,
        })?;
        let mut samples = Vec::with_capacity(measured.len());
        for (at, took, sample) in measured {
            emit.emit(at, took, Body::Path(Box::new(sample.clone())));
            samples.push(sample);
        }
        Ok(super::status(&samples))
    }
}

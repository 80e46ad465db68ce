//! Probes as one source beside others: a diagnosis tries the peers that its user names, once.
//!
//! Needs and costs what [`super::Prober`] does. The jobs hold keys, so they are handed over once and not kept: an observer that
//! is started anew has nothing to try any more.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Job, Prober};
use crate::observation::{Source, SourceStatus};
use crate::observe::{Emit, ObserveError, Observer};
use crate::time::Span;

/// Peers probed at the same time.
const AT_ONCE: usize = 64;
/// There is no second look.
const NEVER: Span = Span::from_secs(86_400);

/// What is to be done, and what does it.
type Work = (Prober, Vec<Job>);

/// The jobs and what runs them, until an observer takes them.
#[derive(Clone)]
pub struct Once(Arc<Mutex<Option<Work>>>);

impl Once {
    /// Tries `jobs` by `prober`.
    pub fn new(prober: Prober, jobs: Vec<Job>) -> Self {
        Self(Arc::new(Mutex::new(Some((prober, jobs)))))
    }

    fn take(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The observer.
pub struct Beside(Once);

impl Beside {
    /// Tries what `once` holds.
    pub const fn new(once: Once) -> Self {
        Self(once)
    }
}

impl Observer for Beside {
    fn source(&self) -> Source {
        Source::Probe
    }

    fn interval(&self) -> Span {
        NEVER
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        if let Some((prober, jobs)) = self.0.take() {
            prober
                .run(jobs, AT_ONCE, &mut |fact| {
                    emit.emit(fact.at, fact.took, fact.body)
                })
                .map_err(|source| ObserveError::System {
                    doing: "starting to probe".to_owned(),
                    source,
                })?;
        }
        Ok(SourceStatus::ok())
    }
}

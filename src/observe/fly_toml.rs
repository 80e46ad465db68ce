//! A fly.toml that was read when the command began.
//!
//! Needs and costs nothing: the file is parsed by whoever starts this, since what is wrong with a file that was named is
//! said before anything is started. One that was merely found and is no use is told as this source's status.

use super::{Emit, ObserveError, Observer};
use crate::observation::fly_toml::FlyTomlFacts;
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::time::Span;

/// The file does not change meanwhile; this is how often the thread wakes for nothing.
const INTERVAL: Span = Span::from_secs(300);

/// The observer.
pub struct FlyTomlObserver {
    read: Result<FlyTomlFacts, String>,
    told: bool,
}

impl FlyTomlObserver {
    /// Of what was read, or of why it could not be.
    pub fn new(read: Result<FlyTomlFacts, String>) -> Self {
        Self { read, told: false }
    }
}

impl Observer for FlyTomlObserver {
    fn source(&self) -> Source {
        Source::FlyToml
    }

    fn interval(&self) -> Span {
        INTERVAL
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let facts = match &self.read {
            Ok(facts) => facts,
            Err(why) => return Ok(SourceStatus::unavailable(why.clone())),
        };
        if !self.told {
            emit.emit(clock::now(), Span::ZERO, Body::FlyToml(Box::new(facts.clone())));
            self.told = true;
        }
        Ok(match facts.file.left_out {
            0 => SourceStatus::ok(),
            n => SourceStatus::degraded(format!(
                "{}: {n} sections are too many and were not read",
                facts.path
            )),
        })
    }
}

//! The wall clock as the machines see it: read once, then moved by the monotonic one, so that a step falsifies no round
//! trip.

use std::time::Instant;

use crate::sys::clock;
use crate::time::Timestamp;

/// The clock of one run.
#[derive(Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    instant: Instant,
}

impl Clock {
    /// From now on.
    pub fn start() -> Self {
        Self {
            wall: clock::now(),
            instant: clock::instant(),
        }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.wall + self.instant.elapsed()
    }

    /// Waits until `at`; for ever where there is no such moment.
    pub async fn sleep_until(&self, at: Option<Timestamp>) {
        match at {
            Some(at) => tokio::time::sleep_until((self.instant + (at - self.wall)).into()).await,
            None => std::future::pending().await,
        }
    }
}

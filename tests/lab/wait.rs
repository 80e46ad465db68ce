//! Waiting for conditions, with a deadline and a message.

use std::time::{Duration, Instant};

/// How often a condition is looked at: often enough not to slow a test, seldom enough for two cores.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long a test waits for what comes at once, or after WireGuard's retries, where the machine has time for it. It is the
/// same for all and long, for it costs nothing where the event comes: a limit near the expected time is what fails when
/// eight tests share two cores. None may be longer than what nextest allows a test, less a doctor's run.
pub const SOON: Duration = Duration::from_secs(40);

/// Measures how long something took. Tests have no clock of their own: clippy keeps clocks out of the crate.
#[derive(Clone, Copy, Debug)]
pub struct Watch(Instant);

impl Watch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Waits until `condition` holds. Panics after `limit`, saying what was awaited.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(limit, what, || condition().then_some(()));
}

/// Waits until `look` finds something, and returns it. Panics after `limit`, saying what was awaited.
#[track_caller]
pub fn wait_for<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(INTERVAL);
    }
}

/// A pause between two looks at a condition with a deadline of its own.
pub fn pause() {
    std::thread::sleep(INTERVAL * 5);
}

/// Watches that `condition` holds for the whole of `span`. Panics at the first look at which it does not.
#[track_caller]
pub fn holds_for(span: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(
            condition(),
            "after {:?} it no longer held: {what}",
            start.elapsed()
        );
        std::thread::sleep(INTERVAL);
    }
}

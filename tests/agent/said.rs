//! What an agent says on standard error, and a way to wait for more of it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Its log so far.
#[derive(Default)]
pub struct Said {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    log: Vec<u8>,
    /// Rises whenever something happens.
    seen: u64,
    /// Nobody can write to it any more.
    over: bool,
}

impl Said {
    /// Reads `stderr` to its end, on a thread of its own.
    pub fn of(mut stderr: impl Read + Send + 'static) -> Arc<Self> {
        let said = Arc::new(Self::default());
        let theirs = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut bytes = [0; 8192];
            while let Ok(length @ 1..) = stderr.read(&mut bytes) {
                theirs.state().log.extend_from_slice(&bytes[..length]);
                theirs.stir();
            }
            theirs.state().over = true;
            theirs.stir();
        });
        said
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Something has happened: whoever waits looks again.
    pub fn stir(&self) {
        self.state().seen += 1;
        self.moved.notify_all();
    }

    /// What has been seen so far, for [`Said::after`].
    pub fn seen(&self) -> u64 {
        self.state().seen
    }

    /// Waits until more was seen than `seen`, at most so long.
    pub fn after(&self, seen: u64, at_most: Duration) {
        let state = self.state();
        let _ = self
            .moved
            .wait_timeout_while(state, at_most, |state| state.seen == seen);
    }

    /// The log.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.state().log).into_owned()
    }

    /// Whether nothing more will come.
    pub fn is_over(&self) -> bool {
        self.state().over
    }
}

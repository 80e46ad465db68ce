//! Something done again and again in the background: traffic that a verdict needs while doctor watches.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The background thread; it ends with the handle.
#[derive(Debug)]
pub struct Repeat {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Repeat {
    /// Does `work` now and after each `interval`.
    pub fn every(interval: Duration, mut work: impl FnMut() + Send + 'static) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            work();
            while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
                work();
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Repeat {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

//! Ends a measurement before its time; what is known by then is told.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// A wish to end, shared by who has it and who measures.
#[derive(Clone, Debug)]
pub struct Stop(Arc<EventFd>);

impl Stop {
    /// One that nobody has wished for yet.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        Ok(Self(Arc::new(EventFd::from_value_and_flags(0, flags)?)))
    }

    /// Ends it soon, and whatever is measured with it from now on.
    pub fn stop(&self) {
        // Full only after 2^64 wishes.
        let _ = self.0.write(1);
    }

    /// Readable from the wish on: nobody reads it.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

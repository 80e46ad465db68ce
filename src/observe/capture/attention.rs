//! When data is worth a tap of its own: while there can be a session.
//!
//! In: when a message of WireGuard passed. Out: whether to listen for data. Pure. Each tap costs every packet of the host about 0.15 µs
//! (the kernel copies what leaves for it), whoever's packet that is; a host without WireGuard need not pay for the second
//! one. Nothing is missed: no session lives longer than REJECT_AFTER_TIME (paper 6.1), and each begins with a handshake, which the
//! first tap sees.

use std::time::Instant;

use crate::time::Span;
use crate::wire::wireguard::REJECT_AFTER_TIME;

/// After so long without any message there is no session; with room for a handshake that takes its time.
pub const QUIET: Span = Span::from_secs(REJECT_AFTER_TIME.as_secs() + 30);

/// The attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    last: Instant,
    quiet: Span,
}

impl Attention {
    /// Begins at `now`, when there may be a session already; ends `quiet` after the last message.
    pub const fn new(now: Instant, quiet: Span) -> Self {
        Self { last: now, quiet }
    }

    /// A handshake message or data passed, and was read at `now`.
    pub fn passed(&mut self, now: Instant) {
        self.last = self.last.max(now);
    }

    /// Whether to listen for data at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < self.quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_outlasts_any_session_and_then_ends() {
        let begun = crate::sys::clock::instant();
        let mut attention = Attention::new(begun, QUIET);
        assert!(attention.is_due(begun + REJECT_AFTER_TIME));
        assert!(!attention.is_due(begun + QUIET));
        attention.passed(begun + QUIET);
        assert!(attention.is_due(begun + QUIET + REJECT_AFTER_TIME));
        // What is told late changes nothing.
        attention.passed(begun);
        assert!(attention.is_due(begun + QUIET + REJECT_AFTER_TIME));
        assert!(!attention.is_due(begun + QUIET + QUIET));
    }
}

//! Ports and sockets of this host, one rule a file.
//!
//! One trouble shows in up to three of these rules, and is reported once: `connection-churn` is the habit,
//! `timewait-pileup` what it leaves behind, `ports-low` and `ports-exhausted` what it comes to. The last two tell
//! the whole story, advice included, so they explain the former two; while ports suffice, the churn explains the pile.

use super::Rule;

mod churn;
mod exhausted;
mod fd_limit;
mod low;
#[cfg(test)]
pub(super) mod testing;
mod timewait;
pub(super) mod tuple;

/// The rules, in their reviewed order: causes before symptoms.
pub const RULES: &[Rule] = &[
    exhausted::RULE,
    low::RULE,
    churn::RULE,
    timewait::RULE,
    fd_limit::RULE,
];

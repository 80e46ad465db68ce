//! Ports and sockets of this host, one rule a file.
//!
//! One trouble shows in up to three of these rules, and is reported once: `connection-churn` is the habit,
//! `timewait-pileup` what it leaves behind, `ports-low` and `ports-exhausted` what it comes to. The last two tell
//! the whole story, advice included, so they explain the former two; while ports suffice, the churn explains the pile.

use super::{Input, Rule};
use crate::pooling::Advice;
use crate::track::sockets::Key;

mod burst;
mod churn;
mod denied;
mod exhausted;
mod failing;
mod fd_limit;
mod listener_taken;
mod low;
mod refused;
#[cfg(test)]
pub(super) mod testing;
mod timewait;
pub(super) mod tuple;
mod udp_low;
mod unanswered;

/// The rules, in their reviewed order: causes before symptoms.
pub const RULES: &[Rule] = &[
    exhausted::RULE,
    listener_taken::RULE,
    low::RULE,
    udp_low::RULE,
    unanswered::RULE,
    refused::RULE,
    churn::RULE,
    burst::RULE,
    timewait::RULE,
    fd_limit::RULE,
];

/// Destinations that are advised on.
const ADVISED: usize = 64;

/// What would help each of the fullest destinations, whether or not something is wrong with it.
pub fn advice(input: &Input<'_>) -> Vec<(Key, Advice)> {
    let tuples = tuple::tuples(input);
    tuples
        .iter()
        .take(ADVISED)
        .map(|tuple| (tuple.key, tuple.advice()))
        .collect()
}

//! WireGuard's findings as a capture file proves them, one rule a file. No device is known here: what is judged is what
//! passed between two addresses. A code that a live host knows too keeps its meaning; only what is looked at differs.

mod clock_replay;
mod duplicate_key;
mod endpoint_unreachable;
mod handshake_loss;
mod handshake_timeout;
#[cfg(test)]
mod keys_tests;
mod nat_rebinding;
mod response_rejected;
mod roamed;
mod roaming_unstable;
#[cfg(test)]
mod testing;
mod under_load;
mod unknown_initiator;
pub(super) mod view;
mod wrong_peer_key;

/// The texts of codes that a probe proves too.
pub(super) use handshake_loss::RULE as HANDSHAKE_LOSS;
pub(super) use response_rejected::RULE as RESPONSE_REJECTED;
pub(super) use under_load::RULE as UNDER_LOAD;

use super::Rule;
use crate::observation::Source;

/// The rules, in their reviewed order: causes before symptoms.
pub const RULES: &[Rule] = &[
    duplicate_key::RULE,
    wrong_peer_key::RULE,
    unknown_initiator::RULE,
    clock_replay::RULE,
    endpoint_unreachable::RULE,
    response_rejected::RULE,
    handshake_timeout::RULE,
    under_load::RULE,
    handshake_loss::RULE,
    roaming_unstable::RULE,
    nat_rebinding::RULE,
    roamed::RULE,
];

const CAPTURE: &[&[Source]] = &[&[Source::Capture]];
/// What only given keys open.
const WITH_KEYS: &[&[Source]] = &[&[Source::Capture], &[Source::Config]];

//! WireGuard's findings as a capture file proves them, one rule a file. No device is known here: what is judged is what
//! passed between two addresses. A code that a live host knows too keeps its meaning; only what is looked at differs.

pub(super) mod clock_replay;
pub mod compared;
mod duplicate_key;
pub(super) mod endpoint_unreachable;
pub(super) mod handshake_loss;
mod handshake_storm;
pub(super) mod handshake_timeout;
#[cfg(test)]
mod keys_tests;
mod mtu_blackhole;
mod nat_rebinding;
mod one_way;
mod response_lost;
pub(super) mod response_rejected;
mod roamed;
mod roaming_unstable;
mod session_expired;
#[cfg(test)]
mod testing;
pub(super) mod under_load;
mod unknown_initiator;
pub(super) mod view;
pub(super) mod wrong_peer_key;

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
    response_lost::RULE,
    handshake_timeout::RULE,
    session_expired::RULE,
    mtu_blackhole::RULE,
    one_way::RULE,
    handshake_storm::RULE,
    under_load::RULE,
    handshake_loss::RULE,
    roaming_unstable::RULE,
    nat_rebinding::RULE,
    roamed::RULE,
];

/// What a live host proves in the same way.
pub(super) use duplicate_key::RULE as DUPLICATE_KEY;
pub(super) use mtu_blackhole::{BlackHole, RULE as MTU_BLACKHOLE};
pub(super) use nat_rebinding::RULE as NAT_REBINDING;
pub(super) use roaming_unstable::RULE as ROAMING_UNSTABLE;
pub(super) use view::finding as blank;

const CAPTURE: &[&[Source]] = &[&[Source::Capture]];
/// What only given keys open.
const WITH_KEYS: &[&[Source]] = &[&[Source::Capture], &[Source::Config]];

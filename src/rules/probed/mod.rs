//! WireGuard's findings as an active probe proves them, one rule a file. What is judged is what a peer's answers to our
//! own initiations prove. A code that a live host knows too keeps its meaning; only what is looked at differs.

mod endpoint_unreachable;
mod handshake_loss;
mod handshake_timeout;
mod keepalive;
mod mtu;
mod no_route;
mod one_way;
mod response_rejected;
mod stale_key;
#[cfg(test)]
mod testing;
mod under_load;
mod view;
mod websocket_only;

use super::Rule;
use crate::observation::Source;

/// The rules, in their reviewed order: causes before symptoms.
pub const RULES: &[Rule] = &[
    no_route::RULE,
    endpoint_unreachable::RULE,
    response_rejected::RULE,
    websocket_only::RULE,
    stale_key::RULE,
    handshake_timeout::RULE,
    under_load::RULE,
    handshake_loss::RULE,
    mtu::BLACKHOLE,
    mtu::TOO_LARGE,
    one_way::RULE,
    keepalive::MISSING,
    keepalive::SHORT,
];

const PROBE: &[&[Source]] = &[&[Source::Probe]];

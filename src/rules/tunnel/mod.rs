//! WireGuard's findings, one rule a file.

mod allowed_ips_conflict;
mod endpoint_loop;
mod endpoint_unreachable;
mod handshake_timeout;
mod mtu_too_large;
mod never_connected;
mod no_route;
mod one_way;
mod roamed;
mod session_expired;
#[cfg(test)]
mod testing;
mod view;
mod words;

use super::Rule;
use crate::observation::Source;

/// The rules, in their reviewed order: causes before symptoms.
pub const RULES: &[Rule] = &[
    endpoint_loop::RULE,
    no_route::RULE,
    endpoint_unreachable::RULE,
    handshake_timeout::RULE,
    session_expired::RULE,
    one_way::RULE,
    mtu_too_large::RULE,
    allowed_ips_conflict::RULE,
    never_connected::RULE,
    roamed::RULE,
];

/// Either kind of device will do.
const DEVICES: &[Source] = &[Source::WireguardNetlink, Source::WireguardUapi];

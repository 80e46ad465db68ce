//! WireGuard's findings, one rule a file.

mod allowed_ips_conflict;
mod callers;
mod clock_replay;
mod duplicate_key;
mod endpoint_loop;
mod endpoint_stale_dns;
mod endpoint_unreachable;
mod handshake_loss;
pub(super) mod handshake_storm;
mod handshake_timeout;
mod keepalive_missing;
mod local_drop;
mod mtu_blackhole;
mod mtu_too_large;
mod nat_rebinding;
mod never_connected;
mod no_route;
mod one_way;
mod parties;
mod response_lost;
mod response_rejected;
mod roamed;
mod roaming_unstable;
mod session_expired;
#[cfg(test)]
pub(crate) mod testing;
mod under_load;
mod unknown_initiator;
mod view;
mod words;
mod wrong_peer_key;

use super::Rule;
use crate::observation::Source;

/// The rules, in their reviewed order: causes before symptoms.
pub const RULES: &[Rule] = &[
    endpoint_loop::RULE,
    no_route::RULE,
    duplicate_key::RULE,
    endpoint_stale_dns::RULE,
    endpoint_unreachable::RULE,
    local_drop::RULE,
    wrong_peer_key::RULE,
    clock_replay::RULE,
    response_rejected::RULE,
    response_lost::RULE,
    handshake_timeout::RULE,
    session_expired::RULE,
    mtu_blackhole::RULE,
    one_way::RULE,
    handshake_storm::RULE,
    under_load::RULE,
    unknown_initiator::RULE,
    handshake_loss::RULE,
    mtu_too_large::RULE,
    allowed_ips_conflict::RULE,
    never_connected::RULE,
    keepalive_missing::RULE,
    roaming_unstable::RULE,
    nat_rebinding::RULE,
    roamed::RULE,
];

/// The texts of codes that capture files prove too, where other things are looked at.
pub(super) use clock_replay::RULE as CLOCK_REPLAY;
pub(super) use endpoint_unreachable::RULE as ENDPOINT_UNREACHABLE;
pub(super) use handshake_loss::RULE as HANDSHAKE_LOSS;
pub(super) use handshake_storm::RULE as HANDSHAKE_STORM;
pub(super) use handshake_timeout::RULE as HANDSHAKE_TIMEOUT;
pub(super) use keepalive_missing::RULE as KEEPALIVE_MISSING;
pub(super) use mtu_blackhole::RULE as MTU_BLACKHOLE;
pub(super) use mtu_too_large::RULE as MTU_TOO_LARGE;
pub(super) use no_route::RULE as NO_ROUTE;
pub(super) use one_way::RULE as ONE_WAY;
pub(super) use response_rejected::RULE as RESPONSE_REJECTED;
pub(super) use roamed::RULE as ROAMED;
pub(super) use session_expired::RULE as SESSION_EXPIRED;
pub(super) use under_load::RULE as UNDER_LOAD;
pub(super) use unknown_initiator::RULE as UNKNOWN_INITIATOR;
pub(super) use wrong_peer_key::RULE as WRONG_PEER_KEY;

/// Either kind of device will do.
const DEVICES: &[Source] = &[Source::WireguardNetlink, Source::WireguardUapi];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_reads_well() {
        for (place, rule) in RULES.iter().enumerate() {
            assert!(rule.code.starts_with("wg-"));
            for text in [rule.holds_when, rule.meaning, rule.detection, rule.fix] {
                assert!(!text.is_empty() && !text.contains("  "), "{}: {text}", rule.code);
            }
            // Those of other areas are looked at by the registry's own test.
            for cause in rule.explained_by.iter().filter(|c| c.starts_with("wg-")) {
                let cause_at = RULES.iter().position(|r| r.code == *cause);
                assert!(
                    cause_at.is_some_and(|at| at < place),
                    "{} before {}",
                    cause,
                    rule.code
                );
            }
        }
    }
}

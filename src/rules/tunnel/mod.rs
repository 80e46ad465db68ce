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
pub(crate) mod testing;
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

/// The texts of codes that capture files prove too, where other things are looked at.
pub(super) use endpoint_unreachable::RULE as ENDPOINT_UNREACHABLE;
pub(super) use handshake_timeout::RULE as HANDSHAKE_TIMEOUT;
pub(super) use mtu_too_large::RULE as MTU_TOO_LARGE;
pub(super) use no_route::RULE as NO_ROUTE;
pub(super) use one_way::RULE as ONE_WAY;
pub(super) use roamed::RULE as ROAMED;

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
            for cause in rule.explained_by {
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

//! The catalogue: each area's rules in their reviewed order. Within a severity this is the order of causes before
//! symptoms in a report.

use super::{Rule, conntrack, ports, tunnel};

/// Every area's rules.
pub const AREAS: &[&[Rule]] = &[tunnel::RULES, ports::RULES, conntrack::RULES];

/// Every rule.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    AREAS.iter().copied().flatten()
}

/// The rule with `code`.
pub fn find(code: &str) -> Option<&'static Rule> {
    rules().find(|rule| rule.code == code)
}

//! The catalogue: each area's rules in their reviewed order. Within a severity this is the order of causes before
//! symptoms in a report.

use super::{Rule, captured, conntrack, ports, tunnel, upstream};

/// Every area's rules, as a live host is judged by.
pub const AREAS: &[&[Rule]] = &[tunnel::RULES, ports::RULES, conntrack::RULES, upstream::RULES];

/// Every rule for a live host.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    AREAS.iter().copied().flatten()
}

/// Every rule for capture files.
pub fn captured() -> impl Iterator<Item = &'static Rule> {
    captured::RULES.iter()
}

/// Every rule for what `nat` discovers.
pub fn nat() -> impl Iterator<Item = &'static Rule> {
    rules().filter(|rule| {
        rule.needs
            .iter()
            .any(|group| group.contains(&crate::observation::Source::Nat))
    })
}

/// One rule for each code that there is.
pub fn catalogue() -> impl Iterator<Item = &'static Rule> {
    let only_captured = captured().filter(|rule| rules().all(|live| live.code != rule.code));
    tunnel::RULES
        .iter()
        .chain(only_captured)
        .chain(ports::RULES)
        .chain(conntrack::RULES)
        .chain(upstream::RULES)
}

/// The rule with `code`.
pub fn find(code: &str) -> Option<&'static Rule> {
    catalogue().find(|rule| rule.code == code)
}

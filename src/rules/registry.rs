//! The catalogue: each area's rules in their reviewed order. Within a severity this is the order of causes before
//! symptoms in a report.

use super::{Rule, captured, conntrack, fly, fly_toml, path, ports, probed, tunnel, upstream};
use crate::observation::Source;

/// Every area's rules, as a live host is judged by.
pub const AREAS: &[&[Rule]] = &[
    tunnel::RULES,
    ports::RULES,
    conntrack::RULES,
    upstream::RULES,
    path::RULES,
    fly::RULES,
    fly_toml::RULES,
];

/// Every rule for a live host.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    AREAS.iter().copied().flatten()
}

/// Every rule for measured paths: only where targets were named is there something to judge.
pub fn paths() -> impl Iterator<Item = &'static Rule> {
    path::RULES.iter().chain(fly::RULES)
}

/// Every rule for capture files.
pub fn captured() -> impl Iterator<Item = &'static Rule> {
    captured::RULES.iter()
}

/// Every rule for active probes.
pub fn probed() -> impl Iterator<Item = &'static Rule> {
    probed::RULES.iter()
}

/// Every rule for two captures together.
pub fn compared() -> impl Iterator<Item = &'static Rule> {
    captured::compared::RULES.iter()
}

/// Every rule for what `nat` discovers.
pub fn nat() -> impl Iterator<Item = &'static Rule> {
    rules().filter(|rule| rule.needs.iter().any(|group| group.contains(&Source::Nat)))
}

/// One rule for each code that there is.
pub fn catalogue() -> impl Iterator<Item = &'static Rule> {
    let new = |code: &str| rules().all(|live| live.code != code);
    let only_captured = captured().filter(move |rule| new(rule.code));
    let only_probed =
        probed().filter(move |rule| new(rule.code) && captured().all(|other| other.code != rule.code));
    tunnel::RULES
        .iter()
        .chain(only_captured)
        .chain(only_probed)
        .chain(ports::RULES)
        .chain(conntrack::RULES)
        .chain(upstream::RULES)
        .chain(path::RULES)
        .chain(fly::RULES)
        .chain(fly_toml::RULES)
}

/// The rule with `code`.
pub fn find(code: &str) -> Option<&'static Rule> {
    catalogue().find(|rule| rule.code == code)
}

/// What `code` is judged by, as [`Rule::needs`] has it; empty for a code that is not in the catalogue.
pub fn needs(code: &str) -> &'static [&'static [Source]] {
    find(code).map_or(&[], |rule| rule.needs)
}

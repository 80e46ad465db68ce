//! The NAT upstream: what discovery found, and what its being full looks like from this side.

use super::Rule;

mod blocked;
mod budget_low;
mod cgn;
mod double;
mod exhausted;
mod external_changed;
pub mod flows;
mod mapping_short;
mod mapping_varies;
pub mod view;

/// The texts of a code that a probe proves too.
pub(super) use mapping_short::RULE as MAPPING_SHORT;

#[cfg(test)]
mod testing;

/// In the order of causes before symptoms.
pub const RULES: &[Rule] = &[
    blocked::RULE,
    exhausted::RULE,
    budget_low::RULE,
    external_changed::RULE,
    mapping_short::RULE,
    mapping_varies::RULE,
    cgn::RULE,
    double::RULE,
];

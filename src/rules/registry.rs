//! The catalogue, in its reviewed order: within a severity this is the order of causes before symptoms.

use super::Rule;

/// Every rule.
pub const RULES: &[Rule] = &[];

/// The rule with `code`.
pub fn find(code: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.code == code)
}

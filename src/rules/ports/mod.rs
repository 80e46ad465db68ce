//! Rules of this area, one a file.

use super::Rule;

/// The rules, in their reviewed order: causes before symptoms.
pub const RULES: &[Rule] = &[];

//! A finding that held when it was last looked for, and for which nobody can look now: neither there nor gone.
//!
//! In: a finding, since when it cannot be checked, and for want of which sources. Out: the finding with that said, so that every
//! output tells it. Pure.

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::observation::Source;
use crate::time::Timestamp;

/// The evidence by whose name such a finding is known.
pub const SINCE: &str = "not_checked_since";
/// The sources that would tell.
pub const MISSING: &str = "not_checked_for_want_of";

/// Why it is not known whether a finding still holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
    /// Since when.
    pub since: Timestamp,
    /// The sources by which it was found and that see nothing now, by name.
    pub missing: Vec<String>,
}

impl Unseen {
    /// For want of these.
    pub fn new(since: Timestamp, missing: &[Source]) -> Self {
        Self {
            since,
            missing: missing.iter().map(|source| source.name().to_owned()).collect(),
        }
    }

    /// `finding` as it was, with that said.
    #[must_use]
    pub fn mark(&self, mut finding: Finding) -> Finding {
        let missing = self.missing.join(", ");
        finding.summary = format!(
            "Not checked since {}, for {missing} cannot be observed: whether it still holds is not known. When last seen: {}",
            self.since.millis(),
            finding.summary
        );
        finding.evidence = std::mem::take(&mut finding.evidence)
            .with(SINCE, self.since.millis().to_string())
            .with(MISSING, missing);
        finding
    }
}

/// Whether `finding` is one that nobody can look for now.
pub fn is_unseen(finding: &Finding) -> bool {
    finding.evidence.get(SINCE).is_some()
}

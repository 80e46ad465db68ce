//! What changed between two reports.
//!
//! In: the findings of the last report, those of this one, and what history says came and went in between. Out:
//! [`Changes`]: new, worse, better, gone, and what is not known because nobody could look. Pure. What is folded beneath a
//! cause is told with its cause, and is no change of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::{Report, Status};
use crate::finding::{Finding, Severity};
use crate::time::Timestamp;

/// Changes of each kind that are kept, the worst; of the rest only how many there are.
pub const KEPT: usize = 200;

/// A finding as it was in some report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its code.
    pub code: String,
    /// What it is about, as one text ([`crate::finding::Subject::identity`]).
    pub about: String,
    /// How bad.
    pub severity: Severity,
    /// Its title.
    pub title: String,
    /// Since when it holds.
    pub since: Timestamp,
    /// Whether it was folded beneath another.
    pub explained: bool,
}

impl Known {
    /// Of a finding in a report.
    pub fn of(finding: &Finding, explained: bool) -> Self {
        Self {
            code: finding.code.to_owned(),
            about: finding.subject.identity(),
            severity: finding.severity,
            title: finding.title.clone(),
            since: finding.first_seen,
            explained,
        }
    }

    fn key(&self) -> (&str, &str) {
        (&self.code, &self.about)
    }
}

/// A finding that was over again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The finding.
    pub known: Known,
    /// When it was over.
    pub at: Timestamp,
}

/// What this report is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The report before, as its state was remembered.
    Report,
    /// What history says held when the period began.
    History,
}

impl Basis {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::History => "history",
        }
    }
}

/// What was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// How it is known.
    pub basis: Basis,
    /// When that was.
    pub at: Timestamp,
    /// The verdict then, where it is known.
    pub status: Option<Status>,
    /// What held then.
    pub findings: Vec<Known>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The finding: as it is, or as it was last.
    pub known: Known,
    /// How bad it was before, where that differs.
    pub was: Option<Severity>,
    /// When it was over, where it is and that is known.
    pub over_at: Option<Timestamp>,
}

/// All of them, each kind worst first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is compared with: how it is known, and of when it is; `None` for a first report.
    pub compared: Option<(Basis, Timestamp)>,
    /// The verdict before.
    pub status_was: Option<Status>,
    /// The verdict now.
    pub status_is: Option<Status>,
    /// Holds, and did not before.
    pub new: Vec<Change>,
    /// Held before, and is more severe.
    pub worse: Vec<Change>,
    /// Held before, and is less severe.
    pub better: Vec<Change>,
    /// Held before, and no longer.
    pub gone: Vec<Change>,
    /// Began and was over in between.
    pub passed: Vec<Change>,
    /// Held before; whether it does is not known, for what would tell could not be observed.
    pub unclear: Vec<Change>,
    /// Holds as before.
    pub unchanged: u64,
    /// Changes beyond [`KEPT`] of a kind.
    pub left_out: u64,
}

impl Changes {
    /// Whether there is anything to tell. A verdict that nothing could be observed, and its end, is.
    pub fn any(&self) -> bool {
        let unknown = |status: Option<Status>| status.map(|s| s == Status::Unknown);
        let blind = match (unknown(self.status_was), unknown(self.status_is)) {
            (Some(was), Some(is)) => was != is,
            (None, Some(is)) => is,
            _ => false,
        };
        blind || self.kinds().iter().any(|(_, changes)| !changes.is_empty())
    }

    /// Each kind by its name, in telling order.
    pub fn kinds(&self) -> [(&'static str, &[Change]); 6] {
        [
            ("new", &self.new),
            ("worse", &self.worse),
            ("better", &self.better),
            ("gone", &self.gone),
            ("passed", &self.passed),
            ("unclear", &self.unclear),
        ]
    }
}

/// Every finding of `report`.
pub fn known(report: &Report) -> Vec<Known> {
    let folded = report.suppressed.iter().map(|s| Known::of(&s.finding, true));
    let own = report.findings.iter().map(|f| Known::of(f, false));
    own.chain(folded).collect()
}

/// Compares `report` with `before`; `ended` is what history says was over since.
pub fn compare(report: &Report, before: Option<&Before>, ended: &[Ended]) -> Changes {
    let now = known(report);
    let status_is = Some(report.status);
    let mut changes = Changes {
        compared: before.map(|b| (b.basis, b.at)),
        status_was: before.and_then(|b| b.status),
        status_is,
        ..Changes::default()
    };
    let no_findings = Vec::new();
    let held = before.map_or(&no_findings, |b| &b.findings);
    let held_by_key: BTreeMap<_, _> = held.iter().map(|known| (known.key(), known)).collect();
    for known in now.iter().filter(|known| !known.explained) {
        let change = |was| Change {
            known: known.clone(),
            was,
            over_at: None,
        };
        match held_by_key.get(&known.key()) {
            None => changes.new.push(change(None)),
            Some(old) if known.severity > old.severity => changes.worse.push(change(Some(old.severity))),
            Some(old) if known.severity < old.severity => changes.better.push(change(Some(old.severity))),
            Some(_) => changes.unchanged += 1,
        }
    }
    let now_by_key: BTreeSet<_> = now.iter().map(Known::key).collect();
    // Also where the rule found something else: it may hold where nobody could look.
    let missed = report.not_checked.iter().chain(&report.in_part);
    let not_checked: BTreeSet<&str> = missed.map(|n| n.code).collect();
    let blind = report.status == Status::Unknown;
    for old in held
        .iter()
        .filter(|old| !old.explained && !now_by_key.contains(&old.key()))
    {
        let end = ended
            .iter()
            .filter(|e| e.known.key() == old.key())
            .map(|e| e.at)
            .max();
        let change = Change {
            known: old.clone(),
            was: None,
            over_at: end,
        };
        // What nobody could look at has not gone because it is not seen.
        if end.is_none() && (blind || not_checked.contains(old.code.as_str())) {
            changes.unclear.push(change);
        } else {
            changes.gone.push(change);
        }
    }
    if let Some(before) = before {
        for end in ended.iter().filter(|e| e.at > before.at && !e.known.explained) {
            let key = end.known.key();
            if !held_by_key.contains_key(&key) && !now_by_key.contains(&key) {
                changes.passed.push(Change {
                    known: end.known.clone(),
                    was: None,
                    over_at: Some(end.at),
                });
            }
        }
    }
    bound(&mut changes);
    changes
}

/// The worst first, and no more than there is room for.
fn bound(changes: &mut Changes) {
    let mut left_out = 0;
    for kind in [
        &mut changes.new,
        &mut changes.worse,
        &mut changes.better,
        &mut changes.gone,
        &mut changes.passed,
        &mut changes.unclear,
    ] {
        // Stable: within a severity as the report has them, causes before symptoms.
        kind.sort_by_key(|change| std::cmp::Reverse(change.known.severity));
        left_out += kind.len().saturating_sub(KEPT);
        kind.truncate(KEPT);
    }
    changes.left_out = left_out as u64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Confidence;
    use crate::observation::Source;
    use crate::report::sample;
    use crate::rules::{NotChecked, Suppressed};

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn old(code: &str, severity: Severity) -> Known {
        Known {
            code: code.to_owned(),
            about: "host".to_owned(),
            severity,
            title: format!("{code} then"),
            since: at(5),
            explained: false,
        }
    }

    fn report(findings: &[(&'static str, Severity)]) -> Report {
        let mut report = sample::healthy();
        report.not_checked.clear();
        report.findings = findings
            .iter()
            .map(|(code, severity)| Finding {
                subject: crate::finding::Subject::Host,
                ..sample::finding(code, *severity, Confidence::Certain, "now")
            })
            .collect();
        report.status = Status::of(report.findings.iter(), true);
        report
    }

    fn before(findings: Vec<Known>) -> Before {
        Before {
            basis: Basis::Report,
            at: at(10),
            status: Some(Status::Ok),
            findings,
        }
    }

    fn codes(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|c| c.known.code.as_str()).collect()
    }

    #[test]
    fn each_kind_is_told_once() {
        use Severity::{Critical, Info, Warning};
        let now = report(&[
            ("ports-exhausted", Critical),
            ("conntrack-low", Critical),
            ("ports-low", Warning),
            ("fd-limit", Warning),
        ]);
        let before = before(vec![
            old("conntrack-low", Warning),
            old("ports-low", Critical),
            old("fd-limit", Warning),
            old("wg-roamed", Info),
        ]);
        let passed = Ended {
            known: Known {
                since: at(12),
                ..old("connect-burst", Warning)
            },
            at: at(14),
        };
        let gone = Ended {
            known: old("wg-roamed", Info),
            at: at(13),
        };
        let changes = compare(&now, Some(&before), &[passed, gone]);
        assert_eq!(codes(&changes.new), ["ports-exhausted"]);
        assert_eq!(codes(&changes.worse), ["conntrack-low"]);
        assert_eq!(changes.worse[0].was, Some(Warning));
        assert_eq!(codes(&changes.better), ["ports-low"]);
        assert_eq!(codes(&changes.gone), ["wg-roamed"]);
        assert_eq!(changes.gone[0].over_at, Some(at(13)));
        assert_eq!(codes(&changes.passed), ["connect-burst"]);
        assert_eq!(changes.unchanged, 1);
        assert!(changes.any());
    }

    #[test]
    fn what_could_not_be_looked_at_is_not_gone() {
        let mut now = report(&[]);
        now.not_checked = vec![NotChecked {
            code: "conntrack-low",
            missing: vec![Source::Conntrack],
        }];
        let before = before(vec![
            old("conntrack-low", Severity::Warning),
            old("ports-low", Severity::Warning),
        ]);
        let changes = compare(&now, Some(&before), &[]);
        assert_eq!(codes(&changes.unclear), ["conntrack-low"]);
        assert_eq!(codes(&changes.gone), ["ports-low"]);
        // Nor where the rule could look at something else, and found that.
        now.in_part = vec![NotChecked {
            code: "ports-low",
            missing: vec![Source::Sockets],
        }];
        let changes = compare(&now, Some(&before), &[]);
        assert_eq!(codes(&changes.unclear), ["conntrack-low", "ports-low"]);
        now.in_part.clear();
        now.status = Status::Unknown;
        let changes = compare(&now, Some(&before), &[]);
        assert_eq!(changes.unclear.len(), 2);
        assert!(changes.gone.is_empty());
    }

    #[test]
    fn nothing_changed_is_nothing_to_tell_and_blindness_is() {
        let mut now = report(&[("fd-limit", Severity::Warning)]);
        let before = before(vec![old("fd-limit", Severity::Warning)]);
        assert!(!compare(&now, Some(&before), &[]).any());
        now.status = Status::Unknown;
        assert!(compare(&now, Some(&before), &[]).any());
    }

    #[test]
    fn a_symptom_that_gets_a_cause_is_neither_new_nor_gone() {
        let mut now = report(&[("ports-exhausted", Severity::Critical)]);
        let symptom = report(&[("connection-churn", Severity::Warning)])
            .findings
            .remove(0);
        now.suppressed = vec![Suppressed {
            finding: symptom,
            explained_by: 0,
        }];
        let before = before(vec![old("connection-churn", Severity::Warning)]);
        let changes = compare(&now, Some(&before), &[]);
        assert_eq!(codes(&changes.new), ["ports-exhausted"]);
        assert!(changes.gone.is_empty());
    }

    #[test]
    fn a_first_report_has_all_as_new_and_nothing_passed() {
        let now = report(&[("fd-limit", Severity::Warning)]);
        let end = Ended {
            known: old("connect-burst", Severity::Warning),
            at: at(14),
        };
        let changes = compare(&now, None, &[end]);
        assert_eq!(codes(&changes.new), ["fd-limit"]);
        assert!(changes.passed.is_empty());
        assert_eq!(changes.compared, None);
    }

    #[test]
    fn there_is_a_bound_and_the_worst_stay() {
        let mut findings: Vec<Known> = (0..KEPT + 5)
            .map(|n| Known {
                about: n.to_string(),
                ..old("wg-roamed", Severity::Info)
            })
            .collect();
        findings.push(old("wg-one-way", Severity::Critical));
        let changes = compare(&report(&[]), Some(&before(findings)), &[]);
        assert_eq!((changes.gone.len(), changes.left_out), (KEPT, 6));
        assert_eq!(changes.gone[0].known.code, "wg-one-way");
    }
}

//! Other network namespaces of the host in a report: their findings beside the host's own, each named.
//!
//! In: a report, and of each namespace what the rules made of it. Out: the report with both. Pure.

use super::{Report, Status};
use crate::finding::Finding;
use crate::rules::{Evaluation, Suppressed};

/// How a namespace fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceState {
    /// It was seen to the end.
    Ok,
    /// A part of it was not seen.
    Degraded,
    /// It could not be entered.
    Unavailable,
    /// It was there at first and then no more.
    Gone,
}

impl NamespaceState {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
            Self::Gone => "gone",
        }
    }
}

/// A namespace that was looked at.
#[derive(Clone, Debug)]
pub struct NamespaceRow {
    /// Its name: as `ip netns` has it, or a process in it.
    pub name: String,
    /// Its inode number.
    pub inode: u64,
    /// How it fared.
    pub state: NamespaceState,
    /// Why it is not `ok`.
    pub reason: Option<String>,
    /// Conntrack entries, where they were counted.
    pub conntrack: Option<u32>,
    /// TCP sockets, where they were counted.
    pub tcp_sockets: Option<u64>,
    /// Findings about it, folded ones not counted.
    pub findings: usize,
}

/// A namespace and what the rules made of it.
#[derive(Debug)]
pub struct Judged {
    /// The row; `findings` is filled in.
    pub row: NamespaceRow,
    /// What the rules found.
    pub evaluation: Evaluation,
}

impl Report {
    /// Adds what was found in other namespaces.
    pub fn add_namespaces(&mut self, namespaces: Vec<Judged>) {
        for Judged { mut row, evaluation } in namespaces {
            row.findings = evaluation.findings.len();
            let offset = self.findings.len();
            let name = |finding| named(finding, &row.name);
            self.findings.extend(evaluation.findings.into_iter().map(name));
            self.suppressed
                .extend(evaluation.suppressed.into_iter().map(|s| Suppressed {
                    finding: named(s.finding, &row.name),
                    explained_by: s.explained_by + offset,
                }));
            self.namespaces.push(row);
        }
        self.sort();
        let seen = self.status != Status::Unknown
            || self
                .namespaces
                .iter()
                .any(|n| matches!(n.state, NamespaceState::Ok | NamespaceState::Degraded));
        let all = self
            .findings
            .iter()
            .chain(self.suppressed.iter().map(|s| &s.finding));
        self.status = Status::of(all, seen);
    }

    /// Worst first; among equals the host's own first, in their order.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.findings.len()).collect();
        let severity = |i: &usize| self.findings.get(*i).map(|f| f.severity);
        order.sort_by_key(|i| std::cmp::Reverse(severity(i)));
        let mut findings: Vec<Option<Finding>> =
            std::mem::take(&mut self.findings).into_iter().map(Some).collect();
        for suppressed in &mut self.suppressed {
            if let Some(at) = order.iter().position(|i| *i == suppressed.explained_by) {
                suppressed.explained_by = at;
            }
        }
        self.findings = order
            .iter()
            .filter_map(|i| findings.get_mut(*i).and_then(Option::take))
            .collect();
    }
}

/// The finding, with the namespace in its title and its evidence.
fn named(mut finding: Finding, netns: &str) -> Finding {
    finding.title = format!("{} (in netns {netns})", finding.title);
    finding.evidence = finding.evidence.with("netns", netns);
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Confidence, Evidence, Severity, Subject};
    use crate::report::sample;
    use crate::time::Timestamp;

    fn finding(code: &'static str, severity: Severity) -> Finding {
        Finding {
            code,
            severity,
            confidence: Confidence::Certain,
            title: code.to_owned(),
            subject: Subject::Conntrack,
            summary: String::new(),
            evidence: Evidence::new(),
            impact: String::new(),
            candidates: Vec::new(),
            fixes: Vec::new(),
            first_seen: Timestamp::EPOCH,
            last_seen: Timestamp::EPOCH,
            count: 1,
        }
    }

    fn judged(name: &str, state: NamespaceState, findings: Vec<Finding>, folded: Vec<Suppressed>) -> Judged {
        Judged {
            row: NamespaceRow {
                name: name.to_owned(),
                inode: 1,
                state,
                reason: None,
                conntrack: None,
                tcp_sockets: None,
                findings: 0,
            },
            evaluation: Evaluation {
                findings,
                suppressed: folded,
                ..Evaluation::default()
            },
        }
    }

    #[test]
    fn findings_are_named_sorted_and_keep_what_they_explain() {
        let mut report = sample::healthy();
        report.add_namespaces(vec![
            judged(
                "blue",
                NamespaceState::Ok,
                vec![finding("conntrack-dns", Severity::Info)],
                vec![],
            ),
            judged(
                "red",
                NamespaceState::Ok,
                vec![finding("conntrack-full", Severity::Critical)],
                vec![Suppressed {
                    finding: finding("conntrack-low", Severity::Critical),
                    explained_by: 0,
                }],
            ),
        ]);
        let first = &report.findings[0];
        assert_eq!(first.title, "conntrack-full (in netns red)");
        assert_eq!(first.evidence.get("netns"), Some(&"red".into()));
        let explained: Vec<_> = report.explained_by(0).map(|f| f.code).collect();
        assert_eq!(explained, ["conntrack-low"]);
        assert_eq!(report.status, Status::Critical);
        assert_eq!(report.namespaces.len(), 2);
        assert_eq!(report.namespaces[1].findings, 1);
    }

    #[test]
    fn what_was_not_seen_is_not_well() {
        for (state, status) in [
            (NamespaceState::Ok, Status::Ok),
            (NamespaceState::Gone, Status::Unknown),
            (NamespaceState::Unavailable, Status::Unknown),
        ] {
            let mut report = sample::empty();
            report.status = Status::Unknown;
            report.add_namespaces(vec![judged("blue", state, vec![], vec![])]);
            assert_eq!(report.status, status, "{state:?}");
        }
    }
}

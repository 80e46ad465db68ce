//! Findings as they come and go.

use std::collections::VecDeque;

use super::table::identity;
use crate::finding::{Finding, Severity};
use crate::output::clean;
use crate::report::Report;
use crate::time::{Span, Timestamp};

/// Items kept; the oldest is forgotten.
const KEPT: usize = 100;

/// A finding must be absent for so long to be gone, or one at its threshold would come and go each second.
const ABSENT: Span = Span::from_secs(10);

/// Findings followed; there are no more than this on any host that can be read about.
const FOLLOWED: usize = 500;

/// A finding came, grew worse, or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// When.
    pub at: Timestamp,
    /// How bad it is; `None` where it is gone.
    pub severity: Option<Severity>,
    /// Its title, when it was last told.
    pub title: String,
}

#[derive(Debug)]
struct Followed {
    identity: String,
    severity: Severity,
    title: String,
    last: Timestamp,
}

/// What was new.
#[derive(Debug, Default)]
pub struct News {
    followed: Vec<Followed>,
    items: VecDeque<Item>,
}

impl News {
    /// Takes a report in.
    pub fn read(&mut self, report: &Report) {
        let at = report.generated_at;
        // The worst comes last, for the newest is told first.
        for finding in report.findings.iter().rev() {
            self.finding(at, finding);
        }
        let (gone, kept) = std::mem::take(&mut self.followed)
            .into_iter()
            .partition(|f| at.since(f.last) >= ABSENT);
        self.followed = kept;
        let gone: Vec<Followed> = gone;
        for f in gone {
            self.tell(at, None, f.title);
        }
    }

    fn finding(&mut self, at: Timestamp, finding: &Finding) {
        let identity = identity(finding);
        let title = clean::line(&clean::shorten_keys(&finding.title));
        let room = self.followed.len() < FOLLOWED;
        let known = self.followed.iter_mut().find(|f| f.identity == identity);
        let worse = match known {
            Some(known) => {
                let worse = finding.severity > known.severity;
                (known.severity, known.last) = (finding.severity, at);
                known.title.clone_from(&title);
                worse
            }
            None if room => {
                self.followed.push(Followed {
                    identity,
                    severity: finding.severity,
                    title: title.clone(),
                    last: at,
                });
                true
            }
            None => false,
        };
        if worse {
            self.tell(at, Some(finding.severity), title);
        }
    }

    fn tell(&mut self, at: Timestamp, severity: Option<Severity>, title: String) {
        if self.items.len() == KEPT {
            self.items.pop_back();
        }
        self.items.push_front(Item { at, severity, title });
    }

    /// The newest first.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{finding, report};
    use super::*;

    fn told(news: &News) -> Vec<(Option<Severity>, String)> {
        news.items().map(|i| (i.severity, i.title.clone())).collect()
    }

    #[test]
    fn a_finding_comes_grows_worse_and_goes_once() {
        let mut news = News::default();
        let low = |severity, title: &str| finding("ports-low", severity, title);
        let warning = || vec![low(Severity::Warning, "at 71 %")];
        for (secs, findings, expected) in [
            (0, vec![], 0),
            (1, warning(), 1),
            (2, warning(), 1),
            // Flapping.
            (3, vec![], 1),
            (4, warning(), 1),
            (5, vec![low(Severity::Critical, "at 93 %")], 2),
            (6, warning(), 2),
            (12, vec![], 2),
            (16, vec![], 3),
            (30, vec![], 3),
            (31, warning(), 4),
        ] {
            news.read(&report(secs, findings));
            assert_eq!(news.items().count(), expected, "{secs}");
        }
        assert_eq!(
            told(&news),
            [
                (Some(Severity::Warning), "at 71 %".to_owned()),
                (None, "at 71 %".to_owned()),
                (Some(Severity::Critical), "at 93 %".to_owned()),
                (Some(Severity::Warning), "at 71 %".to_owned()),
            ]
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut news = News::default();
        for secs in 0..300 {
            let title = "x".to_owned();
            let code = if secs % 2 == 0 { "ports-low" } else { "fd-limit" };
            news.read(&report(secs * 20, vec![finding(code, Severity::Warning, &title)]));
        }
        assert_eq!(news.items().count(), KEPT);
    }
}

//! What held when, from what history kept.
//!
//! In: findings as they were last written down, the notes of when each began, came back, grew worse and was over, and when an
//! agent was running. Out: [`Episode`]s, from which follows what holds at the end, what held at any moment, and what came and
//! went. Pure. Notes may be missing (they are bounded) and agents die: then what was last written down decides.

use std::collections::BTreeMap;

use super::changes::{Ended, Known};
use crate::finding::{Finding, Severity};
use crate::time::{Span, Timestamp};

/// A finding that holds is written down again at least this often, however slowly the agent turns: what was last seen
/// longer ago than this and its own patience was over when the agent that saw it ended.
const REWRITTEN: Span = Span::from_secs(300);

/// A finding as it was last written down.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The finding; its times and count are those of the row.
    pub known: Known,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// How often it began.
    pub count: u32,
    /// When it was over.
    pub cleared_at: Option<Timestamp>,
    /// Nobody could look for it any more: whether it still holds is not known, so it is not over.
    pub unseen: bool,
    /// In full; `None` where another version wrote what this one does not know.
    pub finding: Option<Finding>,
}

/// What happened to a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It began.
    Began,
    /// It came back after it was over.
    Returned,
    /// Its severity rose.
    Worsened,
    /// Its severity fell.
    Eased,
    /// It was over.
    Cleared,
}

/// A note that something happened to a finding.
#[derive(Clone, Debug)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
    /// The finding's code.
    pub code: String,
    /// What it is about.
    pub about: String,
    /// How bad it was then.
    pub severity: Severity,
    /// When the agent first saw it.
    pub first_seen: Timestamp,
}

/// One time that a finding held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    /// The finding, as it was last.
    pub known: Known,
    /// From when.
    pub began: Timestamp,
    /// Until when; `None` where it holds at the end.
    pub ended: Option<Timestamp>,
    /// How bad it was from when on.
    pub severities: Vec<(Timestamp, Severity)>,
}

impl Episode {
    /// How bad it was at `at`.
    fn severity_at(&self, at: Timestamp) -> Severity {
        let until = self.severities.iter().take_while(|(from, _)| *from <= at);
        let then = until.last().or(self.severities.first());
        then.map_or(self.known.severity, |(_, severity)| *severity)
    }

    /// How bad it was at its worst.
    pub fn worst(&self) -> Severity {
        let all = self.severities.iter().map(|(_, severity)| *severity);
        all.max().unwrap_or(self.known.severity)
    }
}

/// Every episode, in the order in which they began. `notes` and `runs` are in the order of time; `absent_for` says how long a
/// finding must be absent to be over.
pub fn episodes(
    kept: &[Kept],
    notes: &[Note],
    runs: &[(Timestamp, Timestamp)],
    absent_for: impl Fn(&str) -> Span,
) -> Vec<Episode> {
    let mut by_key: BTreeMap<(&str, &str), Vec<&Note>> = BTreeMap::new();
    for note in notes {
        by_key.entry((&note.code, &note.about)).or_default().push(note);
    }
    let end = runs.last().map(|(_, last)| *last);
    let mut all = Vec::new();
    for row in kept {
        let key = (row.known.code.as_str(), row.known.about.as_str());
        let own = by_key.get(&key).map_or(&[][..], Vec::as_slice);
        let patience = absent_for(&row.known.code) + REWRITTEN;
        all.extend(of_one(row, own, runs, end, patience));
    }
    all.sort_by_key(|episode| episode.began);
    all
}

fn of_one(
    row: &Kept,
    notes: &[&Note],
    runs: &[(Timestamp, Timestamp)],
    end: Option<Timestamp>,
    patience: Span,
) -> Vec<Episode> {
    let mut done: Vec<Episode> = Vec::new();
    let mut open: Option<Episode> = None;
    let begin = |at: Timestamp, severity| Episode {
        known: Known {
            since: at,
            ..row.known.clone()
        },
        began: at,
        ended: None,
        severities: vec![(at, severity)],
    };
    for note in notes {
        match note.what {
            What::Began | What::Returned => {
                if let Some(mut episode) = open.take() {
                    if note.first_seen <= episode.began {
                        // Another agent took it up where the one before left it.
                        episode.severities.push((note.at, note.severity));
                        open = Some(episode);
                        continue;
                    }
                    // It was over when its agent ended, or some time until this one.
                    episode.ended = Some(last_run_before(runs, note.at).unwrap_or(note.at));
                    done.push(episode);
                }
                let at = if note.what == What::Began {
                    note.first_seen.min(note.at)
                } else {
                    note.at
                };
                open = Some(begin(at, note.severity));
            }
            What::Worsened | What::Eased => match &mut open {
                Some(episode) => episode.severities.push((note.at, note.severity)),
                None => {
                    // The note of its begin is gone. It was less or more severe before: how much, nobody knows.
                    let before = match note.what {
                        What::Eased => above(note.severity),
                        _ => below(note.severity),
                    };
                    let mut episode = begin(note.first_seen.min(note.at), before);
                    episode.severities.push((note.at, note.severity));
                    open = Some(episode);
                }
            },
            What::Cleared => {
                let mut episode = open
                    .take()
                    .unwrap_or_else(|| begin(note.first_seen.min(note.at), note.severity));
                episode.ended = Some(note.at);
                done.push(episode);
            }
        }
    }
    match (&mut open, done.last_mut()) {
        (None, None) => open = Some(begin(row.known.since, row.known.severity)),
        (None, Some(last)) => {
            // It is over some time after it was last seen; that it was seen until then is what a person asks for.
            if let Some(at) = last.ended
                && (last.began..at).contains(&row.last_seen)
            {
                last.ended = Some(row.last_seen);
            }
        }
        (Some(_), _) => {}
    }
    if let Some(mut episode) = open {
        let lost = !row.unseen && end.is_some_and(|end| row.last_seen + patience < end);
        if row.cleared_at.is_some() || lost {
            episode.ended = Some(row.last_seen.max(episode.began));
        } else if episode.severities.last().map(|(_, s)| *s) != Some(row.known.severity) {
            episode.severities.push((row.last_seen, row.known.severity));
        }
        done.push(episode);
    }
    done
}

const fn below(severity: Severity) -> Severity {
    match severity {
        Severity::Critical => Severity::Warning,
        Severity::Warning | Severity::Info => Severity::Info,
    }
}

const fn above(severity: Severity) -> Severity {
    match severity {
        Severity::Info => Severity::Warning,
        Severity::Warning | Severity::Critical => Severity::Critical,
    }
}

fn last_run_before(runs: &[(Timestamp, Timestamp)], at: Timestamp) -> Option<Timestamp> {
    runs.iter().map(|(_, last)| *last).filter(|last| *last < at).max()
}

/// What held at `at`.
pub fn held_at(episodes: &[Episode], at: Timestamp) -> Vec<Known> {
    episodes
        .iter()
        .filter(|e| e.began <= at && e.ended.is_none_or(|end| end > at))
        .map(|e| Known {
            severity: e.severity_at(at),
            ..e.known.clone()
        })
        .collect()
}

/// What was over by the end, with when.
pub fn ended(episodes: &[Episode]) -> Vec<Ended> {
    episodes
        .iter()
        .filter_map(|e| {
            Some(Ended {
                known: Known {
                    severity: e.worst(),
                    ..e.known.clone()
                },
                at: e.ended?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn row(first: i64, last: i64, severity: Severity, cleared: Option<i64>) -> Kept {
        Kept {
            known: Known {
                code: "ports-low".to_owned(),
                about: "host".to_owned(),
                severity,
                title: "t".to_owned(),
                since: at(first),
                explained: false,
            },
            last_seen: at(last),
            count: 1,
            cleared_at: cleared.map(at),
            unseen: false,
            finding: None,
        }
    }

    fn note(secs: i64, what: What, severity: Severity, first: i64) -> Note {
        Note {
            at: at(secs),
            what,
            code: "ports-low".to_owned(),
            about: "host".to_owned(),
            severity,
            first_seen: at(first),
        }
    }

    fn told(kept: &[Kept], notes: &[Note], runs: &[(i64, i64)]) -> Vec<(i64, Option<i64>)> {
        let runs: Vec<_> = runs.iter().map(|(a, b)| (at(*a), at(*b))).collect();
        let seconds = |t: Timestamp| t.as_nanos() / 1_000_000_000;
        episodes(kept, notes, &runs, |_| Span::from_secs(60))
            .into_iter()
            .map(|e| (seconds(e.began), e.ended.map(seconds)))
            .collect()
    }

    use Severity::{Critical, Warning};
    use What::{Began, Cleared, Eased, Returned, Worsened};

    #[test]
    fn what_comes_and_goes_is_told_each_time() {
        let notes = [
            note(100, Began, Warning, 100),
            note(260, Cleared, Warning, 100),
            note(500, Returned, Warning, 100),
        ];
        let kept = [row(100, 900, Warning, None)];
        assert_eq!(told(&kept, &notes, &[(0, 910)]), [(100, Some(260)), (500, None)]);
        // It was last seen when it was last seen, not when it was given up.
        let kept = [row(100, 200, Warning, Some(260))];
        assert_eq!(told(&kept, &notes[..2], &[(0, 910)]), [(100, Some(200))]);
    }

    #[test]
    fn what_an_agent_did_not_live_to_see_the_end_of_is_over() {
        let notes = [note(100, Began, Warning, 100)];
        // Killed at 200, and the next one has long looked without finding it.
        let kept = [row(100, 200, Warning, None)];
        assert_eq!(told(&kept, &notes, &[(0, 200), (300, 900)]), [(100, Some(200))]);
        // It has only just begun to look.
        assert_eq!(told(&kept, &notes, &[(0, 200), (300, 310)]), [(100, None)]);
        // Nobody looked since.
        assert_eq!(told(&kept, &notes, &[(0, 200)]), [(100, None)]);
    }

    #[test]
    fn a_finding_goes_on_over_a_restart_or_begins_anew() {
        let kept = [row(100, 900, Warning, None)];
        let goes_on = [note(100, Began, Warning, 100), note(310, Began, Warning, 100)];
        assert_eq!(told(&kept, &goes_on, &[(0, 200), (300, 910)]), [(100, None)]);
        let anew = [note(100, Began, Warning, 100), note(5_000, Began, Warning, 5_000)];
        let kept = [row(5_000, 5_900, Warning, None)];
        assert_eq!(
            told(&kept, &anew, &[(0, 200), (4_900, 5_910)]),
            [(100, Some(200)), (5_000, None)]
        );
    }

    #[test]
    fn without_notes_the_row_decides() {
        assert_eq!(
            told(&[row(100, 900, Warning, None)], &[], &[(0, 910)]),
            [(100, None)]
        );
        assert_eq!(
            told(&[row(100, 200, Warning, Some(260))], &[], &[(0, 910)]),
            [(100, Some(200))]
        );
    }

    #[test]
    fn how_bad_it_was_then_is_told() {
        let notes = [note(100, Began, Warning, 100), note(300, Worsened, Critical, 100)];
        let kept = [row(100, 900, Critical, None)];
        let all = episodes(&kept, &notes, &[(at(0), at(910))], |_| Span::from_secs(60));
        let severity = |secs| held_at(&all, at(secs)).first().map(|k| k.severity);
        assert_eq!(severity(50), None);
        assert_eq!(severity(200), Some(Warning));
        assert_eq!(severity(400), Some(Critical));
        // The note of its begin was thrown away.
        let all = episodes(&kept, &notes[1..], &[(at(0), at(910))], |_| Span::from_secs(60));
        assert_eq!(held_at(&all, at(200))[0].severity, Warning);
        // It grew better, of which the note was thrown away, or not.
        let kept = [row(100, 900, Warning, None)];
        let all = episodes(&kept, &notes, &[(at(0), at(910))], |_| Span::from_secs(60));
        assert_eq!(held_at(&all, at(905))[0].severity, Warning);
        assert_eq!(all[0].worst(), Critical);
        let eased = [note(600, Eased, Warning, 100)];
        let all = episodes(&kept, &eased, &[(at(0), at(910))], |_| Span::from_secs(60));
        assert_eq!(held_at(&all, at(500))[0].severity, Critical);
        assert_eq!(held_at(&all, at(650))[0].severity, Warning);
    }
}

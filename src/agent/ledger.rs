//! Findings over time: when each was first and last seen, how often it came back, and when it is over.
//!
//! In: each evaluation. Out: what began, came back, grew worse or better, or is over, as [`Change`]s; every finding with its times.
//! A condition that flaps keeps its entry until it has been absent for a while (by code), so it is one finding and not a
//! hundred. Bounded.

use std::collections::BTreeMap;

use crate::finding::{Finding, Severity, Subject};
use crate::rules::Evaluation;
use crate::time::{Span, Timestamp};

/// Findings kept; at the bound one that is over makes room, else the new one is not remembered (it is reported all the same).
const KEPT: usize = 2048;

/// How long a finding that is over is still shown.
const SHOWN: Span = Span::from_secs(3600);

/// After so long without a condition it is over.
const ABSENT: Span = Span::from_secs(60);

/// Conditions that come in bursts, or that are judged over a longer time, and what they take.
const ABSENT_BY_CODE: &[(&str, Span)] = &[
    ("connect-burst", Span::from_secs(900)),
    ("nat-external-changed", Span::from_secs(900)),
    ("wg-clock-replay", Span::from_secs(300)),
    ("wg-duplicate-key", Span::from_secs(600)),
    ("wg-handshake-loss", Span::from_secs(300)),
    ("wg-handshake-timeout", Span::from_secs(120)),
    ("wg-nat-rebinding", Span::from_secs(600)),
    ("wg-roamed", Span::from_secs(600)),
    ("wg-roaming-unstable", Span::from_secs(600)),
];

/// After how long without `code` it is over.
pub fn absent_for(code: &str) -> Span {
    let own = ABSENT_BY_CODE.iter().find(|(own, _)| *own == code);
    own.map_or(ABSENT, |(_, span)| *span)
}

/// What makes two findings one: the code and what it is about.
pub type Key = (&'static str, String);

/// A finding over time.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As it was when last seen.
    pub finding: Finding,
    /// Whether another finding explained it then.
    pub explained: bool,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// How often it began.
    pub count: u32,
    /// Whether it holds now.
    pub present: bool,
    /// When it was over.
    pub cleared_at: Option<Timestamp>,
    /// Whether it held at the evaluation before.
    held: bool,
}

impl Entry {
    /// `active` (seen in the last evaluation), `absent` (not seen for a while, and not yet over) or `cleared`.
    pub const fn state(&self) -> &'static str {
        match (self.cleared_at, self.present) {
            (Some(_), _) => "cleared",
            (None, true) => "active",
            (None, false) => "absent",
        }
    }
}

/// What happened to a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Seen for the first time.
    Began,
    /// Seen again, after it was over.
    Returned,
    /// Its severity rose.
    Worsened,
    /// Its severity fell.
    Eased,
    /// It was absent for long enough.
    Cleared,
}

impl What {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Returned => "returned",
            Self::Worsened => "worsened",
            Self::Eased => "eased",
            Self::Cleared => "cleared",
        }
    }
}

/// A change, with the finding as it is now.
#[derive(Clone, Debug)]
pub struct Change {
    /// What happened.
    pub what: What,
    /// When.
    pub at: Timestamp,
    /// Which finding.
    pub key: Key,
    /// The finding.
    pub entry: Entry,
}

/// All findings over time.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<Key, Entry>,
    begun: BTreeMap<(&'static str, Severity), u64>,
    /// Of a former agent: since when, and how often.
    before: BTreeMap<(String, String), (Timestamp, u32)>,
    not_kept: u64,
}

impl Ledger {
    /// Takes an evaluation in: writes each finding's times into it, and says what changed.
    pub fn update(&mut self, evaluation: &mut Evaluation, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        for entry in self.entries.values_mut() {
            entry.held = std::mem::take(&mut entry.present);
        }
        for finding in &mut evaluation.findings {
            changes.extend(self.see(finding, false, now));
        }
        for suppressed in &mut evaluation.suppressed {
            changes.extend(self.see(&mut suppressed.finding, true, now));
        }
        for (key, entry) in &mut self.entries {
            let absent = now - entry.last_seen;
            if entry.cleared_at.is_none() && !entry.present && absent >= absent_for(key.0) {
                entry.cleared_at = Some(now);
                changes.push(Change {
                    what: What::Cleared,
                    at: now,
                    key: key.clone(),
                    entry: entry.clone(),
                });
            }
        }
        self.entries
            .retain(|_, e| e.cleared_at.is_none_or(|at| now - at < SHOWN));
        changes
    }

    fn see(&mut self, finding: &mut Finding, explained: bool, now: Timestamp) -> Option<Change> {
        let key = (finding.code, identity(&finding.subject));
        let known = self.entries.get(&key);
        let what = match known {
            None => Some(What::Began),
            Some(entry) if entry.cleared_at.is_some() => Some(What::Returned),
            Some(entry) if finding.severity > entry.finding.severity => Some(What::Worsened),
            Some(entry) if finding.severity < entry.finding.severity => Some(What::Eased),
            Some(_) => None,
        };
        let (first_seen, count) = match known {
            None => {
                let before = self.before.remove(&(key.0.to_owned(), key.1.clone()));
                let (first, count) = before.unwrap_or((now, 1));
                (first.min(finding.first_seen).min(now), count)
            }
            Some(entry) => {
                let again = u32::from(!entry.held);
                (
                    entry.first_seen.min(finding.first_seen),
                    entry.count.saturating_add(again),
                )
            }
        };
        finding.first_seen = first_seen;
        finding.last_seen = now;
        finding.count = finding.count.max(count);
        if known.is_none() && !self.make_room() {
            self.not_kept += 1;
            return None;
        }
        if matches!(what, Some(What::Began | What::Returned)) {
            *self.begun.entry((finding.code, finding.severity)).or_default() += 1;
        }
        let entry = Entry {
            finding: finding.clone(),
            explained,
            first_seen,
            last_seen: now,
            count,
            present: true,
            cleared_at: None,
            held: true,
        };
        self.entries.insert(key.clone(), entry.clone());
        what.map(|what| Change {
            what,
            at: now,
            key,
            entry,
        })
    }

    fn make_room(&mut self) -> bool {
        if self.entries.len() < KEPT {
            return true;
        }
        let over = self.entries.iter().filter(|(_, e)| e.cleared_at.is_some());
        let oldest = over.min_by_key(|(_, e)| e.last_seen).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.entries.remove(&key).is_some())
    }

    /// Takes up what a former agent on this host knew: what was not over when it ended began then, and not now.
    pub fn remember(&mut self, code: String, subject: String, first_seen: Timestamp, count: u32) {
        if self.before.len() < KEPT {
            self.before.insert((code, subject), (first_seen, count));
        }
    }

    /// The clock was set back: nothing is from the future.
    pub fn set_back(&mut self, now: Timestamp) {
        for entry in self.entries.values_mut() {
            entry.first_seen = entry.first_seen.min(now);
            entry.last_seen = entry.last_seen.min(now);
            entry.cleared_at = entry.cleared_at.map(|at| at.min(now));
        }
    }

    /// Every finding that is known.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// How often findings began, by code and severity.
    pub fn begun(&self) -> impl Iterator<Item = (&'static str, Severity, u64)> {
        self.begun
            .iter()
            .map(|((code, severity), n)| (*code, *severity, *n))
    }

    /// Findings that were not kept for want of room.
    pub fn not_kept(&self) -> u64 {
        self.not_kept
    }
}

/// What a finding is about, without what may change while it is the same thing.
pub fn identity(subject: &Subject) -> String {
    subject.identity()
}

#[cfg(test)]
mod tests;

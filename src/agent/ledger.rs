//! Findings over time: when each was first and last seen, how often it came back, and when it is over.
//!
//! In: each evaluation, and which sources see. Out: what began, came back, grew worse or better, or is over, as [`Change`]s; every
//! finding with its times. A condition that flaps keeps its entry until it has been absent for a while (by code), so it is one
//! finding and not a hundred. One whose sources have gone blind is not over because it is not seen: it stays as it was, and
//! that is said ([`Unseen`]). Bounded.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::{Finding, Severity, Subject};
use crate::observation::Source;
use crate::report::unseen::Unseen;
use crate::rules::{Evaluation, registry};
use crate::time::{Span, Timestamp};

/// Findings kept; at the bound one that is over makes room, else the new one is not remembered (it is reported all the same).
const KEPT: usize = 2048;

/// How long a finding that is over is still shown.
const SHOWN: Span = Span::from_secs(3600);

/// An agent that has just begun does not say for this long that it sees nothing.
const STARTING: Span = Span::from_secs(10);

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

/// Which sources see, as each said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// These see at least a part.
    pub sees: BTreeSet<Source>,
    /// These see nothing.
    pub blind: BTreeSet<Source>,
}

impl Sight {
    /// Those that see of what `code` is judged by.
    fn used(&self, code: &str) -> BTreeSet<Source> {
        used(code).filter(|source| self.sees.contains(source)).collect()
    }

    /// What is missing to say whether a finding with `code`, once found by `by`, still holds.
    fn missing(&self, code: &str, by: &BTreeSet<Source>) -> Vec<Source> {
        let mut missing: BTreeSet<Source> = by.intersection(&self.blind).copied().collect();
        for group in registry::needs(code) {
            // What is looked at on request alone and is asked no more is missed by nobody.
            let asked = |s: &&Source| !s.on_request() || self.blind.contains(s);
            if !group.iter().any(|source| self.sees.contains(source)) {
                missing.extend(group.iter().filter(asked));
            }
        }
        missing.into_iter().collect()
    }
}

/// What `code` is judged by: what its rule needs, and for tunnels what passes on the wire, which every rule about them reads
/// where it is seen.
fn used(code: &str) -> impl Iterator<Item = Source> {
    let wire = code.starts_with("wg-").then_some(Source::Capture);
    registry::needs(code)
        .iter()
        .flat_map(|group| group.iter().copied())
        .chain(wire)
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
    /// By which sources it was found.
    pub seen_by: BTreeSet<Source>,
    /// Why nobody can tell whether it still holds; there exactly while the state is `unknown`.
    pub unseen: Option<Unseen>,
    /// Whether it held at the evaluation before.
    held: bool,
    /// Nobody could look before: absence counts from here on.
    looked_from: Timestamp,
    /// It was said that nobody can look; once is enough until it is seen again.
    said_unseen: bool,
    /// What is left of a former agent, until it is seen again.
    former: Option<Former>,
}

/// How a former agent left a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Former {
    /// It ended a moment ago: what is seen now has gone on.
    JustNow,
    /// It ended long ago: what is seen now began anew.
    LongAgo,
}

impl Entry {
    /// `active` (seen in the last evaluation), `absent` (not seen for a while, and not yet over), `unknown` (it held, and what would
    /// tell cannot be observed) or `cleared`.
    pub const fn state(&self) -> &'static str {
        match (self.cleared_at, self.present, &self.unseen) {
            (Some(_), ..) => "cleared",
            (None, true, _) => "active",
            (None, false, Some(_)) => "unknown",
            (None, false, None) => "absent",
        }
    }

    /// It was not found: because it is not there, or because nobody could look?
    fn miss(&mut self, code: &str, sight: &Sight, now: Timestamp) -> Option<What> {
        let missing = sight.missing(code, &self.seen_by);
        if self.former.is_some() && self.unseen.is_none() && now - self.looked_from < STARTING {
            // Its sources are only just being opened.
            return None;
        }
        if missing.is_empty() {
            self.unseen = None;
            let absent = now - self.last_seen.max(self.looked_from);
            if absent >= absent_for(code) {
                self.cleared_at = Some(now);
                return Some(What::Cleared);
            }
            return None;
        }
        self.looked_from = now;
        let begun = if self.former.is_some() {
            self.last_seen
        } else {
            now
        };
        let since = self.unseen.as_ref().map_or(begun, |unseen| unseen.since);
        self.unseen = Some(Unseen::new(since, &missing));
        let said = std::mem::replace(&mut self.said_unseen, true);
        (!said).then_some(What::Unseen)
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
    /// What would tell cannot be observed any more.
    Unseen,
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
            Self::Unseen => "unseen",
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
    not_kept: u64,
}

impl Ledger {
    /// Takes an evaluation in, made with this `sight`: writes each finding's times into it, and says what changed.
    pub fn update(&mut self, evaluation: &mut Evaluation, sight: &Sight, now: Timestamp) -> Vec<Change> {
        let mut changes = Vec::new();
        for entry in self.entries.values_mut() {
            entry.held = std::mem::take(&mut entry.present);
        }
        for finding in &mut evaluation.findings {
            changes.extend(self.see(finding, false, sight, now));
        }
        for suppressed in &mut evaluation.suppressed {
            changes.extend(self.see(&mut suppressed.finding, true, sight, now));
        }
        for (key, entry) in &mut self.entries {
            if entry.cleared_at.is_some() || entry.present {
                continue;
            }
            if let Some(what) = entry.miss(key.0, sight, now) {
                changes.push(Change {
                    what,
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

    fn see(
        &mut self,
        finding: &mut Finding,
        explained: bool,
        sight: &Sight,
        now: Timestamp,
    ) -> Option<Change> {
        let key = (finding.code, identity(&finding.subject));
        let known = self.entries.get(&key);
        let what = match known {
            None => Some(What::Began),
            Some(entry) if entry.former.is_some() => Some(What::Began),
            Some(entry) if entry.cleared_at.is_some() => Some(What::Returned),
            Some(entry) if finding.severity > entry.finding.severity => Some(What::Worsened),
            Some(entry) if finding.severity < entry.finding.severity => Some(What::Eased),
            Some(_) => None,
        };
        let (first_seen, count) = match known {
            None
            | Some(Entry {
                former: Some(Former::LongAgo),
                ..
            }) => (finding.first_seen.min(now), 1),
            Some(
                entry @ Entry {
                    former: Some(Former::JustNow),
                    ..
                },
            ) => (entry.first_seen.min(finding.first_seen).min(now), entry.count),
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
            seen_by: sight.used(key.0),
            unseen: None,
            held: true,
            looked_from: now,
            said_unseen: false,
            former: None,
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

    /// Takes up what a former agent on this host knew, and what was not over when it ended: it is neither there nor gone until
    /// somebody looks. `by` are the sources that found it.
    pub fn take_up(
        &mut self,
        finding: Finding,
        explained: bool,
        by: BTreeSet<Source>,
        left: Former,
        now: Timestamp,
    ) {
        if self.entries.len() >= KEPT {
            self.not_kept += 1;
            return;
        }
        let key = (finding.code, identity(&finding.subject));
        let entry = Entry {
            explained,
            first_seen: finding.first_seen,
            last_seen: finding.last_seen,
            count: finding.count,
            present: false,
            cleared_at: None,
            seen_by: by,
            unseen: None,
            held: false,
            looked_from: now,
            said_unseen: false,
            former: Some(left),
            finding,
        };
        self.entries.insert(key, entry);
    }

    /// What held when it was last looked for, and for which nobody can look now; with that said.
    pub fn unseen(&self) -> impl Iterator<Item = Finding> {
        let marked = |entry: &Entry| Some(entry.unseen.as_ref()?.mark(entry.finding.clone()));
        self.entries.values().filter_map(marked)
    }

    /// The clock was set back: nothing is from the future.
    pub fn set_back(&mut self, now: Timestamp) {
        for entry in self.entries.values_mut() {
            entry.first_seen = entry.first_seen.min(now);
            entry.last_seen = entry.last_seen.min(now);
            entry.looked_from = entry.looked_from.min(now);
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

//! Destinations towards which connects fail: what `connect-refused` and `connect-timeout` share.

use crate::finding::{Evidence, Fix, Subject};
use crate::observation::socket::ProcessIdentity;
use crate::rules::{Input, process_ref};
use crate::time::{Span, Timestamp};
use crate::track::connects::{Attempted, Counts, Recent};
use crate::track::sockets::Key;
use crate::words::{counted, percent, rounded, seconds};

/// Destinations that are told one by one.
const MAX_FINDINGS: usize = 10;

/// Older than this, counts say nothing of now.
const FRESH: Span = Span::from_secs(60);

/// A destination whose connects fail.
pub struct Failing {
    /// What it is.
    pub key: Key,
    /// How the last minute's connects went.
    pub recent: Recent,
    /// Those that failed in the way that is asked for.
    pub failed: u64,
    /// As a share of all that were tried.
    pub share: f64,
    /// The process that met most of these failures.
    pub process: ProcessIdentity,
    /// So many processes met such failures.
    processes: usize,
    /// Further destinations, beyond the bound.
    further: usize,
}

/// Every destination towards which enough connects failed, by `failures` of the counts and of what waits; most first.
pub fn failing(input: &Input<'_>, failures: impl Fn(&Counts, u64) -> u64) -> Vec<Failing> {
    let connects = &input.world.connects;
    if connects
        .newest()
        .is_none_or(|(at, _)| input.now().since(at) > FRESH)
    {
        return Vec::new();
    }
    let thresholds = input.thresholds;
    let mut all: Vec<Failing> = connects
        .keys()
        .filter_map(|key| {
            let recent = connects.recent(&key)?;
            let failed = failures(&recent.counts, recent.waiting).min(recent.counts.attempts);
            #[allow(clippy::cast_precision_loss)] // counts of a minute
            let share = failed as f64 / recent.counts.attempts.max(1) as f64;
            if failed < thresholds.connect_failed_least || share < thresholds.connect_failed_share {
                return None;
            }
            let met = |row: &Attempted| failures(&row.counts, row.waiting);
            let most = recent
                .rows
                .iter()
                .max_by_key(|row| (met(row), row.counts.attempts))?;
            Some(Failing {
                key,
                failed,
                share,
                process: most.process.clone(),
                processes: recent.rows.iter().filter(|row| met(row) > 0).count(),
                recent,
                further: 0,
            })
        })
        .collect();
    all.sort_by_key(|f| (std::cmp::Reverse(f.failed), f.key));
    let further = all.len().saturating_sub(MAX_FINDINGS);
    all.truncate(MAX_FINDINGS);
    for one in &mut all {
        one.further = further;
    }
    all
}

impl Failing {
    /// The subject of a finding about it.
    pub fn subject(&self) -> Subject {
        Subject::Destination {
            proto: self.key.proto,
            source: Some(self.key.source),
            address: self.key.destination.ip(),
            port: self.key.destination.port(),
            process: Some(process_ref(&self.process)),
        }
    }

    /// The process, in words.
    pub fn who(&self) -> String {
        let first = format!("{} (pid {})", self.process.comm, self.process.pid);
        match self.processes.saturating_sub(1) {
            0 => first,
            n => format!(
                "{first} with {}",
                counted(n as u64, "other process", "other processes")
            ),
        }
    }

    /// `All` or `12 % of`.
    pub fn share_words(&self) -> String {
        if self.failed == self.recent.counts.attempts {
            "All".to_owned()
        } else {
            format!("{} of", percent(self.share))
        }
    }

    /// How long was counted.
    pub fn over_words(&self) -> String {
        seconds(self.recent.over.as_secs_f64())
    }

    /// The numbers that both findings carry.
    pub fn evidence(&self) -> Evidence {
        Evidence::new()
            .with("attempts", self.recent.counts.attempts)
            .with("failed", self.failed)
            .with("share", rounded(self.share))
            .with("seconds", rounded(self.recent.over.as_secs_f64()))
            .maybe("further_destinations", (self.further > 0).then_some(self.further))
    }

    /// What the client should do in any case.
    pub fn back_off(&self) -> Fix {
        Fix {
            title: "In the client: wait longer from attempt to attempt, and not all clients alike".to_owned(),
            why: "Attempts that follow each other at once keep a service down that comes up slowly, and each costs a port. Double \
                  the pause each time up to a bound, and draw it at random from zero to there."
                .to_owned(),
            snippet: Some(
                "pause = random between 0 and min(30 s, 0.1 s · 2^attempt)    # exponential back-off with full jitter".to_owned(),
            ),
            ..Fix::default()
        }
    }

    /// When the counts begin.
    pub fn first_seen(&self, input: &Input<'_>) -> Timestamp {
        input.now().before(self.recent.over)
    }

    /// How often it was seen.
    pub fn count(&self) -> u32 {
        u32::try_from(self.failed).unwrap_or(u32::MAX)
    }
}

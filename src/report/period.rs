//! A stretch of time that a report is about: how much of it was watched, what held when, and how numbers moved.
//!
//! Plain data; `wgnat report` fills it from history. What nobody watched is a gap, and no zero.

use super::past::Episode;
use crate::time::{Span, Timestamp};

/// Gaps that are named; of the rest only how many there are.
pub const GAPS: usize = 20;

/// The stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Period {
    /// From when.
    pub from: Timestamp,
    /// Until when: the time of the report.
    pub to: Timestamp,
    /// How much of it an agent was running.
    pub watched: Span,
    /// When no agent was running, the longest first.
    pub gaps: Vec<(Timestamp, Timestamp)>,
    /// Gaps that are not named.
    pub gaps_left_out: u64,
    /// Until when history reaches; `None` where it holds nothing.
    pub reaches: Option<Timestamp>,
    /// Whether history ends too long ago for a verdict about now.
    pub stale: bool,
    /// What held when, within it.
    pub episodes: Vec<Episode>,
    /// Findings of codes that this version does not know.
    pub unknown_codes: u64,
    /// How numbers moved.
    pub trends: Vec<Trend>,
}

/// What a trend's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of these.
    Count(&'static str),
    /// A number of these in each second.
    PerSecond(&'static str),
    /// A share of 1.
    Ratio,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count(_) => "count",
            Self::PerSecond(_) => "per_second",
            Self::Ratio => "ratio",
            Self::Seconds => "seconds",
        }
    }
}

/// How one number moved.
#[derive(Clone, Debug)]
pub struct Trend {
    /// The metric's name in `/metrics`.
    pub metric: &'static str,
    /// What it is, for people: trends of one heading belong together.
    pub heading: &'static str,
    /// Whose it is: a peer, a destination; empty for the host's own.
    pub label: String,
    /// Its labels in `/metrics`.
    pub labels: Vec<(String, String)>,
    /// What the numbers are.
    pub unit: Unit,
    /// The most that it can be.
    pub limit: Option<f64>,
    /// Seconds from one point to the next.
    pub step: i64,
    /// Seconds since 1970; mean, least and greatest until the next point.
    pub points: Vec<(i64, f64, f64, f64)>,
    /// The newest value.
    pub last: Option<f64>,
}

impl Trend {
    /// The least value; `None` without points.
    pub fn least(&self) -> Option<f64> {
        self.points.iter().map(|p| p.2).reduce(f64::min)
    }

    /// The greatest value.
    pub fn greatest(&self) -> Option<f64> {
        self.points.iter().map(|p| p.3).reduce(f64::max)
    }

    /// Whether a person wants to see it: what stays at nothing, or uses less than a hundredth, tells nothing.
    pub fn tells(&self) -> bool {
        let least = if self.unit == Unit::Ratio { 0.01 } else { 0.0 };
        self.greatest().is_some_and(|greatest| greatest > least)
    }

    /// The mean.
    pub fn mean(&self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss)] // hundreds
        let n = self.points.len() as f64;
        (n > 0.0).then(|| self.points.iter().map(|p| p.1).sum::<f64>() / n)
    }
}

/// The stretches between `from` and `to` that no run covers, and how much runs cover. `runs` may overlap and come in any order.
pub fn gaps(
    runs: &[(Timestamp, Timestamp)],
    from: Timestamp,
    to: Timestamp,
    least: Span,
) -> (Vec<(Timestamp, Timestamp)>, Span) {
    let mut runs: Vec<_> = runs
        .iter()
        .map(|(a, b)| ((*a).max(from), (*b).min(to)))
        .filter(|(a, b)| a < b)
        .collect();
    runs.sort();
    let mut gaps = Vec::new();
    let mut watched = Span::ZERO;
    let mut at = from;
    for (began, last) in runs {
        if began > at {
            gaps.push((at, began));
        }
        watched += last - began.max(at);
        at = at.max(last);
    }
    if to > at {
        gaps.push((at, to));
    }
    gaps.retain(|(a, b)| *b - *a >= least);
    (gaps, watched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_watched_is_a_gap() {
        let at = Timestamp::from_secs;
        let told = |runs: &[(i64, i64)]| {
            let runs: Vec<_> = runs.iter().map(|(a, b)| (at(*a), at(*b))).collect();
            let (gaps, watched) = gaps(&runs, at(100), at(200), Span::from_secs(5));
            let secs = |t: Timestamp| t.as_nanos() / 1_000_000_000;
            let gaps: Vec<_> = gaps.into_iter().map(|(a, b)| (secs(a), secs(b))).collect();
            (gaps, watched.as_secs())
        };
        assert_eq!(told(&[]), (vec![(100, 200)], 0));
        assert_eq!(told(&[(0, 300)]), (vec![], 100));
        assert_eq!(told(&[(50, 120), (150, 190)]), (vec![(120, 150), (190, 200)], 60));
        // Overlapping runs count once; a pause of a restart is no gap.
        assert_eq!(told(&[(90, 150), (140, 160), (163, 200)]), (vec![], 97));
    }
}

//! Measured paths: the newest sample of each target, and what was usual before it.
//!
//! In: [`PathSample`]s. Out: [`PathState`], with [`Summary`]s that rules compare. Bounded: [`MAX_TARGETS`] targets, the
//! oldest measured goes first; [`PAST`] summaries each. Pure.

use std::collections::VecDeque;

use super::stats;
use crate::observation::path::{Failure, PathPast, PathSample, Stage, Usual};
use crate::observation::target::Method;
use crate::time::{Span, Timestamp};

/// Targets that are followed.
pub const MAX_TARGETS: usize = 1024;

/// Earlier summaries kept for each target.
pub const PAST: usize = 64;

/// All targets.
#[derive(Debug, Default)]
pub struct PathState {
    paths: Vec<Path>,
    /// Targets that found no place.
    pub left_out: u64,
}

/// One target.
#[derive(Debug)]
pub struct Path {
    /// When its newest sample was complete.
    pub at: Timestamp,
    /// The newest sample.
    pub sample: PathSample,
    /// Its summary.
    pub now: Summary,
    /// Summaries of earlier samples, oldest first.
    pub past: VecDeque<Summary>,
    /// What a history says is usual.
    pub usual: Option<Usual>,
}

impl Path {
    /// Whether anything came back from the target, be it only the answer to a SYN.
    pub fn reached(&self) -> bool {
        self.now.answered > 0 || self.stage(Stage::Connect).is_some_and(|spans| !spans.is_empty())
    }

    /// How long this part of the attempts took, each time.
    pub fn stage(&self, which: Stage) -> Option<&[Span]> {
        let stages = &self.sample.stages;
        stages
            .iter()
            .find(|(s, _)| *s == which)
            .map(|(_, spans)| spans.0.as_slice())
    }
}

/// What a sample comes down to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Attempts made.
    pub sent: u32,
    /// Attempts that were answered, by whatever the target answers; a refusal is one.
    pub answered: u32,
    /// Attempts that nothing, or an ICMP error, came back for; not those at a closed UDP port, whose host limits its refusals.
    pub lost: u32,
    /// Round trips: the least, …
    pub min: Option<Span>,
    /// …the median, …
    pub median: Option<Span>,
    /// …the value below which 95 % lie, …
    pub p95: Option<Span>,
    /// …and the greatest.
    pub max: Option<Span>,
    /// The mean step from one round trip to the next.
    pub jitter: Option<Span>,
}

impl Summary {
    /// Of one sample.
    pub fn of(sample: &PathSample) -> Self {
        let mut sorted = sample.rtts.0.clone();
        sorted.sort_unstable();
        let failed = |which: fn(&Failure) -> bool| -> u32 {
            let of_kind = sample.failures.iter().filter(|(failure, _)| which(failure));
            of_kind.map(|(_, n)| n).sum()
        };
        let answered = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
        let refused = failed(|f| matches!(f, Failure::Refused));
        // A closed UDP port says so by ICMP, and hosts limit how much of that they send (RFC 1812, section 4.3.2.8; Linux: six
        // at once and then one a second, icmp(7)). Silence beside such answers alone is no loss, and no answer either.
        let held_back = matches!(sample.target.method, Method::Udp(_)) && answered == 0 && refused > 0;
        Self {
            sent: sample.sent,
            answered: answered
                + failed(|f| matches!(f, Failure::Refused | Failure::Dns(_) | Failure::Cut(_))),
            lost: failed(|f| {
                matches!(
                    f,
                    Failure::Timeout | Failure::Silent(_) | Failure::Unreachable { .. }
                )
            }) - if held_back {
                failed(|f| matches!(f, Failure::Timeout))
            } else {
                0
            },
            min: sorted.first().copied(),
            median: stats::quantile(&sorted, 0.5),
            p95: stats::quantile(&sorted, 0.95),
            max: sorted.last().copied(),
            jitter: stats::jitter(&sample.rtts.0),
        }
    }

    /// The share of attempts that were lost, with its 95 % interval.
    pub fn loss(&self) -> Option<(f64, f64, f64)> {
        let all = u64::from(self.answered) + u64::from(self.lost);
        let (low, high) = stats::wilson(u64::from(self.lost), all)?;
        #[allow(clippy::cast_precision_loss)] // counts of attempts
        Some((f64::from(self.lost) / all as f64, low, high))
    }
}

impl PathState {
    /// Takes a sample in; it was complete at `at`.
    pub fn apply(&mut self, at: Timestamp, sample: &PathSample) {
        let now = Summary::of(sample);
        let same = |path: &Path| path.sample.target == sample.target;
        if let Some(path) = self.paths.iter_mut().find(|path| same(path)) {
            if path.now.sent > 0 {
                if path.past.len() == PAST {
                    path.past.pop_front();
                }
                path.past.push_back(path.now);
            }
            (path.at, path.now, path.sample) = (at, now, sample.clone());
            return;
        }
        if self.paths.len() == MAX_TARGETS {
            let oldest = self.paths.iter().enumerate().min_by_key(|(_, path)| path.at);
            if let Some((oldest, _)) = oldest {
                self.paths.swap_remove(oldest);
            }
            self.left_out += 1;
        }
        self.paths.push(Path {
            at,
            sample: sample.clone(),
            now,
            past: VecDeque::new(),
            usual: None,
        });
    }

    /// Takes in what was measured of a target in an earlier run. It comes before the target's first sample.
    pub fn apply_past(&mut self, at: Timestamp, past: &PathPast) {
        let summary = Summary {
            sent: past.sent,
            answered: past.sent.saturating_sub(past.lost),
            lost: past.lost,
            median: past.median.0.first().copied(),
            jitter: past.jitter.0.first().copied(),
            ..Summary::default()
        };
        self.apply(at, &PathSample::unmeasured(past.target.clone()));
        if let Some(path) = self
            .paths
            .iter_mut()
            .find(|path| path.sample.target == past.target)
        {
            path.now = summary;
            path.usual.clone_from(&past.usual);
        }
    }

    /// Every target that was measured, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        self.paths
            .iter()
            .filter(|path| path.sample.sent > 0 || !path.sample.problems.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::path::Rtts;

    fn sample(target: &str, rtts: &[u64], failures: &[(Failure, u32)]) -> PathSample {
        let failed: u32 = failures.iter().map(|(_, n)| n).sum();
        PathSample {
            sent: u32::try_from(rtts.len()).unwrap() + failed,
            rtts: Rtts(rtts.iter().map(|ms| Span::from_millis(*ms)).collect()),
            failures: failures.to_vec(),
            ..PathSample::unmeasured(target.parse().unwrap())
        }
    }

    #[test]
    fn silence_of_a_closed_udp_port_is_no_loss() {
        let of = |target: &str, rtts: &[u64], refused| {
            let failures = [(Failure::Refused, refused), (Failure::Timeout, 23)];
            let summary = Summary::of(&sample(target, rtts, &failures[usize::from(refused == 0)..]));
            (summary.answered, summary.lost)
        };
        assert_eq!(of("udp:a:9", &[], 7), (7, 0));
        // Silent altogether, a service that answers as well, and TCP, where a refusal is no ICMP error.
        assert_eq!(of("udp:a:9", &[], 0), (0, 23));
        assert_eq!(of("udp:a:9", &[10], 7), (8, 23));
        assert_eq!(of("tcp:a:9", &[], 7), (7, 23));
    }

    #[test]
    fn a_refusal_came_back_and_is_no_loss() {
        let failures = [
            (Failure::Refused, 3),
            (Failure::Timeout, 2),
            (Failure::Local("x".to_owned()), 1),
        ];
        let summary = Summary::of(&sample("tcp:a:1", &[10, 30, 20], &failures));
        assert_eq!((summary.sent, summary.answered, summary.lost), (9, 6, 2));
        assert_eq!(summary.median, Some(Span::from_millis(20)));
        assert_eq!(summary.jitter, Some(Span::from_millis(15)));
        let (share, low, high) = summary.loss().unwrap();
        assert!((share - 0.25).abs() < 1e-9 && low < share && share < high);
        assert_eq!(Summary::default().loss(), None);
    }

    #[test]
    fn the_past_is_kept_and_bounded() {
        let mut state = PathState::default();
        for n in 0..200 {
            state.apply(Timestamp::from_secs(n), &sample("a", &[10], &[]));
        }
        let path = state.iter().next().unwrap();
        assert_eq!(path.past.len(), PAST);
        for n in 0..2000 {
            state.apply(
                Timestamp::from_secs(1000 + n),
                &sample(&format!("h{n}"), &[10], &[]),
            );
        }
        assert_eq!(state.iter().count(), MAX_TARGETS);
        assert_eq!(state.left_out, 2001 - 1024);
    }

    #[test]
    fn an_earlier_run_is_the_past_of_the_first_sample() {
        let mut state = PathState::default();
        let past = PathPast {
            target: "a".parse().unwrap(),
            sent: 10,
            lost: 0,
            median: Rtts(vec![Span::from_millis(5)]),
            jitter: Rtts(Vec::new()),
            usual: None,
        };
        state.apply_past(Timestamp::from_secs(1), &past);
        assert_eq!(state.iter().count(), 0, "what was not measured now is no path");
        state.apply(Timestamp::from_secs(2), &sample("a", &[50], &[]));
        let path = state.iter().next().unwrap();
        assert_eq!(path.past.front().unwrap().median, Some(Span::from_millis(5)));
    }

    #[test]
    fn a_history_is_no_sample_and_stays() {
        let mut state = PathState::default();
        let usual = Usual {
            over: Span::from_secs(86_400),
            points: 1440,
            rtt: Rtts(vec![Span::from_millis(12), Span::from_millis(15)]),
            jitter: Rtts(Vec::new()),
            loss: Some(0.0),
        };
        let past = PathPast {
            target: "a".parse().unwrap(),
            sent: 0,
            lost: 0,
            median: Rtts(Vec::new()),
            jitter: Rtts(Vec::new()),
            usual: Some(usual.clone()),
        };
        state.apply_past(Timestamp::from_secs(1), &past);
        for n in 2..4 {
            state.apply(Timestamp::from_secs(n), &sample("a", &[50], &[]));
        }
        let path = state.iter().next().unwrap();
        assert_eq!((path.past.len(), &path.usual), (1, &Some(usual)));
    }

    #[test]
    fn silence_after_the_handshake_is_lost_and_reached() {
        let mut silent = sample("tls:a:1", &[], &[(Failure::Silent(Stage::TlsHandshake), 3)]);
        silent.stages = vec![(Stage::Connect, Rtts(vec![Span::from_millis(1); 3]))];
        let mut state = PathState::default();
        state.apply(Timestamp::from_secs(1), &silent);
        let path = state.iter().next().unwrap();
        assert_eq!((path.now.lost, path.now.answered, path.reached()), (3, 0, true));
    }
}

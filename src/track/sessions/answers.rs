//! Which of a side's messages were answered, by their size: where small ones are and large ones never, the path carries
//! no large ones.
//!
//! In: what one side sends and when the other was last heard. Out: [`Answers`]. Why it can be told at all: whoever
//! receives data sends something within KEEPALIVE_TIMEOUT, if only a keepalive (paper 6.5). So a run of messages after
//! which the other side says nothing for longer did not arrive, or its answers do not.

use crate::time::{Span, Timestamp};
use crate::wire::wireguard::KEEPALIVE_TIMEOUT;

/// On top of KEEPALIVE_TIMEOUT: slow paths and timers.
const SLACK: Span = Span::from_secs(1);

/// Messages with something in them that one side sent since it last heard the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// When the first was sent.
    pub since: Timestamp,
    /// When the last was sent.
    pub last: Timestamp,
    /// How many.
    pub count: u64,
    /// The shortest inner packet, padding included, in bytes.
    pub shortest: u32,
    /// The longest.
    pub longest: u32,
}

impl Run {
    /// Both as one.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            since: self.since.min(other.since),
            last: self.last.max(other.last),
            count: self.count + other.count,
            shortest: self.shortest.min(other.shortest),
            longest: self.longest.max(other.longest),
        }
    }
}

/// What became of one side's messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// The run that is open: nothing was heard since its last message, unless the other side was heard later.
    open: Option<Run>,
    /// Of the runs that were answered in time, the longest inner packet that was the shortest of its run: so much at least
    /// passes.
    pub passes: u32,
    /// Runs that were answered in time.
    pub answered: u64,
    /// The last run that went unanswered for longer than any receiver waits, though the other side was heard later.
    pub stalled: Option<Run>,
}

impl Answers {
    #[inline]
    pub(super) fn note(&mut self, at: Timestamp, inner: u32, heard: Option<Timestamp>) {
        match &mut self.open {
            Some(run) if heard.is_none_or(|heard| heard <= run.last) => {
                run.last = run.last.max(at);
                run.count += 1;
                run.shortest = run.shortest.min(inner);
                run.longest = run.longest.max(inner);
            }
            open => {
                let before = open.replace(Run {
                    since: at,
                    last: at,
                    count: 1,
                    shortest: inner,
                    longest: inner,
                });
                if let (Some(run), Some(heard)) = (before, heard) {
                    self.close(run, heard);
                }
            }
        }
    }

    fn close(&mut self, run: Run, heard: Timestamp) {
        if heard - run.since <= KEEPALIVE_TIMEOUT + SLACK {
            self.passes = self.passes.max(run.shortest);
            self.answered += 1;
        } else {
            self.stalled = Some(run);
        }
    }

    /// With what the other side's newest message says, heard at `heard`.
    #[must_use]
    pub fn settled(mut self, heard: Option<Timestamp>) -> Self {
        if let Some(run) = self.open
            && let Some(heard) = heard.filter(|heard| *heard > run.last)
        {
            self.open = None;
            self.close(run, heard);
        }
        self
    }

    /// What was sent since the other side was heard, after [`Answers::settled`].
    pub fn open(&self) -> Option<Run> {
        self.open
    }

    /// With another session's of the same side.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let later = |a: Option<Run>, b: Option<Run>| a.into_iter().chain(b).max_by_key(|run| run.last);
        Self {
            open: match (self.open, other.open) {
                (Some(a), Some(b)) => Some(a.with(b)),
                (a, b) => a.or(b),
            },
            passes: self.passes.max(other.passes),
            answered: self.answered + other.answered,
            stalled: later(self.stalled, other.stalled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn noted(messages: &[(i64, u32, Option<i64>)], heard: Option<i64>) -> Answers {
        let mut answers = Answers::default();
        for (secs, inner, heard) in messages {
            answers.note(at(*secs), *inner, heard.map(at));
        }
        answers.settled(heard.map(at))
    }

    #[test]
    fn what_is_answered_in_time_passes() {
        for (name, messages, heard, passes, open) in [
            ("an answer", vec![(0, 64, None)], Some(1), 64, 0),
            ("none yet", vec![(0, 64, None), (1, 1280, None)], None, 0, 2),
            (
                "which was answered cannot be told",
                vec![(0, 64, None), (1, 1280, None)],
                Some(2),
                64,
                0,
            ),
            (
                "large and alone",
                vec![(0, 64, None), (5, 1280, Some(1))],
                Some(6),
                1280,
                0,
            ),
            ("too late to be an answer", vec![(0, 1280, None)], Some(12), 0, 0),
        ] {
            let answers = noted(&messages, heard);
            assert_eq!(answers.passes, passes, "{name}");
            assert_eq!(answers.open().map_or(0, |run| run.count), open, "{name}");
        }
    }

    #[test]
    fn a_long_silence_is_remembered() {
        let answers = noted(&[(0, 1280, None), (4, 1280, None), (20, 64, Some(16))], Some(21));
        let stalled = answers.stalled.unwrap();
        assert_eq!((stalled.since, stalled.last, stalled.count), (at(0), at(4), 2));
        assert_eq!(answers.passes, 64);
    }
}

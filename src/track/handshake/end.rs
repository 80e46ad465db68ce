//! One end of a conversation: what it sent, and its attempts as initiator.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::attempt::{ANSWER_WITHIN, Answer, Attempt, Taps};
use super::counts::MessageCounts;
use crate::observation::packet::Direction;
use crate::time::{Span, Timestamp};
use crate::types::SessionIndex;

/// Attempts that are kept of one end; the oldest are forgotten first, their counts stay.
pub const ATTEMPTS_KEPT: usize = 64;

/// One end, as sender.
#[derive(Clone, Debug)]
pub struct End {
    /// Its outer address.
    pub address: SocketAddr,
    /// What it sent.
    pub messages: MessageCounts,
    /// When it first tried.
    pub first_attempt: Option<Timestamp>,
    /// When it last tried.
    pub last_attempt: Option<Timestamp>,
    /// When one of its attempts was last answered, by a response or a cookie reply.
    pub last_answer: Option<Timestamp>,
    /// Attempts that a response answered.
    pub answered: u64,
    /// Attempts that a cookie reply answered.
    pub cookies: u64,
    /// Attempts that are no longer kept.
    pub forgotten: u64,
    attempts: VecDeque<Attempt>,
    /// Their indices, in step: a new message is compared with all of them, and these lie close together.
    senders: VecDeque<SessionIndex>,
    /// Attempts since the last that was answered.
    run: u32,
    /// When that run began.
    run_since: Option<Timestamp>,
    /// Seen leaving, or coming in, with this end as source.
    seen_out: bool,
    seen_in: bool,
    /// The last answer that was not the first to an attempt, so that its further sightings are not counted again.
    odd: Option<(SessionIndex, u32)>,
}

impl End {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            messages: MessageCounts::default(),
            first_attempt: None,
            last_attempt: None,
            last_answer: None,
            answered: 0,
            cookies: 0,
            forgotten: 0,
            attempts: VecDeque::new(),
            senders: VecDeque::new(),
            run: 0,
            run_since: None,
            seen_out: false,
            seen_in: false,
            odd: None,
        }
    }

    /// Its attempts, oldest first, as far as they are kept.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> + ExactSizeIterator {
        self.attempts.iter()
    }

    /// Its newest attempt.
    pub fn last(&self) -> Option<&Attempt> {
        self.attempts.back()
    }

    /// Consecutive attempts without a response or cookie reply, up to now; one that still has time is not counted.
    /// ICMP errors are no answer of the peer's.
    pub fn unanswered(&self, now: Timestamp) -> u32 {
        let pending = self.run > 0 && self.last().is_some_and(|a| now < a.due() && a.icmp.is_none());
        self.run - u32::from(pending)
    }

    /// When the first of the consecutive unanswered attempts was sent.
    pub fn unanswered_since(&self) -> Option<Timestamp> {
        self.run_since
    }

    /// When the newest attempt's answer is overdue, where it still has time.
    pub fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.last()
            .filter(|a| !a.is_answered() && a.icmp.is_none())
            .map(Attempt::due)
            .filter(|due| now < *due)
    }

    /// Round trips of the attempts kept, oldest first.
    pub fn rtts(&self) -> impl DoubleEndedIterator<Item = Span> {
        self.attempts
            .iter()
            .filter_map(|a| a.answer.map(|answer| answer.at - a.at))
    }

    /// The median time between an attempt and its retry; `None` where there was no retry.
    pub fn retry_spacing(&self) -> Option<Span> {
        let pairs = self.attempts.iter().zip(self.attempts.iter().skip(1));
        let mut gaps: Vec<Span> = pairs
            .filter(|(_, later)| later.try_number > 1)
            .map(|(earlier, later)| later.at - earlier.at)
            .collect();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied()
    }

    /// Attempts that are kept.
    pub(super) fn kept(&self) -> usize {
        self.attempts.len()
    }

    /// Whether all that it sent left through this host's interfaces and never came in: it is this host, or behind
    /// an address translation here. `None` where nothing was seen or both (loopback, forwarding).
    pub(super) fn sends_from_here(&self) -> Option<bool> {
        (self.seen_out != self.seen_in).then_some(self.seen_out)
    }

    /// Whether an answer that is not the first to an attempt is new; notes it.
    pub(super) fn is_new_odd(&mut self, receiver: SessionIndex, mark: u32) -> bool {
        self.odd.replace((receiver, mark)) != Some((receiver, mark))
    }

    /// Whether one of the responses to its attempts carries this index of the responder's.
    pub(super) fn was_answered_with(&self, sender: SessionIndex) -> bool {
        self.attempts
            .iter()
            .any(|a| a.answer.is_some_and(|answer| answer.sender == sender))
    }

    /// Notes that a message of its passed by.
    pub(super) fn sighted(&mut self, direction: Direction) {
        match direction {
            Direction::Out => self.seen_out = true,
            Direction::In => self.seen_in = true,
            Direction::Unknown => {}
        }
    }

    /// The attempt with this message, newest first.
    pub(super) fn find(&mut self, sender: SessionIndex, mac1: Option<&[u8; 16]>) -> Option<&mut Attempt> {
        let attempts = &self.attempts;
        let is_it = |place: &usize| {
            let attempt = attempts.get(*place);
            mac1.is_none_or(|mac1| attempt.is_some_and(|a| a.mac1 == *mac1))
        };
        let same = self
            .senders
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, s)| **s == sender);
        let place = same.map(|(place, _)| place).find(is_it)?;
        self.attempts.get_mut(place)
    }

    /// The newest attempt that an error seen at `at` may be about, where it does not quote the index.
    pub(super) fn newest_before(&mut self, at: Timestamp) -> Option<&mut Attempt> {
        self.attempts.back_mut().filter(|a| at - a.at <= ANSWER_WITHIN)
    }

    /// Takes a new attempt in.
    pub(super) fn push(&mut self, mut attempt: Attempt) {
        let at = attempt.at;
        attempt.try_number = match self.attempts.back() {
            Some(before) if before.answer.is_none() && at - before.at <= ANSWER_WITHIN * 2 => {
                before.try_number.saturating_add(1)
            }
            _ => 1,
        };
        self.messages.initiations += 1;
        self.first_attempt.get_or_insert(at);
        self.last_attempt = Some(at);
        self.run = self.run.saturating_add(1);
        self.run_since.get_or_insert(at);
        if self.attempts.len() == ATTEMPTS_KEPT {
            self.attempts.pop_front();
            self.senders.pop_front();
            self.forgotten += 1;
        }
        if self.attempts.is_empty() {
            // Most ends that a flood makes up try once.
            self.attempts.reserve_exact(1);
            self.senders.reserve_exact(1);
        }
        self.senders.push_back(attempt.sender);
        self.attempts.push_back(attempt);
    }

    /// Notes a response to the attempt with this index. `None` where there is none, else whether it is the first.
    pub(super) fn answer(&mut self, receiver: SessionIndex, answer: Answer) -> Option<bool> {
        let attempt = self.find(receiver, None)?;
        let first = attempt.answer.is_none();
        if first {
            attempt.answer = Some(answer);
            self.answered += 1;
            self.end_run(receiver, answer.at);
        }
        Some(first)
    }

    /// Notes a cookie reply to the attempt with this index. `None` where there is none, else whether it is new.
    pub(super) fn cookie(&mut self, receiver: SessionIndex, at: Timestamp) -> Option<bool> {
        let attempt = self.find(receiver, None)?;
        let new = attempt.cookie_at.is_none();
        if new {
            attempt.cookie_at = Some(at);
            self.cookies += 1;
            self.end_run(receiver, at);
        }
        Some(new)
    }

    /// Whether the response with this index of the responder's was seen before; notes the sighting.
    pub(super) fn saw_response(&mut self, receiver: SessionIndex, sender: SessionIndex, tap: Taps) -> bool {
        let answer = self.find(receiver, None).and_then(|a| a.answer.as_mut());
        let Some(answer) = answer.filter(|a| a.sender == sender) else {
            return false;
        };
        for (direction, if_index) in tap.iter() {
            answer.taps.add(direction, if_index);
        }
        true
    }

    /// The run of unanswered attempts ends at the one with `sender`; later ones stay unanswered.
    fn end_run(&mut self, sender: SessionIndex, at: Timestamp) {
        self.last_answer = self.last_answer.max(Some(at));
        let later = self.senders.iter().rev().take_while(|s| **s != sender).count();
        self.run = self.run.min(u32::try_from(later).unwrap_or(u32::MAX));
        let first = self
            .attempts
            .len()
            .saturating_sub(usize::try_from(self.run).unwrap_or(0));
        self.run_since = self.attempts.get(first).map(|a| a.at);
    }
}

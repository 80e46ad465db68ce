//! The next event on which a verdict about a peer hangs.
//!
//! In: a peer and its wire. Out: a [`Due`] in the future, or none. Why: five seconds of watching can end just before
//! the retry that would settle it; waiting for an event that settles nothing would only cost time.

use super::peer::{PeerTrack, RETRY_SEEN};
use super::silence::Silence;
use super::wire::{Call, PeerWire};
use super::{DeviceTrack, Due};
use crate::time::{Span, Timestamp};
use crate::wire::wireguard::{REJECT_AFTER_TIME, REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER};

/// Time for an event to be seen after it happened.
const MARGIN: Span = Span::from_millis(300);
/// Failed attempts that settle it: the default of `unanswered_attempts`.
const ENOUGH: u64 = 2;
/// KEEPALIVE_TIMEOUT + REKEY_TIMEOUT: a side that sent data and heard nothing starts a new handshake (paper,
/// section 6.5).
const STOPPED_HEARING: Span = Span::from_secs(15);
/// Data sent for this long without any answer makes it worth waiting for the rule above.
const WORTH_WAITING: Span = Span::from_secs(2);
/// After a new handshake data flows within a round trip; this is ample.
pub const AFTER_HANDSHAKE: Span = Span::from_secs(3);

/// What is due for `peer`, after `now`, where the wire is watched since `tapped`.
pub fn of(
    device: &DeviceTrack,
    peer: &PeerTrack,
    wire: &PeerWire,
    tapped: Option<Timestamp>,
    now: Timestamp,
) -> Option<Due> {
    let endpoint = peer.newest.endpoint?;
    let name = &device.info.name;
    let silence = Silence::of(peer, device.info.implementation, wire, now);
    if refused(peer, wire, now) {
        return None;
    }
    let (at, what) = handshake(peer, &silence, tapped, now)
        .or_else(|| one_way(peer, &silence, now))
        .or_else(|| called(peer, wire, now))?;
    let what = match what {
        What::Retry => format!("{name}'s next handshake attempt to {endpoint}"),
        What::Answer => format!("{endpoint} to answer {name}'s handshake attempt"),
        What::Accepted => format!("{name} to take {endpoint}'s response, or not"),
        What::Call => format!("{endpoint} to call {name} again, or to go on"),
        What::Data => format!("{endpoint} to send anything back over {name}"),
    };
    (at > now).then_some(Due { at, what })
}

/// Whether an ICMP error, with nothing heard since, is the verdict already.
fn refused(peer: &PeerTrack, wire: &PeerWire, now: Timestamp) -> bool {
    let heard = peer.last_handshake(now).max(peer.traffic.heard_at);
    wire.icmp
        .is_some_and(|icmp| heard.is_none_or(|heard| icmp.at > heard))
}

enum What {
    Retry,
    Answer,
    Accepted,
    Data,
    Call,
}

fn handshake(
    peer: &PeerTrack,
    silence: &Silence,
    tapped: Option<Timestamp>,
    now: Timestamp,
) -> Option<(Timestamp, What)> {
    // The retry comes when the time for the answer is over.
    let over = |last: Timestamp| last + REKEY_TIMEOUT + REKEY_TIMEOUT_JITTER + MARGIN;
    let retry = |last: Timestamp| (over(last), What::Retry);
    let answer = |last: Timestamp| (over(last), What::Answer);
    // A refused response and a lost one are different verdicts, and look alike to the counters.
    let judged = silence.judged_from.map(|from| from + MARGIN);
    if let Some(judged) = judged.filter(|at| *at > now) {
        return Some((judged, What::Accepted));
    }
    if silence.failed >= ENOUGH && silence.unanswered > 0 && (1..ENOUGH).contains(&silence.rejected) {
        // Lost or refused? One of each does not tell.
        return Some(match silence.pending {
            Some(pending) => answer(pending),
            None => retry(silence.newest?),
        });
    }
    if silence.failed >= ENOUGH {
        // Settled, but for two questions: do attempts still leave, or did it give up before we looked? And where the wire
        // is watched: what becomes of them there?
        let seen = peer.traffic.initiation;
        let seen = seen.is_some_and(|between| tapped.is_none_or(|since| between.after >= since));
        let counted = silence.counted.filter(|_| !seen && silence.on_wire == 0)?;
        return Some((counted.newest_before + RETRY_SEEN, What::Retry));
    }
    if let Some(pending) = silence.pending {
        return Some(match silence.failed {
            0 => retry(pending),
            _ => answer(pending),
        });
    }
    if silence.failed > 0 || silence.counted.is_some() {
        let newest = silence.newest?;
        let unsettled = silence.counted.is_some_and(|c| c.sent > c.unanswered);
        return Some(if unsettled && silence.failed + 1 >= ENOUGH {
            answer(newest)
        } else {
            retry(newest)
        });
    }
    // A persistent keepalive never rests: with a dead session attempts follow each other.
    let dead = peer
        .last_handshake(now)
        .is_none_or(|good| now - good > REJECT_AFTER_TIME);
    (peer.newest.keepalive.is_some() && dead).then(|| (peer.first_at + RETRY_SEEN, What::Retry))
}

/// When it will be clear that the peer does not act on our answers: one that takes them goes on at once, one that does
/// not calls again.
fn called(peer: &PeerTrack, wire: &PeerWire, now: Timestamp) -> Option<(Timestamp, What)> {
    let heard = peer.last_handshake(now).max(peer.traffic.heard_at);
    let without_effect = |call: &&Call| call.answered && heard.is_none_or(|heard| heard < call.at);
    let calls = wire.called.iter().rev().take_while(without_effect).count() as u64;
    let newest = wire.called.last().filter(|_| calls > 0 && calls <= ENOUGH)?;
    let more = ENOUGH - calls;
    // The last of them needs a moment to have no effect.
    let at = match more {
        0 => newest.at + AFTER_HANDSHAKE,
        _ => newest.at + REKEY_TIMEOUT + REKEY_TIMEOUT_JITTER,
    };
    Some((at + MARGIN, What::Call))
}

/// When it will be clear that data is not answered.
fn one_way(peer: &PeerTrack, silence: &Silence, now: Timestamp) -> Option<(Timestamp, What)> {
    if !peer.live(now) || silence.failed > 0 {
        return None;
    }
    let worth = |since: &Timestamp| peer.newest_at - *since >= WORTH_WAITING;
    let unheard = peer.traffic.unheard_since.filter(worth).map(|since| {
        match peer.handshakes.back().filter(|at| **at > since) {
            // The protocol reacted to the silence; what is sent now must be answered.
            Some(renewed) => *renewed + AFTER_HANDSHAKE + MARGIN,
            None => since + STOPPED_HEARING + REKEY_TIMEOUT_JITTER + MARGIN,
        }
    });
    let undelivered = peer
        .traffic
        .undelivered_since
        .filter(|since| worth(since) && peer.hardly_answered())
        .map(|since| since + STOPPED_HEARING + MARGIN);
    let next = [unheard, undelivered]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()?;
    Some((next, What::Data))
}

#[cfg(test)]
mod tests;

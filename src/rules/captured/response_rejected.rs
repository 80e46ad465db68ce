//! `wg-response-rejected`: responses come, and the initiator starts over.

use super::CAPTURE;
use super::view::{Initiator, count, finding, initiators};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::time::{Span, Timestamp};
use crate::track::handshake::Attempt;
use crate::wire::wireguard::{REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER};

/// The rule.
pub const RULE: Rule = Rule {
    needs: CAPTURE,
    explained_by: &["wg-duplicate-key"],
    check,
    ..tunnel::RESPONSE_REJECTED
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    initiators(input)
        // Where they were seen leaving, whether they arrive is another question.
        .filter(|initiator| !super::response_lost::all_left(&refused(initiator)))
        .filter_map(|initiator| passing(&initiator, input))
        .collect()
}

/// What is forwarded by this host: the finding where it holds.
pub(in crate::rules) fn passing(i: &Initiator<'_>, input: &Input<'_>) -> Option<Finding> {
    let needed = usize::try_from(input.thresholds.unanswered_attempts).unwrap_or(usize::MAX);
    let refused = refused(i);
    (refused.len() >= needed).then(|| report(i, &refused))
}

/// Sooner no WireGuard device calls again: REKEY_TIMEOUT, as clocks go.
const LEAST_GAP: Span = REKEY_TIMEOUT.saturating_sub(Span::from_millis(500));

/// The newest answered attempts in a row after which the initiator started over, without data in between.
pub(super) fn refused<'a>(i: &Initiator<'a>) -> Vec<&'a Attempt> {
    let attempts: Vec<_> = i.end.attempts().collect();
    let mut refused: Vec<&Attempt> = Vec::new();
    for (n, attempt) in attempts.iter().enumerate().rev() {
        let Some(answer) = &attempt.answer else { break };
        match attempts.get(n + 1) {
            // It may still be about to use the newest one.
            None => continue,
            Some(next) if next.at - attempt.at > (REKEY_TIMEOUT + REKEY_TIMEOUT_JITTER) * 2 => break,
            // Who calls again so soon is a probe, which uses no session.
            Some(next) if next.at - attempt.at < LEAST_GAP => break,
            Some(_) => {}
        }
        if used_since(i, answer.at) {
            break;
        }
        refused.push(attempt);
    }
    refused.reverse();
    refused
}

/// Whether the initiator sent data under a session that began with the response at `at`, or later.
fn used_since(i: &Initiator<'_>, at: Timestamp) -> bool {
    let Some(tunnel) = i.tunnel() else { return false };
    let Some(side) = super::view::side_at(tunnel, i.end.address) else {
        return false;
    };
    i.world.sessions.live(tunnel).any(|s| {
        s.began.is_none_or(|began| began >= at) && s.sent_by(side).last_at.is_some_and(|last| last >= at)
    })
}

fn report(i: &Initiator<'_>, refused: &[&Attempt]) -> Finding {
    let (first, last) = match refused {
        [first, .., last] => (first.at, last.at),
        [only] => (only.at, only.at),
        [] => (i.world.started, i.world.now),
    };
    let arrived = refused.iter().filter_map(|a| a.answer.as_ref()).all(|answer| {
        // What goes out again as well was only forwarded.
        answer.taps.came_in() && !answer.taps.went_out()
    });
    let levels = match arrived {
        true => (Severity::Critical, Confidence::Likely),
        false => (Severity::Warning, Confidence::Possible),
    };
    let mut f = finding(RULE.code, levels, i.subject(), (first, last));
    let n = refused.len() as u64;
    f.count = u32::try_from(n).unwrap_or(u32::MAX);
    f.title = format!(
        "{} does not take the handshake answers of {}",
        i.end.address, i.responder
    );
    f.summary = format!(
        "{} of it were answered and not followed by data; each time it started over. {}",
        count(n, "attempt"),
        if arrived {
            "The answers did reach its host."
        } else {
            "The capture does not say whether the answers reached its host."
        }
    );
    f.impact = "No session comes up between the two.".to_owned();
    f.evidence = Evidence::new()
        .with("responses_not_accepted", n)
        .with("answered_attempts", i.end.answered)
        .with("initiations", i.end.messages.initiations)
        .with("responses_reached_host", arrived);
    let candidate = |cause: &str, settle: &str| Candidate {
        cause: cause.to_owned(),
        code: None,
        settle: settle.to_owned(),
    };
    f.candidates = vec![
        candidate(
            "the preshared keys differ",
            "compare `wg show all preshared-keys` on both hosts, or remove both",
        ),
        candidate(
            "the initiator's host drops the answers after the capture's tap: INPUT rule, rp_filter",
            "watch `nstat -az TcpExtIPReversePathFilter` and the firewall's counters there",
        ),
    ];
    if !arrived {
        f.candidates.push(candidate(
            "the answers are lost on the way to the initiator",
            "capture on the initiator's host with `-i any`",
        ));
    }
    f.fixes = vec![Fix {
        title: "Give both sides the same preshared key, or neither".to_owned(),
        why: "It is mixed in when the response is made, so a difference shows only here.".to_owned(),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::handshake_timeout;
    use super::super::testing::{Wire, codes};
    use super::*;

    #[test]
    fn answers_without_data_again_and_again() {
        let mut wire = Wire::new();
        for n in 0..4u32 {
            let at = i64::from(n) * 5_200;
            wire.initiation(at, n + 1).response(at + 20, n + 1, 100 + n);
        }
        let found = wire.check(&RULE, 21_000);
        assert_eq!(codes(&found), ["wg-response-rejected"]);
        assert_eq!((found[0].count, found[0].confidence), (3, Confidence::Possible));
        assert!(wire.check(&handshake_timeout::RULE, 21_000).is_empty());
    }

    #[test]
    fn rekeys_with_data_are_none() {
        let mut wire = Wire::new();
        for n in 0..4u32 {
            let at = i64::from(n) * 5_200;
            wire.initiation(at, n + 1)
                .response(at + 20, n + 1, 100 + n)
                .data(at + 25, 100 + n, 0);
        }
        assert!(wire.check(&RULE, 21_000).is_empty());
    }
}

//! `wg-handshake-loss`: handshakes complete, but only after retransmission.

use super::CAPTURE;
use super::view::{Initiator, count, finding, initiators, secs};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::time::Span;
use crate::track::handshake::End;
use crate::track::stats::wilson;

/// The rule.
pub const RULE: Rule = Rule {
    needs: CAPTURE,
    explained_by: &["wg-under-load", "wg-handshake-timeout", "wg-endpoint-unreachable"],
    check,
    ..tunnel::HANDSHAKE_LOSS
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    initiators(input)
        .filter_map(|initiator| {
            let tally = Tally::of(initiator.end);
            (tally.lost >= needed && tally.answered > 0 && tally.recovered)
                .then(|| report(&initiator, &tally))
        })
        .collect()
}

/// Attempts by what came of them.
pub(in crate::rules) struct Tally {
    pub answered: u64,
    pub lost: u64,
    /// The longest time from a first attempt to the answer of its retry.
    longest: Span,
    /// The last lost attempt was followed by an answered one.
    pub recovered: bool,
}

impl Tally {
    pub fn of(end: &End) -> Self {
        let mut tally = Self {
            answered: 0,
            lost: 0,
            longest: Span::ZERO,
            recovered: false,
        };
        let (mut began, mut lost_now) = (None, 0);
        let attempts: Vec<_> = end.attempts().collect();
        for (n, attempt) in attempts.iter().enumerate() {
            if attempt.try_number == 1 {
                (began, lost_now) = (Some(attempt.at), 0);
            }
            let retried = attempts.get(n + 1).is_some_and(|next| next.try_number > 1);
            match &attempt.answer {
                Some(answer) => {
                    tally.answered += 1;
                    tally.lost += lost_now;
                    tally.recovered = true;
                    if lost_now > 0 {
                        tally.longest = tally.longest.max(began.map_or(Span::ZERO, |at| answer.at - at));
                    }
                    lost_now = 0;
                }
                None if attempt.cookie_at.is_none() && attempt.icmp.is_none() && retried => lost_now += 1,
                None => {}
            }
        }
        tally
    }

    fn share(&self) -> f64 {
        self.lost as f64 / (self.lost + self.answered) as f64
    }
}

/// What a share of lost attempts means.
pub(in crate::rules) fn report(i: &Initiator<'_>, tally: &Tally) -> Finding {
    let (low, high) = wilson(tally.lost, tally.lost + tally.answered).unwrap_or((0.0, 1.0));
    let seen = (
        i.end.first_attempt.unwrap_or(i.world.started),
        i.end.last_attempt.unwrap_or(i.world.now),
    );
    let mut f = finding(
        RULE.code,
        (Severity::Warning, Confidence::Certain),
        i.subject(),
        seen,
    );
    f.count = u32::try_from(tally.lost).unwrap_or(u32::MAX);
    f.title = format!(
        "Handshakes from {} to {} need retries",
        i.end.address, i.responder
    );
    f.summary = format!(
        "{} got no answer and had to be repeated, {} were answered: {:.0} % lost (95 % sure: {:.0} to {:.0} %). The \
         longest handshake took {}.",
        count(tally.lost, "attempt"),
        tally.answered,
        tally.share() * 100.0,
        low * 100.0,
        high * 100.0,
        secs(tally.longest)
    );
    f.impact = "Each loss delays the session by 5 s.".to_owned();
    f.evidence = Evidence::new()
        .with("lost_attempts", tally.lost)
        .with("answered_attempts", tally.answered)
        .with("loss_share", tally.share())
        .with("loss_share_low", low)
        .with("loss_share_high", high)
        .with("longest_handshake_seconds", tally.longest.as_secs_f64());
    f.fixes = vec![Fix {
        title: "Capture on both hosts and compare which way messages are lost".to_owned(),
        why: "An initiation that leaves and does not arrive is lost on the way there; a response, on the way back."
            .to_owned(),
        command: Some(format!("tcpdump -ni any -w responder.pcap udp port {}", i.responder.port())),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Wire, codes};
    use super::*;

    #[test]
    fn retries_before_answers() {
        let mut wire = Wire::new();
        for n in 0..10u32 {
            let at = i64::from(n) * 120_000;
            wire.initiation(at, 3 * n + 1);
            let (at, sender) = if n % 2 == 0 {
                (at, 3 * n + 1)
            } else {
                (at + 5_100, 3 * n + 2)
            };
            if n % 2 == 1 {
                wire.initiation(at, sender);
            }
            wire.response(at + 30, sender, 1000 + n);
        }
        let found = wire.check(&RULE, 1_200_000);
        assert_eq!(codes(&found), ["wg-handshake-loss"]);
        let number = |name| {
            found[0]
                .evidence
                .get(name)
                .and_then(serde_json::Value::as_f64)
                .unwrap()
        };
        assert_eq!(
            (number("lost_attempts"), number("answered_attempts")),
            (5.0, 10.0)
        );
        assert!(number("loss_share_low") > 0.1 && number("loss_share_high") < 0.65);
        assert_eq!(number("longest_handshake_seconds"), 5.13);
    }

    #[test]
    fn one_retry_or_a_direction_that_was_not_captured_is_none() {
        let mut wire = Wire::new();
        wire.initiation(0, 1).initiation(5_100, 2).response(5_130, 2, 9);
        assert!(wire.check(&RULE, 60_000).is_empty());
        let mut wire = Wire::new();
        for n in 0..10 {
            wire.initiation(i64::from(n) * 120_000, n + 1);
        }
        assert!(wire.check(&RULE, 2_000_000).is_empty());
    }
}

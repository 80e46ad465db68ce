//! `wg-session-expired` in a capture: the last session that came about is too old, and attempts for a new one fail.

use super::CAPTURE;
use super::view::{Initiator, count, finding, initiators, secs};
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::time::Timestamp;
use crate::track::handshake::Outcome;
use crate::wire::wireguard::REJECT_AFTER_TIME;

/// The rule.
pub const RULE: Rule = Rule {
    needs: CAPTURE,
    explained_by: &[
        "wg-wrong-peer-key",
        "wg-unknown-initiator",
        "wg-clock-replay",
        "wg-endpoint-unreachable",
        "wg-handshake-timeout",
        "wg-response-lost",
    ],
    check,
    ..tunnel::SESSION_EXPIRED
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    initiators(input)
        .filter_map(|initiator| {
            let good = last_good(&initiator)?;
            let tries = initiator.silent_tries();
            let last = tries.last()?;
            let failed = tries
                .iter()
                .filter(|t| t.outcome(input.now()) != Outcome::Pending)
                .count() as u64;
            // Data is wanted (an attempt says so), and what there was can no longer carry it.
            let holds = failed > 0
                && last.at - good > REJECT_AFTER_TIME
                && !initiator.came_up_since(tries.first()?.at);
            holds.then(|| report(&initiator, good, (failed, last.at)))
        })
        .collect()
}

/// When the last session between the two began. Unknown, and so no finding, where the capture holds none.
fn last_good(i: &Initiator<'_>) -> Option<Timestamp> {
    let tunnel = i.tunnel()?;
    tunnel.newest_began()
}

fn report(i: &Initiator<'_>, good: Timestamp, (failed, last): (u64, Timestamp)) -> Finding {
    let levels = (Severity::Critical, Confidence::Certain);
    let mut f = finding(
        RULE.code,
        levels,
        i.subject(),
        (good + REJECT_AFTER_TIME, i.world.now),
    );
    f.title = format!(
        "The session of {} with {} has run out",
        i.end.address, i.responder
    );
    f.summary = format!(
        "The last handshake was {} before the last attempt, the limit is 3 min, and {} for a new one went unanswered.",
        secs(last - good),
        count(failed, "attempt")
    );
    f.impact = "Nothing passes between the two.".to_owned();
    f.evidence = Evidence::new()
        .with("last_handshake_age_seconds", (i.world.now - good).as_secs_f64())
        .with("reject_after_seconds", REJECT_AFTER_TIME.as_secs())
        .with("unanswered_attempts", failed);
    f.fixes = vec![Fix {
        title: "Find out why the handshake fails".to_owned(),
        why: "The session is over because no new one came about; that is the symptom.".to_owned(),
        command: Some(format!(
            "tcpdump -ni any -w responder.pcap udp port {}",
            i.responder.port()
        )),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Wire, codes};
    use super::*;

    #[test]
    fn attempts_after_three_minutes() {
        for (first_try, answered, expected) in [
            (200_000, false, vec!["wg-session-expired"]),
            (100_000, false, vec![]),
            (200_000, true, vec![]),
        ] {
            let mut wire = Wire::new();
            wire.initiation(0, 1).response(20, 1, 9).data(30, 9, 0);
            wire.initiation(first_try, 2).initiation(first_try + 5_200, 3);
            if answered {
                wire.response(first_try + 5_220, 3, 10);
            }
            assert_eq!(
                codes(&wire.check(&RULE, first_try + 6_000)),
                expected,
                "{first_try} {answered}"
            );
        }
        // A capture that starts in the middle does not know how old the session is.
        let mut wire = Wire::new();
        (0..5).for_each(|n| {
            wire.data(n * 100, 9, 1_000 + n.unsigned_abs());
        });
        wire.initiation(200_000, 2).initiation(205_200, 3);
        assert!(wire.check(&RULE, 212_000).is_empty());
    }
}

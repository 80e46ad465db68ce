//! `wg-handshake-timeout` in a capture: an initiator retries and nothing that it accepts comes back.

use super::CAPTURE;
use super::view::{Initiator, count, finding, initiators, secs};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::track::handshake::{Attempt, Outcome};

/// The rule.
pub const RULE: Rule = Rule {
    needs: CAPTURE,
    explained_by: &[
        "wg-endpoint-unreachable",
        "wg-wrong-peer-key",
        "wg-unknown-initiator",
        "wg-clock-replay",
        "wg-response-lost",
    ],
    check,
    ..tunnel::HANDSHAKE_TIMEOUT
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = usize::try_from(input.thresholds.unanswered_attempts).unwrap_or(usize::MAX);
    initiators(input)
        .filter_map(|initiator| {
            let tries = initiator.silent_tries();
            let (first, last) = (tries.first().copied()?, tries.last().copied()?);
            // A retry says that the attempt before it is over; only the last may still have time.
            let pending = last.outcome(input.now()) == Outcome::Pending;
            let over = tries.len() - usize::from(pending);
            let holds = over >= needed && !initiator.came_up_since(first.at);
            holds.then(|| report(&initiator, &tries, (first, last)))
        })
        .collect()
}

fn report(i: &Initiator<'_>, tries: &[&Attempt], (first, last): (&Attempt, &Attempt)) -> Finding {
    let levels = (Severity::Critical, Confidence::Certain);
    let mut f = finding(RULE.code, levels, i.subject(), (first.at, i.world.now));
    let n = tries.len() as u64;
    let worked = i.end.last_answer;
    f.count = u32::try_from(n).unwrap_or(u32::MAX);
    f.title = format!("{} gets no handshake answer from {}", i.end.address, i.responder);
    f.summary = format!(
        "{} in {} to {}, and no answer in this capture. {}",
        count(n, "initiation"),
        secs(last.at - first.at),
        i.responder,
        match worked {
            Some(at) => format!(
                "The last one that was answered was {} before.",
                secs(first.at - at)
            ),
            None => "None was answered before either.".to_owned(),
        }
    );
    f.impact = "When the session before it is 180 s old, nothing passes between the two.".to_owned();
    f.evidence = Evidence::new()
        .with("unanswered_attempts", n)
        .with("first_attempt", first.at.to_string())
        .with("last_attempt", last.at.to_string())
        .with("attempts_in_all", i.end.messages.initiations)
        .with("answered_in_all", i.end.answered)
        .maybe(
            "retry_spacing_seconds",
            i.end.retry_spacing().map(|s| s.as_secs_f64()),
        )
        .maybe("last_answer", worked.map(|at| at.to_string()))
        .maybe(
            "last_data_from_responder",
            i.heard_from_responder().map(|at| at.to_string()),
        );
    f.candidates = candidates(i, first);
    f.fixes = vec![Fix {
        title: "Capture on the responder's host while the initiator tries".to_owned(),
        why: "Nothing arrives: the way there. 148 bytes arrive and no 92 bytes leave: keys or clock. They leave: the \
              way back."
            .to_owned(),
        command: Some(format!("tcpdump -ni any -w responder.pcap udp port {}", i.responder.port())),
        ..Fix::default()
    }];
    f
}

/// What the silence leaves open.
fn candidates(i: &Initiator<'_>, first: &Attempt) -> Vec<Candidate> {
    let candidate = |cause: &str, code, settle: &str| Candidate {
        cause: cause.to_owned(),
        code,
        settle: settle.to_owned(),
    };
    let way_back_open = i.heard_from_responder().is_some_and(|at| at > first.at);
    let had_cookie = i.end.cookies > 0;
    let mut candidates = Vec::new();
    if !way_back_open && !had_cookie {
        candidates.push(candidate(
            "the way is blocked: UDP is dropped there or back, or the responder is off",
            None,
            "a capture on the responder's host shows whether initiations arrive and responses leave",
        ));
    }
    if i.end.answered == 0 {
        candidates.push(candidate(
            "the initiator has another public key for the responder",
            Some("wg-wrong-peer-key"),
            "compare `wg show all public-key` there with the peer's PublicKey here",
        ));
    }
    candidates.push(candidate(
        "the responder does not know the initiator's key (any more)",
        Some("wg-unknown-initiator"),
        "`wg show all peers` on the responder must list the initiator's public key",
    ));
    candidates.push(candidate(
        "the initiator's clock went back, so its messages look like replays",
        Some("wg-clock-replay"),
        "compare `date -u` on both; after a restart without a clock battery, set the clock before WireGuard starts",
    ));
    candidates
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Wire, codes};
    use super::*;

    #[test]
    fn retries_without_an_answer() {
        let mut wire = Wire::new();
        for (n, at) in (1..).zip([0, 5_100, 10_300, 15_500]) {
            wire.initiation(at, n);
        }
        let found = wire.check(&RULE, 22_000);
        assert_eq!(codes(&found), ["wg-handshake-timeout"]);
        assert_eq!((found[0].severity, found[0].count), (Severity::Critical, 4));
        assert_eq!(found[0].candidates.len(), 4);
        // The third went out before the second's time was up, by a jitter that is shorter than it can be.
        let mut wire = Wire::new();
        wire.initiation(0, 1).initiation(5_190, 2).initiation(10_370, 3);
        assert_eq!(codes(&wire.check(&RULE, 10_370)), ["wg-handshake-timeout"]);
        // The last of two still has time.
        let mut wire = Wire::new();
        wire.initiation(0, 1).initiation(5_100, 2);
        assert!(wire.check(&RULE, 6_000).is_empty());
    }

    #[test]
    fn what_is_answered_or_not_retried_is_none() {
        let mut wire = Wire::new();
        wire.initiation(0, 1).initiation(5_100, 2).response(5_120, 2, 9);
        assert!(wire.check(&RULE, 60_000).is_empty());
        // A capture of one direction: rekeys every two minutes, never a response in sight.
        let mut wire = Wire::new();
        for n in 0..5 {
            wire.initiation(i64::from(n) * 120_000, n + 1);
            for c in 0..10 {
                wire.data(i64::from(n) * 120_000 + 50 + c, n + 100, c.unsigned_abs());
            }
        }
        assert!(wire.check(&RULE, 600_000).is_empty());
    }

    #[test]
    fn what_worked_before_excludes_keys() {
        let mut wire = Wire::new();
        wire.initiation(0, 1).response(20, 1, 9);
        wire.initiation(120_000, 2)
            .initiation(125_100, 3)
            .initiation(130_400, 4);
        let found = wire.check(&RULE, 140_000);
        assert_eq!(codes(&found), ["wg-handshake-timeout"]);
        assert!(
            found[0]
                .candidates
                .iter()
                .all(|c| c.code != Some("wg-wrong-peer-key"))
        );
    }
}

//! `wg-one-way` by a probe: the handshake passes, and nothing that is asked through the tunnel is answered.

use super::PROBE;
use super::view::{count, finding, place, probes};
use crate::finding::{Candidate, Confidence, Finding, Severity};
use crate::rules::{Input, Rule, tunnel};
use crate::track::probes::Probe;

/// The rule.
pub const RULE: Rule = Rule {
    needs: PROBE,
    explained_by: &["wg-mtu-blackhole"],
    check,
    ..tunnel::ONE_WAY
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    probes(input).filter(|p| swallowed(p)).map(report).collect()
}

fn swallowed(probe: &Probe) -> bool {
    let asked = probe.inner.iter().filter(|i| i.sent > 0).count();
    let reached = probe.mtu.as_ref().is_some_and(|m| m.passes.is_some());
    probe.works() && asked > 0 && !reached && probe.inner.iter().all(|i| i.answered == 0)
}

fn report(probe: &Probe) -> Finding {
    // What was asked may filter it: a hint.
    let mut f = finding(RULE.code, (Severity::Warning, Confidence::Possible), probe);
    let sent: u64 = probe.inner.iter().map(|i| u64::from(i.sent)).sum();
    f.title = format!(
        "{} shakes hands, but nothing inside the tunnel answers",
        place(probe)
    );
    f.summary = format!(
        "{} went through the tunnel and none was answered.",
        count(sent, "question")
    );
    f.impact = "As far as was asked, the tunnel carries nothing back.".to_owned();
    f.evidence = f.evidence.with("asked_inside", sent).with("answered_inside", 0);
    let candidate = |cause: &str, code, settle: String| Candidate {
        cause: cause.to_owned(),
        code,
        settle,
    };
    f.candidates = vec![
        candidate(
            "The peer's AllowedIPs for our key do not hold the address that we ask from",
            Some("wg-allowed-ips-conflict"),
            format!(
                "On the peer: `wg show all allowed-ips` beside {}",
                probe.target.local_public_key
            ),
        ),
        candidate(
            "What was asked is not there, or a firewall on the peer's host drops it",
            None,
            "Ask the peer's own address in the tunnel, or capture on its WireGuard device".to_owned(),
        ),
        candidate(
            "Data is dropped on the way although handshakes pass",
            None,
            "On the peer: `wg show all transfer` counts what arrives".to_owned(),
        ),
    ];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, millis};
    use super::*;
    use crate::observation::probe::{Fact, Inner, InnerKind, Outcome};

    #[test]
    fn all_questions_without_an_answer() {
        let ask = |answered| {
            Fact::Inner(Inner {
                kind: InnerKind::Ping,
                target: "10.0.0.1".to_owned(),
                sent: 4,
                answered,
                rtts: Vec::new(),
                answer: None,
                error: None,
            })
        };
        let mut probed = Probed::new();
        probed.fact(ask(0));
        assert!(
            probed.check(&RULE).is_empty(),
            "without a handshake it is another matter"
        );
        probed.attempt(Outcome::Answered { rtt: millis(20) });
        let found = probed.check(&RULE);
        assert_eq!(codes(&found), ["wg-one-way"]);
        assert_eq!(
            (found[0].severity, found[0].confidence),
            (Severity::Warning, Confidence::Possible)
        );
        probed.fact(ask(1));
        assert!(probed.check(&RULE).is_empty());
    }
}

//! `wg-handshake-loss` by a probe: a share of our initiations is answered, a share is not.

use super::PROBE;
use super::view::{finding, place, probes};
use crate::finding::{Confidence, Finding, Fix, Severity};
use crate::rules::captured::HANDSHAKE_LOSS;
use crate::rules::{Input, Rule};
use crate::track::probes::Probe;
use crate::track::stats::wilson;

/// The rule.
pub const RULE: Rule = Rule {
    needs: PROBE,
    explained_by: &["wg-under-load"],
    check,
    ..HANDSHAKE_LOSS
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = u64::from(input.thresholds.unanswered_attempts);
    probes(input)
        .filter(|p| lost(p) >= needed && p.tally().heard() > 0)
        .map(report)
        .collect()
}

/// Unanswered initiations, but for the first where the peer called back or answers since: a gateway that installs its
/// peers on demand takes that one for it.
fn lost(probe: &Probe) -> u64 {
    probe.tally().silent
}

fn report(probe: &Probe) -> Finding {
    let t = probe.tally();
    let all = t.silent + t.heard();
    let share = t.silent as f64 / all as f64;
    let (low, high) = wilson(t.silent, all).unwrap_or((0.0, 1.0));
    let mut f = finding(RULE.code, (Severity::Warning, Confidence::Certain), probe);
    f.count = u32::try_from(t.silent).unwrap_or(u32::MAX);
    f.title = format!("Handshakes with {} are lost in part", place(probe));
    f.summary = format!(
        "{} of {all} initiations got no answer: {:.0} % lost (95 % sure: {:.0} to {:.0} %).",
        t.silent,
        share * 100.0,
        low * 100.0,
        high * 100.0
    );
    f.impact = "Each loss delays a session by 5 s.".to_owned();
    f.evidence = f
        .evidence
        .with("loss_share", share)
        .with("loss_share_low", low)
        .with("loss_share_high", high);
    f.fixes = vec![Fix {
        title: "Find where packets are lost: capture on both hosts while this runs with a larger --count".to_owned(),
        why: "An initiation that leaves and does not arrive is lost on the way there; a response, on the way back.".to_owned(),
        command: None,
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, millis, secs};
    use super::*;
    use crate::observation::probe::Outcome;

    #[test]
    fn a_part_is_lost() {
        let mut probed = Probed::new();
        for n in 0..10 {
            probed.attempt(match n % 3 {
                0 => Outcome::Silent { waited: secs(5) },
                _ => Outcome::Answered { rtt: millis(20) },
            });
        }
        let found = probed.check(&RULE);
        assert_eq!(codes(&found), ["wg-handshake-loss"]);
        assert_eq!(
            found[0].evidence.get("loss_share").and_then(|v| v.as_f64()),
            Some(0.4)
        );
        let mut probed = Probed::new();
        for _ in 0..5 {
            probed.attempt(Outcome::Silent { waited: secs(5) });
        }
        assert!(probed.check(&RULE).is_empty(), "that is a time-out");
    }
}

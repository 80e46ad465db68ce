//! `wg-response-rejected` by a probe: responses come, for this very initiation and our key, and do not authenticate.

use super::PROBE;
use super::view::{count, finding, place, probes};
use crate::finding::{Confidence, Finding, Fix, Severity};
use crate::rules::{Input, Rule, captured};
use crate::track::probes::Probe;

/// The rule.
pub const RULE: Rule = Rule {
    needs: PROBE,
    explained_by: &[],
    check,
    ..captured::RESPONSE_REJECTED
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    probes(input)
        .filter(|p| p.tally().preshared_key_differs > 0 && !p.works())
        .map(report)
        .collect()
}

fn report(probe: &Probe) -> Finding {
    let mut f = finding(RULE.code, (Severity::Critical, Confidence::Certain), probe);
    let n = probe.tally().preshared_key_differs;
    let here = match probe.target.has_preshared_key {
        true => "one is set here",
        false => "none is set here",
    };
    f.count = u32::try_from(n).unwrap_or(u32::MAX);
    f.title = format!("{} has another preshared key", place(probe));
    f.summary = format!(
        "{} came back, made for our initiation and for our public key, and none authenticates. The peer has both public keys \
         right, or it would have been silent; only the preshared key is mixed in after that ({here}).",
        count(n, "response")
    );
    f.impact = "No session comes up with this peer.".to_owned();
    f.fixes = vec![Fix {
        title: "Give both sides the same preshared key, or neither".to_owned(),
        why: "It is the only thing that is left to differ.".to_owned(),
        command: Some(format!(
            "wg set DEVICE peer {} preshared-key FILE",
            probe.target.public_key
        )),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes, millis};
    use super::*;
    use crate::observation::probe::Outcome;

    #[test]
    fn a_response_that_does_not_authenticate_is_certain() {
        let mut probed = Probed::new();
        let rtt = millis(20);
        probed.attempt(Outcome::PresharedKeyDiffers { rtt });
        let found = probed.check(&RULE);
        assert_eq!(codes(&found), ["wg-response-rejected"]);
        assert_eq!(
            (found[0].severity, found[0].confidence),
            (Severity::Critical, Confidence::Certain)
        );
        // A key that was changed meanwhile.
        probed.attempt(Outcome::Answered { rtt });
        assert!(probed.check(&RULE).is_empty());
    }
}

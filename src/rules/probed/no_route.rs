//! `wg-no-route` by a probe: this host itself does not know the way.

use super::PROBE;
use super::view::{finding, place, probes};
use crate::finding::{Confidence, Finding, Fix, Severity};
use crate::observation::probe::Outcome;
use crate::rules::{Input, Rule, tunnel};
use crate::track::probes::Probe;

/// ENETUNREACH and EHOSTUNREACH (include/uapi/asm-generic/errno.h): no route, or one that says "unreachable".
const NO_ROUTE: [i32; 2] = [101, 113];

/// The rule.
pub const RULE: Rule = Rule {
    needs: PROBE,
    explained_by: &[],
    check,
    ..tunnel::NO_ROUTE
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    probes(input)
        .filter(|p| p.tally().sent == 0)
        .filter_map(report)
        .collect()
}

fn report(probe: &Probe) -> Option<Finding> {
    let (errno, error) = probe.attempts.iter().find_map(|a| match &a.outcome {
        Outcome::NotSent { errno, error } if NO_ROUTE.contains(errno) => Some((errno, error)),
        _ => None,
    })?;
    let mut f = finding(RULE.code, (Severity::Critical, Confidence::Certain), probe);
    f.title = format!("This host has no route to {}", place(probe));
    f.summary = format!("The kernel refused to send the initiation: {error}.");
    f.impact = "Nothing leaves for this peer.".to_owned();
    f.evidence = f.evidence.with("errno", *errno);
    let to = probe
        .target
        .address
        .map_or_else(String::new, |a| a.ip().to_string());
    f.fixes = vec![Fix {
        title: "Bring up the interface that leads there, or add a route".to_owned(),
        why: "Without one the kernel sends nothing.".to_owned(),
        command: Some(format!("ip route get {to}")),
        ..Fix::default()
    }];
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Probed, codes};
    use super::*;

    #[test]
    fn only_what_the_kernel_calls_unreachable() {
        for (errno, expected) in [(101, &["wg-no-route"][..]), (113, &["wg-no-route"]), (1, &[])] {
            let mut probed = Probed::new();
            probed.attempt(Outcome::NotSent {
                errno,
                error: "an error".to_owned(),
            });
            assert_eq!(codes(&probed.check(&RULE)), expected);
        }
    }
}

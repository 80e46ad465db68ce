//! `fly-toml-limit-order`: limits that leave the proxy no choice.

use super::{FLY_TOML, finding, lines, named, read};
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::fly_toml::{Concurrency, FlyTomlFacts, Service};
use crate::rules::{Area, Input, Rule};
use crate::words::count;

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-limit-order",
    area: Area::Fly,
    severity: "warning; info where both limits are the same",
    holds_when: "`soft_limit` of a service is not below its `hard_limit`, or `hard_limit` is 0",
    meaning: "From the soft limit on the proxy prefers other machines, and wakes stopped ones; at the hard limit it sends nothing more. Where the \
              soft one is not below, a machine goes from preferred to closed at once: nobody is woken in time, and requests queue.",
    detection: "Read from the file. Where `soft_limit` is not set, Fly takes 20.",
    fix: "A soft limit of about four fifths of the hard one.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

/// Fly's default (its reference, `services.concurrency`).
const SOFT_DEFAULT: u32 = 20;

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let limited = facts
        .file
        .services
        .iter()
        .filter_map(|s| Some((s, s.concurrency?)));
    limited
        .filter_map(|(service, limits)| judge(input, facts, service, limits))
        .collect()
}

fn judge(input: &Input<'_>, facts: &FlyTomlFacts, service: &Service, limits: Concurrency) -> Option<Finding> {
    let hard = limits.hard?;
    let soft = limits.soft.map_or(SOFT_DEFAULT, |told| told.value);
    if soft < hard.value {
        return None;
    }
    let severity = if soft == hard.value && hard.value > 0 {
        Severity::Info
    } else {
        Severity::Warning
    };
    let mut f = finding(input, RULE.code, facts, hard.line, severity, Confidence::Certain);
    let default = if limits.soft.is_none() {
        " (Fly's default)"
    } else {
        ""
    };
    f.evidence = f.evidence.with("soft_limit", soft).with("hard_limit", hard.value);
    if hard.value == 0 {
        f.title = format!("Port {} gets no requests: its hard limit is 0", service.port());
        f.summary = format!(
            "hard_limit of {} is 0: every machine is at it at once.",
            named(service)
        );
        f.impact = "The proxy sends nothing to this service.".to_owned();
    } else {
        f.title = format!(
            "The soft limit of port {} is not below its hard limit",
            service.port()
        );
        f.summary = format!(
            "soft_limit of {} is {}{default} and hard_limit {}: a machine goes from preferred to closed at once.",
            named(service),
            count(soft),
            count(hard.value)
        );
        f.impact = "Other machines are woken too late, and requests queue at the proxy.".to_owned();
    }
    // What the machine stands is what its owner meant by the larger number.
    let top = hard
        .value
        .max(if limits.soft.is_some() { soft } else { hard.value })
        .max(5);
    f.fixes = vec![lines(
        format!("Leave room between the two, at line {}", limits.line),
        "The hard limit is what one machine stands; from four fifths of it on, others are preferred.",
        format!(
            "    soft_limit = {}\n    hard_limit = {top}",
            (u64::from(top) * 4 / 5).max(1)
        ),
    )];
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;
    use super::*;

    #[test]
    fn only_a_soft_limit_that_is_not_below_the_hard_one() {
        for (limits, expected) in [
            (
                "soft_limit = 30\nhard_limit = 25",
                Some((Severity::Warning, "soft_limit = 24")),
            ),
            (
                "soft_limit = 25\nhard_limit = 25",
                Some((Severity::Info, "soft_limit = 20")),
            ),
            ("hard_limit = 10", Some((Severity::Warning, "soft_limit = 8"))),
            (
                "soft_limit = 0\nhard_limit = 0",
                Some((Severity::Warning, "hard_limit = 5")),
            ),
            ("soft_limit = 20\nhard_limit = 25", None),
            ("soft_limit = 2000", None),
            ("hard_limit = 21", None),
            ("type = \"requests\"", None),
        ] {
            let toml = format!("[http_service]\n[http_service.concurrency]\n{limits}\n");
            let found = found(&RULE, &toml);
            let got = found
                .first()
                .map(|f| (f.severity, f.fixes[0].snippet.clone().unwrap()));
            match (got, expected) {
                (None, None) => {}
                (Some((severity, snippet)), Some((wanted, part))) => {
                    assert_eq!(severity, wanted, "{limits}");
                    assert!(snippet.contains(part), "{snippet}");
                }
                (got, wanted) => panic!("{limits}: {got:?}, expected {wanted:?}"),
            }
        }
    }

    #[test]
    fn old_files_have_both_in_one_text() {
        assert_eq!(found(&RULE, "[[services]]\nconcurrency = \"30,25\"\n").len(), 1);
        assert!(found(&RULE, "[[services]]\nconcurrency = \"20,25\"\n").is_empty());
    }
}

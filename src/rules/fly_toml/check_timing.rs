//! `fly-toml-check-timing`: a health check whose times do not fit together.

use super::{FLY_TOML, finding, lines, read};
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::fly_toml::{Check, FlyTomlFacts};
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::words::{rounded, seconds};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-check-timing",
    area: Area::Fly,
    severity: "warning; info for an interval that is merely long",
    holds_when: "a health check of fly.toml has times that do not fit: milliseconds for seconds, a time-out not below the interval, an interval of minutes",
    meaning: "A check that must be answered within milliseconds fails on a healthy machine; one whose time-out is not below its interval is \
              still waiting when the next is due, so that a machine that hangs is noticed late; and with a long interval requests go to a dead \
              machine for as long.",
    detection: "Read from the file. A bare number is milliseconds to Fly: a time below 0.1 s (`fly_check_shortest`) is taken for a forgotten \
                unit. Intervals over a minute (`fly_check_interval`) are told as info. Times that are not set are not judged.",
    fix: "Write times with a unit; as a rule `interval = \"15s\"`, `timeout = \"2s\"` and a `grace_period` that is longer than the app takes to \
          start.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let of_services = facts.file.services.iter().flat_map(|s| &s.checks);
    of_services
        .chain(&facts.file.checks)
        .filter_map(|check| judge(input, facts, check))
        .collect()
}

fn judge(input: &Input<'_>, facts: &FlyTomlFacts, check: &Check) -> Option<Finding> {
    let thresholds = input.thresholds;
    let interval = check.interval.map(|told| (told.value.0, told.line));
    let timeout = check.timeout.map(|told| (told.value.0, told.line));
    let grace = check.grace.map(|told| (told.value.0, told.line));
    let short = |told: &(Span, u32)| !told.0.is_zero() && told.0 < thresholds.fly_check_shortest;
    let tiny = [
        ("interval", interval),
        ("timeout", timeout),
        ("grace_period", grace),
    ]
    .into_iter()
    .find_map(|(key, told)| told.filter(short).map(|told| (key, told)));
    let found = |line, severity, confidence| finding(input, RULE.code, facts, line, severity, confidence);
    let section = &check.section;
    if let Some((key, (span, line))) = tiny {
        let millis = span.as_secs_f64() * 1e3;
        let mut f = found(line, Severity::Warning, Confidence::Likely);
        f.title = format!("A health check's {key} is {} ms", crate::words::number(millis));
        f.summary = format!(
            "{key} of {section} (line {line}) is {} ms: Fly takes a number without a unit for milliseconds.",
            crate::words::number(millis)
        );
        f.evidence = f.evidence.with("milliseconds", rounded(millis));
        f.impact = match key {
            "timeout" => "The check fails on a healthy machine, which then gets no requests.",
            "interval" => "The machine is asked many times a second.",
            _ => "The check begins before the app can have started.",
        }
        .to_owned();
        f.fixes = vec![lines(
            format!("Write the unit in line {line}"),
            "If seconds were meant.",
            format!("    {key} = \"{}s\"", crate::words::number(millis)),
        )];
        return Some(f);
    }
    if let (Some((interval, _)), Some((timeout, line))) = (interval, timeout)
        && timeout >= interval
        && !interval.is_zero()
    {
        let mut f = found(line, Severity::Warning, Confidence::Likely);
        f.title = "A health check waits longer than from one check to the next".to_owned();
        f.summary = format!(
            "{section} (line {}) waits {} for an answer and is due every {}: it is still waiting when the next is due.",
            check.line,
            seconds(timeout.as_secs_f64()),
            seconds(interval.as_secs_f64())
        );
        f.evidence = f
            .evidence
            .with("interval_seconds", rounded(interval.as_secs_f64()))
            .with("timeout_seconds", rounded(timeout.as_secs_f64()));
        f.impact = "A machine that hangs is noticed late.".to_owned();
        let below = (interval.as_secs_f64() / 3.0).clamp(0.5, 5.0);
        let below = if below < 1.0 {
            "500ms".to_owned()
        } else {
            format!("{}s", below.floor())
        };
        f.fixes = vec![lines(
            format!("Wait less, in line {line}"),
            "An answer that takes longer than this is no use to anybody; keep it well below the interval.",
            format!("    timeout = \"{below}\""),
        )];
        return Some(f);
    }
    let (interval, line) = interval.filter(|(span, _)| *span > thresholds.fly_check_interval)?;
    let mut f = found(line, Severity::Info, Confidence::Certain);
    f.title = format!(
        "A health check is made every {} only",
        seconds(interval.as_secs_f64())
    );
    f.summary = format!(
        "{section} (line {}) is due every {}: for as long, requests go to a machine that has died.",
        check.line,
        seconds(interval.as_secs_f64())
    );
    f.evidence = f
        .evidence
        .with("interval_seconds", rounded(interval.as_secs_f64()));
    f.impact = "A dead machine gets requests until the next check.".to_owned();
    f.fixes = vec![lines(
        format!("Check more often, in line {line}"),
        "A check costs one small request.",
        "    interval = \"15s\"",
    )];
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;
    use super::*;

    #[test]
    fn times_that_do_not_fit() {
        for (times, expected) in [
            (
                "interval = 30\ntimeout = 5",
                Some((Severity::Warning, 3, "\"30s\"")),
            ),
            (
                "interval = \"30s\"\ntimeout = 5",
                Some((Severity::Warning, 4, "\"5s\"")),
            ),
            (
                "interval = \"15s\"\ngrace_period = 10",
                Some((Severity::Warning, 4, "\"10s\"")),
            ),
            (
                "interval = \"10s\"\ntimeout = \"10s\"",
                Some((Severity::Warning, 4, "timeout = \"3s\"")),
            ),
            (
                "interval = \"1s\"\ntimeout = \"2s\"",
                Some((Severity::Warning, 4, "\"500ms\"")),
            ),
            (
                "interval = \"5m\"\ntimeout = \"2s\"",
                Some((Severity::Info, 3, "\"15s\"")),
            ),
            ("interval = \"60s\"\ntimeout = \"2s\"", None),
            ("interval = \"10s\"\ntimeout = \"9s\"", None),
            ("interval = 10000\ntimeout = 2000", None),
            ("interval = \"10s\"\ngrace_period = \"0s\"", None),
            ("timeout = \"10s\"", None),
        ] {
            for toml in [
                format!("[http_service]\n[[http_service.checks]]\n{times}\n"),
                format!("[[services]]\n[[services.tcp_checks]]\n{times}\n"),
                format!("\n[checks.x]\n{times}\nport = 1\ntype = \"tcp\"\n"),
            ] {
                let found = found(&RULE, &toml);
                assert_eq!(found.len(), usize::from(expected.is_some()), "{toml}");
                let Some((severity, line, snippet)) = expected else {
                    continue;
                };
                assert_eq!(found[0].severity, severity, "{toml}");
                assert_eq!(found[0].evidence.get("line"), Some(&line.into()), "{toml}");
                let told = found[0].fixes[0].snippet.as_ref().unwrap();
                assert!(told.contains(snippet), "{told}");
            }
        }
    }
}

//! `fly-toml-check-target`: a health check that cannot pass, or that Fly does not take.

use super::{FLY_TOML, finding, lines, named, read};
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::fly_toml::{Check, CheckKind, FlyTomlFacts};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-check-target",
    area: Area::Fly,
    severity: "warning",
    holds_when: "a health check of fly.toml asks for nothing that can answer: a path without a slash, no port or type under `[checks]`, a check over TCP of a UDP service",
    meaning: "A check that cannot pass takes the machine out of service, or stops the deployment, though the app is well.",
    detection: "Read from the file. A path must begin with a slash (RFC 9112, 3.2.1); a check under `[checks]` must name its port and its type \
                (Fly's reference); a check of a `[[services]]` section with `protocol = \"udp\"` asks over TCP on the same port, where as a rule \
                nothing listens: that last one is possible only, for an app may serve both.",
    fix: "Correct the line that the finding names.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let file = &facts.file;
    let of_services = file.services.iter().flat_map(|s| &s.checks);
    let mut all: Vec<Finding> = of_services
        .chain(&file.checks)
        .filter_map(|check| path(input, facts, check))
        .collect();
    all.extend(
        file.checks
            .iter()
            .filter_map(|check| incomplete(input, facts, check)),
    );
    for service in file.services.iter().filter(|service| service.udp) {
        let Some(check) = service.checks.first() else {
            continue;
        };
        let mut f = finding(
            input,
            RULE.code,
            facts,
            check.line,
            Severity::Warning,
            Confidence::Possible,
        );
        f.title = format!("A UDP service is checked over TCP, on port {}", service.port());
        f.summary = format!(
            "{} speaks UDP, and {} (line {}) connects over TCP to the same port.",
            named(service),
            check.section,
            check.line
        );
        f.evidence = f.evidence.with("internal_port", service.port());
        f.impact = "Unless the app listens there over TCP too, the check never passes.".to_owned();
        f.candidates = vec![crate::finding::Candidate {
            cause: "Nothing listens over TCP on that port".to_owned(),
            code: None,
            settle: format!(
                "in the machine: ss -Htln 'sport = :{}'; or `fly checks list`",
                service.port()
            ),
        }];
        f.fixes = vec![lines(
            format!(
                "Check something that is served over TCP, in place of line {}",
                check.line
            ),
            "A check under [checks] has a port of its own; it tells of health and does not steer datagrams.",
            "[checks.alive]\n  type = \"tcp\"\n  port = 8080    # one that the app serves over TCP\n  interval = \"15s\"\n  timeout = \
             \"2s\"\n  grace_period = \"10s\"",
        )];
        all.push(f);
    }
    all
}

fn path(input: &Input<'_>, facts: &FlyTomlFacts, check: &Check) -> Option<Finding> {
    let path = check.path.as_ref().filter(|path| !path.value.starts_with('/'))?;
    if check.kind == Some(CheckKind::Tcp) {
        return None;
    }
    let mut f = finding(
        input,
        RULE.code,
        facts,
        path.line,
        Severity::Warning,
        Confidence::Certain,
    );
    f.title = "A health check asks for a path without a slash".to_owned();
    f.summary = format!(
        "{} (line {}) asks for {:?}. A path begins with a slash.",
        check.section, check.line, path.value
    );
    f.impact = "The request is none that an HTTP server answers with 2xx: the check fails.".to_owned();
    // What is written may be a whole URL: then its path is meant.
    let after_host = path
        .value
        .split_once("://")
        .map_or(path.value.as_str(), |(_, rest)| {
            rest.split_once('/').map_or("", |(_, path)| path)
        });
    f.fixes = vec![lines(
        format!("Begin it with a slash, in line {}", path.line),
        "The host is the machine itself.",
        format!("    path = {:?}", format!("/{after_host}")),
    )];
    Some(f)
}

fn incomplete(input: &Input<'_>, facts: &FlyTomlFacts, check: &Check) -> Option<Finding> {
    let missing: Vec<&str> = [
        check.port.is_none().then_some("port"),
        check.kind.is_none().then_some("type"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if missing.is_empty() {
        return None;
    }
    let mut f = finding(
        input,
        RULE.code,
        facts,
        check.line,
        Severity::Warning,
        Confidence::Certain,
    );
    f.title = format!(
        "{} has no {} that Fly takes",
        check.section,
        missing.join(" and no ")
    );
    f.summary = format!(
        "{} (line {}) lacks {}. A check under [checks] belongs to no service, so it must say both.",
        check.section,
        check.line,
        missing.join(" and ")
    );
    f.evidence = f.evidence.with("missing", missing.join(" "));
    f.impact = "`fly deploy` refuses the file.".to_owned();
    let port = facts.file.services.first().map_or(8080, |service| service.port());
    let add: Vec<String> = missing
        .iter()
        .map(|key| match (*key, check.path.is_some()) {
            ("port", _) => format!("  port = {port}"),
            (_, true) => "  type = \"http\"".to_owned(),
            (_, false) => "  type = \"tcp\"    # or \"http\", with a path".to_owned(),
        })
        .collect();
    f.fixes = vec![lines(
        format!("Say it, below line {}", check.line),
        "Fly's reference asks for both.",
        add.join("\n"),
    )];
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;
    use super::*;

    #[test]
    fn checks_that_cannot_pass() {
        for (toml, expected) in [
            (
                "[http_service]\n[[http_service.checks]]\npath = \"up\"\n",
                Some((3, Confidence::Certain, "\"/up\"")),
            ),
            (
                "[[services]]\n[[services.http_checks]]\npath = \"http://localhost:8080/a/b\"\n",
                Some((3, Confidence::Certain, "\"/a/b\"")),
            ),
            (
                "[checks.x]\nport = 80\ninterval = \"9s\"\n",
                Some((1, Confidence::Certain, "type = \"tcp\"")),
            ),
            (
                "[checks.x]\ntype = \"http\"\npath = \"/\"\n[http_service]\ninternal_port = 3000\n",
                Some((1, Confidence::Certain, "port = 3000")),
            ),
            (
                "[[services]]\nprotocol = \"udp\"\n[[services.tcp_checks]]\ninterval = \"9s\"\n",
                Some((3, Confidence::Possible, "[checks.alive]")),
            ),
            ("[http_service]\n[[http_service.checks]]\npath = \"/up\"\n", None),
            (
                "[http_service]\n[[http_service.checks]]\ninterval = \"9s\"\n",
                None,
            ),
            ("[checks.x]\ntype = \"tcp\"\nport = 80\n", None),
            ("[[services]]\n[[services.tcp_checks]]\ninterval = \"9s\"\n", None),
            ("[[services]]\nprotocol = \"udp\"\n", None),
        ] {
            let found = found(&RULE, toml);
            assert_eq!(found.len(), usize::from(expected.is_some()), "{toml}");
            let Some((line, confidence, snippet)) = expected else {
                continue;
            };
            assert_eq!(found[0].evidence.get("line"), Some(&line.into()), "{toml}");
            assert_eq!(
                (found[0].confidence, found[0].severity),
                (confidence, Severity::Warning)
            );
            let told = found[0].fixes[0].snippet.as_ref().unwrap();
            assert!(told.contains(snippet), "{told}");
        }
    }
}

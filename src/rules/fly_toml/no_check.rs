//! `fly-toml-no-check`: a service that nobody checks.

use super::{FLY_TOML, finding, lines, named, read, section};
use crate::finding::{Confidence, Finding, Fix, Severity};
use crate::observation::fly_toml::{FlyTomlFacts, Section, Service};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-no-check",
    area: Area::Fly,
    severity: "info",
    holds_when: "a TCP or HTTP service of fly.toml has no health check of its own",
    meaning: "Fly's proxy takes a machine without service checks for healthy as soon as it has started. Requests go to machines that are \
              still starting or that hang, and a deployment goes on though the new version does not answer.",
    detection: "Read from the file. Checks under `[checks]` are told of, but do not count: they do not change where requests go. UDP services \
                cannot be checked and are left alone.",
    fix: "Add the lines that the finding shows: an HTTP check of a path that answers 2xx without a redirect, or a TCP check for what is not \
          HTTP.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let unchecked = facts
        .file
        .services
        .iter()
        .filter(|s| !s.udp && s.checks.is_empty());
    unchecked.map(|service| judge(input, facts, service)).collect()
}

fn judge(input: &Input<'_>, facts: &FlyTomlFacts, service: &Service) -> Finding {
    let mut f = finding(
        input,
        RULE.code,
        facts,
        service.line,
        Severity::Info,
        Confidence::Certain,
    );
    f.title = format!("No health check for port {}", service.port());
    f.summary = format!(
        "{} has no health check: the proxy sends requests to a machine as soon as it has started.{}",
        named(service),
        if facts.file.checks.is_empty() {
            ""
        } else {
            " The checks under [checks] do not change that: they do not steer requests."
        }
    );
    f.evidence = f.evidence.with("internal_port", service.port());
    f.impact = "Requests reach machines that are not ready or that hang.".to_owned();
    f.fixes = vec![fix(service)];
    f
}

fn fix(service: &Service) -> Fix {
    let place = match service.section {
        Section::HttpService => "Anywhere in the file".to_owned(),
        Section::Services => format!("Below line {}, before the next [[services]]", service.line),
    };
    let name = match (service.section, service.http()) {
        (Section::HttpService, _) => "checks",
        (Section::Services, true) => "http_checks",
        (Section::Services, false) => "tcp_checks",
    };
    let mut snippet = format!(
        "  [[{}.{name}]]\n    grace_period = \"10s\"\n    interval = \"15s\"\n    timeout = \"2s\"",
        section(service)
    );
    if service.http() {
        snippet.push_str(
            "\n    method = \"GET\"\n    path = \"/\"    # one that answers 2xx, without a redirect",
        );
    }
    lines(
        "Let the proxy check the service",
        format!("{place}. The grace period must be longer than the app takes to start."),
        snippet,
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;
    use super::*;

    #[test]
    fn services_without_a_check_of_their_own() {
        for (toml, expected) in [
            (
                "[http_service]\ninternal_port = 8080\n",
                Some("[[http_service.checks]]"),
            ),
            (
                "[[services]]\ninternal_port = 80\n[[services.ports]]\nport = 443\nhandlers = [\"tls\", \"http\"]\n",
                Some("[[services.http_checks]]"),
            ),
            (
                "[[services]]\ninternal_port = 5432\n",
                Some("[[services.tcp_checks]]"),
            ),
            (
                "[[services]]\ninternal_port = 80\n[checks.x]\ntype = \"tcp\"\nport = 80\n",
                Some("tcp_checks"),
            ),
            ("[http_service]\n[[http_service.checks]]\npath = \"/up\"\n", None),
            (
                "[[services]]\n[[services.tcp_checks]]\ninterval = \"15s\"\n",
                None,
            ),
            ("[[services]]\nprotocol = \"udp\"\n", None),
            ("[processes]\nworker = \"run\"\n", None),
        ] {
            let found = found(&RULE, toml);
            let snippet = found.first().and_then(|f| f.fixes[0].snippet.clone());
            assert_eq!(snippet.is_some(), expected.is_some(), "{toml}");
            if let (Some(snippet), Some(expected)) = (snippet, expected) {
                assert!(snippet.contains(expected), "{snippet}");
                assert_eq!(snippet.contains("path"), snippet.contains("http"), "{snippet}");
            }
        }
    }

    #[test]
    fn the_lines_to_add_are_read_as_a_check() {
        for toml in [
            "[http_service]\ninternal_port = 8080\n",
            "[[services]]\ninternal_port = 5432\n",
        ] {
            let snippet = found(&RULE, toml)[0].fixes[0].snippet.clone().unwrap();
            assert!(found(&RULE, &format!("{toml}{snippet}\n")).is_empty());
        }
    }
}

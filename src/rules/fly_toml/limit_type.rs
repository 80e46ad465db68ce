//! `fly-toml-limit-type`: an HTTP service whose load is counted in connections.

use super::{FLY_TOML, finding, lines, named, read, section};
use crate::finding::{Confidence, Finding, Severity};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-limit-type",
    area: Area::Fly,
    severity: "info",
    holds_when: "an HTTP service counts its load in connections, which is Fly's default",
    meaning: "With `type = \"connections\"` the proxy opens a new connection to the app for each request. With `type = \"requests\"` it keeps \
              some and uses them again: fewer ports, fewer handshakes, and the limits mean what the app works on.",
    detection: "Read from the file: a service that the proxy speaks HTTP to, with `type = \"connections\"` or none.",
    fix: "`type = \"requests\"`. Connections that live long (WebSockets) count as one request each.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let http = facts.file.services.iter().filter(|service| service.http());
    http.filter_map(|service| {
        let limits = service.concurrency;
        let told = limits.and_then(|limits| limits.requests);
        if told.is_some_and(|told| told.value) {
            return None;
        }
        let line = told.map(|told| told.line).or(limits.map(|limits| limits.line));
        let mut f = finding(
            input,
            RULE.code,
            facts,
            line.unwrap_or(service.line),
            Severity::Info,
            Confidence::Certain,
        );
        f.title = format!(
            "The proxy opens a connection for each request to port {}",
            service.port()
        );
        f.summary = format!(
            "{} counts connections{}: the proxy uses none of them twice.",
            named(service),
            if told.is_none() {
                ", as Fly does by default"
            } else {
                ""
            }
        );
        f.evidence = f.evidence.with("internal_port", service.port());
        f.impact = "Each request costs the app a TCP handshake.".to_owned();
        let snippet = match (told, limits) {
            (Some(_), _) | (None, Some(_)) => "    type = \"requests\"".to_owned(),
            (None, None) => format!("  [{}.concurrency]\n    type = \"requests\"", section(service)),
        };
        let place = match (told, limits) {
            (Some(told), _) => format!("in place of line {}", told.line),
            (None, Some(limits)) => format!("below line {}", limits.line),
            (None, None) => format!("below line {}", service.line),
        };
        f.fixes = vec![lines(
            format!("Count requests, {place}"),
            "The proxy keeps connections to the app for some seconds and uses them again.",
            snippet,
        )];
        Some(f)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;
    use super::*;

    #[test]
    fn http_by_connections_only() {
        let http = "[[services.ports]]\nport = 80\nhandlers = [\"http\"]\n";
        for (toml, expected) in [
            ("[http_service]\ninternal_port = 8080\n".to_owned(), Some(1)),
            (
                "[http_service]\n[http_service.concurrency]\nhard_limit = 25\n".to_owned(),
                Some(2),
            ),
            (
                "[http_service]\n[http_service.concurrency]\ntype = \"connections\"\n".to_owned(),
                Some(3),
            ),
            (format!("[[services]]\n{http}"), Some(1)),
            (
                "[http_service]\n[http_service.concurrency]\ntype = \"requests\"\n".to_owned(),
                None,
            ),
            ("[[services]]\nconcurrency = \"1,2\"\n".to_owned() + http, None),
            (
                "[[services]]\n[[services.ports]]\nport = 5432\n[services.concurrency]\ntype = \"connections\"\n"
                    .to_owned(),
                None,
            ),
        ] {
            let found = found(&RULE, &toml);
            let line = found.first().and_then(|f| f.evidence.get("line").cloned());
            assert_eq!(line, expected.map(serde_json::Value::from), "{toml}");
        }
    }
}

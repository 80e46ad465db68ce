//! `fly-toml-nobody-listens`: on the machine itself, nothing listens where the proxy connects to.

use super::{finding, lines, named, read, serving};
use crate::finding::{Candidate, Confidence, Finding, Severity};
use crate::observation::Source;
use crate::observation::fly_toml::DEFAULT_GROUP;
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-nobody-listens",
    area: Area::Fly,
    severity: "warning",
    holds_when: "wgnat runs on a machine of the app, and no TCP socket listens on the `internal_port` of a service that the machine's group serves",
    meaning: "The proxy connects to `internal_port` in the machine and is refused: visitors wait and then get an error. As a rule the app listens \
              on the port of its own default, or has not started.",
    detection: "The file's services for this machine's group (FLY_PROCESS_GROUP) against the listening sockets of its network namespace, at the \
                newest look. The machine must be one of that app (FLY_APP_NAME). An app that is still starting looks the same, so it is likely, \
                not certain. An app that listens on 127.0.0.1 only is not told from one that listens for all.",
    fix: "Let the app listen on `0.0.0.0` or `[::]` and this port, or correct `internal_port`.",
    needs: &[&[Source::FlyToml], &[Source::Sockets]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let Some(machine) = input.world.host.as_ref().and_then(|host| host.fly.as_ref()) else {
        return Vec::new();
    };
    // Another app's file, or one that does not say, is not this machine's.
    if facts.file.app.as_deref() != Some(machine.app.as_str()) {
        return Vec::new();
    }
    let Some((_, tally)) = input.world.sockets.newest() else {
        return Vec::new();
    };
    let Some(served) = tally
        .served_ports
        .as_ref()
        .filter(|s| s.left_out == 0 && !tally.inexact)
    else {
        return Vec::new();
    };
    let group = machine.group.as_deref().unwrap_or(DEFAULT_GROUP);
    let mut all = Vec::new();
    for service in facts.file.services.iter().filter(|service| !service.udp) {
        let port = service.port();
        if !serving(&facts.file, service).contains(&group) || served.ports.contains(&port) {
            continue;
        }
        let line = service.internal_port.map_or(service.line, |told| told.line);
        let mut f = finding(
            input,
            RULE.code,
            facts,
            line,
            Severity::Warning,
            Confidence::Likely,
        );
        f.title = format!("Nothing listens on port {port}, where the proxy connects to");
        f.summary = format!(
            "{} says that the app listens on {port}; in this machine (group {group}) no TCP socket does.",
            named(service)
        );
        f.evidence = f
            .evidence
            .with("internal_port", port)
            .with("listening_ports", served.ports.len());
        f.impact = "The proxy is refused: requests to this machine fail.".to_owned();
        f.candidates = vec![
            Candidate {
                cause: "The app listens on another port".to_owned(),
                code: None,
                settle: "ss -Htlnp".to_owned(),
            },
            Candidate {
                cause: "The app is still starting, or has ended".to_owned(),
                code: None,
                settle: "fly logs; run doctor again".to_owned(),
            },
        ];
        let others: Vec<u16> = served
            .ports
            .iter()
            .copied()
            .filter(|p| *p >= 1024)
            .take(2)
            .collect();
        if let [only] = others.as_slice() {
            f.fixes = vec![lines(
                format!("If the app is meant to listen on {only}: line {line}"),
                "It is the only port above 1023 that something listens on.",
                format!("  internal_port = {only}"),
            )];
        } else {
            f.fixes = vec![lines(
                format!("Let the app listen on port {port}"),
                "Many frameworks take the port from the environment.",
                format!("[env]\n  PORT = \"{port}\""),
            )];
        }
        all.push(f);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;

    const TOML: &str = "app = \"web\"\n[processes]\nweb = \"x\"\nworker = \"y\"\n[http_service]\ninternal_port = 8080\nprocesses = [\"web\"]\n";

    #[test]
    fn only_on_a_machine_of_that_app_and_group() {
        for (app, group, ports, expected) in [
            ("web", "web", &[3000][..], true),
            ("web", "web", &[22, 8080][..], false),
            ("web", "worker", &[3000][..], false),
            ("other", "web", &[3000][..], false),
        ] {
            let found = Scene::new(TOML)
                .on_fly(true, app, group)
                .listening(ports)
                .check(&RULE);
            assert_eq!(found.len(), usize::from(expected), "{app} {group} {ports:?}");
            if expected {
                assert_eq!(
                    found[0].fixes[0].snippet.as_deref(),
                    Some("  internal_port = 3000")
                );
                assert_eq!(found[0].evidence.get("line"), Some(&6.into()));
            }
        }
        assert!(Scene::new(TOML).listening(&[3000]).check(&RULE).is_empty());
    }
}

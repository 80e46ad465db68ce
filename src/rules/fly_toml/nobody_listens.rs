//! `fly-toml-nobody-listens`: on the machine itself, nothing listens where the proxy connects to.

use super::{finding, lines, named, read, serving};
use crate::finding::{Candidate, Confidence, Finding, Severity};
use crate::observation::Source;
use crate::observation::fly_toml::{DEFAULT_GROUP, Service};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-nobody-listens",
    area: Area::Fly,
    severity: "warning",
    holds_when: "wgnat runs on a machine of the app, and no TCP socket listens on the `internal_port` of a service that the machine's group serves, or only one on loopback",
    meaning: "The proxy connects to `internal_port` in the machine and is refused: visitors wait and then get an error. As a rule the app listens \
              on 127.0.0.1, which nobody outside the machine reaches, or on the port of its own default, or has not started.",
    detection: "The file's services for this machine's group (FLY_PROCESS_GROUP) against the listening sockets of its network namespace, at the \
                newest look. The machine must be one of that app (FLY_APP_NAME). An app that is still starting looks the same, so it is likely, \
                not certain; certain where the port is listened on, and by loopback addresses (127.0.0.0/8, ::1) alone.",
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
        if !serving(&facts.file, service).contains(&group) {
            continue;
        }
        let only_inside = served.loopback_only.as_ref().is_some_and(|l| l.contains(&port));
        if served.ports.contains(&port) && !only_inside {
            continue;
        }
        let line = service.internal_port.map_or(service.line, |told| told.line);
        let mut f = finding(
            input,
            RULE.code,
            facts,
            line,
            Severity::Warning,
            if only_inside {
                Confidence::Certain
            } else {
                Confidence::Likely
            },
        );
        if only_inside {
            on_loopback(&mut f, service, port, group);
            all.push(f);
            continue;
        }
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

/// Of a port that is listened on, where the proxy does not come.
fn on_loopback(f: &mut Finding, service: &Service, port: u16, group: &str) {
    f.title = format!("Port {port} is listened on for this machine alone, and the proxy comes from outside");
    f.summary = format!(
        "{} says that the app listens on {port}; in this machine (group {group}) it does, but on loopback addresses only (127.0.0.1 or \
         ::1). The proxy connects to the machine's own address and is refused.",
        named(service)
    );
    f.evidence = std::mem::take(&mut f.evidence)
        .with("internal_port", port)
        .with("listens_on", "loopback");
    f.impact =
        "The proxy is refused: requests to this machine fail, though `curl` inside it works.".to_owned();
    f.fixes = vec![lines(
        format!("Let the app listen on 0.0.0.0:{port} or [::]:{port}"),
        "Many frameworks listen on localhost unless told, and take the address from the environment or an option.",
        "[env]\n  HOST = \"0.0.0.0\"".to_owned(),
    )];
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;

    const TOML: &str = "app = \"web\"\n[processes]\nweb = \"x\"\nworker = \"y\"\n[http_service]\ninternal_port = 8080\nprocesses = [\"web\"]\n";

    #[test]
    fn loopback_alone_is_no_place_for_the_proxy() {
        for (loopback_only, expected) in [(&[8080][..], true), (&[3000][..], false), (&[][..], false)] {
            let found = Scene::new(TOML)
                .on_fly(true, "web", "web")
                .listening_at(&[3000, 8080], loopback_only)
                .check(&RULE);
            assert_eq!(found.len(), usize::from(expected), "{loopback_only:?}");
            for one in found {
                assert_eq!(one.confidence, Confidence::Certain);
                assert_eq!(one.evidence.get("listens_on"), Some(&"loopback".into()));
                assert!(one.fixes[0].title.contains("0.0.0.0:8080"));
            }
        }
    }

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

//! `fly-toml-udp-port`: a UDP service whose inside and outside ports differ.

use super::{FLY_TOML, finding, lines, named, read};
use crate::finding::{Confidence, Finding, Severity};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-udp-port",
    area: Area::Fly,
    severity: "warning",
    holds_when: "a UDP service of fly.toml has another port outside than inside",
    meaning: "Fly passes datagrams on as they are and does not change their port. An app that listens on another port than the outside one \
              gets none. A WireGuard server behind such a service never sees a handshake.",
    detection: "Read from the file, by Fly's reference on `services.ports`: a single outside port that is not `internal_port`.",
    fix: "The same number in both places; and bind `fly-global-services:PORT`, or answers leave from another address. UDP needs a dedicated \
          IPv4 address (`fly ips allocate-v4`).",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for service in facts.file.services.iter().filter(|service| service.udp) {
        let inside = service.port();
        let differs =
            |ports: &&crate::observation::fly_toml::Ports| ports.first == ports.last && ports.first != inside;
        let Some(outside) = service.ports.iter().find(differs) else {
            continue;
        };
        // Several outside ports cannot all be the inside one: the app may bind each of them.
        if service
            .ports
            .iter()
            .any(|ports| (ports.first..=ports.last).contains(&inside))
        {
            continue;
        }
        let mut f = finding(
            input,
            RULE.code,
            facts,
            outside.line,
            Severity::Warning,
            Confidence::Certain,
        );
        f.title = format!("UDP port {} leads nowhere: inside it is {inside}", outside.first);
        f.summary = format!(
            "{} takes datagrams at port {} (line {}) and says that the app listens on {inside}. Fly does not change the port of a \
             datagram: the app must listen on {}.",
            named(service),
            outside.first,
            outside.line,
            outside.first
        );
        f.evidence = f
            .evidence
            .with("port", outside.first)
            .with("internal_port", inside);
        f.impact = "An app on the inside port gets no datagram.".to_owned();
        let line = service.internal_port.map_or(service.line, |told| told.line);
        f.fixes = vec![lines(
            format!("The same port inside, at line {line}"),
            format!("And let the app bind fly-global-services:{}.", outside.first),
            format!("  internal_port = {}", outside.first),
        )];
        all.push(f);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;
    use super::*;

    #[test]
    fn only_udp_and_only_another_port() {
        let toml = |protocol: &str, inside: &str, outside: &str| {
            format!("[[services]]\nprotocol = \"{protocol}\"\n{inside}\n[[services.ports]]\n{outside}\n")
        };
        for (toml, expected) in [
            (toml("udp", "internal_port = 51820", "port = 443"), true),
            (toml("udp", "", "port = 51820"), true),
            (toml("udp", "internal_port = 51820", "port = 51820"), false),
            (
                toml("udp", "internal_port = 500", "start_port = 400\nend_port = 600"),
                false,
            ),
            (
                toml("udp", "internal_port = 9", "start_port = 400\nend_port = 600"),
                false,
            ),
            (toml("tcp", "internal_port = 8080", "port = 443"), false),
        ] {
            let found = found(&RULE, &toml);
            assert_eq!(found.len(), usize::from(expected), "{toml}");
            if expected {
                assert_eq!(found[0].evidence.get("line"), Some(&4.into()));
            }
        }
    }
}

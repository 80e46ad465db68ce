//! `fly-internal-dns`: names of the private network do not resolve, for a resolver answers that does not know them.

use std::net::{IpAddr, SocketAddr};

use super::machine;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::fly::{FlyNet, Internal};
use crate::observation::host::FlyMachine;
use crate::rules::{Area, Input, Rule};
use crate::time::Timestamp;

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-internal-dns",
    area: Area::Fly,
    severity: "warning; info where it is only to be feared",
    holds_when: "on a Fly machine, the name server that is asked first says that `.internal` names do not exist",
    meaning: "Names such as APP.internal are known to Fly's own resolver, fdaa::3, only. Another one, from an image, a VPN client or a start \
              script that writes /etc/resolv.conf, answers that there is no such name, and the C library takes that for the truth: it asks \
              the next server only where one is silent.",
    detection: "With `--fly-checks` each of the system's name servers is asked for `_instances.internal`, which always has at least this machine: \
                NXDOMAIN, or no record, before any server that knows it, is certain. Without, a resolv.conf that has no server in fdaa::/16 is a \
                hint: a local cache may pass `.internal` on.",
    fix: "Put `nameserver fdaa::3` first. A local cache must pass `.internal` on to it (dnsmasq: `server=/internal/fdaa::3`).",
    needs: &[&[Source::Host]],
    explained_by: &[],
    check,
};

/// Fly's resolver (fly.io/docs/networking/private-networking).
const RESOLVER: &str = "fdaa::3";

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(machine) = machine(input) else {
        return Vec::new();
    };
    let found = match &input.world.fly_net {
        Some((at, net)) => asked(*at, net),
        None => feared(input.now(), machine),
    };
    found.into_iter().collect()
}

/// The first server that answers, where it knows no such name.
fn asked(at: Timestamp, net: &FlyNet) -> Option<Finding> {
    let first = net
        .answers
        .iter()
        .find(|a| !matches!(a.says, Internal::Failed(_)))?;
    let Internal::Unknown(code) = &first.says else {
        return None;
    };
    let server = first.server.ip();
    let said = match code.as_str() {
        "NOERROR" => "that it has no record (NOERROR)".to_owned(),
        code => format!("that there is no such name ({code})"),
    };
    let knows = net.answers.iter().find(|a| a.says == Internal::Listed);
    let mut f = finding(at, first.server, Severity::Warning, Confidence::Certain);
    f.title = format!("The name server {server} does not know .internal");
    f.summary = format!(
        "Asked for _instances.internal, {server} answers {said}. {}",
        match knows {
            Some(other) => format!(
                "{} knows it, but is asked only where those before it are silent.",
                other.server.ip()
            ),
            None => "No other name server of this machine knows it either.".to_owned(),
        }
    );
    f.evidence = Evidence::new()
        .with("answer", code.clone())
        .with("name_servers", net.answers.len())
        .with("know_internal", usize::from(knows.is_some()));
    if is_fly(server) {
        f.candidates = vec![
            Candidate {
                cause: "The machine's registration has not reached Fly's resolver".to_owned(),
                code: None,
                settle: format!("dig +short txt _instances.internal @{RESOLVER}, again in a minute"),
            },
            Candidate {
                cause: "The app is on another private network than it is looked for on".to_owned(),
                code: None,
                settle: "fly apps list: the network of this app and of the other".to_owned(),
            },
        ];
        f.fixes = vec![Fix {
            title: "See what Fly's resolver knows".to_owned(),
            why: "It is the right one: what it does not know is missing at Fly's end.".to_owned(),
            command: Some(format!("dig +short txt _instances.internal @{RESOLVER}")),
            ..Fix::default()
        }];
    }
    Some(f)
}

/// Nobody was asked; none of the servers is Fly's.
fn feared(at: Timestamp, machine: &FlyMachine) -> Option<Finding> {
    let first = *machine.name_servers.first()?;
    if machine.name_servers.iter().any(|server| is_fly(*server)) {
        return None;
    }
    let mut f = finding(
        at,
        SocketAddr::new(first, 53),
        Severity::Info,
        Confidence::Possible,
    );
    f.title = "Fly's name server is not in /etc/resolv.conf".to_owned();
    let servers: Vec<String> = machine.name_servers.iter().map(ToString::to_string).collect();
    f.summary = format!(
        "The name servers are {}; Fly's own is {RESOLVER}. Unless they pass .internal on to it, no name of the private network resolves.",
        servers.join(", ")
    );
    f.evidence = Evidence::new().with("name_servers", servers.len());
    f.candidates = vec![Candidate {
        cause: "Something has replaced /etc/resolv.conf".to_owned(),
        code: None,
        settle: "wgnat doctor --fly-checks asks each of them".to_owned(),
    }];
    Some(f)
}

/// In Fly's private network.
fn is_fly(server: IpAddr) -> bool {
    matches!(server, IpAddr::V6(v6) if v6.segments().first() == Some(&0xfdaa))
}

fn finding(at: Timestamp, server: SocketAddr, severity: Severity, confidence: Confidence) -> Finding {
    Finding {
        code: RULE.code,
        severity,
        confidence,
        title: String::new(),
        subject: Subject::Resolver { address: server },
        summary: String::new(),
        evidence: Evidence::new(),
        impact: "Programs find neither other apps nor other machines by name.".to_owned(),
        candidates: Vec::new(),
        fixes: vec![Fix {
            title: "Ask Fly's name server first".to_owned(),
            why: "It resolves names outside too. Whatever writes the file at start must do it.".to_owned(),
            snippet: Some(format!("# /etc/resolv.conf\nnameserver {RESOLVER}")),
            ..Fix::default()
        }],
        first_seen: at,
        last_seen: at,
        count: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;

    #[test]
    fn the_first_that_answers_counts() {
        let (fly, other, more) = ("fdaa::3", "192.0.2.53", "192.0.2.54");
        let (yes, no) = (Internal::Listed, Internal::Unknown("NXDOMAIN".to_owned()));
        let empty = Internal::Unknown("NOERROR".to_owned());
        let dead = Internal::Failed("no answer".to_owned());
        for (answers, expected) in [
            (vec![(fly, &yes)], None),
            (vec![(other, &no)], Some(other)),
            (vec![(other, &empty)], Some(other)),
            (vec![(fly, &no)], Some(fly)),
            (vec![(other, &no), (fly, &yes)], Some(other)),
            (vec![(fly, &yes), (other, &no)], None),
            (vec![(fly, &dead)], None),
            (vec![(more, &dead), (other, &no)], Some(other)),
            (vec![(more, &dead), (fly, &yes)], None),
            (vec![], None),
        ] {
            let found = Scene::fly(&[other]).answers(&answers).check(&RULE);
            let subject = found.first().map(|f| f.subject.clone());
            let wanted = expected.map(|ip| Subject::Resolver {
                address: SocketAddr::new(ip.parse().unwrap(), 53),
            });
            assert_eq!(subject, wanted, "{answers:?}");
            assert!(found.iter().all(|f| f.confidence == Confidence::Certain));
        }
    }

    #[test]
    fn without_asking_it_is_a_hint() {
        for (servers, expected) in [
            (&["192.0.2.53"][..], true),
            (&["192.0.2.53", "fdaa::3"], false),
            (&["fdaa:0:18::3"], false),
            (&[], false),
        ] {
            let found = Scene::fly(servers).check(&RULE);
            assert_eq!(found.len(), usize::from(expected), "{servers:?}");
            assert!(
                found
                    .iter()
                    .all(|f| (f.severity, f.confidence) == (Severity::Info, Confidence::Possible))
            );
        }
        assert!(Scene::elsewhere().check(&RULE).is_empty());
    }
}

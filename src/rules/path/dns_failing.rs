//! `dns-failing`: a name server gives no useful answer.

use super::{PATHS, finding, resolvers};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::path::Failure;
use crate::rules::{Area, Input, Rule};
use crate::track::paths::Path;
use crate::words::counted;

/// The rule.
pub const RULE: Rule = Rule {
    code: "dns-failing",
    area: Area::Paths,
    severity: "warning, critical when none of the system's name servers answers",
    holds_when: "a name server leaves every question unanswered, or answers each with SERVFAIL or REFUSED",
    meaning: "Names do not become addresses. Programs report “Temporary failure in name resolution”, and each connect waits for the \
              resolver's time-outs first: with the C library's defaults five seconds for each server in the list that is silent.",
    detection: "Questions to each server by itself, several of them, over UDP. An answer that the name does not exist (NXDOMAIN) is an \
                answer. One lost question is none: all must fail.",
    fix: "Ask the server by hand (`dig @SERVER NAME`) from another host: is it the server or the way? Take a server that is gone out of \
          /etc/resolv.conf, or put it last, with `options timeout:1 attempts:2`. On Fly, `fdaa::3` resolves `.internal` names; it answers \
          inside a machine only.",
    needs: PATHS,
    explained_by: &["path-loss"],
    check,
};

/// Questions that make a verdict.
const LEAST: u32 = 3;

fn check(input: &Input<'_>) -> Vec<Finding> {
    let system: Vec<&Path> = resolvers(input)
        .map(|(path, _)| path)
        .filter(|p| p.sample.system_resolver)
        .collect();
    let none_answers = !system.is_empty() && system.iter().all(|path| fails(path));
    resolvers(input)
        .filter(|(path, _)| fails(path))
        .map(|(path, server)| {
            let severe = path.sample.system_resolver && none_answers;
            judge(path, server, severe, system.len())
        })
        .collect()
}

fn fails(path: &Path) -> bool {
    path.sample.sent >= LEAST
        && path.sample.rtts.0.is_empty()
        // What this host did not send says nothing of the server.
        && path.sample.failures.iter().all(|(failure, _)| !matches!(failure, Failure::Local(_)))
}

fn judge(path: &Path, server: std::net::SocketAddr, severe: bool, system: usize) -> Finding {
    let said = path
        .sample
        .failures
        .iter()
        .max_by_key(|(_, n)| *n)
        .map(|(failure, _)| failure);
    let words = match said {
        Some(Failure::Dns(code)) => format!("answers {code}"),
        Some(Failure::Refused) => "refuses: nothing listens on its port".to_owned(),
        Some(Failure::Unreachable { says, .. }) => format!("is not reachable ({says})"),
        _ => "does not answer".to_owned(),
    };
    let name = &path.sample.target.host;
    let mut f = finding(RULE.code, path, Confidence::Certain);
    f.severity = if severe {
        Severity::Critical
    } else {
        Severity::Warning
    };
    f.count = path.sample.sent;
    f.title = format!("The name server {} {words}", server.ip());
    f.summary = format!(
        "{} for {name} to {server}, and it {words}. {}",
        counted(path.sample.sent, "question", "questions"),
        match (path.sample.system_resolver, severe, system) {
            (false, _, _) => "",
            (true, true, 1) => "It is the only one in /etc/resolv.conf.",
            (true, true, _) => "None of those in /etc/resolv.conf is of use.",
            (true, false, _) =>
                "Others in /etc/resolv.conf do answer; what asks this one first waits for its time-out.",
        }
    );
    f.summary = f.summary.trim_end().to_owned();
    f.evidence = Evidence::new()
        .with("questions", path.sample.sent)
        .with("answers", 0)
        .with("system_resolver", path.sample.system_resolver);
    f.impact = if severe {
        "No name resolves on this host.".to_owned()
    } else {
        "Look-ups that ask this server fail or wait.".to_owned()
    };
    if matches!(said, Some(Failure::Timeout)) {
        f.candidates = vec![
            Candidate {
                cause: "the server is down, or its address is wrong".to_owned(),
                code: None,
                settle: format!(
                    "`dig @{} {name}` from another host on the same network",
                    server.ip()
                ),
            },
            Candidate {
                cause: "UDP port 53 is dropped on the way (a firewall, an egress policy)".to_owned(),
                code: None,
                settle: format!(
                    "`dig +tcp @{} {name}`: if that is answered, UDP is dropped",
                    server.ip()
                ),
            },
        ];
    }
    f.fixes = vec![Fix {
        title: "Let the resolver give up on it sooner".to_owned(),
        why: "Until the server is back, or taken out, this shortens the wait from five seconds to one."
            .to_owned(),
        snippet: Some("# /etc/resolv.conf\noptions timeout:1 attempts:2".to_owned()),
        ..Fix::default()
    }];
    f
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Paths, failures};
    use super::*;

    #[test]
    fn all_dead_is_critical_one_dead_a_warning_and_a_lost_question_nothing() {
        let dead = failures(Failure::Timeout, 5);
        let all = Paths::new()
            .system("10.0.0.1", 0, 0, &dead)
            .system("10.0.0.2", 0, 0, &dead)
            .check(&RULE);
        assert!(all.len() == 2 && all.iter().all(|f| f.severity == Severity::Critical));
        let one = Paths::new()
            .system("10.0.0.1", 0, 0, &dead)
            .system("10.0.0.2", 5, 10, &[])
            .check(&RULE);
        assert!(one.len() == 1 && one[0].severity == Severity::Warning);
        let lost = failures(Failure::Timeout, 1);
        assert!(
            Paths::new()
                .system("10.0.0.1", 4, 10, &lost)
                .check(&RULE)
                .is_empty()
        );
    }

    #[test]
    fn a_server_that_fails_says_so_itself() {
        let found = Paths::new()
            .system(
                "10.0.0.1",
                0,
                0,
                &failures(Failure::Dns("SERVFAIL".to_owned()), 5),
            )
            .check(&RULE);
        assert!(found[0].title.contains("SERVFAIL") && found[0].candidates.is_empty());
    }

    #[test]
    fn what_this_host_did_not_send_says_nothing_of_the_server() {
        let local = failures(Failure::Local("no route".to_owned()), 5);
        assert!(
            Paths::new()
                .system("10.0.0.1", 0, 0, &local)
                .check(&RULE)
                .is_empty()
        );
    }
}

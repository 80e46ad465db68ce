//! `fly-toml-no-metrics`: the agent runs, and nobody scrapes it.

use super::metrics_unreachable::fix_listen;
use super::{FLY_TOML, finding, lines, list, read};
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::fly_toml::{FlyTomlFacts, Metrics, Runs, belongs};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-no-metrics",
    area: Area::Fly,
    severity: "info",
    holds_when: "`wgnat agent` runs in a process group, and no metrics section of fly.toml names its port for that group",
    meaning: "Fly collects a machine's own metrics where fly.toml says so, one port for each process group. Without that the agent's gauges of \
              ports, handshakes and connections are on no graph and in no alert.",
    detection: "Read from the file. It is told only where the agent is seen to run: a command in `[processes]` or a `WGNAT_…` variable in \
                `[env]`.",
    fix: "Add the lines that the finding shows. Where the group's one section is taken by the app's own metrics, let one of the two pass the \
          other's on.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let file = &facts.file;
    if !file.runs_agent() {
        return Vec::new();
    }
    let by_command: Vec<&str> = file
        .groups
        .iter()
        .filter(|group| group.runs != Runs::Other)
        .map(|group| group.name.as_str())
        .collect();
    let groups = if by_command.is_empty() {
        file.group_names()
    } else {
        by_command
    };
    let unseen: Vec<&str> = groups
        .into_iter()
        .filter(|group| {
            let port = port(facts, group);
            !sections(facts, group).any(|m| m.port.is_some_and(|told| told.value == port))
        })
        .collect();
    let Some(first) = unseen.first() else {
        return Vec::new();
    };
    let port = port(facts, first);
    let taken = sections(facts, first).next();
    let line = taken.map_or_else(
        || {
            file.groups
                .iter()
                .find(|g| g.name == *first)
                .map_or(1, |g| g.line)
        },
        |metrics| metrics.line,
    );
    let mut f = finding(input, RULE.code, facts, line, Severity::Info, Confidence::Certain);
    f.title = "Fly does not collect the agent's metrics".to_owned();
    f.summary = match taken {
        None => format!(
            "No metrics section names the agent's port {port} for {}.",
            unseen.join(", ")
        ),
        Some(metrics) => format!(
            "The metrics section of {} (line {}) names another port than the agent's {port}; Fly scrapes one for each group.",
            unseen.join(", "),
            metrics.line
        ),
    };
    f.evidence = f.evidence.with("port", port);
    f.impact = "The agent's numbers are on no graph and in no alert.".to_owned();
    let all = unseen.len() == file.group_names().len();
    let section = if all {
        format!("[metrics]\n  port = {port}\n  path = \"/metrics\"")
    } else {
        format!(
            "[[metrics]]\n  port = {port}\n  path = \"/metrics\"\n  processes = {}",
            list(&unseen)
        )
    };
    f.fixes = vec![match taken {
        None => lines(
            "Let Fly scrape it",
            "Every 15 s, over the private network.",
            section,
        ),
        Some(metrics) => lines(
            format!(
                "Scrape the agent in place of line {}, or through the app",
                metrics.line
            ),
            "One port for each group: the app can pass the agent's page on beside its own, or a proxy can join both.",
            section,
        ),
    }];
    let loopback = |group: &str| {
        let listen = file.listen_of(group).unwrap_or(facts.agent_listen);
        listen.ip().to_canonical().is_loopback()
    };
    if unseen.iter().any(|group| loopback(group)) {
        f.fixes.push(fix_listen(port));
    }
    vec![f]
}

fn port(facts: &FlyTomlFacts, group: &str) -> u16 {
    facts.file.listen_of(group).unwrap_or(facts.agent_listen).port()
}

fn sections<'a>(facts: &'a FlyTomlFacts, group: &'a str) -> impl Iterator<Item = &'a Metrics> {
    facts
        .file
        .metrics
        .iter()
        .filter(move |metrics| belongs(&metrics.groups, group))
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;
    use super::*;

    const WITH: &str = "[processes]\nweb = \"sh -c 'wgnat agent & exec node x'\"\nworker = \"node y\"\n";

    #[test]
    fn only_where_the_agent_runs_and_is_not_scraped() {
        for (toml, expected) in [
            (WITH.to_owned(), Some("processes = [\"web\"]")),
            (
                format!("{WITH}[metrics]\nport = 9091\n"),
                Some("processes = [\"web\"]"),
            ),
            (
                "[env]\nWGNAT_STORE = \"/data/x\"\n".to_owned(),
                Some("[metrics]\n  port = 9986"),
            ),
            (format!("{WITH}[metrics]\nport = 9986\n"), None),
            (
                format!("{WITH}[[metrics]]\nport = 9986\nprocesses = [\"web\"]\n"),
                None,
            ),
            (
                format!("{WITH}[[metrics]]\nport = 9986\nprocesses = [\"worker\"]\n"),
                Some("[\"web\"]"),
            ),
            ("[env]\nPORT = \"8080\"\n".to_owned(), None),
            ("[http_service]\ninternal_port = 1\n".to_owned(), None),
        ] {
            let found = found(&RULE, &toml);
            assert_eq!(found.len(), usize::from(expected.is_some()), "{toml}");
            if let Some(expected) = expected {
                let snippet = found[0].fixes[0].snippet.as_ref().unwrap();
                assert!(snippet.contains(expected), "{snippet}");
            }
        }
    }

    #[test]
    fn following_the_advice_ends_both_findings() {
        let advice = found(&RULE, WITH);
        let snippets: Vec<&str> = advice[0]
            .fixes
            .iter()
            .filter_map(|f| f.snippet.as_deref())
            .collect();
        let fixed = format!("{WITH}{}\n", snippets.join("\n"));
        assert!(found(&RULE, &fixed).is_empty(), "{fixed}");
        assert!(
            found(&super::super::metrics_unreachable::RULE, &fixed).is_empty(),
            "{fixed}"
        );
    }
}

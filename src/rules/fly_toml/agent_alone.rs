//! `fly-toml-agent-alone`: a process group of its own sees nobody else's sockets.

use super::{FLY_TOML, finding, lines, read};
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::fly_toml::{Group, Runs};
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-agent-alone",
    area: Area::Fly,
    severity: "warning; info where it watches some groups and not others",
    holds_when: "`wgnat agent` is a process group of its own, or does not run in every group",
    meaning: "Each process group of Fly is machines of its own, with a kernel and a network namespace of their own. An agent there watches an \
              idle machine: the sockets, ports and connections of the app are elsewhere, and it reports that all is well.",
    detection: "Read from `[processes]`: a command that is `wgnat agent` and nothing else beside other groups, or groups whose command does not \
                start it while another's does. What an image's own entry point starts is not seen.",
    fix: "Start the agent in the machines of the app: `sh -c 'wgnat agent & exec APP'`, a supervisor in the image, or a second container of the \
          same machine, which shares its network.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let groups = &facts.file.groups;
    let of = |runs: Runs| -> Vec<&Group> { groups.iter().filter(|g| g.runs == runs).collect() };
    let (alone, with, without) = (of(Runs::OnlyAgent), of(Runs::WithAgent), of(Runs::Other));
    let names: Vec<&str> = without.iter().map(|g| g.name.as_str()).collect();
    let (Some(app), false) = (without.first(), alone.is_empty() && with.is_empty()) else {
        return Vec::new();
    };
    let (line, severity) = match alone.first() {
        Some(alone) => (alone.line, Severity::Warning),
        None => (app.line, Severity::Info),
    };
    let mut f = finding(input, RULE.code, facts, line, severity, Confidence::Certain);
    let others = names.join(", ");
    f.evidence = f.evidence.with("groups_not_watched", names.len());
    if let Some(alone) = alone.first() {
        f.title = format!(
            "The agent in group {} cannot see the sockets of {others}",
            alone.name
        );
        f.summary = format!(
            "The group {:?} (line {}) is machines of its own that run the agent only. {others} run in other machines, with network \
             namespaces of their own.",
            alone.name, alone.line
        );
    } else {
        f.title = format!("The agent does not run in the machines of {others}");
        f.summary = format!(
            "{} start it and {others} do not: each group is machines of its own.",
            with.iter()
                .map(|g| g.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    f.impact = "Exhausted ports, lost handshakes and full tables in those machines are not seen.".to_owned();
    let snippet = format!(
        "[processes]\n  {} = \"sh -c 'wgnat agent & exec YOUR-COMMAND'\"",
        app.name
    );
    f.fixes = vec![lines(
        format!("Start the agent beside the app, in line {}", app.line),
        "YOUR-COMMAND is what stands there now. A second container of the same machine does it too: containers of a machine share \
         its network.",
        snippet,
    )];
    vec![f]
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;
    use super::*;

    #[test]
    fn an_agent_that_sees_nobody_or_not_all() {
        for (groups, expected) in [
            (
                "web = \"node x\"\nwatch = \"wgnat agent\"",
                Some((Severity::Warning, 3)),
            ),
            (
                "web = \"sh -c 'wgnat agent & exec node x'\"\nworker = \"node y\"",
                Some((Severity::Info, 3)),
            ),
            ("web = \"sh -c 'wgnat agent & exec node x'\"", None),
            ("watch = \"wgnat agent\"", None),
            ("web = \"node x\"\nworker = \"node y\"", None),
            ("web = \"node x\"\nstun = \"wgnat reflect\"", None),
        ] {
            let found = found(&RULE, &format!("[processes]\n{groups}\n"));
            let got = found
                .first()
                .map(|f| (f.severity, f.evidence.get("line").cloned()));
            let wanted = expected.map(|(s, line)| (s, Some(serde_json::Value::from(line))));
            assert_eq!(got, wanted, "{groups}");
        }
    }
}

//! `fly-toml-unknown-group`: a section for a process group that there is not.

use super::{FLY_TOML, finding, lines, list, read};
use crate::config::nearest;
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::fly_toml::Told;
use crate::rules::{Area, Input, Rule};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fly-toml-unknown-group",
    area: Area::Fly,
    severity: "warning",
    holds_when: "a service, check or metrics section of fly.toml is for a process group that `[processes]` does not have",
    meaning: "`processes = [...]` in a section names the groups whose machines it is for. One that `[processes]` does not have is nobody: no \
              machine serves that port, is checked, or is scraped.",
    detection: "Read from the file. Without `[processes]` the one group is called `app`.",
    fix: "Correct the name, or take the line out: then the section is for every group.",
    needs: FLY_TOML,
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some(facts) = read(input) else {
        return Vec::new();
    };
    let file = &facts.file;
    // A group beyond the bound is there all the same.
    if file.left_out > 0 {
        return Vec::new();
    }
    let known = file.group_names();
    let services = file.services.iter().map(|s| (super::named(s), &s.groups));
    let checks = file.checks.iter().map(|c| (c.section.clone(), &c.groups));
    let metrics = file
        .metrics
        .iter()
        .map(|m| (format!("[metrics] (line {})", m.line), &m.groups));
    let mut all = Vec::new();
    for (section, groups) in services.chain(checks).chain(metrics) {
        let nobody: Vec<&Told<String>> = groups
            .iter()
            .filter(|told| !known.contains(&told.value.as_str()))
            .collect();
        let Some(first) = nobody.first() else {
            continue;
        };
        let mut f = finding(
            input,
            RULE.code,
            facts,
            first.line,
            Severity::Warning,
            Confidence::Certain,
        );
        f.title = format!("{:?} is no process group", first.value);
        f.summary = format!(
            "{section} is for the group {:?} (line {}). The groups are {}.",
            first.value,
            first.line,
            known.join(", ")
        );
        f.evidence = f.evidence.with("group", first.value.clone());
        f.impact = if nobody.len() == groups.len() {
            "No machine is meant by the section.".to_owned()
        } else {
            "The section is for fewer machines than it seems.".to_owned()
        };
        let mut right: Vec<&str> = groups
            .iter()
            .filter_map(|told| {
                let name = told.value.as_str();
                if known.contains(&name) {
                    Some(name)
                } else {
                    nearest(name, known.iter().copied())
                }
            })
            .collect();
        right.dedup();
        if right.is_empty() {
            right = known.clone();
        }
        f.fixes = vec![lines(
            format!("Name a group that there is, in line {}", first.line),
            "Or add it to [processes].",
            format!("  processes = {}", list(&right)),
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
    fn names_that_are_no_group() {
        for (toml, expected) in [
            (
                "[processes]\nweb = \"x\"\n[http_service]\nprocesses = [\"wbe\"]\n",
                Some((4, "[\"web\"]")),
            ),
            (
                "[processes]\nweb = \"x\"\n[[metrics]]\nport = 1\nprocesses = [\"app\"]\n",
                Some((5, "[\"web\"]")),
            ),
            ("[[services]]\nprocesses = [\"web\"]\n", Some((2, "[\"app\"]"))),
            (
                "[checks.x]\nport = 1\ntype = \"tcp\"\nprocesses = [\"web\"]\n",
                Some((4, "[\"app\"]")),
            ),
            ("[[services]]\nprocesses = [\"app\"]\n", None),
            (
                "[processes]\nweb = \"x\"\n[http_service]\nprocesses = [\"web\"]\n",
                None,
            ),
            (
                "[processes]\nweb = \"x\"\n[http_service]\ninternal_port = 1\n",
                None,
            ),
        ] {
            let found = found(&RULE, toml);
            assert_eq!(found.len(), usize::from(expected.is_some()), "{toml}");
            let Some((line, snippet)) = expected else {
                continue;
            };
            assert_eq!(found[0].evidence.get("line"), Some(&line.into()), "{toml}");
            let told = found[0].fixes[0].snippet.as_ref().unwrap();
            assert!(told.contains(snippet), "{told}");
        }
    }
}

//! The catalogue of findings as one Markdown page: docs/findings.md.
//!
//! In: [`Rule`]s in their order. Out: Markdown. Pure; tests/generated.rs checks that the committed page is current.

use super::explain;
use crate::rules::Rule;

const HEAD: &str = "# Findings

<!-- Generated from the rules in src/rules: WGNAT_UPDATE=1 cargo test --test generated -->

What wgnat can find. A finding names one cause, with its evidence and what to change; `wgnat explain CODE` prints the
same text. Codes never change their meaning. Percentages and times are defaults (src/config/defaults.rs).

**Severity.** `critical` hurts now, `warning` will hurt or hurts a little, `info` is worth knowing.

**Confidence.** `certain`: the evidence admits no other cause. `likely`: one cause explains it far better than the rest.
`possible`: a hint, never above a warning.

**Cause over symptom.** A finding that another one explains is folded beneath it. It stands on its own only where no cause
is known.

**Not checked.** A finding whose sources could not be read is reported as not checked: neither true nor false.
";

/// The page.
pub fn markdown(rules: &[&'static Rule]) -> String {
    let mut page = HEAD.to_owned();
    let mut area = None;
    for rule in rules {
        if area.replace(rule.area) != Some(rule.area) {
            page.push_str(&format!(
                "\n## {}\n\n| code | severity | holds when |\n| --- | --- | --- |\n",
                rule.area.title()
            ));
            for r in rules.iter().filter(|r| r.area == rule.area) {
                page.push_str(&format!(
                    "| [`{code}`](#{code}) | {} | {} |\n",
                    r.severity,
                    r.holds_when.replace('|', "\\|"),
                    code = r.code,
                ));
            }
        }
        page.push_str(&section(rule, rules));
    }
    page
}

fn section(rule: &Rule, rules: &[&'static Rule]) -> String {
    let mut text = format!(
        "\n### {}\n\n*{}.* Holds when {}.\n\n{}\n\n**How it is detected.**{}\n\n**What to do.**{}\n",
        rule.code,
        rule.severity,
        rule.holds_when,
        rule.meaning.trim(),
        after_label(rule.detection.trim()),
        after_label(rule.fix.trim()),
    );
    let links = |codes: &[&str]| -> String {
        let links: Vec<String> = codes.iter().map(|c| format!("[`{c}`](#{c})")).collect();
        links.join(", ")
    };
    for (label, list) in [
        ("Looks at", explain::needs(rule)),
        ("Explained by", links(rule.explained_by)),
        ("Explains", links(&explain::explains(rule, rules))),
    ] {
        if !list.is_empty() {
            text.push_str(&format!("\n**{label}:** {list}.\n"));
        }
    }
    text
}

/// After a label: in the same line, unless it is a list or a fence, which begins its own.
fn after_label(text: &str) -> String {
    if text.starts_with("- ") || text.starts_with("* ") || text.starts_with("1. ") || text.starts_with("```")
    {
        format!("\n\n{text}")
    } else {
        format!(" {text}")
    }
}

/// Rules that test how a catalogue is shown.
#[cfg(test)]
pub(crate) mod toy {
    use crate::observation::Source;
    use crate::rules::{Area, Rule};

    const CAUSE: Rule = Rule {
        code: "toy-cause",
        area: Area::Wireguard,
        severity: "critical",
        holds_when: "the toy is broken",
        meaning: "It does not | work.",
        detection: "By looking.",
        fix: "- glue it\n- `buy another`",
        needs: &[
            &[Source::WireguardNetlink, Source::WireguardUapi],
            &[Source::Capture],
        ],
        explained_by: &[],
        check: |_| Vec::new(),
    };
    const SYMPTOM: Rule = Rule {
        code: "toy-symptom",
        area: Area::Ports,
        severity: "warning ≥ 70 %, critical ≥ 90 %",
        holds_when: "it makes a noise | or none, and that goes on for long enough to be heard by somebody",
        meaning: "A noise.",
        fix: "Stop it.",
        explained_by: &["toy-cause"],
        needs: &[],
        ..CAUSE
    };
    static RULES: [Rule; 2] = [CAUSE, SYMPTOM];

    pub(crate) fn rules() -> Vec<&'static Rule> {
        RULES.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_row_and_its_section() {
        let page = markdown(&toy::rules());
        for expected in [
            "\n## WireGuard\n\n| code | severity | holds when |\n| --- | --- | --- |\n| [`toy-cause`](#toy-cause) | ",
            "| it makes a noise \\| or none, and",
            "\n### toy-cause\n\n*critical.* Holds when the toy is broken.\n\nIt does not | work.\n\n",
            "**What to do.**\n\n- glue it\n- `buy another`\n",
            "**Looks at:** wireguard-netlink or wireguard-uapi; capture.\n",
            "**Explained by:** [`toy-cause`](#toy-cause).\n",
            "**Explains:** [`toy-symptom`](#toy-symptom).\n",
        ] {
            assert!(page.contains(expected), "{expected:?} in {page}");
        }
        assert!(!page.contains("\n\n\n"));
    }
}

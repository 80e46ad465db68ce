//! `wgnat explain`: one finding of the catalogue in full, or the whole catalogue as a list.
//!
//! In: [`Rule`]s. Out: lines for a terminal. Pure.

use std::io::{self, Write};

use super::text::page::{Page, Role, piece};
use super::text::{self, prose};
use super::{Options, clean};
use crate::config::distance;
use crate::rules::Rule;

/// Why nothing was explained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No rule has this code.
    #[error("there is no finding called {code:?}{}; `wgnat explain` lists all", hint(.nearest))]
    Unknown {
        /// What was asked for.
        code: String,
        /// The code that is meant, perhaps.
        nearest: Option<&'static str>,
    },
    /// The output failed.
    #[error("writing the explanation: {0}")]
    Write(#[from] io::Error),
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |code| format!(" (did you mean {code:?}?)"))
}

/// Writes what `code` of `rules` means; with no code, the list of all.
pub fn render(
    code: Option<&str>,
    rules: &[&'static Rule],
    options: &Options,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut page = Page::new(Options {
        width: options.width.clamp(text::MIN_WIDTH, text::MAX_WIDTH),
        ..*options
    });
    match code {
        None => catalogue(&mut page, rules),
        Some(code) => match rules.iter().find(|r| r.code == code) {
            Some(rule) => one(&mut page, rule, rules),
            None => {
                return Err(Error::Unknown {
                    code: clean::line(code),
                    nearest: nearest(code, rules),
                });
            }
        },
    }
    Ok(page.write(out)?)
}

fn one(page: &mut Page, rule: &Rule, rules: &[&'static Rule]) {
    page.row(vec![
        piece(Role::Strong, rule.code),
        piece(Role::Dim, format!(" · {} · {}", rule.area.title(), rule.severity)),
    ]);
    page.paragraph(
        piece(Role::Plain, ""),
        2,
        &[piece(Role::Plain, format!("Holds when {}.", rule.holds_when))],
    );
    for (heading, body) in [
        ("What it means", rule.meaning),
        ("How it is detected", rule.detection),
        ("What to do", rule.fix),
    ] {
        page.gap();
        page.row(vec![piece(Role::Strong, heading)]);
        prose::write(page, 2, body);
    }
    page.gap();
    for (label, list) in [
        ("Looks at", needs(rule)),
        ("Explained by", rule.explained_by.join(", ")),
        ("Explains", explains(rule, rules).join(", ")),
    ] {
        if !list.is_empty() {
            page.paragraph(piece(Role::Dim, label), 14, &[piece(Role::Plain, list)]);
        }
    }
}

/// The sources of `rule`: `a or b; c`.
pub(super) fn needs(rule: &Rule) -> String {
    let groups: Vec<String> = rule
        .needs
        .iter()
        .map(|group| group.iter().map(|s| s.name()).collect::<Vec<_>>().join(" or "))
        .collect();
    groups.join("; ")
}

/// Codes that `rule` explains, by `rules`' own word.
pub(super) fn explains(rule: &Rule, rules: &[&'static Rule]) -> Vec<&'static str> {
    rules
        .iter()
        .filter(|r| r.explained_by.contains(&rule.code))
        .map(|r| r.code)
        .collect()
}

fn catalogue(page: &mut Page, rules: &[&'static Rule]) {
    let mut area = None;
    let indent = 4 + rules
        .iter()
        .map(|r| clean::width(r.code))
        .max()
        .unwrap_or(0)
        .min(28);
    for rule in rules {
        if area.replace(rule.area) != Some(rule.area) {
            page.gap();
            page.row(vec![piece(Role::Strong, rule.area.title())]);
        }
        page.paragraph(
            piece(Role::Plain, format!("  {}", rule.code)),
            indent,
            &[
                piece(Role::Dim, format!("{}:", rule.severity)),
                piece(Role::Plain, rule.holds_when),
            ],
        );
    }
    page.gap();
    page.row(vec![piece(
        Role::Dim,
        "wgnat explain CODE tells more about one of them.",
    )]);
}

/// The code that `wrong` is most like, if it is like one: at most a third of its characters differ, or it is a part
/// of exactly that code.
fn nearest(wrong: &str, rules: &[&'static Rule]) -> Option<&'static str> {
    // Longer than every code: nothing is near, and distances need not be worked out.
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.trim().to_lowercase().replace(['_', ' '], "-");
    let (best, distance) = rules
        .iter()
        .map(|r| (r.code, distance(&wrong, r.code)))
        .min_by_key(|(_, d)| *d)?;
    if distance * 3 <= wrong.chars().count() {
        return Some(best);
    }
    let mut holding = rules
        .iter()
        .filter(|r| wrong.len() >= 3 && r.code.contains(&wrong));
    match (holding.next(), holding.next()) {
        (Some(only), None) => Some(only.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::catalogue::toy;

    fn explained(code: Option<&str>) -> Result<String, String> {
        let mut out = Vec::new();
        render(code, &toy::rules(), &Options::default(), &mut out).map_err(|e| e.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn one_finding_in_full() {
        assert_eq!(
            explained(Some("toy-cause")).unwrap(),
            "toy-cause · WireGuard · critical\n  Holds when the toy is broken.\n\n\
             What it means\n  It does not | work.\n\n\
             How it is detected\n  By looking.\n\n\
             What to do\n  - glue it\n  - `buy another`\n\n\
             Looks at      wireguard-netlink or wireguard-uapi; capture\n\
             Explains      toy-symptom\n"
        );
    }

    #[test]
    fn the_list_is_by_area() {
        let list = explained(None).unwrap();
        let at = |text: &str| list.find(text).unwrap_or_else(|| panic!("{text} in {list}"));
        assert!(at("WireGuard\n") < at("  toy-cause "));
        assert!(at("  toy-cause ") < at("Sockets and ephemeral ports\n"));
        assert!(list.lines().all(|l| clean::width(l) <= 80));
    }

    #[test]
    fn a_wrong_code_names_the_right_one() {
        for (wrong, hint) in [
            ("toy-couse", "did you mean \"toy-cause\""),
            ("TOY_SYMPTOM", "did you mean \"toy-symptom\""),
            ("symptom", "did you mean \"toy-symptom\""),
        ] {
            let message = explained(Some(wrong)).unwrap_err();
            assert!(message.contains(hint), "{message}");
        }
        for far in ["x", "conntrack-full", "\u{1b}[2J", &"toy-cause".repeat(20)] {
            let message = explained(Some(far)).unwrap_err();
            assert!(!message.contains("did you mean"), "{message}");
            assert!(!message.contains('\u{1b}'));
        }
        assert_eq!(
            explained(Some("toy-couse")).unwrap_err(),
            "there is no finding called \"toy-couse\" (did you mean \"toy-cause\"?); `wgnat explain` lists all"
        );
    }
}

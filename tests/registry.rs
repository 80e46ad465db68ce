//! The catalogue is whole: each code has its texts, its page, a test in the lab and a line in the contract's terms;
//! causes exist and form no cycle.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use wgnat::rules::{Rule, registry};

fn rules() -> Vec<&'static Rule> {
    registry::rules().collect()
}

fn read_all(dir: &str, ending: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut text = String::new();
    for entry in fs::read_dir(&root).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with(ending) {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    text
}

#[test]
fn codes_are_unique_and_well_formed() {
    let mut seen = BTreeSet::new();
    for rule in rules() {
        assert!(seen.insert(rule.code), "{} is there twice", rule.code);
        assert!(
            rule.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
            "{}",
            rule.code
        );
    }
    assert!(seen.len() >= 20, "only {} rules", seen.len());
}

#[test]
fn every_rule_has_its_texts() {
    for rule in rules() {
        for (what, text, least) in [
            ("holds_when", rule.holds_when, 20),
            ("meaning", rule.meaning, 80),
            ("detection", rule.detection, 60),
            ("fix", rule.fix, 40),
        ] {
            assert!(
                text.trim().len() >= least,
                "{}: {what} says too little: {text:?}",
                rule.code
            );
        }
        assert!(
            ["info", "warning", "critical"]
                .iter()
                .any(|s| rule.severity.contains(s)),
            "{}",
            rule.code
        );
        assert!(
            !rule.needs.is_empty(),
            "{} needs no source: it could never be unchecked",
            rule.code
        );
    }
}

#[test]
fn causes_exist_and_form_no_cycle() {
    fn visit(code: &'static str, path: &mut Vec<&'static str>) {
        assert!(!path.contains(&code), "cycle: {path:?} -> {code}");
        let rule = registry::find(code)
            .unwrap_or_else(|| panic!("{path:?} is explained by {code}, which is no rule"));
        path.push(code);
        for cause in rule.explained_by {
            visit(cause, path);
        }
        path.pop();
    }
    for rule in rules() {
        visit(rule.code, &mut Vec::new());
    }
}

#[test]
fn every_rule_has_its_real_fault_in_the_lab() {
    let tests = read_all("tests", ".rs").replace(&fs::read_to_string(file!()).unwrap_or_default(), "");
    for rule in rules() {
        assert!(
            tests.contains(&format!("\"{}\"", rule.code)),
            "no test under tests/ names {:?}",
            rule.code
        );
    }
}

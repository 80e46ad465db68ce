//! Cases from the lab, judged again without it: each record gives the findings that it gave, and the same bytes each time.
//!
//! No root is needed. tests/replays/README.md says how a case is kept.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn replay(record: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgnat"));
    command.args(["doctor", "--json", "--replay"]).arg(record);
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("WGNAT_")) {
        command.env_remove(name);
    }
    let out = command.output().expect("wgnat runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.is_empty(), "{}: {said}", record.display());
    (
        out.status.code().unwrap_or(-1),
        String::from_utf8(out.stdout).expect("JSON is UTF-8"),
    )
}

/// A report in a few lines, as `<case>.expect` has it.
fn outline(code: i32, report: &str) -> String {
    let report: serde_json::Value = serde_json::from_str(report).expect("it is JSON");
    let list = |name: &str| report[name].as_array().cloned().unwrap_or_default();
    let word = |v: &serde_json::Value, name: &str| v[name].as_str().unwrap_or_default().to_owned();
    let found = list("findings").into_iter().map(|f| {
        format!(
            "{} {} {}\n",
            word(&f, "severity"),
            word(&f, "confidence"),
            word(&f, "code")
        )
    });
    let folded = list("suppressed")
        .into_iter()
        .map(|f| format!("folded {}\n", word(&f, "code")));
    format!("exit {code}\n{}", found.chain(folded).collect::<String>())
}

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/replays");
    let entries = fs::read_dir(directory).expect("the cases are there").flatten();
    let mut cases: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|x| x == "jsonl"))
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_case_is_judged_as_it_was_in_the_lab() {
    let cases = cases();
    assert!(cases.len() > 40, "there are only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let expected = fs::read_to_string(case.with_extension("expect")).expect("each case has its verdict");
        let (code, report) = replay(case);
        let found = outline(code, &report);
        if found != expected {
            wrong.push(format!(
                "{}\nexpected:\n{expected}found:\n{found}",
                case.display()
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_case_gives_the_same_bytes_each_time() {
    for case in cases() {
        assert_eq!(replay(&case), replay(&case), "{}", case.display());
    }
}

#[test]
fn every_case_is_small_and_anonymous() {
    for case in cases() {
        let text = fs::read_to_string(&case).expect("it can be read");
        assert!(
            text.len() <= 200_000,
            "{} has {} bytes",
            case.display(),
            text.len()
        );
        let header = text.lines().next().unwrap_or_default();
        assert!(
            header.contains("\"anonymised\":true"),
            "{}: {header}",
            case.display()
        );
        // The lab's names and addresses, and paths of the machine that recorded it.
        for word in [
            "wgnat-",
            "203.0.113.9",
            "10.77.0.2",
            "198.51.100.9",
            "/tmp",
            "/root",
            "/home",
            "/work",
        ] {
            assert!(!text.contains(word), "{} tells {word}", case.display());
        }
    }
}

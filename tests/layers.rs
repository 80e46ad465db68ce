//! Data only goes up: no floor imports one above it, and the pure floors do no I/O and read no clock.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The floors from the bottom up, each with the crate modules that it may use besides itself.
const FLOORS: &[(&str, &[&str])] = &[
    ("time", &[]),
    ("types", &[]),
    ("wire", &["observation", "time", "types"]),
    ("observation", &["time", "types"]),
    ("finding", &["time", "types"]),
    ("redact", &["observation", "time", "types"]),
    ("sys", &["time", "types"]),
    ("probe", &["observation", "time", "types", "wire"]),
    (
        "observe",
        &["observation", "probe", "sys", "time", "types", "wire"],
    ),
    ("track", &["observation", "time", "types", "wire"]),
    ("budgets", &["config", "observation", "time"]),
    ("pooling", &["finding", "time", "types"]),
    (
        "rules",
        &[
            "budgets",
            "config",
            "finding",
            "observation",
            "pooling",
            "time",
            "track",
            "types",
            "wire",
        ],
    ),
    (
        "report",
        &[
            "config",
            "finding",
            "observation",
            "rules",
            "time",
            "track",
            "types",
            "wire",
        ],
    ),
    (
        "output",
        &[
            "config",
            "finding",
            "observation",
            "report",
            "rules",
            "time",
            "track",
            "types",
            "wire",
        ],
    ),
    (
        "tui",
        &[
            "finding",
            "observation",
            "output",
            "pooling",
            "report",
            "rules",
            "time",
            "track",
            "types",
        ],
    ),
];

/// Floors that do no I/O and read no clock.
const PURE: &[&str] = &[
    "time",
    "types",
    "wire",
    "observation",
    "finding",
    "redact",
    "budgets",
    "probe",
    "track",
    "pooling",
    "rules",
    "report",
    "output",
    "tui",
];

/// What I/O and clocks look like in source.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "Instant::now",
    "SystemTime",
    "socket2::",
    "nix::",
    "tokio::",
    "netlink_sys",
    "sys::",
    "println!",
    "eprintln!",
];

fn sources(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file without comments and without the tests at its end or in a file of their own.
fn code(path: &Path) -> Vec<(usize, String)> {
    let name = path.file_name().unwrap().to_string_lossy();
    if name == "tests.rs"
        || name.ends_with("_tests.rs")
        || path.components().any(|c| c.as_os_str() == "tests")
    {
        return Vec::new();
    }
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]") && !line.starts_with("#![cfg(test)]"))
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default().to_owned()))
        .collect()
}

fn floor_files(floor: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = sources(&src.join(floor));
    let file = src.join(format!("{floor}.rs"));
    if file.exists() {
        files.push(file);
    }
    assert!(!files.is_empty(), "no source of floor {floor}");
    files
}

/// The crate modules that a line names: `crate::x` and each of `crate::{x, y::z}`.
fn named_modules(line: &str) -> Vec<String> {
    let ident = |text: &str| {
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let mut names = Vec::new();
    for after in line.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => names.extend(
                list.split(',')
                    .map(|part| ident(part.trim()))
                    .filter(|n| !n.is_empty()),
            ),
            None => names.push(ident(after)),
        }
    }
    names
}

#[test]
fn no_floor_imports_one_above_it() {
    let floors: Vec<&str> = FLOORS.iter().map(|(f, _)| *f).collect();
    let mut wrong = Vec::new();
    for (floor, may_use) in FLOORS {
        for path in floor_files(floor) {
            for (number, line) in code(&path) {
                for name in named_modules(&line) {
                    let is_floor =
                        floors.contains(&name.as_str()) || ["cmd", "cli", "config"].contains(&name.as_str());
                    if is_floor && name != *floor && !may_use.contains(&name.as_str()) {
                        wrong.push(format!("{}:{number}: {floor} uses {name}", path.display()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_pure_floors_do_no_io_and_read_no_clock() {
    let mut wrong = Vec::new();
    for floor in PURE {
        for path in floor_files(floor) {
            for (number, line) in code(&path) {
                if let Some(what) = IMPURE.iter().find(|what| line.contains(**what)) {
                    wrong.push(format!("{}:{number}: {what}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sys = src.join("sys");
    for path in sources(&src) {
        let allows = fs::read_to_string(&path).unwrap().contains("allow(unsafe_code)");
        assert!(
            !allows || path.starts_with(&sys),
            "{} allows unsafe code",
            path.display()
        );
    }
}

#[test]
fn the_check_sees_what_it_looks_for() {
    assert_eq!(named_modules("use crate::rules::{Rule, Input};"), ["rules"]);
    assert_eq!(named_modules("use crate::{cmd, track::World};"), ["cmd", "track"]);
    assert_eq!(
        named_modules("let x = crate::output::render(crate::report::R);"),
        ["output", "report"]
    );
}

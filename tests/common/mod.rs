//! What the tests of outputs share: sample reports, and files that are compared or, with WGNAT_UPDATE=1, rewritten.
#![allow(clippy::expect_used)] // a panic is how a test fails

pub mod samples;

use std::path::Path;

/// Compares `actual` with the file at `path` (from the repository's root); with WGNAT_UPDATE=1 it writes the file.
#[allow(dead_code)] // not every test has files
pub fn check_file(path: &str, actual: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("WGNAT_UPDATE").is_some_and(|v| v == "1") {
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).expect("the directory can be made");
        }
        std::fs::write(&file, actual).expect("the file can be written");
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    if expected == actual {
        return;
    }
    let line = expected
        .lines()
        .zip(actual.lines())
        .position(|(e, a)| e != a)
        .unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
    panic!(
        "{path} is not what is made now; they differ from line {} on.\n  file: {:?}\n  made: {:?}\n\
         If what is made now is right: WGNAT_UPDATE=1 cargo test",
        line + 1,
        expected.lines().nth(line),
        actual.lines().nth(line),
    );
}

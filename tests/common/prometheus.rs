//! docs/prometheus/, and a real Prometheus that runs while a test does.
#![allow(dead_code, clippy::expect_used, clippy::print_stdout)] // each test uses a part; a panic is how a test fails

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// False where the lab is to be skipped; panics where the program is not there.
pub fn there(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found && std::env::var("WGNAT_LAB").is_ok_and(|v| v == "skip") {
        println!("skipped: {program} is missing");
        return false;
    }
    assert!(
        found,
        "{program} is missing: install the package prometheus, or set WGNAT_LAB=skip"
    );
    true
}

/// The path of a file in docs/prometheus/.
pub fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/prometheus")
        .join(name)
}

/// A file in docs/prometheus/.
pub fn text(name: &str) -> String {
    std::fs::read_to_string(place(name)).expect("it is there")
}

/// The dashboard.
pub fn dashboard() -> Value {
    serde_json::from_str(&text("dashboard.json")).expect("JSON")
}

/// A panel's query.
#[derive(Clone, Debug)]
pub struct Query {
    pub panel: String,
    pub expr: String,
    pub legend: String,
    /// Asked for one moment only.
    pub instant: bool,
}

/// All of them, in the panels' order.
pub fn queries(dashboard: &Value) -> Vec<Query> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut all = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push(Query {
                panel: panel["title"].as_str().expect("a title").to_owned(),
                expr: target["expr"].as_str().expect("an expression").to_owned(),
                legend: target["legendFormat"].as_str().unwrap_or_default().to_owned(),
                instant: target["instant"].as_bool().unwrap_or(false),
            });
        }
    }
    all
}

/// `text` as it stands in a URL's query.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// A running Prometheus; it ends with the test.
pub struct Prometheus(pub Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What promtool has to say against metrics.
#[track_caller]
pub fn check_metrics(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics", "--extended"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool can be run");
    let mut stdin = promtool.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut stdin, text.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

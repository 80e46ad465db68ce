//! What was said of one fault from each vantage point, held against tests/scenarios/, of which docs/scenarios.md is made.

use super::Verdict;
use super::verdict::list;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A fault and what was said of it from where.
#[derive(Debug)]
pub struct Scenario {
    file: String,
    text: String,
    with_info: bool,
}

impl Scenario {
    /// Of the fault in a few words.
    pub fn of(name: &str, fault: &str) -> Self {
        Self {
            file: format!("{name}.said"),
            text: format!("fault: {fault}\n"),
            with_info: false,
        }
    }

    /// More of the fault `name`, said by another test: `part` tells the files apart.
    pub fn more_of(name: &str, part: &str) -> Self {
        Self {
            file: format!("{name}.{part}.said"),
            text: String::new(),
            with_info: false,
        }
    }

    /// With findings that are for information only, where these are what the fault is about.
    #[must_use]
    pub fn with_info(mut self) -> Self {
        self.with_info = true;
        self
    }

    /// What was said at the host that calls.
    #[must_use]
    pub fn initiator(self, verdict: &Verdict) -> Self {
        self.at("initiator", &verdict.report)
    }

    /// What was said at the host that is called.
    #[must_use]
    pub fn responder(self, verdict: &Verdict) -> Self {
        self.at("responder", &verdict.report)
    }

    /// What was said at a host in between.
    #[must_use]
    pub fn router(self, verdict: &Verdict) -> Self {
        self.at("router", &verdict.report)
    }

    /// What `wgnat analyze` said of captures at both ends.
    #[must_use]
    pub fn captures(self, report: &Value) -> Self {
        self.at("captures", report)
    }

    /// What `wgnat probe` said at the host that calls.
    #[must_use]
    pub fn probe(self, report: &Value) -> Self {
        self.at("probe", report)
    }

    fn at(mut self, place: &str, report: &Value) -> Self {
        let text = |found: &Value, field: &str| found[field].as_str().unwrap_or_default().to_owned();
        let mut said: Vec<String> = list(&report["findings"])
            .iter()
            .filter(|f| self.with_info || f["severity"] != "info")
            .map(|f| match text(f, "severity").as_str() {
                // How sure it is of what is no fault matters little.
                "info" => format!("info `{}`", text(f, "code")),
                severity => format!("{severity} {} `{}`", text(f, "confidence"), text(f, "code")),
            })
            .collect();
        said.dedup();
        let said = if said.is_empty() {
            "nothing".to_owned()
        } else {
            said.join(", ")
        };
        let _ = writeln!(self.text, "{place}: {said}");
        self
    }

    /// Compares it with what is published; with `WGNAT_UPDATE=1` it publishes it.
    #[track_caller]
    pub fn holds(self) {
        let file = format!("tests/scenarios/{}", self.file);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&file);
        if std::env::var_os("WGNAT_UPDATE").is_some_and(|v| v == "1") {
            fs::write(&path, &self.text).expect("the directory is writable");
            return;
        }
        let published = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            published == self.text,
            "{file} is not what was said.\npublished:\n{published}said:\n{}\nIf it is right: WGNAT_UPDATE=1",
            self.text
        );
    }
}

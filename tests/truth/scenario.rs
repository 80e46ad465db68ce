//! What was said of one fault at each host, held against tests/scenarios/, of which docs/scenarios.md is made.

use super::Verdict;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A fault and what each host's doctor said of it.
#[derive(Debug)]
pub struct Scenario {
    name: &'static str,
    text: String,
}

impl Scenario {
    /// Of the fault in a few words.
    pub fn of(name: &'static str, fault: &str) -> Self {
        Self {
            name,
            text: format!("fault: {fault}\n"),
        }
    }

    /// What was said at the host that calls.
    #[must_use]
    pub fn initiator(self, verdict: &Verdict) -> Self {
        self.at("initiator", verdict)
    }

    /// What was said at the host that is called.
    #[must_use]
    pub fn responder(self, verdict: &Verdict) -> Self {
        self.at("responder", verdict)
    }

    /// What was said at a host in between.
    #[must_use]
    pub fn router(self, verdict: &Verdict) -> Self {
        self.at("router", verdict)
    }

    fn at(mut self, place: &str, verdict: &Verdict) -> Self {
        let mut said: Vec<String> = verdict
            .findings()
            .filter(|f| f.severity() != "info")
            .map(|f| {
                let confidence = f.value["confidence"].as_str().unwrap_or_default();
                format!("{} {confidence} `{}`", f.severity(), f.code())
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
        let file = format!("tests/scenarios/{}.said", self.name);
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

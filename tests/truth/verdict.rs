//! A report, read as an expert would read it.

use super::Found;
use crate::lab::exec::Output;
use serde_json::Value;
use std::time::Duration;

/// What a run of doctor left. Its assertions show all of it when they fail.
#[derive(Debug)]
pub struct Verdict {
    /// The parsed report.
    pub report: Value,
    /// The report as it was printed.
    pub text: String,
    /// The exit code.
    pub code: i32,
    /// Standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Verdict {
    /// Reads what a run printed. Panics if that is no report, or one that contradicts itself.
    #[track_caller]
    pub fn read(what: &str, out: &Output, took: Duration) -> Self {
        let Output { code, stdout, stderr } = out;
        let report: Value = serde_json::from_str(stdout).unwrap_or_else(|error| {
            panic!(
                "`{what}` printed no report: {error}\nexit code {code}\nstandard output:\n{stdout}\nstandard \
                 error:\n{stderr}"
            )
        });
        let verdict = Self {
            report,
            text: stdout.clone(),
            code: *code,
            stderr: stderr.clone(),
            took,
        };
        verdict.is_sound();
        verdict
    }

    /// The codes of all findings that are not folded away, worst first.
    pub fn codes(&self) -> Vec<&str> {
        self.findings().map(|f| f.code()).collect()
    }

    /// The codes of the findings above info.
    pub fn wrong(&self) -> Vec<&str> {
        self.findings()
            .filter(|f| f.severity() != "info")
            .map(|f| f.code())
            .collect()
    }

    /// The codes of what is folded beneath findings.
    pub fn suppressed(&self) -> Vec<&str> {
        list(&self.report["suppressed"])
            .iter()
            .filter_map(|f| f["code"].as_str())
            .collect()
    }

    /// All findings that are not folded away.
    pub fn findings(&self) -> impl Iterator<Item = Found<'_>> {
        list(&self.report["findings"])
            .iter()
            .map(|value| Found { value, verdict: self })
    }

    /// Asserts that so many findings with this code are not folded away.
    #[track_caller]
    pub fn finding_count(&self, code: &str, count: usize) {
        let found = self.findings().filter(|f| f.code() == code).count();
        assert!(
            found == count,
            "{found} findings `{code}`, not {count}.\n{}",
            self.everything()
        );
    }

    /// The only finding with this code that is not folded away.
    #[track_caller]
    pub fn finding(&self, code: &str) -> Found<'_> {
        let mut found = self.findings().filter(|f| f.code() == code);
        let first = found.next();
        assert!(
            found.next().is_none(),
            "there is more than one finding `{code}`.\n{}",
            self.everything()
        );
        first.unwrap_or_else(|| panic!("there is no finding `{code}`.\n{}", self.everything()))
    }

    /// Asserts that exactly these findings are above info, in any order. Returns the first of them.
    #[track_caller]
    pub fn says_only(&self, codes: &[&str]) -> Found<'_> {
        let (mut said, mut expected) = (self.wrong(), codes.to_vec());
        said.sort_unstable();
        expected.sort_unstable();
        assert!(
            said == expected,
            "expected {expected:?}, found {said:?}.\n{}",
            self.everything()
        );
        let first = self.findings().find(|f| Some(&f.code()) == codes.first());
        first.unwrap_or_else(|| panic!("says_only needs a code; for none there is nothing_wrong"))
    }

    /// Asserts that what is above info, if anything, is one of these: a host that may see a part of a fault.
    #[track_caller]
    pub fn says_at_most(&self, codes: &[&str]) {
        let other: Vec<&str> = self.wrong().into_iter().filter(|c| !codes.contains(c)).collect();
        assert!(
            other.is_empty(),
            "{other:?} must not be said here.\n{}",
            self.everything()
        );
    }

    /// Asserts that nothing above info is found, by a doctor that saw enough to say so.
    #[track_caller]
    pub fn nothing_wrong(&self) {
        assert!(
            self.wrong().is_empty(),
            "{:?} must not be said here.\n{}",
            self.wrong(),
            self.everything()
        );
        let status = &self.report["status"];
        assert!(
            self.code == 0 && status == "ok",
            "expected ok and exit code 0.\n{}",
            self.everything()
        );
    }

    /// One source of facts.
    #[track_caller]
    pub fn collector(&self, name: &str) -> &Value {
        let found = list(&self.report["collectors"])
            .iter()
            .find(|c| c["name"] == name);
        found.unwrap_or_else(|| panic!("there is no collector {name}.\n{}", self.everything()))
    }

    /// The row of the only peer.
    #[track_caller]
    pub fn peer(&self) -> &Value {
        let peers = list(&self.report["wireguard"]["peers"]);
        assert!(peers.len() == 1, "expected one peer.\n{}", self.everything());
        &peers[0]
    }

    /// The rules that could not be checked.
    pub fn not_checked(&self) -> Vec<&str> {
        list(&self.report["not_checked"])
            .iter()
            .filter_map(|n| n["code"].as_str())
            .collect()
    }

    /// Report, exit code and standard error, for a person.
    pub fn everything(&self) -> String {
        format!(
            "took {:?}, exit code {}\nreport: {}\nstandard error:\n{}",
            self.took, self.code, self.text, self.stderr
        )
    }

    /// What holds of every report.
    #[track_caller]
    fn is_sound(&self) {
        assert!(self.report["schema"] == "wgnat.report/1", "{}", self.everything());
        for found in self.findings() {
            found.is_sound();
        }
        let worst = self
            .findings()
            .map(|f| f.severity().to_owned())
            .collect::<Vec<_>>();
        let status = match &self.report["status"] {
            unknown if unknown == "unknown" && worst.is_empty() => "unknown",
            _ if worst.iter().any(|s| s == "critical") => "critical",
            _ if worst.iter().any(|s| s == "warning") => "warning",
            _ => "ok",
        };
        assert!(
            self.report["status"] == status,
            "the status is not the worst finding's.\n{}",
            self.everything()
        );
        assert!(
            !self.stderr.contains("panicked"),
            "a thread panicked.\n{}",
            self.everything()
        );
    }
}

/// The items of a list; none where it is missing.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

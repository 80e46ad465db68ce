//! Running the product inside the lab.

use super::{Lab, Namespace, exec};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// `doctor` watches for seconds and may probe; beyond this it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// What a run of `wgnat … --json` left.
#[derive(Debug)]
pub struct Doctor {
    /// The parsed report.
    pub report: Value,
    /// The exit code.
    pub code: i32,
    /// Standard error: progress and logs.
    pub stderr: String,
}

impl Doctor {
    /// The codes of all findings, in the report's order.
    pub fn codes(&self) -> Vec<&str> {
        self.findings()
            .iter()
            .filter_map(|f| f["code"].as_str())
            .collect()
    }

    /// All findings.
    pub fn findings(&self) -> &[Value] {
        self.report["findings"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The first finding with this code. Panics with the whole report if there is none.
    #[track_caller]
    pub fn finding(&self, code: &str) -> &Value {
        let found = self.findings().iter().find(|f| f["code"] == code);
        found.unwrap_or_else(|| panic!("no finding `{code}`.\n{}", self.everything()))
    }

    /// Panics with the whole report if there is a finding with this code.
    #[track_caller]
    pub fn lacks(&self, code: &str) {
        let found = self.codes().contains(&code);
        assert!(
            !found,
            "there is a finding `{code}` and must not be.\n{}",
            self.everything()
        );
    }

    /// Report, exit code and standard error, for a person.
    pub fn everything(&self) -> String {
        format!(
            "exit code {}\nreport: {:#}\nstandard error:\n{}",
            self.code, self.report, self.stderr
        )
    }
}

impl Lab {
    /// The product, to be run in a namespace of this lab. It sees none of the machine's configuration.
    pub fn wgnat(&self, ns: &Namespace) -> Command {
        let mut command = ns.command(env!("CARGO_BIN_EXE_wgnat"));
        self.clean_environment(&mut command);
        command
    }

    /// The product as the user `nobody`, without any capability and any way to get one.
    pub fn wgnat_as_nobody(&self, ns: &Namespace) -> Command {
        // nobody may not be able to reach the build's directory.
        let binary = self.dir().join("wgnat-for-nobody");
        std::fs::copy(env!("CARGO_BIN_EXE_wgnat"), &binary).expect("the lab's directory is writable");
        let mut command = ns.command("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ]);
        command.args(["--no-new-privs", "--"]).arg(binary);
        self.clean_environment(&mut command);
        command
    }

    /// Takes everything from a command's environment that would tell the product of the machine or of its user.
    pub fn clean_environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WGNAT_") {
                command.env_remove(name);
            }
        }
        // Fly's and wgnat's files under the user's home belong to the machine, not to the lab.
        command
            .env("HOME", self.dir())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME")
            .env_remove("STATE_DIRECTORY")
            .env("NO_COLOR", "1");
    }

    /// Runs `wgnat doctor --json` with more arguments in a namespace; any exit code will do, but the report must parse.
    #[track_caller]
    pub fn doctor_json(&self, ns: &Namespace, extra: &[&str]) -> Doctor {
        let mut command = self.wgnat(ns);
        command.args(["doctor", "--json"]).args(extra);
        self.json(command)
    }

    /// Runs a prepared `wgnat … --json` to its end and parses what it prints.
    #[track_caller]
    pub fn json(&self, command: Command) -> Doctor {
        let what = exec::describe(&command);
        let out = exec::output_within(command, None, LIMIT);
        match serde_json::from_str(&out.stdout) {
            Ok(report) => Doctor {
                report,
                code: out.code,
                stderr: out.stderr,
            },
            Err(error) => panic!(
                "`{what}` did not print a report: {error}\nexit code {}\nstandard output:\n{}\nstandard error:\n{}",
                out.code, out.stdout, out.stderr
            ),
        }
    }
}

//! What a guest left behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::lab::Output;

/// The files of the guest's /results.
#[derive(Debug)]
pub struct Results {
    dir: TempDir,
    console: String,
}

impl Results {
    /// Unpacks the archive that came over the serial port. Panics with the end of the console where it is not one.
    #[track_caller]
    pub fn unpack(archive: &Path, console: String) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let out = Command::new("tar")
            .arg("-xzf")
            .arg(archive)
            .arg("-C")
            .arg(dir.path())
            .output()
            .unwrap_or_else(|e| panic!("cannot run tar: {e}"));
        let results = Self { dir, console };
        if let Some(keep) = std::env::var_os("WGNAT_VM_KEEP") {
            let copied = Command::new("cp")
                .arg("-rT")
                .arg(results.dir.path())
                .arg(&keep)
                .status();
            let copied = copied.unwrap_or_else(|e| panic!("cannot run cp: {e}"));
            assert!(copied.success(), "cannot copy the results to {}", keep.display());
        }
        assert!(
            out.status.success(),
            "the guest sent no results: {}\n{}",
            String::from_utf8_lossy(&out.stderr).trim(),
            results.console()
        );
        results
    }

    /// A file's text. Panics where it is not there.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        let bytes = fs::read(self.dir.path().join(path))
            .unwrap_or_else(|_| panic!("the guest left no {path}; {}", self.console()));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the guest's script got from wgnat in a case: its exit code, report and standard error.
    #[track_caller]
    pub fn output(&self, case: &str) -> Output {
        let text = |what: &str| self.text(&format!("{case}.{what}"));
        Output {
            code: text("code").trim().parse().expect("the script writes a number"),
            stdout: text("json"),
            stderr: text("err"),
        }
    }

    /// That the guest's script went through. What it did is shown.
    #[track_caller]
    pub fn assert_script_ended_well(&self) {
        eprintln!("{}", self.text("log"));
        assert_eq!(
            self.text("code").trim(),
            "0",
            "the guest's script failed:\n{}\n{}",
            self.text("log"),
            self.console()
        );
    }

    /// The end of what the guest's console said.
    pub fn console(&self) -> String {
        tail(&self.console)
    }
}

/// The last lines of a console.
pub fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let from = lines.len().saturating_sub(60);
    format!("the guest's console ended with:\n{}", lines[from..].join("\n"))
}

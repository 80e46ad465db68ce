//! Progress on standard error, on a terminal only: one line that is written over, and findings as they come.

use std::io::{self, IsTerminal, Write};

use crate::finding::{Finding, Severity};
use crate::output::clean;
use crate::time::Span;

/// The progress line.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    quiet: bool,
    drawn: bool,
    told: Vec<(&'static str, String)>,
}

impl Progress {
    /// For this process's standard error.
    pub fn new(quiet: bool) -> Self {
        Self {
            terminal: io::stderr().is_terminal() && !quiet,
            quiet,
            drawn: false,
            told: Vec::new(),
        }
    }

    /// Whether anybody watches.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Redraws the line.
    pub fn draw(&mut self, watched: Span, of: Span) {
        if self.terminal {
            self.drawn = true;
            let (watched, of) = (watched.as_secs_f32(), of.as_secs_f32());
            let _ = write!(
                io::stderr(),
                "\r\x1b[2Kwatching {watched:.1} of {of:.1} s … (Ctrl-C: report now)"
            );
        }
    }

    /// Tells of findings that were not told before.
    pub fn findings(&mut self, findings: &[Finding]) {
        if !self.terminal {
            return;
        }
        for finding in findings.iter().filter(|f| f.severity >= Severity::Warning) {
            // Titles may carry a number that moves; one line a code and subject kind is enough of a foretaste.
            let key = (finding.code, format!("{:?}", finding.subject));
            if !self.told.contains(&key) {
                self.told.push(key);
                self.say(&format!("{}: {}", finding.severity.name(), finding.title));
            }
        }
    }

    /// A line that stays, also where standard error is no terminal.
    pub fn note(&mut self, text: &str) {
        if !self.quiet {
            self.say(&format!("wgnat: {text}"));
        }
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if self.drawn {
            self.drawn = false;
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }

    fn say(&mut self, line: &str) {
        self.clear();
        // Names come from outside; a terminal must not take orders from them.
        let line = clean::line(line);
        let _ = writeln!(io::stderr(), "{line}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

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
    /// What the line says, where one is drawn.
    drawn: Option<String>,
    told: Vec<(&'static str, String)>,
}

impl Progress {
    /// For this process's standard error.
    pub fn new(quiet: bool) -> Self {
        Self {
            terminal: io::stderr().is_terminal() && !quiet,
            quiet,
            drawn: None,
            told: Vec::new(),
        }
    }

    /// Whether anybody watches.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Redraws the line, where it says something new.
    pub fn draw(&mut self, watched: Span, of: Span) {
        if !self.terminal {
            return;
        }
        let (watched, of) = (watched.as_secs_f32(), of.as_secs_f32());
        let line = format!("watching {watched:.1} of {of:.1} s … (Ctrl-C: report now)");
        if self.drawn.as_ref() != Some(&line) {
            let _ = write!(io::stderr(), "\r\x1b[2K{line}");
            self.drawn = Some(line);
        }
    }

    /// Tells of findings that were not told before.
    pub fn findings(&mut self, findings: &[Finding]) {
        if !self.terminal {
            return;
        }
        for finding in findings.iter().filter(|f| f.severity >= Severity::Warning) {
            // Titles may carry a number that moves, and a process may be known only later.
            let key = (finding.code, finding.subject.identity());
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
        if self.drawn.take().is_some() {
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

//! A real terminal (tmux) in a namespace: what a person would type, and what they would see.

use super::{Namespace, exec, wait};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A busy machine draws late.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal with a shell in it. It ends with the handle.
#[derive(Debug)]
pub struct Terminal<'a> {
    ns: &'a Namespace,
    socket: PathBuf,
}

impl<'a> Terminal<'a> {
    /// Opens one of this size in `ns`, with these variables in its environment.
    #[track_caller]
    pub fn open(ns: &'a Namespace, width: u16, height: u16, environment: &[(&str, &str)]) -> Self {
        // A server that has just been ended may still hold its socket.
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let terminal = Self {
            ns,
            socket: ns.dir().join(format!("tmux-{number}")),
        };
        let mut command = terminal.tmux();
        command.args(["-u", "-f", "/dev/null", "new-session", "-d"]);
        command.args(["-x", &width.to_string(), "-y", &height.to_string()]);
        for (name, value) in [("LC_ALL", "C.UTF-8"), ("NO_COLOR", "")]
            .iter()
            .chain(environment)
        {
            command.arg("-e").arg(format!("{name}={value}"));
        }
        command.arg("sh");
        exec::run(command);
        // The prompt: a number sign for root.
        terminal.await_screen("the prompt", |screen| screen.contains(['#', '$']));
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = self.ns.command("tmux");
        command.arg("-S").arg(&self.socket);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WGNAT_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.ns.dir()).env_remove("TMUX");
        command
    }

    /// Types keys by tmux's names (`Enter`, `Down`, `C-c`), or text.
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        for key in keys {
            let mut command = self.tmux();
            command.args(["send-keys", key]);
            exec::run(command);
        }
    }

    /// Types a line.
    #[track_caller]
    pub fn line(&self, text: &str) {
        let mut command = self.tmux();
        command.args(["send-keys", "-l", text]);
        exec::run(command);
        self.keys(&["Enter"]);
    }

    /// What is on the screen.
    #[track_caller]
    pub fn screen(&self) -> String {
        let mut command = self.tmux();
        command.args(["capture-pane", "-p"]);
        exec::run(command)
    }

    /// The same with the escape sequences that colour it.
    #[track_caller]
    pub fn coloured_screen(&self) -> String {
        let mut command = self.tmux();
        command.args(["capture-pane", "-p", "-e"]);
        exec::run(command)
    }

    /// Waits until a look at the screen finds something. Panics with the screen if it never does.
    #[track_caller]
    pub fn await_screen(&self, what: &str, found: impl Fn(&str) -> bool) -> String {
        let watch = super::Watch::start();
        loop {
            let screen = self.screen();
            if found(&screen) {
                return screen;
            }
            assert!(
                watch.elapsed() < PATIENCE,
                "waited {PATIENCE:?} in vain for {what}; on the screen:\n{screen}"
            );
            wait::pause();
        }
    }

    /// Waits until a text is on the screen.
    #[track_caller]
    pub fn await_text(&self, text: &str) -> String {
        self.await_screen(text, |screen| screen.contains(text))
    }

    /// Makes the terminal another size.
    #[track_caller]
    pub fn resize(&self, width: u16, height: u16) {
        let mut command = self.tmux();
        command.args([
            "resize-window",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
        ]);
        exec::run(command);
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").output();
    }
}

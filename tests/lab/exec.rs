//! Running commands with a time limit and with failures that can be read.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Longer than any tool here takes on a busy machine, shorter than a person waits for a hung test.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What a finished command left.
#[derive(Debug)]
pub struct Output {
    /// The exit code, or 128 + the signal.
    pub code: i32,
    /// Standard output, lossily decoded.
    pub stdout: String,
    /// Standard error, lossily decoded.
    pub stderr: String,
}

impl Output {
    /// Standard output with one space for each gap, for who looks for words: where a line is broken hangs on numbers.
    pub fn words(&self) -> String {
        self.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Runs a command to its end and returns its output whatever its exit code. Panics if it cannot start or takes too long.
#[track_caller]
pub fn output(command: Command) -> Output {
    output_within(command, None, LIMIT)
}

/// Runs a command that has to succeed, and returns its standard output.
#[track_caller]
pub fn run(command: Command) -> String {
    let what = describe(&command);
    succeeded(&what, output(command))
}

/// Like [`run`], with text on standard input. The text is never printed: it may be a key.
#[track_caller]
pub fn run_with_input(command: Command, input: &str) -> String {
    let what = describe(&command);
    succeeded(&what, output_within(command, Some(input), LIMIT))
}

/// Runs a command with optional input; kills it and panics when `limit` has passed.
#[track_caller]
pub fn output_within(mut command: Command, input: Option<&str>, limit: Duration) -> Output {
    let what = describe(&command);
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start `{what}`: {e}"));
    if let Some(text) = input {
        // A child that dies early closes the pipe; its exit code then tells the story.
        let _ = child
            .stdin
            .take()
            .expect("stdin is piped")
            .write_all(text.as_bytes());
    }
    let stdout = drain(child.stdout.take().expect("stdout is piped"));
    let stderr = drain(child.stderr.take().expect("stderr is piped"));
    let Ok(out) = stdout.recv_timeout(limit) else {
        let _ = child.kill();
        let _ = child.wait();
        let said = stderr.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        panic!("`{what}` did not end within {limit:?}; it said on standard error:\n{said}");
    };
    let err = stderr.recv_timeout(limit).unwrap_or_default();
    let status = child
        .wait()
        .unwrap_or_else(|e| panic!("cannot wait for `{what}`: {e}"));
    let code = status.code().unwrap_or_else(|| {
        use std::os::unix::process::ExitStatusExt;
        128 + status.signal().unwrap_or(0)
    });
    Output {
        code,
        stdout: out,
        stderr: err,
    }
}

/// The program and its arguments, as a person would type them.
pub fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn succeeded(what: &str, out: Output) -> String {
    assert!(
        out.code == 0,
        "`{what}` failed with code {}: {}{}",
        out.code,
        out.stdout,
        out.stderr
    );
    out.stdout
}

/// Reads a pipe to its end on a thread of its own, so that a full pipe never blocks the child.
fn drain(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (to, result) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = to.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    result
}

/// Asks a process to end now, as a person does with Ctrl-C.
#[track_caller]
pub fn interrupt(pid: u32) {
    let kill = format!("kill -INT {pid}");
    let done = Command::new("sh").args(["-c", &kill]).status();
    assert!(done.is_ok_and(|s| s.success()), "process {pid} has ended");
}

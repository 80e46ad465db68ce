//! A run of doctor, in the foreground or while the test goes on.

use super::{Verdict, cases};
use crate::lab::{Lab, Namespace, SOON, Watch, exec, wait};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// Beyond `--max-duration` and all time-outs.
const LIMIT: Duration = Duration::from_secs(90);

/// Longer than a test waits for anything.
const LONG: &str = "150s";

/// What doctor says with `-v` when each of its observers has looked once: a change from then on is one that it sees.
const WATCHING: &str = "watching";

/// A run to come.
#[derive(Debug)]
pub struct Look {
    command: Command,
    case: Option<cases::Recording>,
}

impl Look {
    /// `wgnat doctor --json` in a namespace of the lab.
    pub fn at(lab: &Lab, ns: &Namespace) -> Self {
        Self::with(lab.wgnat(ns)).args(&["-v", "doctor", "--json"])
    }

    /// A prepared command, for what is not run as root or not in a namespace.
    pub fn with(command: Command) -> Self {
        Self { command, case: None }
    }

    /// With more arguments.
    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// With `--duration`.
    #[must_use]
    pub fn duration(self, time: &str) -> Self {
        self.args(&["--duration", time])
    }

    /// For so long as the test wants, which ends it by [`Running::enough`]. What a test makes happen takes its time on a
    /// busy machine, and a watch of so many seconds may be over before.
    #[must_use]
    pub fn until_told(self) -> Self {
        self.args(&["--duration", LONG, "--max-duration", LONG])
    }

    /// With a case of this name for tests/replays, where cases are being recorded.
    #[must_use]
    pub fn case(mut self, name: &str) -> Self {
        if let Some(recording) = cases::Recording::begin(name) {
            self.command.arg("--record").arg(recording.raw());
            self.case = Some(recording);
        }
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Verdict {
        self.start().finish()
    }

    /// Starts it.
    #[track_caller]
    pub fn start(mut self) -> Running {
        let what = exec::describe(&self.command);
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start `{what}`: {e}"));
        let mut out = child.stdout.take().expect("stdout is piped");
        let err = child.stderr.take().expect("stderr is piped");
        let (to, stdout) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = out.read_to_end(&mut bytes);
            let _ = to.send(String::from_utf8_lossy(&bytes).into_owned());
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let theirs = Arc::clone(&stderr);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(err).lines() {
                let line = line.unwrap_or_default();
                let mut text = theirs.lock().expect("no panic while locked");
                text.push_str(&line);
                text.push('\n');
            }
        });
        Running {
            what,
            child,
            stdout,
            stderr,
            reader: Some(reader),
            watch: Watch::start(),
            case: self.case,
        }
    }
}

/// A run under way. It is killed with its handle.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
    watch: Watch,
    case: Option<cases::Recording>,
}

impl Running {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end now, as a person does with Ctrl-C.
    pub fn interrupt(&self) {
        exec::interrupt(self.pid());
    }

    /// Waits until every observer has looked once.
    #[track_caller]
    pub fn await_watching(self) -> Self {
        self.await_said(WATCHING)
    }

    /// Waits until it has said these words on standard error.
    #[track_caller]
    pub fn await_said(mut self, words: &str) -> Self {
        let what = format!("`{}` to say {words:?}", self.what);
        let stderr = Arc::clone(&self.stderr);
        let child = &mut self.child;
        wait::wait_until(SOON, &what, || {
            if stderr.lock().expect("no panic while locked").contains(words) {
                return true;
            }
            let ended = child.try_wait().expect("it is our child");
            assert!(
                ended.is_none(),
                "it ended first, with {ended:?}: {}",
                stderr.lock().expect("as above")
            );
            false
        });
        self
    }

    /// Ends it now and reads the report. Its observers look once more before it does.
    #[track_caller]
    pub fn enough(self) -> Verdict {
        self.interrupt();
        self.finish()
    }

    /// Waits for its end and reads the report, which must be one.
    #[track_caller]
    pub fn finish(self) -> Verdict {
        let what = self.what.clone();
        let (out, took, case) = self.end();
        let verdict = Verdict::read(&what, &out, took);
        if let Some(case) = case {
            case.keep(&verdict);
        }
        verdict
    }

    /// Waits for its end, report or not.
    #[track_caller]
    pub fn output(self) -> exec::Output {
        self.end().0
    }

    #[track_caller]
    fn end(mut self) -> (exec::Output, Duration, Option<cases::Recording>) {
        let Ok(stdout) = self.stdout.recv_timeout(LIMIT) else {
            let said = self.stderr.lock().expect("no panic while locked").clone();
            panic!("`{}` did not end within {LIMIT:?}; it said:\n{said}", self.what);
        };
        let status = self.child.wait().expect("it is our child");
        let took = self.watch.elapsed();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let code = status.code().unwrap_or_else(|| {
            use std::os::unix::process::ExitStatusExt;
            128 + status.signal().unwrap_or(0)
        });
        let stderr = self.stderr.lock().expect("no panic while locked").clone();
        (exec::Output { code, stdout, stderr }, took, self.case.take())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

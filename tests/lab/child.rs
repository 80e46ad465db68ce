//! Load by a process of its own: another pid, another name, other limits than the test's.
//!
//! The process is the test binary again, told by an environment variable to run nothing but [`entry`].

use super::Namespace;
use super::load::{ChurnPlan, ChurnStats, churn_here, hold_here};
use nix::sys::resource::{Resource, setrlimit};
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc;

const VARIABLE: &str = "WGNAT_LAB_CHILD";
const READY: &str = "lab-child-ready ";

/// What the process does until its handle is dropped.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub enum Work {
    /// Opens so many connections, or as many as go, and holds them.
    Hold {
        /// The server.
        to: SocketAddr,
        /// How many.
        count: usize,
    },
    /// Churns.
    Churn(ChurnPlan),
}

/// The running process. It dies with the handle.
#[derive(Debug)]
pub struct LoadProcess {
    child: Child,
    /// What it said when it was ready: for [`Work::Hold`], the number of connections and the errno that stopped it or 0.
    pub held: (usize, i32),
}

impl LoadProcess {
    /// Starts it in `ns` under the name `comm`, and waits until it is at work. `open_files` is its soft limit.
    #[track_caller]
    pub fn start(ns: &Namespace, comm: &str, open_files: Option<u64>, work: Work) -> Self {
        let exe = std::env::current_exe().expect("a process has an executable");
        // The kernel names a process after the file that was executed, and a link's own name counts.
        let link = ns.dir().join(comm);
        match std::os::unix::fs::symlink(exe, &link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => panic!("cannot link {comm}: {e}"),
            _ => {}
        }
        let mut command = ns.command(&link);
        command.args(["lab::child::entry", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(VARIABLE, serde_json::to_string(&work).expect("it is plain data"));
        // It ends when its standard input does.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(limit) = open_files {
            // SAFETY: setrlimit is one system call.
            unsafe { command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_NOFILE, limit, limit)?)) };
        }
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {comm}: {e}"));
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        // The test harness prints before it, on the same line where it has not ended its own.
        let ready = lines.find_map(|line| line.ok()?.split_once(READY).map(|(_, rest)| rest.to_owned()));
        let ready = ready.unwrap_or_else(|| {
            let _ = child.kill();
            panic!("{comm} ended before it was ready: {:?}", child.wait())
        });
        // The pipe stays open, for the harness prints its result at the end.
        std::thread::spawn(move || lines.for_each(drop));
        let (count, errno) = ready.split_once(' ').expect("entry prints both");
        let number = "entry prints numbers";
        Self {
            child,
            held: (count.parse().expect(number), errno.parse().expect(number)),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for LoadProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process as the out-of-memory killer would: without any destructor.
pub fn die_by_sigkill() -> ! {
    // SAFETY: kill takes two numbers and touches no memory.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    unreachable!("SIGKILL cannot be caught")
}

/// Not a test: what a [`LoadProcess`] runs. Passes at once elsewhere.
#[test]
fn entry() {
    let Ok(work) = std::env::var(VARIABLE) else { return };
    let (stop, stopped) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        drop(stop);
    });
    match serde_json::from_str(&work).expect("the parent wrote it") {
        Work::Hold { to, count } => {
            let held = hold_here(to, count);
            let errno = held.error.and_then(|e| e.raw_os_error()).unwrap_or(0);
            println!("{READY}{} {errno}", held.streams.len());
            let _ = stopped.recv();
        }
        Work::Churn(plan) => {
            println!("{READY}0 0");
            churn_here(plan, &ChurnStats::default(), &stopped);
        }
    }
}

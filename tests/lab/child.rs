//! Load by a process of its own: another pid, another name, other limits than the test's.
//!
//! The process is the test binary again, told by an environment variable to run nothing but [`entry`].

use super::Namespace;
use super::load::{ChurnPlan, ChurnStats, churn_here, hold_here};
use nix::sys::resource::{Resource, setrlimit};
use socket2::{Domain, Socket, Type};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

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
    /// Opens `each` connections at once, holds them until the next, and so on each `period`.
    Burst {
        /// The server.
        to: SocketAddr,
        /// Connections in a burst.
        each: usize,
        /// From one to the next.
        period: Duration,
    },
    /// Tries to connect without waiting for an answer longer than `patience`, over and over.
    Try {
        /// Where to.
        to: SocketAddr,
        /// After this an attempt is given up.
        patience: Duration,
    },
    /// Connects UDP sockets until none gets a port, then tries on each 20 ms.
    UdpConnect {
        /// Where to.
        to: SocketAddr,
    },
    /// As [`Work::UdpConnect`] with TCP sockets that are bound to `from` and any port before they connect.
    BindFirst {
        /// The local address.
        from: std::net::IpAddr,
        /// Where to.
        to: SocketAddr,
    },
    /// Tries to listen at an address, over and over, as a service that is restarted does.
    Listen {
        /// Where.
        at: SocketAddr,
    },
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

/// Waits for so long, or until the parent wants the end: true then.
fn ended(stopped: &mpsc::Receiver<()>, after: Duration) -> bool {
    !matches!(stopped.recv_timeout(after), Err(mpsc::RecvTimeoutError::Timeout))
}

/// Opens sockets until one is denied, says how many there are, and tries on.
fn until_denied(stopped: &mpsc::Receiver<()>, open: impl Fn() -> io::Result<Socket>) {
    let mut held = Vec::new();
    let error = loop {
        match open() {
            Ok(socket) => held.push(socket),
            Err(error) => break error,
        }
    };
    println!("{READY}{} {}", held.len(), error.raw_os_error().unwrap_or(0));
    while !ended(stopped, Duration::from_millis(20)) {
        held.extend(open());
    }
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
        Work::Burst { to, each, period } => {
            let burst = || -> Vec<_> {
                // Not waiting for answers: a busy machine gives them late.
                let open = |_| {
                    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).ok()?;
                    socket.set_nonblocking(true).ok()?;
                    let _ = socket.connect(&to.into());
                    Some(socket)
                };
                (0..each).filter_map(open).collect()
            };
            println!("{READY}0 0");
            let mut held = burst();
            while !ended(&stopped, period) {
                held.clear();
                held = burst();
            }
        }
        Work::Try { to, patience } => {
            println!("{READY}0 0");
            while !ended(&stopped, Duration::from_millis(20)) {
                let _ = TcpStream::connect_timeout(&to, patience);
            }
        }
        Work::UdpConnect { to } => {
            until_denied(&stopped, || {
                let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
                socket.connect(&to.into()).map(|()| socket)
            });
        }
        Work::BindFirst { from, to } => {
            until_denied(&stopped, || {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.bind(&SocketAddr::new(from, 0).into())?;
                socket.connect(&to.into()).map(|()| socket)
            });
        }
        Work::Listen { at } => {
            println!("{READY}0 0");
            let mut listening = None;
            while !ended(&stopped, Duration::from_millis(20)) {
                if listening.is_none() {
                    listening = TcpListener::bind(at).ok();
                }
            }
        }
    }
}

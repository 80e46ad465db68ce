//! What counting connects by eBPF costs each short TCP connection: connect, accept and both closes over loopback, with programs
//! attached and without them, in turn, in one network namespace. `scripts/bench bpf` runs it; needs root.
//!
//! Compared in one run: nothing; an empty program on the same tracepoint; wgnat's programs as the agent has them; these and
//! the one at every system call, as doctor has them; where they are installed, two bpftrace aggregations (one that answers what
//! wgnat answers, and the barest there is, which counts changes of state) and libbpf-tools' tcplife.
//! Then how much a system call costs more, and whether any of 20,000 connections a second is lost.
//!
//! Each is measured twice: both ends on one thread, where nothing waits and a connection is as cheap as it can be, and with
//! the server on a thread of its own on another processor, from which the client hears a byte, as a client and a server are. Threads are pinned, and few
//! sockets are left in TIME_WAIT, so that neither the scheduler nor the search for a port is measured.
//!
//! Figures are medians of the rounds' own differences, with a 95 % interval from their ranks, so that what else the machine
//! does meets all alike. Options: `--rounds N`, `--seconds N` (of the flood), `--rate N`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

#[path = "../tests/kernel_tables/namespace.rs"]
mod namespace;

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aya_obj::generated::bpf_insn;
use socket2::SockRef;
use wgnat::observation::Body;
use wgnat::observe::bpf::Bpf;
use wgnat::observe::bpf::object::{Attached, with_types};
use wgnat::sys::{bpf, clock};

/// Connections in one measurement.
const EACH: usize = 1000;
/// Connections before each measurement, with what watches already there: what attaching costs once is not their cost.
const WARM_UP: usize = 500;
/// Ports that they are spread over, so that `connect` never has to search.
const SERVERS: usize = 8;

/// How each change of state is counted by bpftrace in the barest way: nobody learns from it who failed, or how long anything lived.
const BAREST: &str = r#"BEGIN { printf("ready\n"); }
tracepoint:sock:inet_sock_set_state { @[pid, args->dport, args->oldstate, args->newstate] = count(); }"#;

/// What wgnat answers, less causes, bytes and bursts: opens, failures, who closed first, lifetimes by process and
/// destination, and concurrency.
const SAME_ANSWER: &str = r#"BEGIN { printf("ready\n"); }
tracepoint:sock:inet_sock_set_state /args->protocol == 6/ {
    $port = args->dport;
    $old = args->oldstate;
    $new = args->newstate;
    $sk = args->skaddr;
    $to = ntop(args->daddr);
    if ($new == 2) {
        @opens[pid, $to, $port] = count();
        @now[pid, $port]++;
        @peak[pid, $port] = max(@now[pid, $port]);
        @who[$sk] = pid;
        @at[$sk] = nsecs;
    } else {
        $at = @at[$sk];
        if ($at != 0) {
            $who = @who[$sk];
            if ($new == 1) {
                @established[$who, $to, $port] = count();
            } else {
                if ($old == 2) {
                    @failed[$who, $to, $port] = count();
                } else {
                    @lived[$who, $to, $port] = hist(nsecs - $at);
                    @closed[$who, $to, $port, $old] = count();
                }
                @now[$who, $port]--;
                delete(@at[$sk]);
                delete(@who[$sk]);
            }
        }
    }
}"#;

#[derive(Clone, Copy, PartialEq)]
enum Close {
    /// By FIN, as most do.
    Fin,
    /// By reset, the shortest of all.
    Reset,
}

/// What watches meanwhile.
#[derive(Clone, Copy, Debug, PartialEq)]
enum With {
    Nothing,
    Empty,
    Steady,
    Doctor,
    SameAnswer,
    Barest,
    Tcplife,
}

impl With {
    const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Empty,
        Self::Steady,
        Self::Doctor,
        Self::SameAnswer,
        Self::Barest,
        Self::Tcplife,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Empty => "an empty program",
            Self::Steady => "wgnat, as the agent",
            Self::Doctor => "wgnat, as doctor (system calls too)",
            Self::SameAnswer => "bpftrace, the same answer",
            Self::Barest => "bpftrace, each change counted",
            Self::Tcplife => "libbpf-tools' tcplife",
        }
    }

    /// Starts it; `None` where it is not installed or does not start.
    fn start(self) -> Option<Watching> {
        Some(match self {
            Self::Nothing => Watching::Nothing,
            Self::Empty => Watching::Empty(empty_program()),
            Self::Steady => Watching::Ours(Box::new(Bpf::open_steady().expect("eBPF is available"))),
            Self::Doctor => Watching::Ours(Box::new(Bpf::open().expect("eBPF is available"))),
            Self::SameAnswer => tool("bpftrace", &["-e", SAME_ANSWER], "ready")?,
            Self::Barest => tool("bpftrace", &["-e", BAREST], "ready")?,
            Self::Tcplife => tool("tcplife", &[], "PID")?,
        })
    }
}

/// Alive while it watches.
#[allow(dead_code)] // what is held is held for its destructor
enum Watching {
    Nothing,
    Empty(Attached),
    Ours(Box<Bpf>),
    Tool(Child),
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Self::Tool(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Starts a tool and waits until it says that it is ready.
fn tool(program: &str, args: &[&str], ready: &str) -> Option<Watching> {
    let mut child = Command::new("stdbuf")
        .args(["-oL", program])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut lines = BufReader::new(child.stdout.take()?).lines();
    let started = lines.any(|line| line.is_ok_and(|line| line.contains(ready)));
    // It must not wait for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    if started {
        return Some(Watching::Tool(child));
    }
    let _ = child.wait();
    None
}

/// `return 0` at the same tracepoint.
fn empty_program() -> Attached {
    let insn = |code| bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm: 0,
    };
    // r0 = 0; exit
    let code = [insn(0xb7), insn(0x95)];
    let load = |target| -> Result<OwnedFd, String> {
        bpf::program_load(&bpf::ProgramSpec {
            kind: bpf::TRACING,
            attach: bpf::TRACE_RAW_TP,
            target,
            code: &code,
            name: "empty",
        })
        .map_err(|refused| format!("{refused:?}"))
    };
    with_types(|types| {
        let program = load(types.tracepoint("inet_sock_set_state")?)?;
        Attached::new(program, |fd| bpf::attach_raw(fd.as_fd(), None))
    })
    .expect("eBPF is available")
}

/// Where the server is.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    /// On the client's thread.
    Here,
    /// On a thread of its own, on another processor.
    Apart,
}

/// Listeners, and what accepts from them.
struct Servers {
    listeners: Arc<Vec<TcpListener>>,
    /// How many connections the thread has accepted and let go; `None` where the client does it.
    served: Option<Arc<AtomicUsize>>,
    opened: usize,
}

impl Servers {
    fn new(place: Server) -> Self {
        let listeners: Arc<Vec<_>> = Arc::new(
            (0..SERVERS)
                .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
                .collect(),
        );
        let served = (place == Server::Apart).then(|| {
            let (served, listeners) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&listeners));
            let count = Arc::clone(&served);
            std::thread::spawn(move || {
                pin(1);
                for listener in listeners.iter().cycle() {
                    let (mut other, _) = listener.accept().unwrap();
                    let _ = other.write_all(b"!");
                    // Until the client lets go, by FIN or by reset.
                    let _ = other.read(&mut [0; 8]);
                    drop(other);
                    count.fetch_add(1, Ordering::Release);
                }
            });
            served
        });
        Self {
            listeners,
            served,
            opened: 0,
        }
    }

    /// Wall clock and CPU (the server's too) per connection, in microseconds.
    fn measure(&mut self, close: Close, connections: usize) -> [f64; 2] {
        let (wall, cpu) = (Instant::now(), clock::process_cpu());
        for _ in 0..connections {
            let server = &self.listeners[self.opened % SERVERS];
            let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            self.opened += 1;
            let other = self.served.is_none().then(|| server.accept().unwrap());
            if other.is_none() {
                client.read_exact(&mut [0]).unwrap();
            }
            if close == Close::Reset {
                SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(black_box(client));
            drop(other);
        }
        while self
            .served
            .as_ref()
            .is_some_and(|n| n.load(Ordering::Acquire) < self.opened)
        {
            std::thread::yield_now();
        }
        let each = |t: Duration| t.as_secs_f64() * 1e6 / connections as f64;
        [each(wall.elapsed()), each(clock::process_cpu() - cpu)]
    }
}

/// Keeps this thread on one processor, where there is more than one.
fn pin(processor: usize) {
    let mut set = nix::sched::CpuSet::new();
    if set.set(processor).is_ok() {
        let _ = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
    }
}

/// Median and the ranks that hold it with 95 % certainty.
fn median(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let at = |rank: f64| values[(rank.round().max(0.0) as usize).min(values.len() - 1)];
    let half = 0.98 * n.sqrt();
    [
        at(n / 2.0 - 0.5),
        at(n / 2.0 - half - 0.5),
        at(n / 2.0 + half - 0.5),
    ]
}

fn rounds(place: Server, close: Close, rounds: usize, kinds: &[With]) {
    let mut servers = Servers::new(place);
    servers.measure(close, EACH);
    let mut all: Vec<Vec<[f64; 2]>> = vec![Vec::new(); kinds.len()];
    for round in 0..rounds {
        // Each is first as often as any other.
        for i in 0..kinds.len() {
            let which = (i + round) % kinds.len();
            let watching = kinds[which].start().expect("it started before");
            servers.measure(close, WARM_UP);
            all[which].push(servers.measure(close, EACH));
            drop(watching);
        }
    }
    let name = match (place, close) {
        (Server::Here, Close::Fin) => "one thread, close by FIN",
        (Server::Here, Close::Reset) => "one thread, close by reset",
        (Server::Apart, Close::Fin) => "a pair, close by FIN",
        (Server::Apart, Close::Reset) => "a pair, close by reset",
    };
    for (clock, which) in ["wall", "CPU"].into_iter().zip(0..) {
        let pick = |all: &[[f64; 2]]| all.iter().map(|m| m[which]).collect::<Vec<_>>();
        let without = pick(&all[0]);
        let base = median(without.clone())[0];
        for (with, measured) in kinds.iter().zip(&all).skip(1) {
            let differences = without.iter().zip(pick(measured)).map(|(a, b)| b - a).collect();
            let [more, low, high] = median(differences);
            println!(
                "| {name}, {clock} | {} | {base:.1} | {more:+.2} ({low:+.2} to {high:+.2}) | {:+.1} % |",
                with.name(),
                more / base * 100.0
            );
        }
    }
}

/// Nanoseconds of one `getppid`, the cheapest call there is: what a program at every system call adds to each.
fn system_call(rounds: usize) {
    const CALLS: u32 = 200_000;
    let once = || {
        let begun = Instant::now();
        for _ in 0..CALLS {
            black_box(std::os::unix::process::parent_id());
        }
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    let (mut without, mut more) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let base = once();
        let watching = With::Doctor.start();
        more.push(once() - base);
        without.push(base);
        drop(watching);
    }
    let [base, ..] = median(without);
    let [more, low, high] = median(more);
    println!(
        "\none system call: {base:.0} ns; with the program at every one {more:+.0} ns ({low:+.0} to {high:+.0})"
    );
}

/// Opens and resets connections at a rate, and says whether each of them was counted.
fn flood(rate: u32, seconds: u32) {
    use wgnat::observe::Observer as _;
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to: SocketAddr = server.local_addr().unwrap();
    std::thread::spawn(move || while server.accept().is_ok() {});
    let mut ours = Bpf::open_steady().expect("eBPF is available");
    let total = u64::from(rate) * u64::from(seconds);
    let begun = Instant::now();
    let mut failed = 0;
    for i in 0..total {
        match TcpStream::connect(to) {
            Ok(stream) => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
            Err(_) => failed += 1,
        }
        // Ahead of the rate: wait for it.
        let due = Duration::from_secs_f64(i as f64 / f64::from(rate));
        if let Some(ahead) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(ahead);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let mut attempts = 0;
    let mut send = |_, _, _, body| {
        if let Body::Connects(tally) = body {
            let rows = tally.rows.iter().filter(|r| r.destination == to);
            attempts = rows.map(|r| r.attempts).sum::<u64>();
        }
    };
    let source = ours.source();
    let status = ours
        .look(&mut wgnat::observe::Emit::new(source, &mut send))
        .unwrap();
    println!(
        "\n{total} connections at {:.0} a second ({failed} failed): {attempts} counted, {} events lost",
        total as f64 / took,
        status.lost
    );
    assert_eq!((attempts, status.lost), (total, 0), "nothing may be lost");
}

fn main() {
    if std::env::args().any(|a| a == "--test" || a == "--list") {
        return;
    }
    let number = |name: &str, default| {
        let given = std::env::args().skip_while(|a| a != name).nth(1);
        given.map_or(default, |n| n.parse().expect("a number"))
    };
    let (count, seconds, rate) = (
        number("--rounds", 40),
        number("--seconds", 5),
        number("--rate", 20_000),
    );
    namespace::in_namespace(move || {
        let kinds: Vec<With> = With::ALL
            .into_iter()
            .filter(|with| {
                let there = with.start().is_some();
                if !there {
                    println!(
                        "left out, for it is not installed or does not start here: {}",
                        with.name()
                    );
                }
                there
            })
            .collect();
        println!("| {EACH} connections a round, {count} rounds | with | µs each without | µs more | |");
        println!("| --- | --- | ---: | ---: | ---: |");
        // What is left in TIME_WAIT would make ports short, and then the agent counts at every system call.
        for (setting, value) in [("tcp_tw_reuse", "1"), ("tcp_max_tw_buckets", "2000")] {
            std::fs::write(format!("/proc/sys/net/ipv4/{setting}"), value).expect("this namespace's own");
        }
        pin(0);
        for place in [Server::Here, Server::Apart] {
            for close in [Close::Fin, Close::Reset] {
                rounds(place, close, count as usize, &kinds);
            }
        }
        system_call(count as usize);
        flood(rate, seconds);
    });
}

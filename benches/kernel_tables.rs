//! Reading the kernel's large tables, against a loop that only receives and against the usual tools, in one run.
//!
//! Makes its own network namespaces and needs root. `scripts/bench` builds and runs it. Options: `--entries N`
//! (conntrack), `--destinations N` (of those), `--sockets N`, `--rounds N`, `--wgnat PROGRAM` (whose peak memory is
//! then measured too). A table beyond `nf_conntrack_max`, such as the million that the targets are for, needs that limit, which
//! is the machine's, raised: it is for the run and set back at its end, by a signal too.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "tables/limit.rs"]
mod limit;
#[path = "../tests/kernel_tables/namespace.rs"]
mod namespace;

use std::io::Read;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use limit::Limit;
use namespace::{NewEntry, in_namespace, insert, look};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_SOCK_DIAG};
use netlink_sys::{Socket, SocketAddr};
use nix::sys::resource::{UsageWho, getrusage};
use socket2::{Domain, Type};
use wgnat::observe::conntrack::ConntrackObserver;
use wgnat::observe::sockets::{DUMPS, SocketObserver, Way};
use wgnat::observe::tally::conntrack::CtFold;
use wgnat::observe::tally::sockets::SocketFold;
use wgnat::sys::clock;
use wgnat::sys::netlink::{DUMP, Netlink};
use wgnat::types::PortRange;
use wgnat::wire::netlink::{conntrack as ct, sock_diag};

const LIMIT: Duration = Duration::from_secs(10);

fn main() {
    if std::env::args().any(|a| a == "--look") {
        return look_once();
    }
    let option = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let number = |name, default| option(name).map_or(default, |n| n.parse().expect(name));
    let (entries, sockets) = (number("--entries", 250_000), number("--sockets", 100_000));
    let destinations = number("--destinations", 1000);
    let rounds = number("--rounds", 9);
    let wgnat = option("--wgnat");
    println!("{}\n", machine());
    let limit = Limit::raise(entries);
    let program = wgnat.clone();
    in_namespace(move || conntrack(entries, destinations, rounds, program.as_deref()));
    drop(limit);
    let program = wgnat.clone();
    in_namespace(move || time_wait(sockets, rounds, program.as_deref()));
    if let Some(program) = wgnat {
        in_namespace(move || first_finding(&program, rounds));
    }
}

/// From the start of doctor to the first finding that a person can read, on a host whose ports to one destination are
/// used up: of one look on standard output, and of a watch of 5 s on a terminal, which tells findings in advance.
fn first_finding(program: &str, rounds: u32) {
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40499").unwrap();
    let server = TcpListener::bind("127.0.0.1:443").unwrap();
    let acceptor = server.try_clone().unwrap();
    // A queue that nobody takes from holds 129.
    std::thread::spawn(move || acceptor.incoming().collect::<Vec<_>>());
    let held: Vec<TcpStream> =
        std::iter::from_fn(|| TcpStream::connect(server.local_addr().unwrap()).ok()).collect();
    assert_eq!(held.len(), 500, "the range was to be used up");
    let watch = format!("{program} doctor --color never");
    println!(
        "\n| start of `wgnat doctor` to its first finding | ms, median (least to most) |\n| --- | ---: |"
    );
    for (name, command) in [
        (
            "one look (`--duration 0`), standard output",
            vec![program, "doctor", "--duration", "0"],
        ),
        (
            "a watch of 5 s, told in advance on a terminal",
            vec!["script", "-qfec", &watch, "/dev/null"],
        ),
    ] {
        let (low, middle, high) = spread((0..rounds).map(|_| until_finding(&command)).collect());
        println!("| {name} | {middle:.0} ({low:.0} to {high:.0}) |");
    }
}

/// Milliseconds until the command has written the finding's title.
fn until_finding(command: &[&str]) -> f64 {
    let start = clock::instant();
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let mut out = child.stdout.take().unwrap();
    while !String::from_utf8_lossy(&seen).contains("are used up") {
        let read = out.read(&mut buffer).unwrap();
        assert!(read > 0, "no finding: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..read]);
    }
    let took = clock::instant().duration_since(start);
    let _ = child.kill();
    let _ = child.wait();
    took.as_secs_f64() * 1e3
}

/// What the memory of the observers alone is measured by: one look each.
fn look_once() {
    let _ = look(&mut SocketObserver::open().unwrap());
    let _ = look(&mut ConntrackObserver::open().unwrap());
}

fn conntrack(entries: u32, destinations: u32, rounds: u32, wgnat: Option<&str>) {
    // Masqueraded connections: behind one NAT address, each destination's take its ports from 1,024 up.
    insert((0..entries).map(|n| {
        let [_, a, b, c] = n.to_be_bytes();
        let [_, x, y, z] = (n % destinations).to_be_bytes();
        let port =
            1024 + u16::try_from(n / destinations).expect("--entries over --destinations is 64,511 at most");
        let client = (IpAddr::from([10, a, b, c]), 40_000);
        let server = (IpAddr::from([203, x, y, z]), 443);
        NewEntry::masqueraded(client, server, (IpAddr::from([198, 51, 100, 1]), port))
    }));
    let mut ours = Netlink::open(NETLINK_NETFILTER, "conntrack", LIMIT).unwrap();
    let mut bare = Bare::open(NETLINK_NETFILTER);
    let mut seen = 0;
    let medians = compare(
        &format!("conntrack, {entries} entries to {destinations} destinations"),
        rounds,
        &mut [
            ("bare receive loop", &mut || bare.dump(ct::GET, &ct::REQUEST)),
            ("wgnat: receive and fold", &mut || {
                let mut fold = CtFold::new(Some(432_000));
                ours.request(ct::GET, DUMP, &ct::REQUEST, |_, m| fold.add(m))
                    .unwrap();
                seen = fold.finish(false).entries;
            }),
            ("wgnat: the observer's look, paced", &mut || {
                look(&mut ConntrackObserver::open().unwrap());
            }),
            ("conntrack -L", &mut || run("conntrack", &["-L"])),
        ],
    );
    assert_eq!(seen, u64::from(entries));
    println!(
        "\nreceive and fold against the bare loop: {:.2} × wall, {:.2} × CPU (at most 1.15); against `conntrack -L`: {:.2} × wall, \
         {:.2} × CPU (at most 0.45)",
        medians[1].0 / medians[0].0,
        medians[1].1 / medians[0].1,
        medians[1].0 / medians[3].0,
        medians[1].1 / medians[3].1
    );
    steady();
    memory(wgnat);
}

/// What watching costs when nothing moves: a look is the statistics alone.
fn steady() {
    const LOOKS: u32 = 2000;
    let mut observer = ConntrackObserver::open().unwrap();
    let _ = look(&mut observer);
    let before = cpu_ms();
    for _ in 0..LOOKS {
        let _ = look(&mut observer);
    }
    let each = (cpu_ms() - before) / f64::from(LOOKS);
    println!(
        "watching without reading the table: {:.0} µs CPU a look, {:.4} % of a core at one a second (under 0.1 %)",
        each * 1e3,
        each / 10.0
    );
}

fn time_wait(sockets: u32, rounds: u32, wgnat: Option<&str>) {
    // A namespace's own bound, 131,072 on most machines: what is beyond leaves at once.
    std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "1000000").unwrap();
    let (server, open) = make_sockets(sockets);
    let mut iterators = SocketObserver::open_by(Way::Iterators).unwrap();
    let mut ours = Netlink::open(NETLINK_SOCK_DIAG, "sock_diag", LIMIT).unwrap();
    let mut bare = Bare::open(NETLINK_SOCK_DIAG);
    let mut fold = SocketFold::new(PortRange::LINUX_DEFAULT, &[]);
    let mut seen = 0;
    compare(
        &format!(
            "{sockets} TCP sockets, {} of them in TIME_WAIT",
            sockets - 2 * u32::try_from(open.len()).unwrap()
        ),
        rounds,
        &mut [
            ("bare receive loop", &mut || {
                DUMPS
                    .iter()
                    .for_each(|d| bare.dump(sock_diag::BY_FAMILY, &d.payload()));
            }),
            ("wgnat: receive and fold", &mut || {
                for d in &DUMPS {
                    ours.request(sock_diag::BY_FAMILY, DUMP, &d.payload(), |_, m| {
                        fold.add(d.proto, m)
                    })
                    .unwrap();
                }
                seen = fold.finish(false).tcp.total();
            }),
            ("wgnat: eBPF iterators", &mut || {
                let (_, status) = look(&mut iterators);
                assert_eq!(status.reason.as_deref(), Some("by eBPF iterators"), "{status:?}");
            }),
            ("ss -tan", &mut || run("ss", &["-tan"])),
        ],
    );
    // TIME_WAIT lasts a minute: on a machine too busy to make them all in time the first are gone by now.
    println!("\n{seen} of {sockets} sockets were there at the end");
    assert!(
        seen > sockets / 20 * 19,
        "too few for the comparison: run it again when the machine is less busy"
    );
    memory(wgnat);
    drop((server, open));
}

/// Connections over loopback: one in 25 stays open at both ends, the rest is closed by the client, which then has
/// it in TIME_WAIT.
fn make_sockets(count: u32) -> (TcpListener, Vec<(TcpStream, TcpStream)>) {
    const PORTS: u32 = 20_000;
    let server = TcpListener::bind("127.0.0.1:443").unwrap();
    let there = server.local_addr().unwrap().into();
    // Two descriptors each, of which a process may have 20,000 on small machines.
    let open_pairs = count / 25;
    let mut open = Vec::new();
    for n in 0..count - open_pairs {
        let here = (
            [127, 0, 0, u8::try_from(2 + n / PORTS).unwrap()],
            u16::try_from(32_768 + n % PORTS).unwrap(),
        );
        let client = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.bind(&std::net::SocketAddr::from(here).into()).unwrap();
        client.connect(&there).unwrap();
        let accepted = server.accept().unwrap().0;
        if n < open_pairs {
            open.push((client.into(), accepted));
        } else {
            drop(client);
            drop(accepted);
        }
    }
    (server, open)
}

/// The least that any reader must do: ask, and receive until the end is there.
struct Bare {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Bare {
    fn open(protocol: isize) -> Self {
        let mut socket = Socket::new(protocol).unwrap();
        socket.bind_auto().unwrap();
        socket.connect(&SocketAddr::new(0, 0)).unwrap();
        Self {
            socket,
            buffer: vec![0; 64 * 1024],
        }
    }

    fn dump(&mut self, kind: u16, payload: &[u8]) {
        const DONE: [u8; 2] = 3u16.to_ne_bytes();
        let mut request = (16 + u32::try_from(payload.len()).unwrap())
            .to_ne_bytes()
            .to_vec();
        request.extend(kind.to_ne_bytes());
        request.extend((DUMP | 1).to_ne_bytes());
        request.extend([0; 8]);
        request.extend(payload);
        self.socket.send(&request, 0).unwrap();
        loop {
            let received = self.socket.recv(&mut &mut self.buffer[..], 0).unwrap();
            // The end comes alone or as the last message of 20 bytes.
            let last = &self.buffer[received.saturating_sub(20)..received];
            if self.buffer[4..6] == DONE
                || last.len() == 20 && last[4..6] == DONE && last[..4] == 20u32.to_ne_bytes()
            {
                return;
            }
        }
    }
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let status = status.unwrap_or_else(|e| panic!("{program}: {e}; scripts/bench installs it"));
    assert!(status.success(), "{program}: {status}");
}

/// CPU time of this process and of the children that it has waited for, in milliseconds.
fn cpu_ms() -> f64 {
    let of = |who| {
        let usage = getrusage(who).unwrap();
        [usage.user_time(), usage.system_time()].map(|t| t.tv_sec() as f64 * 1e3 + t.tv_usec() as f64 / 1e3)
    };
    [of(UsageWho::RUSAGE_SELF), of(UsageWho::RUSAGE_CHILDREN)]
        .concat()
        .iter()
        .sum()
}

type Candidate<'a> = (&'a str, &'a mut dyn FnMut());

/// Runs the candidates in turn, `rounds` times; the first is what the others are compared with, round by round. Returns each
/// one's median wall and CPU time in milliseconds.
fn compare(title: &str, rounds: u32, candidates: &mut [Candidate<'_>]) -> Vec<(f64, f64)> {
    let mut walls = vec![Vec::new(); candidates.len()];
    let mut cpus = walls.clone();
    candidates.iter_mut().for_each(|(_, run)| run());
    for _ in 0..rounds {
        for (n, (_, run)) in candidates.iter_mut().enumerate() {
            let (wall, cpu) = (clock::instant(), cpu_ms());
            run();
            walls[n].push(clock::instant().duration_since(wall).as_secs_f64() * 1e3);
            cpus[n].push(cpu_ms() - cpu);
        }
    }
    println!("| {title} | wall ms, median (least to most) | CPU ms | × bare, wall | × bare, CPU |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (n, (name, _)) in candidates.iter().enumerate() {
        let ratio = |of: &[Vec<f64>]| {
            let (low, middle, high) = spread(of[n].iter().zip(&of[0]).map(|(a, b)| a / b).collect());
            format!("{middle:.2} ({low:.2} to {high:.2})")
        };
        let (low, middle, high) = spread(walls[n].clone());
        let cpu = spread(cpus[n].clone()).1;
        println!(
            "| {name} | {middle:.0} ({low:.0} to {high:.0}) | {cpu:.0} | {} | {} |",
            ratio(&walls),
            ratio(&cpus)
        );
    }
    let medians = walls.into_iter().zip(cpus);
    medians
        .map(|(wall, cpu)| (spread(wall).1, spread(cpu).1))
        .collect()
}

/// Least, median, most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

/// Peak memory by `time`: a child's own figure would hold what its parent had when it was made.
fn memory(wgnat: Option<&str>) {
    let own = std::env::current_exe().unwrap();
    let mut measured = vec![("both observers alone", own.to_str().unwrap(), &["--look"][..])];
    if let Some(program) = wgnat {
        measured.push(("wgnat doctor", program, &["doctor", "--json", "--duration", "3s"]));
    }
    println!("\n| peak memory, same tables | MiB |\n| --- | ---: |");
    for (name, program, args) in measured {
        let out = Command::new("time")
            .args(["-f", "peak %M", program])
            .args(args)
            .stdout(Stdio::null())
            .output();
        let out = out.expect("time: scripts/bench installs it");
        let text = String::from_utf8_lossy(&out.stderr);
        let peak = text
            .lines()
            .rev()
            .find_map(|l| l.strip_prefix("peak "))
            .and_then(|k| k.parse::<f64>().ok());
        println!(
            "| {name} | {:.1} |",
            peak.unwrap_or_else(|| panic!("{name}: {text}")) / 1024.0
        );
    }
    println!();
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or("");
    let cpus = info.lines().filter(|l| l.starts_with("processor")).count();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .split_whitespace()
        .nth(1)
        .and_then(|k| k.parse::<u64>().ok())
        .unwrap_or(0);
    format!(
        "{cpus} × {}, {} GiB, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        kib / 1024 / 1024,
        kernel.trim()
    )
}

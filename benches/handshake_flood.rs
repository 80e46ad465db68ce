//! What watching costs: the CPU of a look at a flood of initiations, and a saturated tunnel's throughput beside a look, each
//! against tcpdump with a filter for the same packets, in turn, round by round.
//!
//! Makes its own network namespaces (tests/lab) and needs root, wireguard-go, wireguard-tools and tcpdump. `scripts/bench
//! flood` builds and runs it. Options: `--rate N` (initiations a second), `--seconds N`, `--rounds N`.
#![allow(
    missing_docs,
    dead_code,
    unused_imports,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

#[path = "../tests/lab/mod.rs"]
mod lab;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lab::tunnel::{PORT, SERVER_IN};
use lab::{Lab, Namespace, Tunnel};
use nix::sys::resource::{UsageWho, getrusage};

/// The same packets as the filter of the live capture lets through, as far as tcpdump's language goes: handshake
/// messages on any port.
const FILTER: &str = "udp and ((udp[8:4] = 0x01000000 and udp[4:2] = 156) or (udp[8:4] = 0x02000000 and udp[4:2] = 100) \
                      or (udp[8:4] = 0x03000000 and udp[4:2] = 72))";

/// Sockets that the flood comes from.
const SOURCES: usize = 64;

fn main() {
    // `cargo bench` and `cargo test --benches` pass options of their own.
    let option = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let number = |name, default| option(name).map_or(default, |n| n.parse().expect(name));
    let (rate, seconds, rounds) = (
        number("--rate", 100_000),
        number("--seconds", 5),
        number("--rounds", 9),
    );
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    flood(rate, seconds, rounds);
    throughput(seconds, rounds);
}

/// What looks on.
#[derive(Clone, Copy, PartialEq)]
enum Watcher {
    Nobody,
    Wgnat,
    Tcpdump,
}

impl Watcher {
    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody looks",
            Self::Wgnat => "`wgnat doctor`",
            Self::Tcpdump => "`tcpdump -w`, equal filter",
        }
    }

    fn start(self, lab: &Lab, ns: &Namespace, seconds: u64) -> Option<Child> {
        let seconds = format!("{seconds}s");
        let mut command = match self {
            Self::Nobody => return None,
            Self::Wgnat => {
                let mut command = lab.wgnat(ns);
                command.args([
                    "-v",
                    "doctor",
                    "--json",
                    "--duration",
                    &seconds,
                    "--max-duration",
                    &seconds,
                ]);
                command
            }
            Self::Tcpdump => {
                let mut command = ns.command("timeout");
                command.args([
                    "-s",
                    "INT",
                    &seconds,
                    "tcpdump",
                    "-i",
                    "any",
                    "-nn",
                    "-s",
                    "320",
                    "-w",
                    "/dev/null",
                    FILTER,
                ]);
                command
            }
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // Both say on standard error when they listen.
        let mut said = Vec::new();
        let mut byte = [0];
        let errors = child.stderr.as_mut().expect("piped");
        while errors.read(&mut byte).is_ok_and(|n| n == 1) {
            said.push(byte[0]);
            if said.ends_with(b"watching") || said.ends_with(b"listening on") {
                break;
            }
        }
        Some(child)
    }
}

/// Waits for the watcher's end: what it printed, and the CPU that it took.
fn finish(child: Option<Child>, before: f64) -> (String, f64) {
    let Some(child) = child else {
        return (String::new(), 0.0);
    };
    let out = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (text, children_cpu() - before)
}

fn children_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it is there");
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// CPU seconds that a second of a flood costs.
fn flood(rate: u64, seconds: u64, rounds: u64) {
    println!(
        "| {rate} initiations/s for {seconds} s | sent/s | CPU s per s, median (least to most) | initiations told |"
    );
    println!("| --- | ---: | ---: | ---: |");
    for watcher in [Watcher::Wgnat, Watcher::Tcpdump] {
        let (mut cpu, mut sent, mut told) = (Vec::new(), Vec::new(), String::new());
        for _ in 0..rounds {
            let Some(lab) = Lab::pair() else { return };
            // Somebody takes the datagrams, so that no ICMP comes back.
            let server = lab.server().clone();
            let _sink = server.run(|| UdpSocket::bind(("0.0.0.0", PORT)).expect("the port is free"));
            let before = children_cpu();
            // One second more than the flood: what it counted last is told then.
            let child = watcher.start(&lab, &server, seconds + 1);
            let began = Instant::now();
            let count = send_flood(&lab, rate, seconds);
            sent.push(count as f64 / began.elapsed().as_secs_f64());
            let (text, used) = finish(child, before);
            cpu.push(used / seconds as f64);
            told = initiations(watcher, &text);
        }
        let (low, middle, high) = spread(cpu);
        let (_, rate, _) = spread(sent);
        println!(
            "| {} | {rate:.0} | {middle:.3} ({low:.3} to {high:.3}) | {told} |",
            watcher.name()
        );
    }
}

/// What the watcher says that it saw.
fn initiations(watcher: Watcher, text: &str) -> String {
    match watcher {
        Watcher::Wgnat => {
            let report = text.find('{').and_then(|at| {
                let mut values =
                    serde_json::Deserializer::from_str(&text[at..]).into_iter::<serde_json::Value>();
                values.next()?.ok()
            });
            report.map_or_else(
                || "no report".to_owned(),
                |report| {
                    let capture = report["collectors"]
                        .as_array()
                        .and_then(|all| all.iter().find(|c| c["name"] == "capture"));
                    let reason = capture.and_then(|c| c["reason"].as_str()).unwrap_or("none lost");
                    format!(
                        "{} one by one; {reason}",
                        report["wireguard"]["messages"]["initiation"]
                    )
                },
            )
        }
        _ => text
            .lines()
            .filter(|l| l.contains("packets captured") || l.contains("dropped by kernel"))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// Sends that many a second from the client, each a message of its own.
fn send_flood(lab: &Lab, rate: u64, seconds: u64) -> u64 {
    let to = SocketAddr::new(lab.server_ip(), PORT);
    lab.client().run(|| {
        let sockets: Vec<UdpSocket> = (0..SOURCES)
            .map(|_| {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
                socket.connect(to).expect("there is a route");
                socket
            })
            .collect();
        let mut message = [0x5a; 148];
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        let began = Instant::now();
        let mut sent = 0u64;
        while began.elapsed() < Duration::from_secs(seconds) {
            let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
            if sent >= due {
                std::thread::yield_now();
                continue;
            }
            let batch = due.min(sent + 1000);
            while sent < batch {
                let index = (sent as u32).to_le_bytes();
                message[4..8].copy_from_slice(&index);
                message[116..120].copy_from_slice(&index);
                let _ = sockets[sent as usize % SOURCES].send(&message);
                sent += 1;
            }
        }
        sent
    })
}

/// A tunnel's throughput beside each watcher, as a share of what it is when nobody looks.
fn throughput(seconds: u64, rounds: u64) {
    let Some(lab) = Lab::pair() else { return };
    let tunnel = Tunnel::up(&lab);
    let watchers = [Watcher::Nobody, Watcher::Wgnat, Watcher::Tcpdump];
    let mut rates = vec![Vec::new(); watchers.len()];
    for _ in 0..rounds {
        for (watcher, rates) in watchers.iter().zip(&mut rates) {
            let child = watcher.start(&lab, lab.client(), seconds + 1);
            rates.push(through(&lab, seconds));
            let _ = finish(child, 0.0);
        }
    }
    drop(tunnel);
    println!(
        "\n| a saturated tunnel of wireguard-go on veth, {seconds} s | Mbit/s, median (least to most) | of nobody's, median (least to most) |"
    );
    println!("| --- | ---: | ---: |");
    let alone = rates[0].clone();
    for (watcher, rates) in watchers.iter().zip(&rates) {
        let ratios = rates
            .iter()
            .zip(&alone)
            .map(|(with, without)| with / without)
            .collect();
        let (low, middle, high) = spread(rates.clone());
        let (least, share, most) = spread(ratios);
        println!(
            "| {} | {middle:.0} ({low:.0} to {high:.0}) | {share:.3} ({least:.3} to {most:.3}) |",
            watcher.name()
        );
    }
}

/// Mbit/s of one TCP connection through the tunnel.
fn through(lab: &Lab, seconds: u64) -> f64 {
    let listener = lab
        .server()
        .run(|| TcpListener::bind((SERVER_IN, 0)).expect("a port is free"));
    let to = listener.local_addr().expect("it is bound");
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the client connects");
        let (mut buffer, mut bytes) = (vec![0; 1 << 18], 0u64);
        while let Ok(n) = stream.read(&mut buffer) {
            if n == 0 {
                break;
            }
            bytes += n as u64;
        }
        bytes
    });
    let began = Instant::now();
    lab.client().run(|| {
        let mut stream = TcpStream::connect(to).expect("the tunnel is up");
        let chunk = vec![0; 1 << 18];
        while began.elapsed() < Duration::from_secs(seconds) {
            if stream.write_all(&chunk).is_err() {
                break;
            }
        }
    });
    let bytes = sink.join().expect("it reads to the end");
    bytes as f64 * 8.0 / 1e6 / began.elapsed().as_secs_f64()
}

/// Least, median, most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
    (at(0), at(values.len() / 2), at(values.len().saturating_sub(1)))
}

//! What watching costs: the CPU of a look at a flood of initiations, and a saturated tunnel's throughput beside a look, each
//! against tcpdump with a filter for the same packets, in turn, round by round.
//!
//! Makes its own network namespaces (tests/lab) and needs root, wireguard-go, wireguard-tools and tcpdump. `scripts/bench
//! flood` builds and runs it. Options: `--rate N` (initiations a second), `--seconds N`, `--rounds N`; `--only flood` or
//! `--only tunnel` for one half. Tables go to standard output when their half is done, each round to standard error. Every
//! wait has an end: what does not come in time ends the bench with its name.
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
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
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
    let only = option("--only");
    let wanted = |half: &str| only.as_deref().is_none_or(|only| only == half);
    if wanted("flood") {
        flood(rate, seconds, rounds);
    }
    if wanted("tunnel") {
        throughput(seconds, rounds);
    }
}

/// Beyond what is being done takes by itself: a machine may be busy, a path may have lost a packet.
const GRACE: Duration = Duration::from_secs(20);

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

    fn start(self, lab: &Lab, ns: &Namespace, seconds: u64) -> Option<Running> {
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
                    "-k",
                    "5",
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
        let output = child.stdout.take().expect("piped");
        let errors = child.stderr.take().expect("piped");
        let (said, listens) = channel();
        let running = Running {
            watcher: self,
            child,
            output: [gather(output, None), gather(errors, Some(said))],
        };
        // Both say on standard error when they listen.
        if listens.recv_timeout(GRACE).is_err() {
            let (text, _) = running.finish(0.0, Duration::ZERO);
            panic!("{} does not listen after {GRACE:?}: {text}", self.name());
        }
        Some(running)
    }
}

/// A watcher under way. Its output is read all the time: a full pipe would stop it.
struct Running {
    watcher: Watcher,
    child: Child,
    output: [JoinHandle<String>; 2],
}

/// Reads everything on a thread, and tells when it says that it listens.
fn gather(mut from: impl Read + Send + 'static, tell: Option<Sender<()>>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut text, mut buffer, mut tell) = (Vec::new(), [0; 4096], tell);
        while let Ok(n) = from.read(&mut buffer)
            && n > 0
        {
            text.extend_from_slice(&buffer[..n]);
            let says = |what: &str| text.windows(what.len()).any(|w| w == what.as_bytes());
            if tell.is_some() && (says("watching") || says("listening on")) {
                let _ = tell.take().map(|tell| tell.send(()));
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

impl Running {
    /// Waits for its end: what it printed, and the CPU that it took since `before`. After `limit` it is killed.
    fn finish(mut self, before: f64, limit: Duration) -> (String, f64) {
        let began = Instant::now();
        let mut late = false;
        while self.child.try_wait().expect("it is our child").is_none() {
            if began.elapsed() > limit {
                late = true;
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let used = children_cpu() - before;
        assert!(
            !late || limit.is_zero(),
            "{} did not end {limit:?} after its time",
            self.watcher.name()
        );
        let text = self.output.map(|o| o.join().expect("it only reads"));
        (text.concat(), used)
    }
}

/// [`Running::finish`] of a watcher that should end within `left`.
fn finish(running: Option<Running>, before: f64, left: Duration) -> (String, f64) {
    running.map_or_else(
        || (String::new(), 0.0),
        |running| running.finish(before, left + GRACE),
    )
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
    // The first is what watching costs where nothing comes.
    for (watcher, rate) in [
        (Watcher::Wgnat, 0),
        (Watcher::Wgnat, rate),
        (Watcher::Tcpdump, rate),
    ] {
        let (mut cpu, mut sent, mut told) = (Vec::new(), Vec::new(), String::new());
        for round in 1..=rounds {
            eprintln!("flood: {}, {rate}/s, round {round} of {rounds}", watcher.name());
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
            let (text, used) = finish(child, before, Duration::from_secs(1));
            cpu.push(used / seconds as f64);
            told = format!("of {count}: {}", initiations(watcher, &text));
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
                    let messages = &report["wireguard"]["messages"];
                    format!(
                        "{} ± {}, {} of them one by one; {reason}",
                        messages["initiations_in"],
                        messages["initiations_in_margin"].as_u64().unwrap_or(0),
                        messages["initiation"]
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
    for round in 1..=rounds {
        for (watcher, rates) in watchers.iter().zip(&mut rates) {
            let child = watcher.start(&lab, lab.client(), seconds + 1);
            let rate = through(&lab, seconds);
            eprintln!(
                "tunnel: {}, round {round} of {rounds}: {rate:.0} Mbit/s",
                watcher.name()
            );
            rates.push(rate);
            let _ = finish(child, 0.0, Duration::from_secs(1));
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

/// Mbit/s of one TCP connection through the tunnel. Bytes count that arrived by the end of the time; a path on which
/// nothing moves for [`GRACE`] ends the bench.
fn through(lab: &Lab, seconds: u64) -> f64 {
    let listener = lab
        .server()
        .run(|| TcpListener::bind((SERVER_IN, 0)).expect("a port is free"));
    let to = listener.local_addr().expect("it is bound");
    let mut out = lab.client().run(|| {
        TcpStream::connect_timeout(&to, GRACE)
            .unwrap_or_else(|e| panic!("no connection through the tunnel: {e}"))
    });
    // It is connected, so it waits to be accepted.
    let (mut stream, _) = listener.accept().expect("the connection waits");
    stream.set_read_timeout(Some(GRACE)).expect("not zero");
    out.set_write_timeout(Some(GRACE)).expect("not zero");
    let (began, time) = (Instant::now(), Duration::from_secs(seconds));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = vec![0; 1 << 18];
            while began.elapsed() < time && out.write_all(&chunk).is_ok() {}
            let _ = out.shutdown(Shutdown::Write);
        });
        let (mut buffer, mut bytes) = (vec![0; 1 << 18], 0u64);
        let elapsed = loop {
            let read = stream
                .read(&mut buffer)
                .unwrap_or_else(|e| panic!("nothing came through the tunnel for {GRACE:?}: {e}"));
            bytes += read as u64;
            let elapsed = began.elapsed();
            if read == 0 || elapsed >= time {
                break elapsed;
            }
        };
        // What is under way is thrown away, and the writer ends.
        let _ = stream.shutdown(Shutdown::Both);
        drop(stream);
        bytes as f64 * 8.0 / 1e6 / elapsed.as_secs_f64()
    })
}

/// Least, median, most.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
    (at(0), at(values.len() / 2), at(values.len().saturating_sub(1)))
}

//! STUN Binding requests that one core answers: `wgnat reflect` against coturn's `turnserver`, over loopback, with the same requests.
//! `scripts/bench reflect` runs it: it needs both programs.
//!
//! The figure is answers per second of the server's own CPU time (utime + stime of /proc/PID/stat), so that what the load generator
//! and the rest of the machine do hardly matters; the rounds take turns, and the ratio is the median of the rounds' own.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss
)]

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wgnat::probe::reflector::{Grid, Slot, Transport, answer};

/// Requests under way at once on each of the generator's sockets, and those sockets.
const WINDOW: usize = 32;
const SOCKETS: usize = 4;
/// One measurement.
const EACH: Duration = Duration::from_secs(3);

/// A Binding request of this many bytes, filled with SOFTWARE.
fn request(length: usize) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    bytes.extend([7; 12]);
    if length > 24 {
        bytes.extend([0x80, 0x22]);
        bytes.extend(u16::try_from(length - 24).unwrap().to_be_bytes());
        bytes.resize(length, b' ');
    }
    let body = u16::try_from(bytes.len() - 20).unwrap();
    bytes[2..4].copy_from_slice(&body.to_be_bytes());
    bytes
}

/// A server that ends with its handle.
struct Server(Child, SocketAddr);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command, at: &str) -> Server {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let server = Server(child, at.parse().unwrap());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    for _ in 0..100 {
        let _ = socket.send_to(&request(100), server.1);
        if socket.recv(&mut [0; 1500]).is_ok() {
            return server;
        }
    }
    panic!("{command:?} does not answer at {at}");
}

/// CPU time of a process so far, in seconds.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on every Linux that this runs on.
    ticks as f64 / 100.0
}

/// Answers per second of the server's CPU, and of the wall clock.
fn measure(server: &Server, bytes: &[u8]) -> (f64, f64) {
    let sockets: Vec<UdpSocket> = (0..SOCKETS)
        .map(|_| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect(server.1).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            socket
        })
        .collect();
    let (before, started) = (cpu(server.0.id()), Instant::now());
    let mut answers = 0_u64;
    let mut buffer = [0; 1500];
    while started.elapsed() < EACH {
        for socket in &sockets {
            for _ in 0..WINDOW {
                let _ = socket.send(bytes);
            }
        }
        for socket in &sockets {
            // What is lost is not waited for longer than the time-out.
            answers += (0..WINDOW).map_while(|_| socket.recv(&mut buffer).ok()).count() as u64;
        }
    }
    let wall = started.elapsed().as_secs_f64();
    let used = (cpu(server.0.id()) - before).max(0.01);
    (answers as f64 / used, answers as f64 / wall)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let (mut wgnat, mut rounds) = (None, 3);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--wgnat" => wgnat = args.next(),
            "--rounds" => rounds = args.next().and_then(|n| n.parse().ok()).unwrap_or(rounds),
            _ => {}
        }
    }
    let grid = Grid {
        ips: ([127, 0, 0, 1].into(), Some([127, 0, 0, 2].into())),
        ports: (3478, Some(3479)),
    };
    let (bytes, mut out, from) = (request(100), [0; 512], "127.0.0.9:4000".parse().unwrap());
    let started = Instant::now();
    const PURE: u32 = 1_000_000;
    for _ in 0..PURE {
        let reply = answer(
            &grid,
            Slot::default(),
            from,
            Transport::Udp,
            black_box(&bytes),
            &mut out,
        );
        black_box(reply);
    }
    println!(
        "one answer, without sockets: {:.0} ns",
        started.elapsed().as_secs_f64() * 1e9 / f64::from(PURE)
    );
    let Some(wgnat) = wgnat else {
        println!("(without --wgnat PROGRAM the servers are not compared)");
        return;
    };
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let measured: Vec<(f64, f64)> = [true, false]
            .into_iter()
            .map(|own| {
                let server = if own {
                    let mut command = Command::new(&wgnat);
                    command.args([
                        "reflect",
                        "--address",
                        "127.0.0.1,127.0.0.2",
                        "--port",
                        "13478,13479",
                    ]);
                    start(command.args(["--rate-limit", "0"]), "127.0.0.1:13478")
                } else {
                    let mut command = Command::new("turnserver");
                    command.args([
                        "-n",
                        "--no-cli",
                        "--no-tls",
                        "--no-dtls",
                        "--no-auth",
                        "--log-file=/dev/null",
                    ]);
                    command.args(["--listening-ip=127.0.0.1", "--listening-ip=127.0.0.2"]);
                    command.args([
                        "--listening-port=23478",
                        "--alt-listening-port=23479",
                        "--pidfile=/dev/null",
                    ]);
                    start(&mut command, "127.0.0.1:23478")
                };
                measure(&server, &bytes)
            })
            .collect();
        ours.push(measured[0]);
        theirs.push(measured[1]);
        ratios.push(measured[0].0 / measured[1].0);
    }
    for (name, values) in [("wgnat reflect", ours), ("turnserver", theirs)] {
        let (by_cpu, by_wall): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
        println!(
            "{name:<14} {:>9.0} answers a second of CPU, {:>9.0} of wall clock",
            median(by_cpu),
            median(by_wall)
        );
    }
    println!("ratio of answers a second of CPU: {:.2}", median(ratios));
}

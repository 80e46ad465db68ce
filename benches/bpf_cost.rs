//! What counting connects by eBPF costs each short TCP connection: connect, accept and both closes over loopback, with the
//! program attached and without it, in turn, in one network namespace. `scripts/bench bpf` runs it; needs root.
//!
//! The figure is the median of the rounds' own differences, with a 95 % interval from their ranks, so that what else the
//! machine does meets both alike.
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
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;
use wgnat::observe::bpf::Bpf;
use wgnat::sys::clock;

/// Connections in one measurement.
const EACH: usize = 1000;
/// Ports that they are spread over, so that `connect` never has to search.
const SERVERS: usize = 8;

#[derive(Clone, Copy, PartialEq)]
enum Close {
    /// By FIN, as most do.
    Fin,
    /// By reset, the shortest of all.
    Reset,
}

/// Wall clock and CPU per connection, in microseconds.
fn measure(servers: &[TcpListener], close: Close) -> [f64; 2] {
    let (wall, cpu) = (Instant::now(), clock::thread_cpu());
    for i in 0..EACH {
        let server = &servers[i % servers.len()];
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (other, _) = server.accept().unwrap();
        if close == Close::Reset {
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(black_box(client));
        drop(other);
    }
    let each = |t: Duration| t.as_secs_f64() * 1e6 / EACH as f64;
    [each(wall.elapsed()), each(clock::thread_cpu() - cpu)]
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

fn rounds(close: Close, rounds: usize) {
    let servers: Vec<_> = (0..SERVERS)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    measure(&servers, close);
    let mut without: Vec<[f64; 2]> = Vec::new();
    let mut with: Vec<[f64; 2]> = Vec::new();
    let mut opening = Vec::new();
    for round in 0..rounds {
        for attached in [round % 2 == 0, round % 2 != 0] {
            if attached {
                let begun = Instant::now();
                let bpf = Bpf::open().expect("eBPF is available");
                opening.push(begun.elapsed().as_secs_f64() * 1e3);
                with.push(measure(&servers, close));
                drop(bpf);
            } else {
                without.push(measure(&servers, close));
            }
        }
    }
    let name = match close {
        Close::Fin => "connect, close by FIN",
        Close::Reset => "connect, close by reset",
    };
    for (which, clock) in ["wall", "CPU"].into_iter().enumerate() {
        let pick = |all: &[[f64; 2]]| all.iter().map(|m| m[which]).collect::<Vec<_>>();
        let (a, b) = (pick(&without), pick(&with));
        let base = median(a.clone())[0];
        let [more, low, high] = median(a.iter().zip(&b).map(|(a, b)| b - a).collect());
        println!(
            "| {name}, {clock} | {base:.1} | {more:+.2} ({low:+.2} to {high:+.2}) | {:+.1} % ({:+.1} to {:+.1}) |",
            more / base * 100.0,
            low / base * 100.0,
            high / base * 100.0
        );
    }
    let [open, ..] = median(opening);
    println!("load and attach: {open:.0} ms (median of {rounds})");
}

fn main() {
    if std::env::args().any(|a| a == "--test" || a == "--list") {
        return;
    }
    let count = std::env::args()
        .skip_while(|a| a != "--rounds")
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(40);
    namespace::in_namespace(move || {
        println!("| {EACH} connections a round, {count} rounds | µs each without | µs more with | |");
        println!("| --- | ---: | ---: | ---: |");
        rounds(Close::Fin, count);
        rounds(Close::Reset, count);
    });
}

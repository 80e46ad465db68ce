//! What the agent costs where nothing happens: time to the first verdict, memory, CPU; the program's size; and a scrape with many
//! destinations and peers. Beside it prometheus-node-exporter on the same host, scraped as often.
//!
//! Makes its own network namespaces (tests/lab) and needs root and the lab's programs; `scripts/bench agent` builds and runs it. Options:
//! `--wgnat PATH` (a release build; without it nothing is done), `--seconds N` of quiet, `--rounds N` of starts.
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
#[path = "soak/measure.rs"]
mod measure;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{Keys, Lab, Namespace, Peer, WgDevice};
use measure::{Measured, node_exporter, spread};

/// As often as Fly's Prometheus asks.
const SCRAPE_EVERY: Duration = Duration::from_secs(15);
/// The start's own cost is not counted as quiet.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
const DESTINATIONS: usize = 200;
const PEERS: usize = 100;
const SCRAPES: usize = 300;

fn main() {
    let option = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let Some(wgnat) = option("--wgnat") else {
        println!("nothing done: give --wgnat PATH (scripts/bench agent does)");
        return;
    };
    let number = |name, default| option(name).map_or(default, |n| n.parse().expect(name));
    let (seconds, rounds) = (number("--seconds", 120), number("--rounds", 21));
    let Some(lab) = Lab::lone() else { return };
    println!("| the agent, where nothing happens | goal | here | prometheus-node-exporter |");
    println!("| --- | ---: | ---: | ---: |");
    let size = std::fs::metadata(&wgnat).expect("--wgnat names a file").len();
    println!(
        "| the program's size, MiB | 12 | {:.1} | |",
        size as f64 / 1048576.0
    );
    let starts = (0..rounds).map(|_| {
        let began = Instant::now();
        let mut agent = agent(&lab, lab.client(), &wgnat, &[]);
        agent.until_answers("/readyz", began).as_secs_f64() * 1000.0
    });
    let (least, middle, most) = spread(starts.collect());
    println!(
        "| start to ready, ms, median (least to most) | 150 | {middle:.0} ({least:.0} to {most:.0}) | |"
    );
    quiet(&lab, &wgnat, Duration::from_secs(seconds));
    drop(lab);
    many(&wgnat);
}

fn agent(lab: &Lab, ns: &Namespace, wgnat: &str, args: &[&str]) -> Measured {
    let at: SocketAddr = "127.0.0.1:9986".parse().expect("valid");
    let mut command = ns.command(wgnat);
    lab.clean_environment(&mut command);
    let store = tempfile::tempdir_in(lab.dir())
        .expect("the lab's directory is writable")
        .keep();
    command
        .args(["agent", "--confine", "require", "--store"])
        .arg(store.join("history.db"));
    command.args(args).stderr(Stdio::null());
    Measured::start(ns, command, at)
}

fn quiet(lab: &Lab, wgnat: &str, length: Duration) {
    let mut agent = agent(lab, lab.client(), wgnat, &[]);
    agent.until_answers("/readyz", Instant::now());
    let exporter = node_exporter(lab.client());
    let both = [Some(&agent), exporter.as_ref()];
    std::thread::sleep(SETTLED_AFTER);
    let (began, before) = (Instant::now(), both.map(|one| one.map(Measured::cpu)));
    while began.elapsed() < length {
        std::thread::sleep(SCRAPE_EVERY.min(length));
        for one in both.into_iter().flatten() {
            let (status, _) = one.get("/metrics").expect("it answers");
            assert_eq!(status, 200);
        }
    }
    let took = began.elapsed().as_secs_f64();
    let cell = |n: usize, value: &dyn Fn(&Measured) -> String| {
        both[n].map_or_else(|| "not installed".to_owned(), value)
    };
    let memory = |one: &Measured| {
        let (all, own) = one.memory();
        format!("{:.1}, {:.1}", all / 1024.0, own / 1024.0)
    };
    println!(
        "| resident memory, MiB: all, not code | 16 | {} | {} |",
        cell(0, &memory),
        cell(1, &memory)
    );
    let share = |n: usize| {
        cell(n, &|one| {
            let used = one.cpu() - before[n].unwrap_or_default();
            format!("{:.2}", used / took * 100.0)
        })
    };
    println!(
        "| CPU, % of a core, a scrape each 15 s | 0.3 | {} | {} |",
        share(0),
        share(1)
    );
}

/// A scrape of a host with many destinations and peers.
fn many(wgnat: &str) {
    let Some(lab) = Lab::pair() else { return };
    let to = lab.server_ip();
    let listeners: Vec<TcpListener> = lab.server().run(|| {
        (0..DESTINATIONS)
            .map(|_| TcpListener::bind((to, 0)).expect("a port is free"))
            .collect()
    });
    let ends: Vec<SocketAddr> = listeners
        .iter()
        .map(|l| l.local_addr().expect("it is bound"))
        .collect();
    let _open: Vec<TcpStream> = lab.client().run(|| {
        ends.iter()
            .map(|end| TcpStream::connect(end).expect("it listens"))
            .collect()
    });
    let mut device = WgDevice::new(lab.client(), "wg0", Keys::generate());
    device.peers = (0..PEERS)
        .map(|n| Peer::new(Keys::generate().public(), &format!("10.99.1.{n}/32")))
        .collect();
    device.start();
    let config = lab.file("wgnat.toml", "[agent]\ntop_destinations = 200\ntop_peers = 100\n");
    let mut agent = agent(
        &lab,
        lab.client(),
        wgnat,
        &["--config", config.to_str().expect("ASCII")],
    );
    agent.until_answers("/readyz", Instant::now());
    let count = |body: &str, name: &str| body.lines().filter(|line| line.starts_with(name)).count();
    let body = lab::wait::wait_for(Duration::from_secs(60), "all destinations and peers", || {
        let (_, body) = agent.get("/metrics").ok()?;
        let there = count(&body, "wgnat_destination_ports{") >= DESTINATIONS
            && count(&body, "wgnat_wireguard_peer_receive_bytes_total{") >= PEERS;
        there.then_some(body)
    });
    let times = (0..SCRAPES).map(|_| {
        let began = Instant::now();
        let (status, _) = agent.get("/metrics").expect("it answers");
        assert_eq!(status, 200);
        let took = began.elapsed();
        // Over more than one verdict: its text is made when it is first asked for.
        std::thread::sleep(Duration::from_millis(50));
        took.as_secs_f64() * 1000.0
    });
    let (least, middle, most) = spread(times.collect());
    let memory = agent.memory().0 / 1024.0;
    println!(
        "| /metrics with {DESTINATIONS} destinations and {PEERS} peers ({} KiB), ms, median (least to most) | 5 | {middle:.1} ({least:.1} to {most:.1}) | |",
        body.len() / 1024
    );
    println!("| resident memory then, MiB | | {memory:.1} | |");
}

//! The memory of an agent that watches a million conntrack entries and 200,000 sockets, while 5,000 connections a second are opened
//! and closed.
//!
//! Makes its own network namespaces (tests/lab) and needs root and the lab's programs; `scripts/bench resident` builds and runs it. The
//! sockets are those that the connections leave in TIME_WAIT, of which the kernel keeps as many as it is told to, and some that stay open.
//! It ends with an error where the load was not there, the memory passed its goal or did not stay where it was.
//!
//! Options: `--minutes N`, without which nothing is done; `--wgnat PATH`, a release build; `--entries N`, `--sockets N`, `--rate N`.
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
#[path = "tables/limit.rs"]
mod limit;
#[path = "soak/measure.rs"]
mod measure;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::{Churn, ChurnPlan, CtFill, Lab, Serve, TcpServer};
use limit::Limit;
use measure::{Measured, slope, spread};

/// Servers: each is a destination, and no destination's ports may run short.
const SERVERS: u16 = 10;
/// Connections that stay open.
const OPEN: usize = 1_000;
/// The goal, in MiB.
const MEMORY: f64 = 24.0;
/// Memory may differ by this between the first minute that counts and the last, in MiB: pages come and go.
const FLAT: f64 = 1.0;

fn main() -> ExitCode {
    let option = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let number = |name: &str, default: u32| option(name).map_or(default, |n| n.parse().expect(name));
    // `cargo bench` and `cargo test --benches` pass options of their own.
    let Some(minutes) = option("--minutes") else {
        println!("nothing done: give --minutes N (scripts/bench resident does)");
        return ExitCode::SUCCESS;
    };
    let length = Duration::from_secs_f64(minutes.parse::<f64>().expect("--minutes takes a number") * 60.0);
    let load = Load {
        entries: number("--entries", 1_000_000),
        sockets: number("--sockets", 200_000),
        rate: number("--rate", 5_000),
    };
    let wgnat = option("--wgnat").unwrap_or_else(|| env!("CARGO_BIN_EXE_wgnat").to_owned());
    let failures = watch(length, &load, &wgnat);
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

struct Load {
    entries: u32,
    sockets: u32,
    rate: u32,
}

fn watch(length: Duration, load: &Load, wgnat: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let Some(lab) = Lab::pair() else {
        return failures;
    };
    let (client, server) = (lab.client(), lab.server());
    client.set_port_range(1_024, 65_000);
    client.sysctl("net.ipv4.tcp_max_tw_buckets", load.sockets);
    let _limit = Limit::raise(load.entries);
    let mut entries = CtFill::assured(load.entries);
    entries.timeout = 7_200;
    let entries = client.fill_conntrack(entries);
    let servers: Vec<TcpServer> = (0..SERVERS)
        .map(|n| TcpServer::start(server, SocketAddr::new(lab.server_ip(), 7_000 + n), Serve::Echo))
        .collect();
    let held = lab::hold(client, servers[0].address(), OPEN);
    let churn: Vec<Churn> = servers
        .iter()
        .map(|to| {
            let plan = ChurnPlan {
                to: to.address(),
                rate: load.rate / u32::from(SERVERS),
                lifetime: Duration::ZERO,
                server_closes: false,
            };
            Churn::start(client, plan)
        })
        .collect();

    // The agent starts beside the full tables, as it does on a host that has been up for long.
    let waiting = || client.sockstat("TCP", "tw");
    let most = Instant::now() + Duration::from_secs(180);
    while waiting() < u64::from(load.sockets) * 19 / 20 {
        if Instant::now() > most {
            failures.push(format!("only {} sockets are in TIME_WAIT", waiting()));
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = lab.dir().join("agent.log");
    let at: SocketAddr = "127.0.0.1:9986".parse().expect("valid");
    let mut command = client.command(wgnat);
    lab.clean_environment(&mut command);
    command
        .args(["agent", "--store"])
        .arg(lab.dir().join("history.db"))
        .stderr(std::fs::File::create(&log).expect("the lab's directory is writable"));
    let mut agent = Measured::start(client, command, at);
    agent.until_answers("/readyz", Instant::now());

    let began = Instant::now();
    let before: u64 = churn.iter().map(Churn::done).sum();
    let cpu = agent.cpu();
    let mut memory = Vec::new();
    let mut own = Vec::new();
    let mut sockets = Vec::new();
    while began.elapsed() < length {
        std::thread::sleep(Duration::from_secs(1));
        let (all, anonymous) = agent.memory();
        memory.push((began.elapsed().as_secs_f64(), all / 1024.0));
        own.push(anonymous / 1024.0);
        sockets.push((waiting() + OPEN as u64) as f64);
    }
    let lasted = began.elapsed().as_secs_f64();
    let rate = (churn.iter().map(Churn::done).sum::<u64>() - before) as f64 / lasted;
    let cpu = (agent.cpu() - cpu) / lasted * 100.0;
    let left = client.conntrack_count();
    let peak = peak(agent.child.id());
    let metrics = agent.get("/metrics").map(|(_, body)| body).unwrap_or_default();
    agent.signal("TERM");
    let ended = agent.child.wait().expect("it ends");
    drop((churn, held));

    let values = |points: &[(f64, f64)]| points.iter().map(|(_, mib)| *mib).collect::<Vec<_>>();
    let minutes: Vec<f64> = memory.chunks(60).map(|c| spread(values(c)).1).collect();
    // The first minute holds what is read once; a run of one or two has no other.
    let settled = memory
        .iter()
        .copied()
        .filter(|(at, _)| *at > 60.0 || lasted < 120.0);
    let (rise, noise) = slope(&settled.collect::<Vec<_>>());
    let (least, middle, most) = spread(values(&memory));
    let (_, seen, _) = spread(sockets);
    println!(
        "| {:.1} min, {left} conntrack entries, {seen:.0} sockets, {rate:.0} connections/s | |",
        lasted / 60.0
    );
    println!("| --- | ---: |");
    println!(
        "| resident memory, MiB: first, last | {:.1}, {:.1} |",
        memory.first().map_or(f64::NAN, |m| m.1),
        memory.last().map_or(f64::NAN, |m| m.1)
    );
    println!("| least, median, most | {least:.1}, {middle:.1}, {most:.1} |");
    println!("| the kernel's own mark of the most (VmHWM) | {peak:.1} |");
    println!("| of it not of files, median | {:.1} |", spread(own).1);
    println!(
        "| median, minute by minute | {} |",
        minutes
            .iter()
            .map(|m| format!("{m:.1}"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    println!(
        "| slope after the first minute, KiB a minute; deviation, KiB | {:+.1}; {:.0} |",
        rise * 60.0 * 1024.0,
        noise * 1024.0
    );
    println!("| CPU, % of a core | {cpu:.2} |");
    for line in metrics.lines().filter(|l| l.starts_with("wgnat_pace_ratio ")) {
        println!("\n{line}");
    }

    // Judged last, so that all is printed in any case.
    if rate < f64::from(load.rate) * 0.9
        || seen < f64::from(load.sockets) * 0.9
        || left < u64::from(load.entries)
    {
        failures.push(format!(
            "the load was not there: {rate:.0} connections/s, {seen:.0} sockets, {left} of {entries} entries"
        ));
    }
    if peak.max(most) >= MEMORY {
        failures.push(format!("memory reached {:.1} MiB of {MEMORY}", peak.max(most)));
    }
    // With less than three minutes there is nothing to compare.
    if let [_, first, .., last] = minutes[..]
        && last - first > FLAT
    {
        failures.push(format!("memory went from {first:.1} to {last:.1} MiB"));
    }
    if !ended.success() && ended.code().is_none() {
        failures.push(format!(
            "it ended by {ended}: {}",
            std::fs::read_to_string(&log).unwrap_or_default()
        ));
    }
    failures
}

/// The most that a process has ever had, in MiB.
fn peak(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

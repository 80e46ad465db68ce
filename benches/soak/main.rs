//! Endurance: the agent on a host that is worked hard, for minutes, with faults that it must find.
//!
//! Makes its own network namespaces (tests/lab) and needs root and the lab's programs; `scripts/soak` builds and runs it. On one
//! host: connections churned at 5,000 a second, 50 WireGuard peers that flap and move, a conntrack table at 93 %, a scrape each second
//! and a SIGHUP every ten, by each of which an observer is ended and started anew. Meanwhile faults are made and lifted, over and
//! over. It ends with an error where a scrape was lost, a fault not found, the memory grew or the CPU budget was not kept.
//!
//! Options: `--minutes N`, without which nothing is done; `--wgnat PATH`, a release build.
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

#[path = "../../tests/lab/mod.rs"]
mod lab;
mod measure;
mod peers;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lab::{Churn, ChurnPlan, CtFill, Keys, Lab, Namespace, Peer, Serve, TcpServer, WgDevice};
use measure::{Measured, get, node_exporter, slope, spread};
use peers::Peers;
use serde_json::Value;

/// Connections a second, over two servers.
const CHURN: u32 = 5_000;
/// Peers that flap, and one that does not.
const PEERS: u16 = 51;
/// Local ports.
const PORTS: (u16, u16) = (20_000, 23_999);
/// Held of them towards one server: 75 %.
const HELD: usize = 3_000;
/// A fault that is not found within this is missed. Handshakes fail after five seconds, verdicts come each five, and under load
/// observers look more seldom.
const FOUND_WITHIN: Duration = Duration::from_secs(60);
/// How long a fault lasts at least, and how long there is none after it.
const LASTS: Duration = Duration::from_secs(10);
/// Percent of a core; the agent's default.
const BUDGET: f64 = 1.0;
/// The goal under load.
const MEMORY_MIB: f64 = 32.0;

fn main() -> ExitCode {
    // `cargo bench` and `cargo test --benches` pass options of their own.
    let option = |name: &str| std::env::args().skip_while(|a| a != name).nth(1);
    let Some(minutes) = option("--minutes") else {
        println!("nothing done: give --minutes N (scripts/soak does)");
        return ExitCode::SUCCESS;
    };
    let minutes: f64 = minutes.parse().expect("--minutes takes a number");
    let wgnat = option("--wgnat").unwrap_or_else(|| env!("CARGO_BIN_EXE_wgnat").to_owned());
    let failures = soak(Duration::from_secs_f64(minutes * 60.0), &wgnat);
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What scrapes came to.
#[derive(Default)]
struct Scrapes {
    milliseconds: Vec<f64>,
    lost: Vec<String>,
}

/// What became of a fault.
#[derive(Default)]
struct Found {
    made: u32,
    seconds: Vec<f64>,
}

fn soak(length: Duration, wgnat: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let Some(lab) = Lab::pair() else {
        return failures;
    };
    let (client, server) = (lab.client(), lab.server());
    client.set_port_range(PORTS.0, PORTS.1);
    let servers: Vec<TcpServer> = [7000, 7001, 7100]
        .map(|port| {
            let serve = if port == 7100 {
                Serve::Echo
            } else {
                Serve::CloseFirst
            };
            TcpServer::start(server, SocketAddr::new(lab.server_ip(), port), serve)
        })
        .into();
    let keys = Keys::generate();
    let peers = Peers::start(server, PEERS, &keys);
    let mut device = WgDevice::new(client, "wg0", keys);
    device.addresses = vec!["10.99.0.1/16".to_owned()];
    device.peers = (0..)
        .zip(&peers.keys)
        .map(|(n, keys)| {
            Peer::new(keys.public(), &format!("10.99.1.{n}/32"))
                .at(Peers::endpoint(lab.server_ip(), n))
                .keepalive(2)
        })
        .collect();
    device.start();

    // For scale, and before there is load.
    let exporter = node_exporter(client);
    let quick = lab.file(
        "peers.conf",
        &format!(
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nEndpoint = {}\nAllowedIPs = 10.99.1.0/32\n",
            device.keys.private_base64().as_str(),
            peers.keys[0].public(),
            Peers::endpoint(lab.server_ip(), 0)
        ),
    );
    // What is remembered for long is full before anything is measured.
    let long = (length / 8).clamp(Duration::from_secs(60), Duration::from_secs(900));
    let warm = (length * 2 / 5).min((2 * long + Duration::from_secs(60)).max(Duration::from_secs(240)));
    let config = lab.file(
        "agent.toml",
        &format!(
            "[agent]\nlong_window = \"{0}s\"\n[thresholds]\nroaming_window = {0}.0\n",
            long.as_secs()
        ),
    );
    let log = lab.dir().join("agent.log");
    let at: SocketAddr = "127.0.0.1:9986".parse().expect("valid");
    let mut command = client.command(wgnat);
    lab.clean_environment(&mut command);
    command
        .args(["agent", "--confine", "require", "--store"])
        .arg(lab.dir().join("history.db"))
        .arg("--wg-config")
        .arg(quick)
        .arg("--config")
        .arg(config)
        .stderr(std::fs::File::create(&log).expect("the lab's directory is writable"));
    let mut agent = Measured::start(client, command, at);
    agent.until_answers("/readyz", Instant::now());

    let fill = || {
        let max = u32::try_from(client.conntrack_max()).expect("a table is smaller than 2^32");
        let mut entries = CtFill::assured(max / 100 * 93);
        entries.timeout = 3_600;
        client.fill_conntrack(entries)
    };
    let entries = fill();
    let churn: Vec<Churn> = servers[..2]
        .iter()
        .map(|to| {
            let plan = ChurnPlan {
                to: to.address(),
                rate: CHURN / 2,
                lifetime: Duration::ZERO,
                server_closes: true,
            };
            Churn::start(client, plan)
        })
        .collect();

    let began = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let scrapers = [Some(&agent), exporter.as_ref()].map(|one| one.map(|one| scraper(one, &over)));
    let talk = talk(client, &over);
    let faults = faults(&lab, at, &peers, servers[2].address(), &over);

    let mut memory: [Vec<(f64, f64)>; 2] = Default::default();
    let mut anonymous = Vec::new();
    let mut cpu: [Option<(Duration, f64)>; 2] = [None, None];
    let mut reloads = 0;
    while began.elapsed() < length {
        std::thread::sleep(Duration::from_secs(1));
        let now = began.elapsed();
        if now.as_secs() / 10 > reloads {
            reloads += 1;
            agent.signal("HUP");
        }
        if now < warm {
            continue;
        }
        for (n, one) in [Some(&agent), exporter.as_ref()].into_iter().enumerate() {
            let Some(one) = one else { continue };
            let (all, own) = one.memory();
            memory[n].push((now.as_secs_f64(), all));
            if n == 0 {
                anonymous.push(own);
            }
            cpu[n].get_or_insert_with(|| (now, one.cpu()));
        }
    }
    let lasted = began.elapsed();
    let done: u64 = churn.iter().map(Churn::done).sum();
    let shares = [Some(&agent), exporter.as_ref()]
        .into_iter()
        .zip(cpu)
        .map(|(one, first)| {
            let (from, before) = first?;
            Some((one?.cpu() - before) / (lasted - from).as_secs_f64() * 100.0)
        })
        .collect::<Vec<_>>();
    over.store(true, Ordering::Relaxed);
    talk.join().expect("it only sends");
    let found = faults.join().expect("faults are made to the end");
    let scrapes = scrapers.map(|one| one.map(|one| one.join().expect("it scrapes to the end")));
    let report: Value = agent
        .get("/api/v1/report")
        .ok()
        .and_then(|(_, body)| serde_json::from_str(&body).ok())
        .unwrap_or_default();
    let metrics = agent.get("/metrics").map(|(_, body)| body).unwrap_or_default();
    agent.signal("TERM");
    let ended = agent.child.wait().expect("it ends");
    let said = std::fs::read_to_string(&log).unwrap_or_default();

    let rate = done as f64 / lasted.as_secs_f64();
    println!(
        "{:.1} min: {rate:.0} connections/s, {PEERS} peers of which {} flap, {entries} conntrack entries, {reloads} reloads; long_window {} s",
        lasted.as_secs_f64() / 60.0,
        PEERS - 1,
        long.as_secs()
    );
    println!(
        "\n| under load, after {:.0} s | wgnat agent | prometheus-node-exporter |",
        warm.as_secs_f64()
    );
    println!("| --- | ---: | ---: |");
    let mib = |kib: f64| kib / 1024.0;
    let row = |name: &str, cells: [Option<String>; 2]| {
        let [a, b] = cells.map(|cell| cell.unwrap_or_else(|| "not installed".to_owned()));
        println!("| {name} | {a} | {b} |");
    };
    let values = |n: usize| -> Option<(f64, f64, f64)> {
        (!memory[n].is_empty()).then(|| spread(memory[n].iter().map(|(_, kib)| *kib).collect()))
    };
    row(
        "resident memory, MiB: least, median, most",
        [0, 1].map(|n| {
            values(n).map(|(least, middle, most)| {
                format!("{:.1}, {:.1}, {:.1}", mib(least), mib(middle), mib(most))
            })
        }),
    );
    let by_minute = memory[0]
        .chunks(60)
        .map(|chunk| format!("{:.1}", mib(spread(chunk.iter().map(|(_, k)| *k).collect()).1)));
    let by_minute = by_minute.collect::<Vec<_>>().join(", ");
    row(
        "its median, minute by minute",
        [Some(by_minute), exporter.as_ref().map(|_| String::new())],
    );
    let slopes = [0, 1].map(|n| (!memory[n].is_empty()).then(|| slope(&memory[n])));
    row(
        "its slope, KiB a minute; deviation, KiB",
        slopes.map(|s| s.map(|(slope, left)| format!("{:+.0}; {left:.0}", slope * 60.0))),
    );
    let (_, own, _) = spread(anonymous);
    row(
        "of it not code, MiB, median",
        [
            Some(format!("{:.1}", mib(own))),
            exporter.as_ref().map(|_| String::new()),
        ],
    );
    row(
        "CPU, % of a core",
        [0, 1].map(|n| shares[n].map(|share| format!("{share:.2}"))),
    );
    row(
        "scrapes, lost",
        [0, 1].map(|n| {
            let scrapes = scrapes[n].as_ref()?;
            Some(format!("{}, {}", scrapes.milliseconds.len(), scrapes.lost.len()))
        }),
    );
    row(
        "a scrape, ms: median, most",
        [0, 1].map(|n| {
            let (_, middle, most) = spread(scrapes[n].as_ref()?.milliseconds.clone());
            Some(format!("{middle:.1}, {most:.1}"))
        }),
    );
    println!("\n| fault | made | found | s to the finding: median, most |");
    println!("| --- | ---: | ---: | ---: |");
    for (code, one) in &found {
        let (_, middle, most) = spread(one.seconds.clone());
        println!(
            "| `{code}` | {} | {} | {middle:.1}, {most:.1} |",
            one.made,
            one.seconds.len()
        );
        if one.made == 0 {
            failures.push(format!("{code} was never made: the soak is too short"));
        }
        if one.seconds.len() < one.made as usize {
            failures.push(format!(
                "{code} was missed {} times",
                one.made as usize - one.seconds.len()
            ));
        }
    }
    println!("\npace, and what each source took:");
    for line in metrics.lines().filter(|line| {
        [
            "wgnat_pace_ratio ",
            "wgnat_collector_cpu_seconds_total{",
            "wgnat_cpu_seconds_total ",
            "wgnat_evaluation_duration",
        ]
        .iter()
        .any(|name| line.starts_with(name))
    }) {
        println!("  {line}");
    }

    // Judged last, so that all is printed in any case.
    if rate < f64::from(CHURN) * 0.8 {
        failures.push(format!(
            "the load was not there: {rate:.0} connections/s of {CHURN}"
        ));
    }
    if let Some(scrapes) = &scrapes[0]
        && let Some(first) = scrapes.lost.first()
    {
        failures.push(format!(
            "{} scrapes were lost, the first: {first}",
            scrapes.lost.len()
        ));
    }
    if let (Some((slope, left)), Some((_, _, most))) = (slopes[0], values(0)) {
        let grown = slope * (lasted - warm).as_secs_f64();
        if grown > (3.0 * left).max(1024.0) {
            failures.push(format!(
                "memory grew by {grown:.0} KiB, beyond the noise of {left:.0} KiB"
            ));
        }
        if mib(most) > MEMORY_MIB {
            failures.push(format!(
                "{:.1} MiB of memory, more than {MEMORY_MIB} MiB",
                mib(most)
            ));
        }
    }
    if let Some(share) = shares[0].filter(|share| *share > BUDGET * 1.25) {
        failures.push(format!("{share:.2} % of a core, of a budget of {BUDGET} %"));
    }
    if !ended.success() {
        failures.push(format!("the agent ended with {ended}"));
    }
    for bad in [
        "panicked",
        "failed inside",
        "not written in time",
        "has not come back",
    ] {
        if let Some(line) = said.lines().find(|line| line.contains(bad)) {
            failures.push(format!("the agent's log: {line}"));
        }
    }
    if !metrics.contains("wgnat_config_last_reload_successful 1") {
        failures.push("the last reload failed".to_owned());
    }
    if report["findings"].as_array().is_none_or(Vec::is_empty) {
        failures.push("there is no report at the end".to_owned());
    }
    failures
}

/// Sends a datagram to each peer through the tunnel each second: only of data do devices want an answer.
fn talk(ns: &Namespace, over: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let over = Arc::clone(over);
    ns.spawn(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        while !over.load(Ordering::Relaxed) {
            for n in 0..PEERS {
                let _ = socket.send_to(b"data", ("10.99.1.".to_owned() + &n.to_string(), 9));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    })
}

/// Scrapes each second until `over`.
fn scraper(one: &Measured, over: &Arc<AtomicBool>) -> std::thread::JoinHandle<Scrapes> {
    let (ns, at, over) = (one.ns.clone(), one.at, Arc::clone(over));
    std::thread::spawn(move || {
        let mut scrapes = Scrapes::default();
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            match get(&ns, at, "/metrics") {
                Ok((200, body)) if body.ends_with('\n') && body.len() > 1000 => {
                    scrapes.milliseconds.push(began.elapsed().as_secs_f64() * 1000.0);
                }
                Ok((status, body)) => scrapes.lost.push(format!("{status}, {} bytes", body.len())),
                Err(error) => scrapes.lost.push(error.to_string()),
            }
            std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
        }
        scrapes
    })
}

/// Makes faults and lifts them until `over`; the table of conntrack is full all the time, and must be said to be.
fn faults(
    lab: &Lab,
    at: SocketAddr,
    peers: &Peers,
    full: SocketAddr,
    over: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<BTreeMap<&'static str, Found>> {
    let (ns, over) = (lab.client().clone(), Arc::clone(over));
    let silent = Arc::clone(&peers.silent);
    let key = peers.keys[0].public().to_owned();
    let closed = SocketAddr::new(full.ip(), 7200);
    std::thread::spawn(move || {
        let mut found: BTreeMap<&'static str, Found> = BTreeMap::new();
        let mut made = |code: &'static str, is_it: &dyn Fn(&Value) -> bool| {
            let one = found.entry(code).or_default();
            one.made += 1;
            let began = Instant::now();
            while began.elapsed() < FOUND_WITHIN {
                if holds(&ns, at, code, is_it) {
                    one.seconds.push(began.elapsed().as_secs_f64());
                    break;
                }
                std::thread::sleep(Duration::from_millis(500));
            }
            // It goes on for a while, that it may be seen to.
            rest(&over, LASTS);
        };
        while !over.load(Ordering::Relaxed) {
            made("conntrack-low", &|_| true);
            if over.load(Ordering::Relaxed) {
                break;
            }
            let held = lab::hold(&ns, full, HELD);
            assert_eq!(held.streams.len(), HELD, "{:?}", held.error);
            made("ports-low", &|f| f["subject"]["port"] == full.port());
            // By a reset: TIME_WAIT would hold the ports for the next time.
            for stream in &held.streams {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            drop(held);
            if over.load(Ordering::Relaxed) {
                break;
            }
            silent.store(true, Ordering::Relaxed);
            made("wg-handshake-timeout", &|f| {
                f["subject"]["public_key"] == key.as_str()
            });
            silent.store(false, Ordering::Relaxed);
            if over.load(Ordering::Relaxed) {
                break;
            }
            let done = Arc::new(AtomicBool::new(false));
            let stop = Arc::clone(&done);
            let caller = ns.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = TcpStream::connect(closed);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            made("connect-refused", &|f| f["subject"]["port"] == closed.port());
            done.store(true, Ordering::Relaxed);
            caller.join().expect("it only calls");
        }
        found
    })
}

fn rest(over: &AtomicBool, span: Duration) {
    let began = Instant::now();
    while began.elapsed() < span && !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Whether the agent says so now, as a finding of its own or beneath its cause.
fn holds(ns: &Namespace, at: SocketAddr, code: &str, is_it: &dyn Fn(&Value) -> bool) -> bool {
    let Ok((200, body)) = get(ns, at, "/api/v1/findings") else {
        return false;
    };
    let findings: Value = serde_json::from_str(&body).unwrap_or_default();
    findings["findings"].as_array().is_some_and(|all| {
        all.iter()
            .any(|row| row["state"] == "active" && row["finding"]["code"] == code && is_it(&row["finding"]))
    })
}

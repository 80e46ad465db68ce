//! `wgnat probe` through the tunnel without a device: echoes, names, connections, the path's MTU; and many peers at once.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;

use lab::prober::ProbeKey;
use lab::tunnel::SERVER_IN;
use lab::wgnat::Doctor;
use lab::{DnsReply, DnsServer, Fault, Keys, Lab, Nat, Peer, Serve, TcpServer, Toward, Tunnel, tunnel};
use serde_json::Value;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

const QUICK: &[&str] = &["--count", "1", "--timeout", "4s", "--source", "10.99.0.9"];

fn answering() -> Option<(Lab, Tunnel, ProbeKey)> {
    let lab = Lab::nat(Nat::Masquerade)?;
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let key = lab.probe_key(&mut tunnel);
    Some((lab, tunnel, key))
}

#[track_caller]
fn inner<'a>(probe: &'a Doctor, target: &str) -> &'a Value {
    let inner = probe.probed()["inner"].as_array().expect("a list");
    let found = inner.iter().find(|i| i["target"] == target);
    found.unwrap_or_else(|| panic!("nothing about {target}\n{}", probe.everything()))
}

#[test]
fn echoes_names_and_connections_pass_without_a_device() {
    let Some((lab, tunnel, key)) = answering() else {
        return;
    };
    let server = tunnel.server.namespace();
    let _web = TcpServer::start(server, SocketAddr::new(SERVER_IN, 8080), Serve::Echo);
    let address = DnsReply::Address("192.0.2.7".parse().expect("an address"), Duration::ZERO);
    let _names = DnsServer::start(server, SERVER_IN, address);
    let args = [
        "--ping",
        "10.99.0.1",
        "--dns",
        "app.internal@10.99.0.1",
        "--tcp",
        "10.99.0.1:8080",
        "--tcp",
        "10.99.0.1:81",
    ];
    let probe = lab.probe_server(&tunnel, &key, &[QUICK, &args].concat());
    assert_eq!((probe.code, probe.codes()), (0, vec![]), "{}", probe.everything());
    let ping = inner(&probe, "10.99.0.1");
    assert_eq!((&ping["sent"], &ping["answered"]), (&4.into(), &4.into()));
    assert!(ping["rtt_seconds"][0].as_f64().is_some_and(|s| s > 0.0));
    assert!(
        inner(&probe, "app.internal@10.99.0.1:53")["answer"]
            .as_str()
            .is_some_and(|a| a.contains("address"))
    );
    assert_eq!(inner(&probe, "10.99.0.1:8080")["answer"], "connected");
    assert_eq!(inner(&probe, "10.99.0.1:81")["answer"], "refused");
    // The session was used, so the server counts a handshake now.
    let dump = tunnel.server.dump();
    let ours = dump
        .peers
        .iter()
        .find(|p| p.public_key == key.keys.public())
        .expect("the probe's key");
    assert!(ours.latest_handshake.is_some());
}

#[test]
fn what_swallows_large_packets_is_found_with_the_mtu_to_set() {
    let Some((lab, tunnel, key)) = answering() else {
        return;
    };
    let search = |extra: &[&str]| {
        let args = [QUICK, &["--ping", "10.99.0.1", "--mtu"], extra].concat();
        lab.probe_server(&tunnel, &key, &args)
    };
    let whole = search(&[]);
    assert_eq!((whole.code, whole.codes()), (0, vec![]), "{}", whole.everything());
    assert_eq!(whole.probed()["mtu"]["passes"], 1420, "{}", whole.everything());
    // Outer packets over 1,388 bytes vanish: 1,328 inner bytes pass.
    let hole = lab.inflict(&Fault::drop_longer_than(1388));
    let probe = search(&[]);
    assert_eq!(probe.codes(), ["wg-mtu-blackhole"], "{}", probe.everything());
    let found = probe.finding("wg-mtu-blackhole");
    assert_eq!(
        (&found["severity"], &found["confidence"]),
        (&"critical".into(), &"certain".into())
    );
    assert_eq!(found["evidence"]["largest_passing_bytes"], 1328);
    assert_eq!(found["evidence"]["mtu_to_set"], 1328);
    assert!(hole.hits() > 0);
    hole.lift();
    // A router that says so is no black hole.
    lab.router().ip(&["link set wan0 mtu 1400"]);
    let told = search(&[]);
    told.lacks("wg-mtu-blackhole");
    let found = told.finding("wg-mtu-too-large");
    assert_eq!(found["severity"], "warning", "{}", told.everything());
    assert_eq!(told.probed()["mtu"]["told_path_mtu"], 1400);
    assert_eq!(told.probed()["mtu"]["mtu_to_set"], 1340);
}

#[test]
fn a_tunnel_that_swallows_all_is_told_apart_from_one_without_handshakes() {
    let Some((lab, mut tunnel, key)) = answering() else {
        return;
    };
    // The server gives the probe's inner address to nobody.
    tunnel.server.peers[1].allowed_ips = "10.99.0.77/32".to_owned();
    tunnel.server.apply();
    let probe = lab.probe_server(&tunnel, &key, &[QUICK, &["--ping", "10.99.0.1"]].concat());
    assert_eq!(probe.codes(), ["wg-one-way"], "{}", probe.everything());
    assert_eq!(probe.finding("wg-one-way")["severity"], "warning");
    assert_eq!(probe.code, 1);
}

/// One process, a thousand peers, one gateway: nobody is left out, and the pace is kept.
#[test]
fn a_thousand_peers_at_once() {
    const PEERS: usize = 1000;
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.peers.clear();
    let mut args: Vec<String> = Vec::new();
    for n in 0..PEERS {
        let keys = Keys::generate();
        let (a, b) = (n / 250, n % 250 + 1);
        tunnel
            .server
            .peers
            .push(Peer::new(keys.public(), &format!("10.98.{a}.{b}/32")));
        let mut text = String::new();
        let _ = write!(
            text,
            "[Interface]\nPrivateKey = {}\n[Peer]\nPublicKey = {}\nEndpoint = {}:{}\n",
            keys.private_base64().as_str(),
            tunnel.server.keys.public(),
            lab.server_ip(),
            tunnel::PORT
        );
        let file = lab.file(&format!("p{n}.conf"), &text);
        args.extend(["--wg-config".to_owned(), file.display().to_string()]);
    }
    tunnel.server.start();
    let seen = lab.inflict(&Fault::count_message(lab::Message::Initiation).toward(Toward::Server));
    let mut command = lab.wgnat(lab.client());
    command
        .args(["probe", "--json", "--count", "1", "--timeout", "5s"])
        .args(&args);
    let probe = lab.json(command);
    let probes = probe.report["wireguard"]["probes"].as_array().expect("a list");
    assert_eq!(probes.len(), PEERS);
    let answered = probes.iter().filter(|p| p["attempts"]["answered"] == 1).count();
    // On a starved machine wireguard-go may drop a few; their second try is answered.
    assert_eq!(answered, PEERS, "{:?} {}", probe.codes(), probe.stderr);
    let sent = seen.hits();
    assert!((1000..1100).contains(&sent), "{sent} initiations");
    let seconds = probe.report["duration_seconds"].as_f64().expect("a time");
    assert!(
        seconds >= 19.0,
        "fifty a second are {PEERS} in 20 s, not {seconds}"
    );
}

/// The NAT forgets after six seconds, and the search finds that between two silences.
#[test]
fn how_long_the_nat_remembers_is_found_with_the_keepalive_to_set() {
    let Some((lab, tunnel, key)) = answering() else {
        return;
    };
    for name in ["udp_timeout", "udp_timeout_stream"] {
        lab.router()
            .sysctl(&format!("net.netfilter.nf_conntrack_{name}"), 6);
    }
    let _greeter = Greeter::start(tunnel.server.namespace(), SocketAddr::new(SERVER_IN, 22));
    let config = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.99.0.9/32\n[Peer]\nPublicKey = {}\nEndpoint = {}:{}\nPersistentKeepalive = 25\n",
        key.keys.private_base64().as_str(),
        tunnel.server.keys.public(),
        lab.server_ip(),
        tunnel::PORT
    );
    let file = lab.file("wg9.conf", &config);
    let mut command = lab.wgnat(lab.client());
    command
        .args([
            "probe",
            "--json",
            "--count",
            "1",
            "--tcp",
            "10.99.0.1:22",
            "--mapping-lifetime",
            "--wg-config",
        ])
        .arg(&file);
    let out = lab::exec::output_within(command, None, Duration::from_secs(240));
    let report: Value =
        serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", out.stdout, out.stderr));
    let lifetime = &report["wireguard"]["probes"][0]["mapping_lifetime"];
    let (alive, dead) = (
        lifetime["alive_after_seconds"].as_f64(),
        lifetime["dead_after_seconds"].as_f64(),
    );
    // conntrack's timers are seconds of its own; the search stops at a quarter.
    assert!(
        alive.is_some_and(|s| (3.0..7.2).contains(&s)),
        "{lifetime} {}",
        out.stderr
    );
    assert!(
        dead.is_some_and(|s| (5.5..9.0).contains(&s)),
        "{lifetime} {}",
        out.stderr
    );
    let codes: Vec<_> = report["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|f| f["code"].as_str())
        .collect();
    assert_eq!(codes, ["wg-keepalive-missing", "nat-mapping-short"], "{report:#}");
    assert!(
        lifetime["keepalive_to_set"]
            .as_u64()
            .is_some_and(|s| (2..6).contains(&s)),
        "{lifetime}"
    );
    assert_eq!(out.code, 1);
}

/// A server that speaks first, as ssh's does, and then waits.
struct Greeter {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Greeter {
    fn start(ns: &lab::Namespace, at: SocketAddr) -> Self {
        use std::io::Write as _;
        use std::sync::atomic::Ordering;
        let listener = ns
            .run(|| std::net::TcpListener::bind(at))
            .expect("the port is free");
        listener.set_nonblocking(true).expect("it can be set");
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        let _ = stream.write_all(b"SSH-2.0-lab\r\n");
                        open.push(stream);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Greeter {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

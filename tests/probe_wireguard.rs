//! `wgnat probe` against real WireGuard: what each answer proves, and that it harms nobody.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::prober::{BoringPeer, preshared_file};
use lab::wait::holds_for;
use lab::{Fault, Keys, Lab, Message, Nat, PresharedKey, SOON, Toward, Tunnel, tunnel, wait_until};
use std::net::SocketAddr;
use std::time::Duration;
use truth::Scenario;

/// Enough for what is answered at once.
const QUICK: &[&str] = &["--count", "3", "--interval", "100ms", "--timeout", "4s"];

#[test]
fn a_peer_that_answers_proves_its_keys_and_the_way() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::up(&lab);
    let key = lab.probe_key(&mut tunnel);
    let before = tunnel.server.dump();
    let probe = lab.probe_server(&tunnel, &key, QUICK);
    assert_eq!((probe.code, probe.codes()), (0, vec![]), "{}", probe.everything());
    assert_eq!(probe.attempts("answered"), 3);
    Scenario::more_of("healthy", "probe").probe(&probe.report).holds();
    let probed = probe.probed();
    assert!(
        probed["cold_seconds"]
            .as_f64()
            .is_some_and(|s| s > 0.0 && s < 4.0)
    );
    assert!(
        probed["rtt"]["mean_seconds"]
            .as_f64()
            .is_some_and(|s| s > 0.0 && s < 4.0)
    );
    assert_eq!(probed["loss"], 0.0);
    assert_eq!(probe.report["wireguard"]["peers"][0]["state"], "up");
    let handshakes = probe.report["wireguard"]["handshakes"]
        .as_array()
        .expect("a list");
    assert_eq!(
        handshakes.iter().filter(|h| h["outcome"] == "answered").count(),
        3
    );
    // The live tunnel of another key is as it was.
    let client = |dump: lab::wg_dump::DeviceDump| {
        dump.peers
            .into_iter()
            .find(|p| p.public_key == tunnel.client.keys.public())
            .expect("the client")
            .endpoint
    };
    assert_eq!(client(tunnel.server.dump()), client(before));
    // Nothing confirmed the probe's sessions.
    let dump = tunnel.server.dump();
    let ours = dump
        .peers
        .iter()
        .find(|p| p.public_key == key.keys.public())
        .expect("the probe's key");
    assert_eq!((ours.latest_handshake, ours.rx), (None, 3 * 148));
}

#[test]
fn another_preshared_key_is_certain() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let key = lab.probe_key(&mut tunnel);
    tunnel.server.peers[1].psk = Some(PresharedKey::generate());
    tunnel.server.apply();
    let file = preshared_file(&lab, &PresharedKey::generate());
    let file = file.to_str().expect("a path in UTF-8");
    for extra in [&["--preshared-key-file", file][..], &[]] {
        let probe = lab.probe_server(&tunnel, &key, &[QUICK, extra].concat());
        assert_eq!(probe.codes(), ["wg-response-rejected"], "{}", probe.everything());
        let found = probe.finding("wg-response-rejected");
        assert_eq!(
            (&found["severity"], &found["confidence"]),
            (&"critical".into(), &"certain".into())
        );
        assert_eq!((probe.code, probe.attempts("preshared_key_differs")), (2, 3));
        Scenario::more_of("psk-differs", "probe")
            .probe(&probe.report)
            .holds();
    }
}

/// A record is judged as the probe was, with other names too, and holds no key but public ones.
#[test]
fn a_record_is_judged_the_same() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let key = lab.probe_key(&mut tunnel);
    tunnel.server.peers[1].psk = Some(PresharedKey::generate());
    tunnel.server.apply();
    let record = lab.dir().join("record.jsonl");
    let path = record.to_str().expect("a path in UTF-8");
    let probe = lab.probe_server(&tunnel, &key, &[QUICK, &["--record", path]].concat());
    let text = std::fs::read_to_string(&record).expect("it was written");
    assert!(!text.contains(key.keys.private_base64().as_str()));
    let replay = |extra: &[&str]| {
        let mut command = lab.wgnat(lab.router());
        command.args(["probe", "--json", "--replay", path]).args(extra);
        lab.json(command)
    };
    let again = replay(&[]);
    assert_eq!(
        (again.code, again.codes()),
        (probe.code, probe.codes()),
        "{}",
        again.everything()
    );
    assert_eq!(again.report["wireguard"], probe.report["wireguard"]);
    let other = replay(&["--anonymise"]);
    assert_eq!(other.codes(), probe.codes());
    let text = other.report.to_string();
    for known in [
        key.keys.public(),
        tunnel.server.keys.public(),
        &lab.server_ip().to_string(),
    ] {
        assert!(!text.contains(known), "{known} in {text}");
    }
}

#[test]
fn silence_comes_with_its_causes() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let mut key = lab.probe_key(&mut tunnel);
    // The server does not know this one.
    key.keys = Keys::generate();
    key.file = lab.file("unknown.key", &key.keys.private_base64());
    let probe = lab.probe_server(&tunnel, &key, &["--count", "1", "--timeout", "1s"]);
    assert_eq!(probe.codes(), ["wg-handshake-timeout"], "{}", probe.everything());
    assert_eq!(
        (probe.code, probe.attempts("silent")),
        (2, 2),
        "one lost packet is no verdict"
    );
    Scenario::more_of("unknown-initiator", "probe")
        .probe(&probe.report)
        .holds();
    let candidates = probe.finding("wg-handshake-timeout")["candidates"].clone();
    let codes: Vec<_> = candidates
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|c| c["code"].as_str())
        .collect();
    assert_eq!(
        codes,
        ["wg-wrong-peer-key", "wg-unknown-initiator", "wg-clock-replay"]
    );
}

#[test]
fn a_closed_port_and_a_firewall_are_named_by_who_says_so() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let key = lab.probe_key(&mut tunnel);
    tunnel.server.kill();
    let probe = lab.probe_server(&tunnel, &key, QUICK);
    assert_eq!(
        probe.codes(),
        ["wg-endpoint-unreachable"],
        "{}",
        probe.everything()
    );
    Scenario::more_of("port-closed", "probe")
        .probe(&probe.report)
        .holds();
    let evidence = &probe.finding("wg-endpoint-unreachable")["evidence"];
    assert_eq!(evidence["icmp_from"], lab.server_ip().to_string());
    assert_eq!(
        (&evidence["icmp_type"], &evidence["icmp_code"]),
        (&3.into(), &3.into())
    );
    let _fault = lab.inflict(&Fault::reject_udp(lab::Reject::Admin));
    let probe = lab.probe_server(&tunnel, &key, QUICK);
    Scenario::more_of("rejected", "probe")
        .probe(&probe.report)
        .holds();
    let evidence = &probe.finding("wg-endpoint-unreachable")["evidence"];
    assert_ne!(evidence["icmp_from"], lab.server_ip().to_string());
    assert_eq!(evidence["icmp_code"], 13);
    tunnel.cut_route(&lab);
    let probe = lab.probe_server(&tunnel, &key, QUICK);
    assert_eq!(probe.codes(), ["wg-no-route"], "{}", probe.everything());
    assert_eq!(probe.attempts("not_sent"), 1);
    Scenario::of("no-route", "No route leads from the initiator to the endpoint")
        .probe(&probe.report)
        .holds();
}

/// The first trap: the responder sends to wherever the last initiation came from.
#[test]
fn a_key_in_use_is_refused_and_its_tunnel_stays_where_it_is() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let endpoint = || tunnel.server.dump().peer().endpoint;
    let before = endpoint();
    let config = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.99.0.2/24\n[Peer]\nPublicKey = {}\nEndpoint = {}:{}\nAllowedIPs = \
         10.99.0.0/24\n",
        tunnel.client.keys.private_base64().as_str(),
        tunnel.server.keys.public(),
        lab.server_ip(),
        tunnel::PORT
    );
    let file = lab.file("wg0.conf", &config);
    let probe = |ns, extra: &[&str]| {
        let mut command = lab.wgnat(ns);
        command
            .args(["probe", "--json", "--wg-config"])
            .arg(&file)
            .args(QUICK)
            .args(extra);
        lab.json(command)
    };
    let refused = probe(lab.client(), &[]);
    assert_eq!(refused.code, 3, "{}", refused.everything());
    let skipped = &refused.probed()["skipped"];
    assert_eq!(skipped["refused"], true);
    assert!(
        skipped["reason"]
            .as_str()
            .is_some_and(|r| r.contains("in use by wg0")),
        "{skipped}"
    );
    assert!(
        skipped["way_round"]
            .as_str()
            .is_some_and(|r| r.contains("--steal-session")),
        "{skipped}"
    );
    assert_eq!(endpoint(), before);
    // From the same host's other namespace it is the same key.
    let elsewhere = probe(lab.router(), &[]);
    assert_eq!(elsewhere.code, 3, "{}", elsewhere.everything());
    assert_eq!(endpoint(), before);
    // Why it is refused: the responder really does follow.
    let stolen = probe(lab.client(), &["--steal-session"]);
    assert_eq!(stolen.attempts("answered"), 3, "{}", stolen.everything());
    assert_ne!(endpoint(), before, "the endpoint is the prober's now");
    // It comes back with what the live side sends next.
    tunnel.knock();
    wait_until(SOON, "the endpoint to come back", || endpoint() == before);
}

/// The second trap: boringtun's stamps are 27 s ahead of the kernel's, and a responder takes later ones only.
#[test]
fn a_probe_does_not_blind_the_peer_to_the_same_keys_handshakes() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let file = lab.file("client.key", &tunnel.client.keys.private_base64());
    let key = lab::prober::ProbeKey {
        keys: tunnel.client.keys.clone(),
        file,
    };
    let probe = lab.probe_server(&tunnel, &key, QUICK);
    assert_eq!(probe.attempts("answered"), 3, "{}", probe.everything());
    tunnel.client.start();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    // What boringtun's own initiation would have done.
    tunnel.client.kill();
    tunnel.put_client_clock_back(&lab);
    tunnel.client.start();
    tunnel.knock();
    wait_until(SOON, "an initiation to leave", || {
        tunnel.client.dump().peer().tx >= 148
    });
    holds_for(Duration::from_secs(2), "no handshake", || {
        tunnel.client.dump().peer().latest_handshake.is_none()
    });
}

/// Both traps at boringtun as the responder: it answers, and afterwards takes the same key's initiations at once.
#[test]
fn boringtun_answers_too_and_is_not_blinded() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let (own, theirs) = (Keys::generate(), Keys::generate());
    let at = SocketAddr::new(lab.server_ip(), 51_999);
    let preshared = PresharedKey::generate();
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&base64_bytes(&preshared));
    let peer = BoringPeer::start(lab.server(), at, &own, &theirs, Some(bytes));
    let key = lab::prober::ProbeKey {
        file: lab.file("probe.key", &theirs.private_base64()),
        keys: theirs,
    };
    let shared = preshared_file(&lab, &preshared);
    let shared = ["--preshared-key-file", shared.to_str().expect("a path in UTF-8")];
    for _ in 0..2 {
        let probe = lab.probe(
            lab.client(),
            own.public(),
            peer.at,
            &key,
            &[QUICK, &shared].concat(),
        );
        assert_eq!(
            (probe.code, probe.attempts("answered")),
            (0, 3),
            "{}",
            probe.everything()
        );
    }
    let probe = lab.probe(lab.client(), own.public(), peer.at, &key, QUICK);
    assert_eq!(probe.codes(), ["wg-response-rejected"], "{}", probe.everything());
}

fn base64_bytes(key: &PresharedKey) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(key.base64().as_str())
        .expect("base64")
}

#[test]
fn lost_answers_are_a_share_with_its_confidence() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let key = lab.probe_key(&mut tunnel);
    let fault = lab.inflict(&Fault::lose_udp(40).toward(Toward::Client));
    let args = ["--count", "40", "--interval", "60ms", "--timeout", "8s"];
    let probe = lab.probe_server(&tunnel, &key, &args);
    assert_eq!(probe.codes(), ["wg-handshake-loss"], "{}", probe.everything());
    assert_eq!(probe.code, 1);
    let lost = fault.hits();
    assert_eq!(probe.attempts("silent"), lost);
    let evidence = &probe.finding("wg-handshake-loss")["evidence"];
    let share = evidence["loss_share"].as_f64().expect("a share");
    assert!((share - lost as f64 / 40.0).abs() < 1e-9);
}

#[test]
fn under_load_the_cookie_is_used() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let (own, theirs) = (Keys::generate(), Keys::generate());
    let at = SocketAddr::new(lab.server_ip(), 51_999);
    // boringtun's own limit is ten handshakes a second.
    let peer = BoringPeer::start(lab.server(), at, &own, &theirs, None);
    let key = lab::prober::ProbeKey {
        file: lab.file("probe.key", &theirs.private_base64()),
        keys: theirs,
    };
    let args = ["--count", "14", "--interval", "50ms", "--timeout", "2s"];
    let probe = lab.probe(lab.client(), own.public(), peer.at, &key, &args);
    assert_eq!(probe.codes(), ["wg-under-load"], "{}", probe.everything());
    assert!(
        probe.attempts("cookies") > 0 && probe.attempts("answered") >= 10,
        "{}",
        probe.everything()
    );
}

/// From which address and port the server sees the only flow that the router translates.
fn seen_as(lab: &Lab) -> SocketAddr {
    let table = lab.router().conntrack(&["-L", "-p", "udp"]);
    let back: Vec<&str> = table.split_whitespace().collect();
    let last = |name: &str| {
        back.iter()
            .rev()
            .find_map(|word| word.strip_prefix(name))
            .expect("a flow")
    };
    SocketAddr::new(
        last("dst=").parse().expect("an address"),
        last("dport=").parse().expect("a port"),
    )
}

/// A gateway that knows its peers only once they have called: it takes the initiation, installs the peer, and calls back.
#[test]
fn a_gateway_that_calls_back_is_answered() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let key = lab.probe_key(&mut tunnel);
    // The peer is not installed: what the gateway does on demand, the test does when an initiation is seen.
    let mut installed = tunnel.server.peers.pop().expect("the probe's peer");
    tunnel.server.apply();
    let seen = lab.inflict(&Fault::count_message(Message::Initiation).toward(Toward::Server));
    let (server_key, at) = (
        tunnel.server.keys.public().to_owned(),
        SocketAddr::new(lab.server_ip(), tunnel::PORT),
    );
    let probe = std::thread::scope(|scope| {
        let probing = scope.spawn(|| {
            let args = ["--count", "2", "--interval", "4s", "--timeout", "8s"];
            lab.probe(lab.client(), &server_key, at, &key, &args)
        });
        wait_until(SOON, "the first initiation", || seen.hits() > 0);
        installed.endpoint = Some(seen_as(&lab));
        tunnel.server.peers.push(installed);
        tunnel.server.apply();
        // Something for the peer makes wireguard-go call it, as installing it makes Fly's gateway.
        tunnel::knock(
            tunnel.server.namespace(),
            "10.99.0.9".parse().expect("an address"),
        );
        probing.join().expect("no panic in there")
    });
    assert_eq!(probe.codes(), Vec::<&str>::new(), "{}", probe.everything());
    assert_eq!(
        (probe.attempts("called_back"), probe.attempts("answered")),
        (1, 1),
        "{}",
        probe.everything()
    );
    let cold = probe.probed()["cold_seconds"].as_f64().expect("a time");
    let warm = probe.probed()["rtt"]["mean_seconds"].as_f64().expect("a time");
    assert!(
        cold > warm,
        "installing takes longer than answering: {cold} {warm}"
    );
}

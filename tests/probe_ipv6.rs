//! `wgnat probe` to an endpoint over IPv6, and to IPv6 addresses inside the tunnel.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;

use lab::prober::{ProbeKey, preshared_file};
use lab::{Fault, Keys, Lab, PresharedKey, Reject, Serve, TcpServer, Tunnel, tunnel};
use std::net::{Ipv6Addr, SocketAddr};

const QUICK: &[&str] = &["--count", "2", "--interval", "100ms", "--timeout", "4s"];
/// The server's address in the tunnel.
const SERVER_IN: &str = "fd99::1";

/// A server, and a key for probing that may use IPv6 in the tunnel.
fn answering() -> Option<(Lab, Tunnel, ProbeKey, SocketAddr)> {
    let lab = Lab::routed()?;
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let key = lab.probe_key(&mut tunnel);
    tunnel.server.peers[1].allowed_ips = "10.99.0.9/32,fd99::9/128".to_owned();
    tunnel.server.apply();
    let at = SocketAddr::new(lab.server_at().v6.into(), tunnel::PORT);
    Some((lab, tunnel, key, at))
}

#[test]
fn a_peer_over_ipv6_answers_and_so_does_what_is_inside() {
    let Some((lab, tunnel, key, at)) = answering() else {
        return;
    };
    let inside: Ipv6Addr = SERVER_IN.parse().expect("an address");
    let _web = TcpServer::start(
        tunnel.server.namespace(),
        SocketAddr::new(inside.into(), 8080),
        Serve::Echo,
    );
    let args = [
        "--source",
        "fd99::9",
        "--ping",
        SERVER_IN,
        "--tcp",
        "[fd99::1]:8080",
        "--tcp",
        "[fd99::1]:81",
    ];
    let probe = lab.probe(
        lab.client(),
        tunnel.server.keys.public(),
        at,
        &key,
        &[QUICK, &args].concat(),
    );
    assert_eq!((probe.code, probe.codes()), (0, vec![]), "{}", probe.everything());
    let target = probe.probed();
    assert_eq!(
        (&target["address"], probe.attempts("answered")),
        (&at.to_string().into(), 2)
    );
    let local = probe.report["wireguard"]["handshakes"][0]["initiator"]
        .as_str()
        .unwrap_or_default();
    assert!(
        local.starts_with(&format!("[{}]:", lab.client_at().v6)),
        "{local}"
    );
    let inner = |name: &str| {
        let all = target["inner"].as_array().expect("a list");
        let found = all.iter().find(|i| i["target"] == name);
        found
            .unwrap_or_else(|| panic!("nothing about {name}\n{}", probe.everything()))
            .clone()
    };
    assert_eq!(inner(SERVER_IN)["answered"], 4, "{}", probe.everything());
    assert_eq!(inner("[fd99::1]:8080")["answer"], "connected");
    assert_eq!(inner("[fd99::1]:81")["answer"], "refused");
}

#[test]
fn the_largest_packet_over_ipv6_is_twenty_bytes_less() {
    let Some((lab, tunnel, key, at)) = answering() else {
        return;
    };
    let search = || {
        let args = ["--source", "fd99::9", "--ping", SERVER_IN, "--mtu"];
        lab.probe(
            lab.client(),
            tunnel.server.keys.public(),
            at,
            &key,
            &[QUICK, &args].concat(),
        )
    };
    let whole = search();
    assert_eq!((whole.code, whole.codes()), (0, vec![]), "{}", whole.everything());
    assert_eq!(whole.probed()["mtu"]["passes"], 1420, "{}", whole.everything());
    // Outer packets over 1,408 bytes vanish: 80 of them are headers, so 1,328 inner bytes pass.
    let hole = lab.inflict(&Fault::drop_longer_than(1408));
    let probe = search();
    assert!(hole.hits() > 0);
    assert_eq!(probe.codes(), ["wg-mtu-blackhole"], "{}", probe.everything());
    let found = probe.finding("wg-mtu-blackhole");
    assert_eq!(found["evidence"]["mtu_to_set"], 1328, "{}", probe.everything());
}

#[test]
fn what_is_wrong_over_ipv6_is_named_by_icmpv6_and_by_the_answers() {
    let Some((lab, mut tunnel, key, at)) = answering() else {
        return;
    };
    let public = tunnel.server.keys.public().to_owned();
    let probe =
        |lab: &Lab, extra: &[&str]| lab.probe(lab.client(), &public, at, &key, &[QUICK, extra].concat());
    let file = preshared_file(&lab, &PresharedKey::generate());
    let differs = probe(
        &lab,
        &["--preshared-key-file", file.to_str().expect("a path in UTF-8")],
    );
    assert_eq!(
        differs.codes(),
        ["wg-response-rejected"],
        "{}",
        differs.everything()
    );
    assert_eq!(differs.finding("wg-response-rejected")["confidence"], "certain");
    let wrong = lab.probe(lab.client(), Keys::generate().public(), at, &key, QUICK);
    assert_eq!(wrong.codes(), ["wg-handshake-timeout"], "{}", wrong.everything());
    let refusing = lab.inflict(&Fault::reject_udp(Reject::Admin));
    let prohibited = probe(&lab, &[]);
    let evidence = &prohibited.finding("wg-endpoint-unreachable")["evidence"];
    assert_eq!(
        (&evidence["icmp_type"], &evidence["icmp_code"]),
        (&1.into(), &1.into()),
        "{}",
        prohibited.everything()
    );
    refusing.lift();
    tunnel.server.kill();
    let closed = probe(&lab, &[]);
    let evidence = &closed.finding("wg-endpoint-unreachable")["evidence"];
    assert_eq!(
        (
            &evidence["icmp_from"],
            &evidence["icmp_type"],
            &evidence["icmp_code"]
        ),
        (&at.ip().to_string().into(), &1.into(), &4.into()),
        "{}",
        closed.everything()
    );
}

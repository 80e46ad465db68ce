//! Where nothing is wrong, doctor finds nothing: at every host, over both families, at rest and at work.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::tunnel::{SERVER_IN, knock_of};
use lab::{
    CtFill, Keys, Lab, Nat, Peer, SOON, Serve, TcpServer, Tunnel, UdpReflector, WgDevice, ask, hold, tunnel,
};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use truth::{Look, Repeat, Verdict};

/// Doctors at these hosts, at the same time, each of which finds nothing.
#[track_caller]
fn all_well(lab: &Lab, case: &str, duration: &str) -> Vec<Verdict> {
    let looks: Vec<_> = lab
        .hosts()
        .map(|ns| {
            let role = ns.name().rsplit('-').next().unwrap_or_default().to_owned();
            Look::at(lab, ns)
                .duration(duration)
                .case(&format!("{case}-{role}"))
                .start()
        })
        .collect();
    let verdicts: Vec<Verdict> = looks.into_iter().map(|look| look.finish()).collect();
    for verdict in &verdicts {
        verdict.nothing_wrong();
    }
    verdicts
}

/// Questions and answers through the tunnel, five a second.
fn talk(lab: &Lab, inside: SocketAddr) -> Repeat {
    let ns = lab.client().clone();
    Repeat::every(Duration::from_millis(200), move || {
        let _ = ask(&ns, inside, 500, Duration::from_millis(200));
    })
}

#[test]
fn a_tunnel_at_work_behind_nat() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let inside = SocketAddr::new(SERVER_IN, 7000);
    let _reflector = UdpReflector::start(lab.server(), inside);
    let web = SocketAddr::new(lab.server_ip(), 8080);
    let _server = TcpServer::start(lab.server(), web, Serve::Echo);
    let _held = hold(lab.client(), web, 50);
    let _load = talk(&lab, inside);
    for verdict in all_well(&lab, "healthy-nat", "3s") {
        // Not "nothing found because nothing seen": as root in a lab every rule can be checked.
        assert!(verdict.not_checked().is_empty(), "{}", verdict.everything());
    }
    assert!(tunnel.client.dump().peer().rx > 1000);
}

#[test]
fn a_tunnel_at_rest() {
    let Some(lab) = Lab::pair() else { return };
    let _tunnel = Tunnel::up(&lab);
    all_well(&lab, "healthy-rest", "2s");
}

#[test]
fn a_handshake_while_watched() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    let client = Look::at(&lab, lab.client())
        .until_told()
        .case("healthy-handshake")
        .start()
        .await_watching();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    let client = client.enough();
    client.nothing_wrong();
    assert_eq!(client.peer()["state"], "up", "{}", client.everything());
    let handshakes = client.report["wireguard"]["handshakes"]
        .as_array()
        .map_or(0, Vec::len);
    assert_eq!(handshakes, 1, "{}", client.everything());
    assert_eq!(client.report["wireguard"]["messages"]["initiation"], 1);
    assert_eq!(client.report["wireguard"]["messages"]["response"], 1);
}

#[test]
fn a_tunnel_over_ipv6() {
    let Some(lab) = Lab::routed() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.peers[0].endpoint = Some((lab.server_at().v6, tunnel::PORT).into());
    tunnel.start_both();
    let inside: SocketAddr = "[fd99::1]:7000".parse().expect("valid");
    let _reflector = UdpReflector::start(lab.server(), inside);
    let _load = talk(&lab, inside);
    tunnel.client.await_handshake(SOON);
    all_well(&lab, "healthy-ipv6", "2s");
}

#[test]
fn requests_that_are_refused_inside_the_tunnel() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    // Nobody listens there, which the tunnel is not to blame for: ICMP says so through it.
    let ns = lab.client().clone();
    let _load = Repeat::every(Duration::from_millis(100), move || knock_of(&ns, SERVER_IN, 400));
    all_well(&lab, "healthy-refused-inside", "18s");
    assert!(tunnel.client.dump().peer().tx > 10_000);
}

#[test]
fn an_exit_node_beside_narrower_peers_is_no_conflict() {
    let Some(lab) = Lab::builder().nat(Nat::Masquerade).second_client().build() else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    let twin_keys = Keys::generate();
    // The client sends all to the server, but for one neighbour; the server is the hub of two.
    tunnel.client.peers[0].allowed_ips = "0.0.0.0/0,::/0".to_owned();
    tunnel
        .server
        .peers
        .push(Peer::new(twin_keys.public(), "10.99.0.3/32"));
    let mut second = WgDevice::new(lab.host("client2"), "wg0", twin_keys);
    second.addresses = vec!["10.99.0.3/24".to_owned()];
    second.peers =
        vec![Peer::new(tunnel.server.keys.public(), "10.99.0.0/24").at((lab.server_at().v4, 51820).into())];
    tunnel.start_both();
    second.start();
    tunnel.knock();
    tunnel::knock(second.namespace(), SERVER_IN);
    tunnel.client.await_handshake(SOON);
    second.await_handshake(SOON);
    // The neighbour's key is new here, and it has no endpoint: it can only call.
    tunnel
        .client
        .peers
        .push(Peer::new(Keys::generate().public(), "10.99.0.77/32"));
    tunnel.client.apply();
    all_well(&lab, "healthy-hub", "2s");
}

#[test]
fn a_busy_host_with_room() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let at = |port| SocketAddr::new(lab.server_ip(), port);
    let servers: Vec<_> = (8080..8084)
        .map(|p| TcpServer::start(lab.server(), at(p), Serve::Echo))
        .collect();
    let held: Vec<_> = (8080..8084).map(|p| hold(lab.client(), at(p), 500)).collect();
    assert!(held.iter().all(|h| h.error.is_none()));
    lab.router().fill_conntrack(CtFill::assured(50_000));
    all_well(&lab, "healthy-busy", "2s");
    drop(servers);
}

#[test]
fn a_host_without_anything() {
    let Some(lab) = Lab::lone() else { return };
    let verdict = &all_well(&lab, "healthy-lone", "1s")[0];
    assert!(verdict.codes().is_empty(), "{}", verdict.everything());
    let _: IpAddr = lab.server_ip();
}

//! doctor says the truth of endpoints: who moved, which NAT forgot whom, who shares a key, what a path does not carry.
//! Each fault is looked at from the host that suffers it, from its peer, and from the router between.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::tunnel::{self, CLIENT_IN, SERVER_IN, knock, knock_of};
use lab::{DnsReply, DnsServer, Fault, Lab, Nat, SOON, Toward, Tunnel, UdpReflector, Watch, ask, wait_until};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use truth::{Look, Repeat, Scenario};

/// A configuration file with thresholds of its own: a test cannot be silent for as long as real tunnels are.
fn config(lab: &Lab, thresholds: &str) -> String {
    let file = lab.dir().join("wgnat.toml");
    fs::write(&file, format!("[thresholds]\n{thresholds}\n")).expect("the lab's directory can be written");
    file.display().to_string()
}

/// Makes the router forget a flow after a second.
fn forget_soon(lab: &Lab) {
    for name in ["udp_timeout", "udp_timeout_stream"] {
        lab.router()
            .sysctl(&format!("net.netfilter.nf_conntrack_{name}"), 1);
    }
}

/// Waits until the router has no UDP flow any more.
#[track_caller]
fn await_forgotten(lab: &Lab) {
    wait_until(SOON, "the NAT to forget the flow", || {
        !lab.router().conntrack(&["-L", "-p", "udp"]).contains("udp")
    });
}

/// Something that answers inside the tunnel.
fn echo(lab: &Lab) -> UdpReflector {
    UdpReflector::start(lab.server(), SocketAddr::new(SERVER_IN, 7))
}

/// A few small messages both ways.
#[track_caller]
fn talk(lab: &Lab, echo: &UdpReflector) {
    for _ in 0..6 {
        wait_until(SOON, "an answer", || {
            ask(lab.client(), echo.address(), 32, Duration::from_millis(300)).is_ok()
        });
    }
}

// --- roaming ---

#[test]
fn a_client_that_roams_is_named_on_both_sides() {
    let Some(lab) = Lab::builder().second_uplink().build() else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let echo = echo(&lab);
    let look = |ns| Look::at(&lab, ns).until_told().start().await_watching();
    let (client, server, router) = (look(lab.client()), look(lab.server()), look(lab.router()));
    talk(&lab, &echo);
    lab.roam();
    // wireguard-go keeps its old source address until its port is set again.
    tunnel.client.wg(&["set", "wg0", "listen-port", "40000"]);
    let moved: SocketAddr = (lab::addresses::CLIENT_ROAMED.v4, 40000).into();
    wait_until(SOON, "the server to follow", || {
        tunnel.knock();
        tunnel.server.dump().peer().endpoint == Some(moved)
    });
    talk(&lab, &echo);
    let client = client.enough();
    client.nothing_wrong();
    client
        .finding("wg-roamed")
        .evidence("moved", "this host")
        .evidence("new_local_address", moved.to_string());
    let server = server.enough();
    server.nothing_wrong();
    server
        .finding("wg-roamed")
        .about_peer_of(&tunnel.server)
        .evidence("changed", "address")
        .evidence("new_endpoint", moved.to_string());
    let router = router.enough();
    router.nothing_wrong();
    Scenario::of("roams", "The initiator roams to another network")
        .with_info()
        .initiator(&client)
        .responder(&server)
        .router(&router)
        .holds();
}

#[test]
fn an_endpoint_that_keeps_changing_is_unstable_and_no_second_host() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20099)) else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let echo = echo(&lab);
    let server = Look::at(&lab, lab.server()).until_told().start().await_watching();
    let mut endpoint = tunnel.server.dump().peer().endpoint;
    for round in 0..4u16 {
        let first = 30000 + round * 1000;
        lab.rebind(Nat::Range(first, first + 99));
        wait_until(SOON, "the endpoint to change", || {
            tunnel.knock();
            tunnel.server.dump().peer().endpoint != endpoint
        });
        endpoint = tunnel.server.dump().peer().endpoint;
        talk(&lab, &echo);
    }
    let server = server.enough();
    server
        .says_only(&["wg-roaming-unstable"])
        .is("warning", "certain")
        .about_peer_of(&tunnel.server)
        .measures("changes", 3.0..);
    Scenario::of(
        "roams-often",
        "The initiator's endpoint changes four times in seconds",
    )
    .responder(&server)
    .holds();
}

// --- NAT rebinding ---

#[test]
fn a_nat_that_forgets_is_named_by_the_peer_and_by_the_nat() {
    let Some(lab) = Lab::nat(Nat::Random) else { return };
    forget_soon(&lab);
    let tunnel = Tunnel::up(&lab);
    let echo = echo(&lab);
    let thresholds = config(&lab, "rebinding_after = 3.0");
    let look = |ns| {
        Look::with(lab.wgnat(ns))
            .args(&["-v", "--config", &thresholds, "doctor", "--json"])
            .until_told()
            .start()
            .await_watching()
    };
    let (client, server, router) = (look(lab.client()), look(lab.server()), look(lab.router()));
    talk(&lab, &echo);
    let old = tunnel.server.dump().peer().endpoint;
    let silence = Watch::start();
    await_forgotten(&lab);
    // The silence is the fault.
    wait_until(SOON, "a silence", || silence.elapsed() > Duration::from_secs(4));
    wait_until(SOON, "the endpoint to change", || {
        tunnel.knock();
        tunnel.server.dump().peer().endpoint != old
    });
    talk(&lab, &echo);
    let new = tunnel.server.dump().peer().endpoint.expect("it has one");
    let old = old.expect("it had one");
    let (server, router, client) = (server.enough(), router.enough(), client.enough());
    server
        .says_only(&["wg-nat-rebinding"])
        .is("warning", "likely")
        .about_peer_of(&tunnel.server)
        .measures("silence_seconds", 3.0..30.0)
        .tells("/evidence", &[&old.to_string(), &new.to_string()])
        .fix(&["PersistentKeepalive"]);
    router
        .says_only(&["wg-nat-rebinding"])
        .is("warning", "certain")
        .measures("silence_seconds", 3.0..30.0)
        .tells("/evidence", &[&new.to_string(), "10.77.0.2"]);
    client.nothing_wrong();
    Scenario::of(
        "nat-forgets",
        "The NAT forgets the initiator during a silence, and it comes back",
    )
    .initiator(&client)
    .responder(&server)
    .router(&router)
    .holds();
}

#[test]
fn a_mapping_shorter_than_the_silence_cuts_the_server_off() {
    let Some(lab) = Lab::nat(Nat::Random) else { return };
    forget_soon(&lab);
    let tunnel = Tunnel::up(&lab);
    let echo = echo(&lab);
    talk(&lab, &echo);
    let silence = Watch::start();
    await_forgotten(&lab);
    wait_until(SOON, "a silence", || silence.elapsed() > Duration::from_secs(2));
    let look = |ns| Look::at(&lab, ns).duration("3s").start().await_watching();
    let (client, server, router) = (look(lab.client()), look(lab.server()), look(lab.router()));
    let ns = lab.server().clone();
    let sending = Repeat::every(Duration::from_millis(300), move || knock(&ns, CLIENT_IN));
    let server = server.finish();
    let (client, router) = (client.finish(), router.finish());
    drop(sending);
    server
        .says_only(&["wg-endpoint-unreachable"])
        .is("critical", "certain")
        .about_peer_of(&tunnel.server)
        .fix(&["PersistentKeepalive"]);
    client.nothing_wrong();
    router
        .says_only(&["wg-endpoint-unreachable"])
        .is("warning", "certain")
        .field(
            "/subject/local",
            SocketAddr::new(lab.server_ip(), tunnel::PORT).to_string(),
        )
        .measures("data_messages_turned_back", 2.0..)
        .fix(&["PersistentKeepalive"]);
    Scenario::of(
        "mapping-short",
        "The NAT's mapping is shorter than the initiator's silence, and the responder sends",
    )
    .initiator(&client)
    .responder(&server)
    .router(&router)
    .holds();
    // With the client's next word all is well.
    let old = tunnel.server.dump().peer().endpoint;
    wait_until(SOON, "the endpoint to change", || {
        tunnel.knock();
        tunnel.server.dump().peer().endpoint != old
    });
    for ns in [lab.server(), lab.router()] {
        Look::at(&lab, ns).duration("1s").run().nothing_wrong();
    }
}

#[test]
fn a_keepalive_below_the_mapping_keeps_it() {
    let Some(lab) = Lab::nat(Nat::Random) else { return };
    for name in ["udp_timeout", "udp_timeout_stream"] {
        lab.router()
            .sysctl(&format!("net.netfilter.nf_conntrack_{name}"), 4);
    }
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.peers[0].keepalive = Some(1);
    tunnel.start_both();
    tunnel.client.await_handshake(SOON);
    let thresholds = config(&lab, "rebinding_after = 3.0");
    let server = Look::with(lab.wgnat(lab.server()))
        .args(&["-v", "--config", &thresholds, "doctor", "--json"])
        .duration("8s")
        .run();
    server.nothing_wrong();
    assert!(server.codes().is_empty(), "{}", server.everything());
}

// --- one key on two hosts ---

#[test]
fn one_key_on_two_hosts_is_named_by_their_peer_and_on_the_way() {
    let Some(lab) = Lab::builder().second_client().build() else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let twin = tunnel.clone_client(&lab);
    knock(twin.namespace(), SERVER_IN);
    twin.await_handshake(SOON);
    let look = |ns| Look::at(&lab, ns).duration("15s").start().await_watching();
    let (server, router, client) = (look(lab.server()), look(lab.router()), look(lab.client()));
    // Each for a while: turns shorter than packets may overtake each other prove nothing.
    let hosts = [lab.client().clone(), lab.host("client2").clone()];
    let turns = Watch::start();
    let sending = Repeat::every(Duration::from_millis(200), move || {
        let turn = usize::try_from(turns.elapsed().as_millis() / 2500).unwrap_or(0);
        knock(&hosts[turn % 2], SERVER_IN);
    });
    let server = server.finish();
    let (router, client) = (router.finish(), client.finish());
    drop(sending);
    server
        .says_only(&["wg-duplicate-key"])
        .is("critical", "certain")
        .about_peer_of(&tunnel.server)
        .tells("/evidence", &["10.77.0.2", "10.78.0.2"]);
    router.says_only(&["wg-duplicate-key"]).is("critical", "certain");
    client.says_at_most(&["wg-one-way"]);
    Scenario::of("one-key-twice", "One key on two hosts")
        .responder(&server)
        .router(&router)
        .holds();
}

// --- MTU ---

#[test]
fn a_path_that_swallows_large_packets_is_a_black_hole() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _hole = lab.inflict(&Fault::drop_longer_than(1300));
    let _mute = lab.inflict(&Fault::drop_icmp());
    let tunnel = Tunnel::up(&lab);
    let echo = echo(&lab);
    let look = |ns| {
        Look::at(&lab, ns)
            .args(&["--duration", "21s", "--max-duration", "60s"])
            .start()
            .await_watching()
    };
    let (client, server, router) = (look(lab.client()), look(lab.server()), look(lab.router()));
    talk(&lab, &echo);
    let ns = lab.client().clone();
    let sending = Repeat::every(Duration::from_millis(200), move || knock_of(&ns, SERVER_IN, 1372));
    let client = client.finish();
    let (server, router) = (server.finish(), router.finish());
    drop(sending);
    client
        .says_only(&["wg-mtu-blackhole"])
        .is("critical", "likely")
        .about_peer_of(&tunnel.client)
        .measures("smallest_unanswered_bytes", 1300.0..1420.0)
        .measures("largest_answered_bytes", 16.0..200.0)
        .evidence("tunnel_mtu", 1420)
        .evidence("mtu_to_set", 1280)
        .fix(&["1280"]);
    assert!(
        client.suppressed().contains(&"wg-one-way"),
        "{}",
        client.everything()
    );
    server.nothing_wrong();
    router.nothing_wrong();
    Scenario::of("mtu-black-hole", "Packets over 1300 bytes vanish, and ICMP too")
        .initiator(&client)
        .responder(&server)
        .router(&router)
        .holds();
}

#[test]
fn large_packets_that_pass_are_no_black_hole() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let client = Look::at(&lab, lab.client())
        .args(&["--duration", "18s", "--max-duration", "20s"])
        .start()
        .await_watching();
    let ns = lab.client().clone();
    let sending = Repeat::every(Duration::from_millis(200), move || knock_of(&ns, SERVER_IN, 1372));
    client.finish().nothing_wrong();
    drop(sending);
    assert!(tunnel.client.dump().peer().rx > 1000);
}

// --- names ---

/// A wg-quick file of the client whose endpoint is a name.
fn named_endpoint(lab: &Lab, tunnel: &Tunnel) -> String {
    use base64::Engine;
    let key = base64::engine::general_purpose::STANDARD.encode(tunnel.client.keys.private_bytes());
    let file = lab.dir().join("wg0.conf");
    let text = format!(
        "[Interface]\nPrivateKey = {key}\n[Peer]\nPublicKey = {}\nAllowedIPs = 10.99.0.0/24\nEndpoint = \
         vpn.example.test:{}\n",
        tunnel.client.peers[0].public_key,
        tunnel::PORT
    );
    fs::write(&file, text).expect("the lab's directory can be written");
    file.display().to_string()
}

#[test]
fn a_name_that_moved_is_why_the_old_address_is_silent() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let gate = Ipv4Addr::new(10, 77, 0, 1);
    let moved_to = lab::addresses::SERVER_MORE[0];
    let _dns = DnsServer::start(
        lab.router(),
        gate.into(),
        DnsReply::Address(moved_to, Duration::ZERO),
    );
    lab.client().set_resolv_conf(&format!("nameserver {gate}\n"));
    let tunnel = Tunnel::up(&lab);
    let file = named_endpoint(&lab, &tunnel);
    // While the peer still answers at its old address, it is for information.
    let client = Look::at(&lab, lab.client())
        .args(&["--wg-config", &file])
        .duration("1s")
        .run();
    client.nothing_wrong();
    client.finding("wg-endpoint-stale-dns").field("/severity", "info");
    Scenario::of(
        "name-moved",
        "The endpoint's name moved (`--wg-config`), and the peer still answers at the old address",
    )
    .with_info()
    .initiator(&client)
    .holds();

    let old = lab.server_ip();
    let _gone =
        lab.inflict(&Fault::new(&format!("ip daddr {old} meta l4proto udp"), "drop").toward(Toward::Server));
    let mut tunnel = tunnel;
    tunnel.client.restart();
    tunnel.knock();
    wait_until(SOON, "the first initiation to leave", || {
        tunnel.client.dump().peer().tx >= 148
    });
    let client = Look::at(&lab, lab.client())
        .args(&["--wg-config", &file])
        .duration("6s")
        .run();
    client
        .says_only(&["wg-endpoint-stale-dns"])
        .is("critical", "likely")
        .about_peer_of(&tunnel.client)
        .tells(
            "/evidence",
            &[&moved_to.to_string(), &old.to_string(), "vpn.example.test"],
        )
        .fix(&["endpoint"]);
    assert!(
        client.suppressed().contains(&"wg-handshake-timeout"),
        "{}",
        client.everything()
    );
    Scenario::of(
        "name-moved-dead",
        "The endpoint's name moved (`--wg-config`), and the old address is dead",
    )
    .initiator(&client)
    .holds();
    // Without the name nothing is known of it.
    let nameless = Look::at(&lab, lab.client()).duration("6s").run();
    nameless.says_only(&["wg-handshake-timeout"]);
}

// --- keepalive ---

#[test]
fn a_keepalive_that_no_nat_waits_for_is_too_long() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.peers[0].keepalive = Some(300);
    tunnel.start_both();
    tunnel.client.await_handshake(SOON);
    let client = Look::at(&lab, lab.client()).duration("1s").run();
    client
        .says_only(&["wg-keepalive-missing"])
        .is("warning", "likely")
        .about_peer_of(&tunnel.client)
        .fix(&["25"]);
    // The server is not behind the NAT, and has none.
    let server = Look::at(&lab, lab.server()).duration("1s").run();
    server.nothing_wrong();
    Scenario::of(
        "keepalive-long",
        "The initiator is behind a NAT with a keepalive of 300 s",
    )
    .initiator(&client)
    .responder(&server)
    .holds();
    tunnel.client.peers[0].keepalive = Some(25);
    tunnel.client.apply();
    Look::at(&lab, lab.client()).duration("1s").run().nothing_wrong();
}

#[test]
fn a_peer_that_speaks_first_needs_a_keepalive() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    let client = Look::at(&lab, lab.client()).until_told().start().await_watching();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    // The keepalives that end the exchange, 10 s later; then nobody says a word.
    let quiet = Watch::start();
    let mut last = (tunnel.client.dump().peer().tx, tunnel.client.dump().peer().rx);
    let mut since = quiet.elapsed();
    wait_until(SOON * 2, "a silence of 13 s", || {
        let now = (tunnel.client.dump().peer().tx, tunnel.client.dump().peer().rx);
        if now != last {
            (last, since) = (now, quiet.elapsed());
        }
        quiet.elapsed() - since > Duration::from_secs(13)
    });
    tunnel.knock_back();
    wait_until(SOON, "the client to hear it", || {
        tunnel.client.dump().peer().rx > last.1
    });
    let client = client.enough();
    client
        .says_only(&["wg-keepalive-missing"])
        .is("warning", "likely")
        .about_peer_of(&tunnel.client)
        .measures("after_silence_seconds", 12.0..)
        .fix(&["persistent-keepalive 25"]);
    Scenario::of(
        "keepalive-none",
        "The initiator is behind a NAT without a keepalive, and the responder speaks first after a silence",
    )
    .initiator(&client)
    .holds();
}

#[test]
fn a_tunnel_that_only_asks_needs_no_keepalive() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    let client = Look::at(&lab, lab.client()).until_told().start().await_watching();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    talk(&lab, &echo(&lab));
    let client = client.enough();
    client.nothing_wrong();
    assert!(client.codes().is_empty(), "{}", client.everything());
}

//! The lab's faults have the effects that real ones have: seen in the devices' counters and in the kernel's.

mod lab;

use lab::{
    DnsReply, DnsServer, Fault, Hook, Lab, Message, Nat, PeerDump, Reject, SOON, Toward, Tunnel, UdpFlows,
    UdpReflector, UdpRelay, Watch, ask, tunnel, wait_until,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Lets the client begin a handshake and waits until its initiation has left the device.
fn knock(tunnel: &Tunnel) -> (PeerDump, PeerDump) {
    tunnel.knock();
    wait_until(SOON, "the first initiation to be sent", || {
        tunnel.client.dump().peer().tx >= 148
    });
    both(tunnel)
}

fn both(tunnel: &Tunnel) -> (PeerDump, PeerDump) {
    (
        tunnel.client.dump().peer().clone(),
        tunnel.server.dump().peer().clone(),
    )
}

#[test]
fn closed_port_answers_with_icmp() {
    let Some(lab) = Lab::routed() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.start();
    tunnel.knock();
    wait_until(SOON, "ICMP at the client", || {
        lab.client().counter("Icmp", "InDestUnreachs") > 0
    });
    assert_eq!(lab.server().counter("Udp", "NoPorts"), 1);
    let peer = tunnel.client.dump().peer().clone();
    assert_eq!((peer.rx, peer.tx, peer.latest_handshake), (0, 148, None));
}

#[test]
fn killed_daemon_answers_data_with_icmp() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::up(&lab);
    tunnel.server.kill();
    tunnel.knock();
    wait_until(SOON, "ICMP at the client", || {
        lab.client().counter("Icmp", "InDestUnreachs") > 0
    });
    tunnel.server.restart();
    assert_eq!(tunnel.server.dump().peer().latest_handshake, None);
}

#[test]
fn dropped_udp_leaves_the_server_untouched() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let fault = lab.inflict(&Fault::drop_udp());
    let tunnel = Tunnel::start(&lab);
    let (client, server) = knock(&tunnel);
    assert_eq!((client.rx, client.tx), (0, 148));
    assert_eq!((server.rx, server.tx, server.endpoint), (0, 0, None));
    wait_until(SOON, "the fault to count it", || fault.hits() == 1);
    fault.lift();
    tunnel.client.await_handshake(SOON);
}

#[test]
fn lost_responses_leave_the_server_waiting() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let fault = lab.inflict(&Fault::drop_message(Message::Response).toward(Toward::Client));
    let tunnel = Tunnel::start(&lab);
    knock(&tunnel);
    wait_until(SOON, "a lost response", || fault.hits() == 1);
    let (client, server) = both(&tunnel);
    assert_eq!((client.rx, client.tx), (0, 148));
    assert_eq!((server.rx, server.tx, server.latest_handshake), (148, 92, None));
    assert!(server.endpoint.is_some());
}

#[test]
fn lost_data_stops_one_way_only() {
    let Some(lab) = Lab::routed() else { return };
    let tunnel = Tunnel::up(&lab);
    let inside = SocketAddr::new(tunnel::SERVER_IN, 7000);
    let reflector = UdpReflector::start(lab.server(), inside);
    let fault = lab.inflict(&Fault::drop_message(Message::Data).toward(Toward::Client));
    let before = both(&tunnel);
    assert!(ask(lab.client(), inside, 100, Duration::from_millis(300)).is_err());
    assert_eq!(reflector.seen().len(), 1, "the way there is open");
    let after = both(&tunnel);
    assert!(after.1.rx > before.1.rx && after.1.tx > before.1.tx);
    assert_eq!(after.0.rx, before.0.rx);
    assert!(fault.hits() >= 1);
}

#[test]
fn wrong_server_key_and_unknown_client_get_silence() {
    let Some(lab) = Lab::pair() else { return };
    for spoil in [Tunnel::give_client_wrong_server_key, Tunnel::make_client_unknown] {
        let mut tunnel = Tunnel::prepare(&lab);
        spoil(&mut tunnel);
        tunnel.start_both();
        let (client, server) = knock(&tunnel);
        assert_eq!((client.rx, client.tx), (0, 148));
        assert_eq!((server.rx, server.tx, server.endpoint), (0, 0, None));
    }
    assert_eq!(lab.server().counter("Udp", "InDatagrams"), 2, "both arrived");
}

#[test]
fn differing_psk_is_answered_and_not_accepted() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.make_psk_differ();
    tunnel.start_both();
    knock(&tunnel);
    wait_until(SOON, "the response at the client", || {
        lab.client().counter("Udp", "InDatagrams") == 1
    });
    let (client, server) = both(&tunnel);
    assert_eq!((client.rx, client.tx), (0, 148));
    assert_eq!((server.rx, server.tx, server.latest_handshake), (148, 92, None));
}

#[test]
fn equal_psk_connects() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.share_psk();
    tunnel.start_both();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
}

#[test]
fn rejects_arrive_as_icmp_from_the_router() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    // 3/1 is a soft error, which a UDP socket without IP_RECVERR is not told.
    for (reject, errno) in [
        (Reject::Port, libc::ECONNREFUSED),
        (Reject::Host, libc::EAGAIN),
        (Reject::Admin, libc::EHOSTUNREACH),
    ] {
        let before = lab.client().counter("Icmp", "InDestUnreachs");
        let fault = lab.inflict(&Fault::reject_udp(reject));
        let server = SocketAddr::new(lab.server_ip(), 7000);
        let error = ask(lab.client(), server, 100, Duration::from_millis(300)).expect_err("it is rejected");
        assert_eq!(error.raw_os_error(), Some(errno), "{reject:?}");
        assert_eq!(
            lab.client().counter("Icmp", "InDestUnreachs"),
            before + 1,
            "{reject:?}"
        );
        fault.lift();
    }
    let before = lab.client().counter("Icmp", "InDestUnreachs");
    let _fault = lab.inflict(&Fault::reject_udp(Reject::Admin));
    let (client, _) = knock(&tunnel);
    assert_eq!((client.rx, client.tx), (0, 148));
    wait_until(SOON, "ICMP at the client", || {
        lab.client().counter("Icmp", "InDestUnreachs") > before
    });
}

#[test]
fn random_loss_takes_its_share() {
    let Some(lab) = Lab::routed() else { return };
    let server = SocketAddr::new(lab.server_ip(), 7000);
    let _reflector = UdpReflector::start(lab.server(), server);
    let fault = lab.inflict(&Fault::lose_udp(30).toward(Toward::Server));
    let answered = UdpFlows::open(lab.client(), server, 1000).answered(SOON);
    // Seven standard deviations either way.
    assert!(
        (600..=800).contains(&answered),
        "{answered} of 1000 arrived with 30 % loss"
    );
    assert_eq!(fault.hits(), 1000 - answered as u64);
}

#[test]
fn black_hole_swallows_large_packets_only() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _tunnel = Tunnel::up(&lab);
    let inside = SocketAddr::new(tunnel::SERVER_IN, 7000);
    let _reflector = UdpReflector::start(lab.server(), inside);
    ask(lab.client(), inside, 1300, SOON).expect("large packets pass before");
    let before = lab.client().counter("Icmp", "InMsgs");
    let fault = lab.inflict(&Fault::drop_longer_than(1300));
    ask(lab.client(), inside, 100, SOON).expect("small packets pass");
    assert!(ask(lab.client(), inside, 1300, Duration::from_millis(300)).is_err());
    assert_eq!(fault.hits(), 1);
    assert_eq!(lab.client().counter("Icmp", "InMsgs"), before, "no ICMP says so");
}

#[test]
fn own_firewall_and_missing_route_send_nothing() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    let fault = lab.inflict_at(lab.client(), Hook::Output, &Fault::drop_udp());
    let discards = lab.client().counter("Ip", "OutDiscards");
    tunnel.knock();
    // The knock itself is dropped before the tunnel, so let the device begin by itself.
    tunnel.client.wg(&[
        "set",
        "wg0",
        "peer",
        tunnel.server.keys.public(),
        "persistent-keepalive",
        "25",
    ]);
    wait_until(SOON, "a dropped initiation", || fault.hits() >= 2);
    assert!(lab.client().counter("Ip", "OutDiscards") > discards);
    assert_eq!(tunnel.client.dump().peer().tx, 0);
    fault.lift();

    let no_routes = lab.client().counter("Ip", "OutNoRoutes");
    tunnel.cut_route(&lab);
    tunnel.client.wg(&[
        "set",
        "wg0",
        "peer",
        tunnel.server.keys.public(),
        "persistent-keepalive",
        "0",
    ]);
    tunnel.client.wg(&[
        "set",
        "wg0",
        "peer",
        tunnel.server.keys.public(),
        "persistent-keepalive",
        "25",
    ]);
    wait_until(SOON, "OutNoRoutes to move", || {
        lab.client().counter("Ip", "OutNoRoutes") > no_routes
    });
    assert_eq!(tunnel.client.dump().peer().tx, 0);
}

#[test]
fn endpoint_in_the_tunnel_never_leaves() {
    let Some(lab) = Lab::routed() else { return };
    let tunnel = Tunnel::start(&lab);
    tunnel.route_endpoint_into_tunnel(&lab);
    tunnel.knock();
    wait_until(SOON, "the device to send", || {
        tunnel.client.dump().peer().tx >= 148
    });
    assert_eq!(lab.server().counter("Udp", "InDatagrams"), 0);
}

#[test]
fn roaming_moves_the_endpoint_at_the_first_data() {
    let Some(lab) = Lab::builder().second_uplink().build() else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    assert_eq!(
        tunnel.server.dump().peer().endpoint.map(|e| e.ip()),
        Some(lab::addresses::CLIENT.v4.into())
    );
    lab.roam();
    // wireguard-go keeps its old source address for ever (ENETUNREACH); a new socket frees it, as an operator would.
    tunnel.client.wg(&["set", "wg0", "listen-port", "40000"]);
    tunnel.knock();
    let moved: SocketAddr = (lab::addresses::CLIENT_ROAMED.v4, 40000).into();
    wait_until(SOON, "the endpoint to move", || {
        tunnel.server.dump().peer().endpoint == Some(moved)
    });
}

#[test]
fn nat_rebinding_moves_the_port_at_the_first_data() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20099)) else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let port = || tunnel.server.dump().peer().endpoint.map_or(0, |e| e.port());
    assert!((20000..=20099).contains(&port()));
    lab.rebind(Nat::Range(30000, 30099));
    tunnel.knock();
    wait_until(SOON, "the port to change", || (30000..=30099).contains(&port()));
}

#[test]
fn one_key_on_two_hosts_makes_the_endpoint_flap() {
    let Some(lab) = Lab::builder().second_client().build() else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let twin = tunnel.clone_client(&lab);
    let at = |ip: Ipv4Addr| {
        wait_until(SOON, &format!("the endpoint to be {ip}"), || {
            tunnel.server.dump().peer().endpoint.is_some_and(|e| e.ip() == ip)
        });
    };
    tunnel::knock(twin.namespace(), tunnel::SERVER_IN);
    at(lab::addresses::CLIENT2.v4);
    twin.await_handshake(SOON);
    // The first host's session is the server's previous one, and still good for data.
    tunnel.knock();
    at(lab::addresses::CLIENT.v4);
    tunnel::knock(twin.namespace(), tunnel::SERVER_IN);
    at(lab::addresses::CLIENT2.v4);
}

#[test]
fn clock_put_back_is_dropped_as_replay() {
    let Some(lab) = Lab::pair() else { return };
    let tunnel = Tunnel::start(&lab);
    tunnel.put_client_clock_back(&lab);
    let before = tunnel.server.dump().peer().clone();
    assert_eq!((before.rx, before.tx), (148, 92));
    let (client, server) = knock(&tunnel);
    assert_eq!((client.rx, client.tx), (0, 148));
    assert_eq!(
        (server.rx, server.tx),
        (before.rx, before.tx),
        "the later initiation is dropped"
    );
}

#[test]
fn a_flood_brings_cookies() {
    let Some(lab) = Lab::routed() else { return };
    let tunnel = Tunnel::start(&lab);
    let cookies = lab.inflict(&Fault::count_message(Message::Cookie));
    lab::wg_faults::flood(&lab, &tunnel.server, 3000);
    wait_until(SOON, "a cookie reply", || cookies.hits() > 0);
    assert_eq!(tunnel.server.dump().peer().rx, 0, "the initiator is unknown");
}

#[test]
fn a_relay_delays_both_ways() {
    let Some(lab) = Lab::routed() else { return };
    let server = SocketAddr::new(lab.server_ip(), 7000);
    let _reflector = UdpReflector::start(lab.server(), server);
    let front = SocketAddr::new(lab::addresses::ROUTER_WAN.v4.into(), 7000);
    let relay = UdpRelay::start(lab.router(), front, server, &[Duration::from_millis(50)]);
    let start = Watch::start();
    let seen = ask(lab.client(), relay.address(), 100, SOON).expect("the relay passes the answer on");
    assert!(
        start.elapsed() >= Duration::from_millis(100),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(seen.ip(), front.ip());
}

#[test]
fn names_resolve_slowly_or_not() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_resolv_conf(&format!(
        "nameserver {}\noptions timeout:1 attempts:1\n",
        lab.server_ip()
    ));
    let lookup = || {
        let mut command = lab.client().command("getent");
        command.args(["ahostsv4", "gate.test"]);
        lab::exec::output(command)
    };
    let address = Ipv4Addr::new(192, 0, 2, 7);
    let slow = DnsServer::start(
        lab.server(),
        lab.server_ip(),
        DnsReply::Address(address, Duration::from_millis(200)),
    );
    let start = Watch::start();
    assert!(lookup().stdout.starts_with("192.0.2.7"));
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert!(slow.questions() >= 1);
    drop(slow);
    for reply in [DnsReply::ServFail, DnsReply::NxDomain, DnsReply::Silence] {
        let server = DnsServer::start(lab.server(), lab.server_ip(), reply);
        assert_eq!(lookup().code, 2, "{reply:?}");
        assert!(server.questions() >= 1, "{reply:?}");
    }
}

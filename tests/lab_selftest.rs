//! The lab itself is true: what it promises to build, break and remove, it does.

mod lab;

use lab::{Lab, Nat, Tunnel, UdpReflector, ask, sweep};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(3);

#[test]
fn masquerade_shows_the_routers_address() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let server = SocketAddr::new(lab.server_ip(), 7000);
    let reflector = UdpReflector::start(lab.server(), server);
    let seen = ask(lab.client(), server, 100, SOON).expect("the reflector answers");
    assert_eq!(seen.ip(), IpAddr::from(lab::topology::ROUTER_WAN.v4));
    assert_eq!(reflector.seen().into_iter().collect::<Vec<_>>(), [seen]);
}

#[test]
fn plain_routing_shows_the_clients_address_in_both_families() {
    let Some(lab) = Lab::routed() else { return };
    for (client, server) in [
        (IpAddr::from(lab.client_at().v4), IpAddr::from(lab.server_at().v4)),
        (lab.client_at().v6.into(), lab.server_at().v6.into()),
    ] {
        let _reflector = UdpReflector::start(lab.server(), SocketAddr::new(server, 7000));
        let seen = ask(lab.client(), SocketAddr::new(server, 7000), 100, SOON).expect("it answers");
        assert_eq!(seen.ip(), client);
    }
}

#[test]
fn a_tunnel_through_nat_carries_data() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let inside = SocketAddr::new(lab::tunnel::SERVER_IN, 7000);
    let _reflector = UdpReflector::start(lab.server(), inside);
    let seen = ask(lab.client(), inside, 1000, SOON).expect("the reflector answers through the tunnel");
    assert_eq!(seen.ip(), lab::tunnel::CLIENT_IN);
    let server = tunnel.server.dump();
    assert_eq!(
        server.peer().endpoint.map(|e| e.ip()),
        Some(lab::topology::ROUTER_WAN.v4.into())
    );
    assert_eq!(server.public_key, tunnel.server.keys.public());
    assert!(tunnel.client.dump().peer().rx > 1000);
}

#[test]
fn a_namespace_shows_its_own_devices_only() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    assert_eq!(tunnel.server.wg(&["show", "interfaces"]).trim(), "wg0");
    assert_eq!(tunnel.client.wg(&["show", "interfaces"]).trim(), "");
}

#[test]
fn nothing_is_left_of_a_dropped_lab() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _tunnel = Tunnel::start(&lab);
    assert_gone_after(lab, drop);
}

#[test]
fn nothing_is_left_of_a_panicking_test() {
    let Some(lab) = Lab::pair() else { return };
    assert_gone_after(lab, |lab| {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let tunnel = Tunnel::start(&lab);
            assert!(tunnel.client.pid() == 0, "this panic is the test");
        }));
        assert!(result.is_err());
    });
}

fn assert_gone_after(lab: Lab, end: impl FnOnce(Lab)) {
    let (id, dir) = (lab.id().to_owned(), lab.dir().to_owned());
    let inodes: Vec<u64> = lab.hosts().map(lab::Namespace::inode).collect();
    let own = |names: Vec<String>| {
        names
            .into_iter()
            .filter(|n| n.starts_with(&format!("{id}-")))
            .count()
    };
    assert_eq!(own(sweep::namespaces()), inodes.len());
    end(lab);
    assert_eq!(own(sweep::namespaces()), 0);
    assert_eq!(sweep::processes_in(&inodes), Vec::<i32>::new());
    assert!(!dir.exists());
}

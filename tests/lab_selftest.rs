//! The lab itself is true: what it promises to build, break and remove, it does.

mod lab;

use lab::{Lab, Nat, SOON, Tunnel, UdpReflector, ask, sweep};
use std::net::{IpAddr, SocketAddr};

#[test]
fn masquerade_shows_the_routers_address() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let server = SocketAddr::new(lab.server_ip(), 7000);
    let reflector = UdpReflector::start(lab.server(), server);
    let seen = ask(lab.client(), server, 100, SOON).expect("the reflector answers");
    assert_eq!(seen.ip(), IpAddr::from(lab::addresses::ROUTER_WAN.v4));
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
        Some(lab::addresses::ROUTER_WAN.v4.into())
    );
    assert_eq!(server.public_key, tunnel.server.keys.public());
    assert!(tunnel.client.dump().peer().rx > 1000);
}

#[test]
fn a_tunnel_over_ipv6_carries_ipv6() {
    let Some(lab) = Lab::routed() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.client.peers[0].endpoint = Some((lab.server_at().v6, lab::tunnel::PORT).into());
    tunnel.start_both();
    let inside: SocketAddr = "[fd99::1]:7000".parse().expect("valid");
    let _reflector = UdpReflector::start(lab.server(), inside);
    let seen = ask(lab.client(), inside, 1000, SOON).expect("the reflector answers through the tunnel");
    assert_eq!(seen.ip(), "fd99::2".parse::<IpAddr>().expect("valid"));
    assert_eq!(
        tunnel.server.dump().peer().endpoint.map(|e| e.ip()),
        Some(lab.client_at().v6.into())
    );
}

#[test]
fn each_nat_gives_ports_as_it_should() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let server = SocketAddr::new(lab.server_ip(), 7000);
    let _reflector = UdpReflector::start(lab.server(), server);
    // From one source port, which plain masquerade keeps.
    let external = || {
        lab.client().run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:45678").expect("the port is free");
            socket.connect(server).expect("there is a route");
            lab::external_of(&socket, 10, SOON)
                .expect("the reflector answers")
                .port()
        })
    };
    assert_eq!(external(), 45678);
    lab.rebind(Nat::Range(20000, 20099));
    assert!((20000..=20099).contains(&external()));
    for nat in [Nat::Random, Nat::FullyRandom] {
        let ports: std::collections::BTreeSet<u16> = (0..3)
            .map(|_| {
                lab.rebind(nat);
                external()
            })
            .collect();
        assert!(ports.len() > 1, "{nat:?} gave {ports:?}");
    }
}

#[test]
fn a_resolv_conf_of_its_own_and_own_sys() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_resolv_conf("nameserver 198.51.100.9\n");
    let read = |ns: &lab::Namespace, what: &str| {
        let mut command = ns.command("sh");
        command.args(["-c", what]);
        lab::run(command)
    };
    assert_eq!(
        read(lab.client(), "cat /etc/resolv.conf"),
        "nameserver 198.51.100.9\n"
    );
    assert_ne!(
        read(lab.server(), "cat /etc/resolv.conf"),
        "nameserver 198.51.100.9\n"
    );
    let devices = read(lab.client(), "ls /sys/class/net");
    assert!(devices.contains("eth0") && devices.contains("lo"), "{devices}");
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

#[test]
fn a_killed_tests_lab_is_swept() {
    const DIE: &str = "WGNAT_LAB_SELFTEST_DIE";
    let Some(lab) = Lab::pair() else { return };
    if std::env::var_os(DIE).is_some() {
        // The child: it builds a lab and is killed before any destructor runs.
        let tunnel = Tunnel::start(&lab);
        let inodes: Vec<u64> = lab.hosts().map(lab::Namespace::inode).collect();
        println!("\nlab {} {} {}", lab.id(), inodes[0], inodes[1]);
        assert!(tunnel.client.pid() > 0);
        lab::child::die_by_sigkill();
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("a process has an executable"));
    child
        .args(["a_killed_tests_lab_is_swept", "--exact", "--nocapture"])
        .env(DIE, "1");
    let out = lab::exec::output(child);
    assert_eq!(out.code, 128 + libc::SIGKILL, "{out:?}");
    let line = out
        .stdout
        .lines()
        .find_map(|l| l.strip_prefix("lab "))
        .expect("the child prints it");
    let words: Vec<&str> = line.split(' ').collect();
    let inodes: Vec<u64> = words[1..].iter().map(|w| w.parse().expect("a number")).collect();
    lab::wait_until(SOON, "its daemons to die with it", || {
        sweep::processes_in(&inodes).is_empty()
    });
    sweep::sweep_dead();
    assert!(!sweep::namespaces().iter().any(|name| name.starts_with(words[0])));
    assert!(!std::env::temp_dir().join(words[0]).exists());
    assert!(sweep::path(lab.client().name()).exists(), "living labs stay");
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

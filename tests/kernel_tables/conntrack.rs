//! Conntrack entries that packets made, and entries put in.

use std::io::Write;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};

use socket2::{Domain, Socket, Type};
use wgnat::observation::conntrack::{CtStats, CtTally, SnatTally};
use wgnat::observation::{Body, SourceState};
use wgnat::observe::conntrack::ConntrackObserver;
use wgnat::observe::{Emit, Observer};
use wgnat::types::Proto;

use crate::namespace::{NewEntry, REPLIED, in_namespace, insert, look, output_of};

fn seen() -> (CtStats, CtTally) {
    let mut observer = ConntrackObserver::open().unwrap();
    let (seen, status) = look(&mut observer);
    assert_eq!(status.state, SourceState::Ok, "{:?}", status.reason);
    match &seen[..] {
        [Body::ConntrackStats(stats), Body::ConntrackTally(tally)] => (stats.clone(), tally.clone()),
        other => panic!("{other:?}"),
    }
}

fn nft(rules: &str) {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nft makes the rules of this test: install nftables");
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refused:\n{rules}");
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn connect(source: [u8; 4], port: u16, destination: (&str, u16)) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from((source, port)).into())
        .unwrap();
    socket
        .connect(&std::net::SocketAddr::from((ip(destination.0), destination.1)).into())
        .unwrap();
    socket.into()
}

#[test]
fn what_the_kernels_nat_does_is_read_back() {
    in_namespace(|| {
        nft("table ip t {
            chain out { type nat hook output priority -100; policy accept;
                ip daddr 127.0.0.3 tcp dport 80 dnat to 127.0.0.1:8080
            }
            chain post { type nat hook postrouting priority srcnat; policy accept;
                ip saddr 127.0.0.2 tcp dport 8080 snat to 127.0.0.9:20000-20099
                ip saddr 127.0.0.4 snat to 127.0.0.9
            }
        }");
        let server = TcpListener::bind(("127.0.0.1", 8080)).unwrap();
        let mut open = Vec::new();
        // Five through a range; the range does not hold their own ports.
        open.extend((0..5).map(|n| connect([127, 0, 0, 2], 30_000 + n, ("127.0.0.1", 8080))));
        // One that keeps its port, one that is only DNATed, one both.
        open.push(connect([127, 0, 0, 4], 40_000, ("127.0.0.1", 8080)));
        open.push(connect([127, 0, 0, 5], 40_001, ("127.0.0.3", 80)));
        open.push(connect([127, 0, 0, 2], 40_002, ("127.0.0.3", 80)));
        // An untranslated question to a name server that is not there, answered by ICMP; and one that is silent.
        let asking = UdpSocket::bind("127.0.0.6:40003").unwrap();
        let silent = UdpSocket::bind("127.0.0.1:53").unwrap();
        asking.send_to(b"?", "127.0.0.1:53").unwrap();
        let (stats, tally) = seen();

        assert_eq!((stats.count, tally.entries), (9, 9));
        assert!(stats.max.is_some_and(|max| max > 0));
        assert_eq!(stats.cpus.len(), nix_cpus(), "a row for each CPU");
        assert_eq!((tally.tcp, tally.udp, tally.other, tally.dns), (8, 1, 0, 1));
        assert_eq!(
            (tally.tcp_established, tally.tcp_closing, tally.unreplied),
            (8, 0, 1)
        );
        assert_eq!((tally.tcp_established_idle, tally.assured), (Some(0), 8));
        let [one] = &tally.snat[..] else {
            panic!("one NAT address, one destination: {:#?}", tally.snat)
        };
        assert_eq!(
            (one.nat_address, one.destination),
            (ip("127.0.0.9"), "127.0.0.1:8080".parse().unwrap())
        );
        assert_eq!((one.ports, one.preserved, one.unreplied), (7, 1, 0));
        assert!(
            (20_000..=20_099).contains(&one.min_port) && one.max_port == 40_000,
            "{one:?}"
        );
        let rewritten = one.rewritten.expect("six of seven");
        assert!(rewritten.low >= 20_000 && rewritten.high <= 20_099, "{one:?}");
        assert!(!tally.inexact);
        if let Some(text) = output_of("conntrack", &["-L"]) {
            assert_eq!(text.lines().count(), 9, "as many as conntrack shows:\n{text}");
        }
        drop((open, server, silent));
    });
}

fn nix_cpus() -> usize {
    std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack")
        .unwrap()
        .lines()
        .count()
        - 1
}

#[test]
fn a_large_table_is_folded_exactly() {
    in_namespace(|| {
        let v4 = |n: u16| {
            let client = (
                IpAddr::from([10, 0, (n >> 8) as u8, (n & 255) as u8]),
                5000 + n % 7,
            );
            let server = (IpAddr::from([192, 0, 2, (n % 4) as u8]), 443);
            NewEntry::masqueraded(client, server, (ip("198.51.100.1"), 1024 + n))
        };
        let v6 = |n: u16| NewEntry {
            protocol: 17,
            status: if n.is_multiple_of(2) { 0 } else { REPLIED },
            timeout: 30,
            ..NewEntry::masqueraded(
                (ip("fd00::2"), n),
                (ip("2001:db8::53"), 53),
                (ip("2001:db8::1"), n),
            )
        };
        let idle = |n: u16| NewEntry {
            timeout: 400_000,
            ..NewEntry::masqueraded((ip("10.9.0.1"), n), (ip("10.9.0.2"), 80), (ip("10.9.0.1"), n))
        };
        let closed = |n: u16| NewEntry {
            tcp_state: 7,
            timeout: 120,
            ..v4(n)
        };
        insert((0..8000).map(v4));
        insert((8000..10_000).map(closed));
        insert((1..=3000).map(v6));
        insert((1..=500).map(idle));
        let (stats, tally) = seen();
        assert_eq!((stats.count, tally.entries), (13_500, 13_500));
        assert_eq!(
            stats.cpus.iter().map(|c| c.insert).sum::<u32>(),
            13_500,
            "ctnetlink counts what it inserts"
        );
        assert_eq!((tally.tcp, tally.udp, tally.dns), (10_500, 3000, 3000));
        assert_eq!((tally.unreplied, tally.assured), (1500, 12_000));
        assert_eq!((tally.tcp_established, tally.tcp_closing), (8500, 2000));
        assert_eq!(tally.tcp_established_idle, Some(500));
        // Four IPv4 destinations of 2,500 each, one IPv6 destination of 3,000.
        assert_eq!(tally.snat.len(), 5);
        let first = SnatTally {
            nat_address: ip("2001:db8::1"),
            proto: Proto::Udp,
            destination: "[2001:db8::53]:53".parse().unwrap(),
            zone: 0,
            ports: 3000,
            min_port: 1,
            max_port: 3000,
            preserved: 3000,
            rewritten: None,
            closing: 0,
            unreplied: 1500,
            runs: None,
        };
        assert_eq!(tally.snat[0], first);
        let second = &tally.snat[1];
        assert_eq!(second.destination, "192.0.2.0:443".parse().unwrap());
        assert_eq!(
            (second.ports, second.closing, second.min_port, second.max_port),
            (2500, 500, 1024, 1024 + 9996)
        );
        assert!(!tally.inexact);
        if let Some(text) = output_of("conntrack", &["-C"]) {
            assert_eq!(text.trim(), "13500");
        }
    });
}

#[test]
fn looking_tracks_nothing_and_an_empty_table_is_a_fact() {
    in_namespace(|| {
        let mut observer = ConntrackObserver::open().unwrap();
        let (seen, _) = look(&mut observer);
        let [Body::ConntrackStats(stats), Body::ConntrackTally(tally)] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!((stats.count, tally.entries), (0, 0));
        // Had looking put hooks into this namespace, these packets would make an entry.
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:1000").unwrap(),
            UdpSocket::bind("127.0.0.1:1001").unwrap(),
        );
        a.send_to(b"?", "127.0.0.1:1001").unwrap();
        b.recv_from(&mut [0; 8]).unwrap();
        insert([NewEntry::masqueraded(
            (ip("10.0.0.1"), 1),
            (ip("10.0.0.2"), 2),
            (ip("10.0.0.3"), 3),
        )]);
        let (seen, _) = look(&mut observer);
        assert!(
            matches!(&seen[..], [Body::ConntrackStats(stats)] if stats.count == 1),
            "{seen:?}"
        );
        // Asked to look fully, it dumps again.
        let mut bodies = Vec::new();
        let mut send = |_, _, _, body| bodies.push(body);
        observer
            .look_fully(&mut Emit::new(observer.source(), &mut send))
            .unwrap();
        assert!(
            matches!(&bodies[..], [_, Body::ConntrackTally(tally)] if tally.entries == 1),
            "{bodies:?}"
        );
    });
}

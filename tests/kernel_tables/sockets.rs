//! Sockets in each state, both families.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use wgnat::observation::socket::{DestinationTally, SocketTally, TcpState};
use wgnat::observation::{Body, SourceState};
use wgnat::observe::sockets::SocketObserver;
use wgnat::sys::clock;
use wgnat::types::Proto;

use crate::namespace::{add_black_hole, in_namespace, look, output_of};

const SERVER: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn tally() -> SocketTally {
    let mut observer = SocketObserver::open().unwrap();
    let (seen, status) = look(&mut observer);
    assert_eq!(status.state, SourceState::Ok, "{:?}", status.reason);
    match &seen[..] {
        [Body::Sockets(tally)] => tally.clone(),
        other => panic!("{other:?}"),
    }
}

/// The tally, once `settled`: on a busy machine the kernel passes loopback packets on a little later.
fn tally_when(settled: impl Fn(&SocketTally) -> bool) -> SocketTally {
    let end = clock::instant() + Duration::from_secs(10);
    loop {
        let tally = tally();
        if settled(&tally) || clock::instant() > end {
            return tally;
        }
        std::thread::yield_now();
    }
}

/// A client's socket from `source` towards `server`, not yet connected.
fn client(source: impl Into<IpAddr>) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source.into(), 0).into()).unwrap();
    socket
}

fn connect(source: impl Into<IpAddr>, server: &TcpListener) -> (TcpStream, TcpStream) {
    let client = client(source);
    client.connect(&server.local_addr().unwrap().into()).unwrap();
    let (accepted, _) = server.accept().unwrap();
    (client.into(), accepted)
}

/// Waits until `stream`'s peer has closed.
fn wait_for_end(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

fn to<'a>(tally: &'a SocketTally, source: &str, destination: &str) -> &'a DestinationTally {
    let (source, destination): (IpAddr, SocketAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let found = tally
        .destinations
        .iter()
        .find(|d| d.source == source && d.destination == destination);
    found.unwrap_or_else(|| panic!("no {source} → {destination} in {:#?}", tally.destinations))
}

#[test]
fn every_state_is_counted_where_it_belongs() {
    in_namespace(|| {
        add_black_hole(Ipv4Addr::new(192, 0, 2, 0));
        let server = TcpListener::bind((SERVER, 8080)).unwrap();
        let mut open = Vec::new();
        // 127.0.0.2: three established.
        open.extend((0..3).map(|_| connect([127, 0, 0, 2], &server)));
        // 127.0.0.3: two that the client closed: TIME_WAIT at the client.
        for _ in 0..2 {
            let (ours, theirs) = connect([127, 0, 0, 3], &server);
            drop(ours);
            wait_for_end(&theirs);
        }
        // 127.0.0.4: one that the server has closed and the client has not: CLOSE_WAIT here, FIN_WAIT2 there.
        let (half, theirs) = connect([127, 0, 0, 4], &server);
        theirs.shutdown(Shutdown::Write).unwrap();
        wait_for_end(&half);
        // A SYN that nobody answers.
        let silent = client([127, 0, 0, 5]);
        silent.set_nonblocking(true).unwrap();
        let nobody: SocketAddr = "192.0.2.9:443".parse().unwrap();
        assert!(silent.connect(&nobody.into()).is_err(), "under way");

        let tally = tally_when(|t| t.tcp.get(TcpState::TimeWait) == 2);
        let states = |d: &DestinationTally| {
            let count = |s| d.states.get(s);
            [
                count(TcpState::Established),
                count(TcpState::TimeWait),
                count(TcpState::CloseWait),
                count(TcpState::SynSent),
                d.states.total(),
            ]
        };
        let established = to(&tally, "127.0.0.2", "127.0.0.1:8080");
        assert_eq!(states(established), [3, 0, 0, 0, 3]);
        assert_eq!((established.ports_in_range, established.proto), (3, Proto::Tcp));
        assert_eq!((established.inodes.len(), &established.uids[..]), (3, &[0][..]));
        let waiting = to(&tally, "127.0.0.3", "127.0.0.1:8080");
        assert_eq!(states(waiting), [0, 2, 0, 0, 2]);
        assert_eq!(waiting.ports_in_range, 2);
        assert_eq!(
            waiting.time_wait_left,
            [0, 0, 0, 0, 0, 2],
            "just closed: between 50 and 60 s left"
        );
        assert!(
            waiting.inodes.is_empty() && waiting.uids.is_empty(),
            "TIME_WAIT has no owner"
        );
        assert_eq!(states(to(&tally, "127.0.0.4", "127.0.0.1:8080")), [0, 0, 1, 0, 1]);
        assert_eq!(states(to(&tally, "127.0.0.5", "192.0.2.9:443")), [0, 0, 0, 1, 1]);
        assert_eq!(tally.destinations.len(), 4);
        assert_eq!(
            tally.destinations[0].source.to_string(),
            "127.0.0.2",
            "the busiest first"
        );
        let [inbound] = &tally.inbound[..] else {
            panic!("{:?}", tally.inbound)
        };
        assert_eq!(inbound.port, 8080);
        assert_eq!(inbound.states.get(TcpState::Established), 3);
        // FIN_WAIT1 until the client's delayed acknowledgement.
        let closing = inbound.states.get(TcpState::FinWait1) + inbound.states.get(TcpState::FinWait2);
        assert_eq!((closing, inbound.states.total()), (1, 4));
        assert_eq!((tally.tcp.get(TcpState::Listen), tally.tcp.total()), (1, 12));
        assert!(!tally.inexact);

        if let Some(text) = output_of("ss", &["-Htan"]) {
            assert_eq!(text.lines().count(), 12, "as many as ss shows:\n{text}");
        }
        drop((open, half, theirs));
    });
}

#[test]
fn both_families_and_mapped_addresses_are_one() {
    in_namespace(|| {
        // One dual-stack listener, reached by IPv6, by IPv4, and by a dual-stack client with a mapped address.
        let server = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 9090)).unwrap();
        let v6 = TcpStream::connect((Ipv6Addr::LOCALHOST, 9090)).unwrap();
        let v4 = TcpStream::connect((SERVER, 9090)).unwrap();
        let mapped = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        let there = SocketAddr::from((SERVER.to_ipv6_mapped(), 9090));
        mapped.connect(&there.into()).unwrap();
        let accepted: Vec<_> = (0..3).map(|_| server.accept().unwrap()).collect();
        let tally = tally();
        assert_eq!(to(&tally, "::1", "[::1]:9090").states.total(), 1);
        assert_eq!(to(&tally, "127.0.0.1", "127.0.0.1:9090").states.total(), 2);
        assert_eq!((tally.destinations.len(), tally.inbound.len()), (2, 1));
        assert_eq!(tally.inbound[0].states.get(TcpState::Established), 3);
        drop((v6, v4, mapped, accepted));
    });
}

#[test]
fn the_range_and_reserved_ports_of_the_namespace_count() {
    in_namespace(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 20009").unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "20000-20004").unwrap();
        let listeners = [20_001, 20_007, 443].map(|port| TcpListener::bind((SERVER, port)).unwrap());
        let (ours, theirs) = connect([127, 0, 0, 2], &listeners[2]);
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound
            .bind(&SocketAddr::from(([127, 0, 0, 2], 20_002)).into())
            .unwrap();
        bound.connect(&listeners[2].local_addr().unwrap().into()).unwrap();
        let servers = [20_005, 20_006, 53].map(|port| UdpSocket::bind((SERVER, port)).unwrap());
        let peer = UdpSocket::bind((SERVER, 20_008)).unwrap();
        peer.connect((SERVER, 53)).unwrap();
        let tally = tally();
        assert_eq!(tally.listen_ports_in_range, 1);
        let tcp = to(&tally, "127.0.0.2", "127.0.0.1:443");
        assert_eq!((tcp.states.total(), tcp.ports_in_range), (2, 1));
        assert_eq!((tally.udp, tally.udp_ports_in_range), (4, 3));
        let udp = to(&tally, "127.0.0.1", "127.0.0.1:53");
        assert_eq!((udp.proto, udp.ports_in_range), (Proto::Udp, 1));
        drop((ours, theirs, servers));
    });
}

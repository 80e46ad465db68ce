//! Both ways over the same sockets, in network namespaces of the tests' own. As in the lab: needs root.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::observation::SourceState;
use crate::observation::socket::TcpState;
use crate::observe::testing::{in_own_netns, ip, look};

fn tally(way: Way) -> SocketTally {
    let mut observer = SocketObserver::open_by(way).unwrap();
    let (bodies, status) = look(&mut observer);
    let status = status.unwrap();
    assert_eq!(status.state, SourceState::Ok, "{status:?}");
    let by_iterators = status.reason.as_deref() == Some("by eBPF iterators");
    assert_eq!(by_iterators, way == Way::Iterators, "{status:?}");
    match bodies.as_slice() {
        [Body::Sockets(tally)] => tally.clone(),
        other => panic!("{other:?}"),
    }
}

/// A connection that this side closed first.
fn leave_time_wait(to: SocketAddr, server: &TcpListener) {
    let client = TcpStream::connect(to).unwrap();
    let (other, _) = server.accept().unwrap();
    drop(client);
    drop(other);
}

#[test]
fn iterators_and_sock_diag_give_the_same_answers() {
    in_own_netns(|| {
        ip("link set lo up");
        ip("route add 10.99.0.0/24 dev lo");
        let four = TcpListener::bind("127.0.0.1:8080").unwrap();
        let six = TcpListener::bind("[::1]:8081").unwrap();
        let both = TcpListener::bind("[::]:8082").unwrap();
        let inside = TcpListener::bind("127.0.0.1:40000").unwrap();
        let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
        // Established, both ends; a mapped address among them.
        for to in [
            "127.0.0.1:8080",
            "[::1]:8081",
            "127.0.0.1:8082",
            "[::ffff:127.0.0.1]:8082",
        ] {
            for _ in 0..20 {
                held.push(Box::new(TcpStream::connect(to).unwrap()));
            }
        }
        for server in [&four, &six, &both] {
            held.push(Box::new(server.accept().unwrap()));
        }
        // TIME_WAIT; those of both families.
        for _ in 0..21 {
            held.push(Box::new(four.accept().ok()));
            if held.len() > 60 {
                break;
            }
        }
        let alone = TcpListener::bind("127.0.0.1:8083").unwrap();
        let alone_six = TcpListener::bind("[::1]:8084").unwrap();
        for _ in 0..5 {
            leave_time_wait(alone.local_addr().unwrap(), &alone);
            leave_time_wait(alone_six.local_addr().unwrap(), &alone_six);
        }
        // Half closed, from either side: FIN_WAIT2 with an owner, and without one (a small socket, as TIME_WAIT is).
        let half = TcpStream::connect("127.0.0.1:8083").unwrap();
        half.shutdown(std::net::Shutdown::Write).unwrap();
        held.push(Box::new((half, alone.accept().unwrap())));
        drop(TcpStream::connect("127.0.0.1:8083").unwrap());
        held.push(Box::new(alone.accept().unwrap()));
        // SYN_SENT, and its own packet as a request of nobody.
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        silent.set_nonblocking(true).unwrap();
        let _ = silent.connect(&SocketAddr::from(([10, 99, 0, 2], 80)).into());
        // UDP: served, connected, and connected from a served port.
        let server = UdpSocket::bind("127.0.0.1:53").unwrap();
        let any = UdpSocket::bind("[::]:5353").unwrap();
        for to in ["127.0.0.1:53", "127.0.0.2:53"] {
            for _ in 0..3 {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                client.connect(to).unwrap();
                held.push(Box::new(client));
            }
        }
        // On a busy host the acknowledgement of a FIN takes its time, even over loopback: until then it is FIN_WAIT1.
        let settled = (0..20_000).any(|_| {
            std::thread::yield_now();
            let now = tally(Way::SockDiag).tcp;
            now.get(TcpState::FinWait1) == 0 && now.get(TcpState::FinWait2) > 1
        });
        assert!(settled, "no FIN was acknowledged");
        let by_diag = tally(Way::SockDiag);
        let by_iterators = tally(Way::Iterators);
        let again = tally(Way::SockDiag);
        let state = |t: &SocketTally, s| t.tcp.get(s);
        for (name, s) in [
            ("TIME_WAIT", TcpState::TimeWait),
            ("FIN_WAIT2", TcpState::FinWait2),
            ("LISTEN", TcpState::Listen),
            ("SYN_SENT", TcpState::SynSent),
            ("CLOSE_WAIT", TcpState::CloseWait),
        ] {
            assert!(state(&by_diag, s) > 0, "there is none in {name}");
        }
        assert!(by_diag.destinations.iter().any(|d| d.proto == Proto::Udp));
        assert!(by_diag.inbound.len() >= 3 && by_diag.listen_ports_in_range == 1);
        // What ages meanwhile may differ; what neither dump saw change must not.
        assert!(
            by_iterators == by_diag || by_iterators == again,
            "\n{by_diag:#?}\n{by_iterators:#?}\n{again:#?}"
        );
        drop((server, any, inside));
    });
}

#[test]
fn a_second_look_begins_anew() {
    in_own_netns(|| {
        ip("link set lo up");
        let server = TcpListener::bind("127.0.0.1:8080").unwrap();
        let to = server.local_addr().unwrap();
        let mut observer = SocketObserver::open_by(Way::Iterators).unwrap();
        let mut established = Vec::new();
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(TcpStream::connect(to).unwrap());
            let (bodies, status) = look(&mut observer);
            assert_eq!(status.unwrap().state, SourceState::Ok);
            let [Body::Sockets(tally)] = bodies.as_slice() else {
                panic!("{bodies:?}")
            };
            established.push(tally.destinations[0].states.get(TcpState::Established));
        }
        assert_eq!(established, [1, 2, 3]);
    });
}

#[test]
fn more_destinations_than_the_kernel_counts_are_dumped() {
    in_own_netns(|| {
        ip("link set lo up");
        let mut held = Vec::new();
        // Connected, and nobody need be there.
        for i in 0..4200_u16 {
            let [high, low] = i.to_be_bytes();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket
                .connect(SocketAddr::from(([127, 1, high, low], 9)))
                .unwrap();
            held.push(socket);
        }
        let mut observer = SocketObserver::open_by(Way::Iterators).unwrap();
        let (bodies, status) = look(&mut observer);
        let status = status.unwrap();
        assert_eq!(status.state, SourceState::Ok);
        assert!(status.reason.unwrap().contains("more than 4096 destinations"));
        let [Body::Sockets(tally)] = bodies.as_slice() else {
            panic!("{bodies:?}")
        };
        assert_eq!((tally.udp, tally.left_out.items), (4200, 4200 - 256));
    });
}

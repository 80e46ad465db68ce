//! The program in this machine's kernel, in network namespaces of the tests' own. As in the lab: needs root.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::observe::testing::{in_own_netns, ip, look};

/// What one look shows of this process, by destination.
fn rows(bpf: &mut Bpf) -> Vec<ConnectRow> {
    let (bodies, status) = look(bpf);
    assert_eq!(status.unwrap(), SourceStatus::ok());
    match bodies.as_slice() {
        [Body::Connects(tally)] => {
            // By the wall clock as it stands, so that it is before the look however that was set.
            assert!(tally.since <= clock::now(), "{}", tally.since);
            tally.rows.clone()
        }
        other => panic!("{other:?}"),
    }
}

fn denied(bpf: &mut Bpf) -> Vec<crate::observation::connect::Denial> {
    let (bodies, status) = look(bpf);
    assert_eq!(status.unwrap(), SourceStatus::ok());
    match bodies.as_slice() {
        [Body::Connects(tally)] => tally.denied.clone().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn one(bpf: &mut Bpf) -> ConnectRow {
    let mut rows = rows(bpf);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

fn in_loopback<T: Send>(test: impl FnOnce(&mut Bpf) -> T + Send) -> T {
    in_own_netns(|| {
        ip("link set lo up");
        test(&mut Bpf::open().unwrap())
    })
}

fn ports(low: u16, high: u16) {
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{low} {high}")).unwrap();
}

#[test]
fn who_closes_first_is_told_and_the_process_named() {
    in_loopback(|bpf| {
        let server = TcpListener::bind("127.0.0.1:8080").unwrap();
        let to = server.local_addr().unwrap();
        for _ in 0..5 {
            // Closed at once by this side.
            drop(TcpStream::connect(to).unwrap());
            drop(server.accept().unwrap());
        }
        for _ in 0..3 {
            let mut stream = TcpStream::connect(to).unwrap();
            drop(server.accept().unwrap());
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
        let held = [TcpStream::connect(to).unwrap(), TcpStream::connect(to).unwrap()];
        let row = one(bpf);
        assert_eq!(
            (row.source, row.destination),
            (IpAddr::V4(Ipv4Addr::LOCALHOST), to)
        );
        assert_eq!(
            (row.attempts, row.established, row.failed),
            (10, 10, Failures::default())
        );
        assert_eq!((row.closed_here, row.closed_there, row.reset_there), (5, 3, 0));
        assert_eq!((row.open, row.peak), (2, 2));
        assert_eq!(row.lifetimes.iter().sum::<u32>(), 8);
        assert_eq!((row.syn_retransmits, row.bursts.count), (0, 0));
        assert!(!row.lifetime_total.is_zero() && row.lifetime_total < Span::from_secs(60));
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let stat = crate::wire::procfs::process_stat(&stat).unwrap();
        assert_eq!(
            (row.process.pid, row.process.start_ticks),
            (std::process::id(), stat.start_ticks)
        );
        let exe = std::env::current_exe().unwrap();
        assert_eq!(row.process.exe.as_deref(), exe.to_str());
        // The group leader's name, not that of the thread that connected.
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(row.process.comm, comm.trim_end());
        drop(held);
        let row = one(bpf);
        assert_eq!((row.open, row.peak, row.closed_here), (0, 2, 7));
    });
}

#[test]
fn bytes_are_counted_whoever_closes() {
    in_loopback(|bpf| {
        use std::io::Write as _;
        let server = TcpListener::bind("127.0.0.1:8080").unwrap();
        let to = server.local_addr().unwrap();
        // Written and closed at once: not acknowledged yet.
        TcpStream::connect(to).unwrap().write_all(&[1; 100]).unwrap();
        let mut first = server.accept().unwrap().0;
        first.read_to_end(&mut Vec::new()).unwrap();
        // Read to the end.
        let mut client = TcpStream::connect(to).unwrap();
        let mut other = server.accept().unwrap().0;
        other.write_all(&[2; 5000]).unwrap();
        drop(other);
        assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 5000);
        drop(client);
        let row = one(bpf);
        assert_eq!((row.closed_here, row.closed_there), (1, 1));
        assert_eq!(row.bytes_sent, 100);
        // The other side's FIN may count as a byte.
        assert!(
            (5000..=5001).contains(&row.bytes_received),
            "{}",
            row.bytes_received
        );
    });
}

#[test]
fn kernels_whose_pointers_are_not_followed_are_told_the_same() {
    in_loopback(|bpf| {
        use std::io::Write as _;
        let netns = u32::try_from(bpf.here.0).unwrap();
        bpf.loaded = load::typed(load::Scope { netns, pidns: None }, false).unwrap();
        bpf.since = clock::monotonic();
        let server = TcpListener::bind("127.0.0.1:8080").unwrap();
        let to = server.local_addr().unwrap();
        TcpStream::connect(to).unwrap().write_all(&[1; 100]).unwrap();
        server.accept().unwrap().0.read_to_end(&mut Vec::new()).unwrap();
        let row = one(bpf);
        assert_eq!((row.attempts, row.closed_here, row.bytes_sent), (1, 1, 100));
        assert_eq!(row.process.pid, std::process::id());
        let exe = std::env::current_exe().unwrap();
        assert_eq!(row.process.exe.as_deref(), exe.to_str());
    });
}

#[test]
fn a_connection_that_both_ends_open_is_established_and_no_failure() {
    in_loopback(|bpf| {
        // A socket that connects to its own address: its SYN meets itself.
        let own = SocketAddr::from(([127, 0, 0, 1], 41_000));
        for _ in 0..3 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            socket.bind(&own.into()).unwrap();
            socket.connect(&own.into()).unwrap();
            assert_eq!(socket.peer_addr().unwrap().as_socket(), Some(own));
        }
        let row = one(bpf);
        assert_eq!(
            (row.attempts, row.established, row.failed),
            (3, 3, Failures::default())
        );
        assert_eq!((row.open, row.lifetimes.iter().sum::<u32>()), (0, 3));
    });
}

#[test]
fn bursts_are_told_from_a_trickle() {
    in_loopback(|bpf| {
        let server = TcpListener::bind("127.0.0.1:8080").unwrap();
        let to = server.local_addr().unwrap();
        let mut held = Vec::new();
        for _ in 0..40 {
            held.push(TcpStream::connect(to).unwrap());
        }
        let row = one(bpf);
        // A starved machine may need two windows for them.
        assert!((1..=2).contains(&row.bursts.count), "{:?}", row.bursts);
        assert!(row.bursts.attempts >= 24, "{:?}", row.bursts);
        assert!(row.bursts.first.is_some() && row.bursts.first <= row.bursts.last);
    });
}

#[test]
fn a_udp_socket_that_gets_no_port_is_told_with_call_and_errno() {
    in_loopback(|bpf| {
        ports(40_000, 40_003);
        let unbound = || Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], 53));
        let held: Vec<_> = (0..4).map(|_| unbound()).collect();
        for socket in &held {
            socket.connect(&to.into()).unwrap();
        }
        for _ in 0..3 {
            assert_eq!(
                unbound().connect(&to.into()).unwrap_err().raw_os_error(),
                Some(libc::EAGAIN)
            );
        }
        assert_eq!(
            unbound().send_to(&[1], &to.into()).unwrap_err().raw_os_error(),
            Some(libc::EAGAIN)
        );
        // A full buffer is EAGAIN too, and no want of ports.
        held[0].set_nonblocking(true).unwrap();
        assert_eq!(
            held[0]
                .recv(&mut [std::mem::MaybeUninit::new(0)])
                .unwrap_err()
                .raw_os_error(),
            Some(libc::EAGAIN)
        );
        let denied = denied(bpf);
        let told: Vec<_> = denied
            .iter()
            .map(|d| (d.proto, d.call, d.errno, d.port, d.destination, d.count))
            .collect();
        use crate::observation::connect::PortCall::{Connect, Send};
        use crate::types::Proto::Udp;
        assert_eq!(
            told,
            [
                (Udp, Connect, libc::EAGAIN, None, Some(to), 3),
                (Udp, Send, libc::EAGAIN, None, Some(to), 1)
            ]
        );
        assert_eq!(denied[0].process.pid, std::process::id());
        assert!(denied[0].process.exe.is_some() && denied[0].first <= denied[0].last);
    });
}

#[test]
fn a_bind_that_gets_no_port_is_told_with_what_it_asked_for() {
    in_loopback(|bpf| {
        ports(40_000, 40_003);
        let bind = |to: SocketAddr| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
            socket.bind(&to.into()).map(|()| socket)
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let held: Vec<_> = (0..4).map(|_| bind(any).unwrap()).collect();
        for _ in 0..2 {
            assert_eq!(bind(any).unwrap_err().kind(), ErrorKind::AddrInUse);
        }
        let taken: SocketAddr = "[::1]:8080".parse().unwrap();
        let _listener = TcpListener::bind(taken).unwrap();
        assert_eq!(bind(taken).unwrap_err().kind(), ErrorKind::AddrInUse);
        let told: Vec<_> = denied(bpf)
            .iter()
            .map(|d| (d.errno, d.source, d.port, d.destination, d.count))
            .collect();
        assert_eq!(
            told,
            [
                (libc::EADDRINUSE, any.ip(), None, None, 2),
                (libc::EADDRINUSE, taken.ip(), Some(8080), None, 1)
            ]
        );
        let holder = denied(bpf)[1].holder.clone().unwrap();
        assert_eq!((holder.source, holder.destination), (taken.ip(), None));
        assert!(holder.inode != 0);
        drop(held);
    });
}

#[test]
fn a_port_that_an_outgoing_connection_holds_is_told_with_where_it_leads() {
    in_loopback(|bpf| {
        ports(40_000, 40_000);
        let server = TcpListener::bind("127.0.0.1:8080").unwrap();
        let to = server.local_addr().unwrap();
        let _held = TcpStream::connect(to).unwrap();
        let service = TcpListener::bind("127.0.0.1:40000");
        assert_eq!(service.unwrap_err().kind(), ErrorKind::AddrInUse);
        let all = denied(bpf);
        assert_eq!((all.len(), all[0].port), (1, Some(40_000)));
        assert_eq!(all[0].holder.as_ref().unwrap().destination, Some(to));
    });
}

#[test]
fn a_connect_without_a_free_port_is_told_from_other_failures() {
    in_loopback(|bpf| {
        ports(40_000, 40_003);
        let server = TcpListener::bind("127.0.0.1:8080").unwrap();
        let to = server.local_addr().unwrap();
        let held: Vec<_> = (0..4).map(|_| TcpStream::connect(to).unwrap()).collect();
        let before = clock::now();
        for _ in 0..7 {
            assert_eq!(
                TcpStream::connect(to).unwrap_err().kind(),
                ErrorKind::AddrNotAvailable
            );
        }
        let row = one(bpf);
        assert_eq!((row.attempts, row.established, row.failed.no_port), (11, 4, 7));
        assert_eq!((row.open, row.source), (4, IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let (first, last) = (
            row.failed.no_port_first.unwrap(),
            row.failed.no_port_last.unwrap(),
        );
        // The two clocks are not read in the same instant.
        assert!(
            first <= last && first + Span::from_millis(50) >= before,
            "{first} {last} {before}"
        );
        drop(held);
    });
}

#[test]
fn failures_by_cause() {
    in_loopback(|bpf| {
        // Refused.
        for _ in 0..3 {
            assert_eq!(
                TcpStream::connect("127.0.0.1:9").unwrap_err().kind(),
                ErrorKind::ConnectionRefused
            );
        }
        // A port that was chosen before, and is taken for this destination.
        let server = TcpListener::bind("127.0.0.1:8081").unwrap();
        let to = server.local_addr().unwrap();
        let bound = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket
                .bind(&SocketAddr::from(([127, 0, 0, 1], 41_000)).into())
                .unwrap();
            socket
        };
        let (first, second) = (bound(), bound());
        first.connect(&to.into()).unwrap();
        assert_eq!(
            second.connect(&to.into()).unwrap_err().kind(),
            ErrorKind::AddrNotAvailable
        );
        // Given up: nobody answers, and the program does not wait.
        ip("route add 10.99.0.0/24 dev lo");
        let silent = SocketAddr::from(([10, 99, 0, 2], 80));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        assert!(socket.connect(&silent.into()).is_err());
        drop(socket);

        let all = rows(bpf);
        let failed = |to: SocketAddr| all.iter().find(|r| r.destination == to).unwrap().failed;
        let refused = failed(([127, 0, 0, 1], 9).into());
        assert_eq!((refused.refused, refused.no_port), (3, 0));
        let taken = failed(to);
        assert_eq!((taken.tuple_taken, taken.no_port), (1, 0));
        let given_up = failed(silent);
        assert_eq!((given_up.given_up, given_up.no_port), (1, 0), "{given_up:?}");
    });
}

#[test]
fn ipv6_and_mapped_addresses() {
    in_loopback(|bpf| {
        ports(40_000, 40_001);
        let six = TcpListener::bind("[::1]:8080").unwrap();
        let four = TcpListener::bind("127.0.0.1:8080").unwrap();
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:8080".parse().unwrap();
        let mut held = Vec::new();
        for to in [six.local_addr().unwrap(), mapped] {
            held.push(TcpStream::connect(to).unwrap());
            held.push(TcpStream::connect(to).unwrap());
            assert_eq!(
                TcpStream::connect(to).unwrap_err().kind(),
                ErrorKind::AddrNotAvailable
            );
        }
        let all = rows(bpf);
        for to in [six.local_addr().unwrap(), four.local_addr().unwrap()] {
            let row = all.iter().find(|r| r.destination == to).unwrap();
            assert_eq!((row.established, row.failed.no_port, row.source), (2, 1, to.ip()));
        }
        assert_eq!(all.len(), 2, "{all:?}");
    });
}

#[test]
fn another_namespace_is_not_counted() {
    in_loopback(|bpf| {
        in_own_netns(|| {
            ip("link set lo up");
            let server = TcpListener::bind("127.0.0.1:8080").unwrap();
            drop(TcpStream::connect(server.local_addr().unwrap()).unwrap());
        });
        assert_eq!(rows(bpf), Vec::new());
        let server = TcpListener::bind("127.0.0.1:8081").unwrap();
        drop(TcpStream::connect(server.local_addr().unwrap()).unwrap());
        assert_eq!(rows(bpf).len(), 1);
    });
}

#[test]
fn more_than_fits_is_bounded_and_counted() {
    in_loopback(|bpf| {
        // Nobody listens, and each destination is another.
        for i in 0..6000_u16 {
            let [high, low] = i.to_be_bytes();
            assert!(TcpStream::connect(SocketAddr::from(([127, 1, high, low], 9))).is_err());
        }
        let (bodies, status) = look(bpf);
        let status = status.unwrap();
        assert!(status.lost >= 6000 - u64::from(load::TALLIES), "{status:?}");
        assert_eq!(status.state, crate::observation::SourceState::Degraded);
        assert!(status.reason.unwrap().contains("beyond 4096"));
        let [Body::Connects(tally)] = bodies.as_slice() else {
            panic!("{bodies:?}")
        };
        assert_eq!(tally.rows.len(), MAX_ROWS);
        assert_eq!(tally.left_out.items + status.lost + MAX_ROWS as u64, 6000);
    });
}

#[test]
fn the_time_watched_does_not_follow_a_clock_that_is_set() {
    let began = Span::from_secs(1000);
    for wall in [Timestamp::from_secs(5_000_000), Timestamp::from_secs(1_000_000)] {
        let clocks = Clocks {
            wall,
            monotonic: Span::from_secs(1030),
        };
        assert_eq!(wall.since(clocks.wall_of(began)), Span::from_secs(30));
        assert_eq!(wall.since(clocks.wall(1_029_000_000_000)), Span::from_secs(1));
    }
}

#[test]
fn a_program_that_the_verifier_refuses_is_told_with_its_last_lines() {
    // r0 = *(u64 *)(r1 + 0x7000): beyond what a raw tracepoint hands over. Then exit.
    let load = [0x79, 0x10, 0x00, 0x70, 0, 0, 0, 0];
    let exit = [0x95, 0, 0, 0, 0, 0, 0, 0];
    let code: Vec<_> = [load, exit]
        .iter()
        .map(|bytes| aya_obj::generated::bpf_insn {
            code: bytes[0],
            _bitfield_align_1: [],
            _bitfield_1: aya_obj::generated::bpf_insn::new_bitfield_1(bytes[1] & 15, bytes[1] >> 4),
            off: i16::from_le_bytes([bytes[2], bytes[3]]),
            imm: 0,
        })
        .collect();
    let refused = bpf::program_load(&bpf::ProgramSpec {
        kind: bpf::RAW_TRACEPOINT,
        attach: 0,
        target: 0,
        code: &code,
        name: "wrong",
    })
    .unwrap_err();
    let told = words::refused("wrong", &refused);
    assert!(
        told.starts_with("the kernel's verifier refused the eBPF program wrong: "),
        "{told}"
    );
    assert!(told.contains("invalid") && told.contains("28672"), "{told}");
    assert!(told.lines().count() == 1 && told.len() < 400, "{told}");
}

/// Connections that a process of [`more_connections_than_can_be_followed_are_counted`] holds: four of them hold 64 more than the
/// kernel's program follows.
const EACH: u16 = 16_400;

#[test]
#[ignore = "a process of its own, for one may not have so many files: run by the test below"]
fn holds_many() {
    // From half of the ports to one destination on connect has to search, so each process has a destination of its own.
    let to = SocketAddr::from((
        [10, 99, 0, 2],
        std::env::var("WGNAT_TEST_PORT").unwrap().parse().unwrap(),
    ));
    let held: Vec<_> = (0..EACH)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            assert!(socket.connect(&to.into()).is_err(), "nobody answers there");
            socket
        })
        .collect();
    println!("all wait");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(held);
}

#[test]
fn more_connections_than_can_be_followed_are_counted() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};
    in_loopback(|bpf| {
        ports(1024, 65_535);
        ip("route add 10.99.0.0/24 dev lo");
        let mut children: Vec<Child> = (0..4)
            .map(|n| {
                Command::new(std::env::current_exe().unwrap())
                    .args([
                        "--exact",
                        "observe::bpf::tests::holds_many",
                        "--ignored",
                        "--nocapture",
                    ])
                    .env("WGNAT_TEST_PORT", (81 + n).to_string())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for child in &mut children {
            let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap() == "all wait"), "a child failed");
        }
        let (bodies, status) = look(bpf);
        for child in &mut children {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        let status = status.unwrap();
        assert_eq!(status.state, crate::observation::SourceState::Degraded);
        let reason = status.reason.unwrap();
        assert!(reason.contains("64 connections were not followed"), "{reason}");
        assert_eq!(status.lost, 64);
        let [Body::Connects(tally)] = bodies.as_slice() else {
            panic!("{bodies:?}")
        };
        let attempts: u64 = tally.rows.iter().map(|row| row.attempts).sum();
        assert_eq!(
            attempts, 65_536,
            "what is not followed is not counted as an attempt"
        );
    });
}

#[test]
fn what_was_lost_is_said() {
    let losses = Losses {
        made: 5000,
        not_followed: 2,
        orphans: 3,
    };
    let told = Told {
        losses,
        evicted: 904,
        misses: 1,
        denials_lost: 10,
        ended: 100,
        outside: 7,
        missing: vec!["no BTF".to_owned()],
    };
    let told = told.status();
    assert_eq!(told.lost, 1020);
    let reason = told.reason.unwrap();
    for word in [
        "904",
        "2 connections",
        "no BTF",
        "100 (process",
        "7 of the processes",
    ] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    assert_eq!(Told::default().status(), SourceStatus::ok());
}

//! The capture observer on the running kernel, in network namespaces of its own.
//!
//! Needs root (CAP_SYS_ADMIN for the namespace, CAP_NET_RAW for the tap) and `ip`. `WGNAT_LAB=skip` skips, and says so.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, unshare};
use wgnat::observation::packet::{Direction, WirePacket};
use wgnat::observation::{Body, Source, SourceState, SourceStatus};
use wgnat::observe::capture::{Capture, filter};
use wgnat::observe::{Emit, ObserveError, Observer};
use wgnat::sys::clock;
use wgnat::sys::packet::PacketSocket;
use wgnat::time::{Span, Timestamp};
use wgnat::track::handshake::{Handshakes, Outcome};
use wgnat::types::PrivateKey;
use wgnat::wire::icmp::IcmpClass;
use wgnat::wire::noise::open_initiation;
use wgnat::wire::tai64n::Scale;
use wgnat::wire::wireguard::Initiation;

const LOCALHOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Runs `test` on a thread in a new network namespace whose loopback is up.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if std::env::var("WGNAT_LAB").is_ok_and(|v| v == "skip") {
        eprintln!("skipped: WGNAT_LAB=skip");
        return;
    }
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("a network namespace (needs root; WGNAT_LAB=skip skips these tests)");
        let ip = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(ip.expect("ip (package iproute2)").success());
        test();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn tunn(private: u8, peer: u8) -> Tunn {
    let peer = PublicKey::from(&StaticSecret::from([peer; 32]));
    Tunn::new(StaticSecret::from([private; 32]), peer, None, None, 7, None)
}

fn initiation(tunn: &mut Tunn) -> Vec<u8> {
    match tunn.format_handshake_initiation(&mut [0; 2048], true) {
        TunnResult::WriteToNetwork(bytes) => bytes.to_vec(),
        other => panic!("no initiation: {other:?}"),
    }
}

/// An address on which nobody listens.
fn closed(ip: IpAddr) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    socket.local_addr().unwrap()
}

/// What an observer emitted.
#[derive(Default)]
struct Seen(Vec<(Timestamp, Body)>);

impl Seen {
    fn look(&mut self, capture: &mut Capture) -> SourceStatus {
        let mut send = |at, _took, source, body| {
            assert_eq!(source, Source::Capture);
            self.0.push((at, body));
        };
        capture
            .look(&mut Emit::new(Source::Capture, &mut send))
            .expect("a look")
    }

    /// Looks whenever there is something to see, until `enough`.
    fn await_until(&mut self, capture: &mut Capture, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            let mut fds = [PollFd::new(capture.wakeup().unwrap(), PollFlags::POLLIN)];
            let woken = poll(&mut fds, 5_000u16).unwrap();
            assert_ne!(woken, 0, "nothing more came: {:?}", self.0);
            let status = self.look(capture);
            assert_eq!(status, SourceStatus::ok());
        }
    }

    fn packets(&self) -> impl Iterator<Item = &WirePacket> {
        self.0.iter().filter_map(|(_, body)| match body {
            Body::Packet(packet) => Some(packet),
            _ => None,
        })
    }

    fn errors(&self) -> usize {
        self.0
            .iter()
            .filter(|(_, b)| matches!(b, Body::IcmpError(_)))
            .count()
    }

    fn handshakes(&self) -> Handshakes {
        let mut handshakes = Handshakes::default();
        for (at, body) in &self.0 {
            match body {
                Body::Packet(packet) => handshakes.apply_packet(*at, packet),
                Body::IcmpError(error) => handshakes.apply_icmp(*at, error),
                other => panic!("not of the wire: {other:?}"),
            }
        }
        handshakes
    }
}

#[test]
fn a_closed_port_answers_with_an_icmp_error() {
    in_namespace(|| {
        for (ip, error) in LOCALHOSTS.into_iter().zip([(3, 3), (1, 4)]) {
            let mut capture = Capture::open().unwrap();
            let sender = UdpSocket::bind((ip, 0)).unwrap();
            let (local, remote) = (sender.local_addr().unwrap(), closed(ip));
            let message = initiation(&mut tunn(1, 2));
            let before = clock::now();
            sender.send_to(&message, remote).unwrap();

            let mut seen = Seen::default();
            // On the loopback each packet goes out and comes in.
            seen.await_until(&mut capture, |s| s.errors() == 2);
            let after = clock::now();
            let packets: Vec<_> = seen.packets().collect();
            assert_eq!(
                packets.iter().map(|p| p.direction).collect::<Vec<_>>(),
                [Direction::Out, Direction::In]
            );
            for packet in packets {
                assert_eq!((packet.source, packet.destination), (local, remote));
                assert_eq!((&packet.payload.0, packet.payload_len), (&message, 148));
                assert!(packet.if_index.is_some_and(|i| i.0 > 0));
            }
            for (at, body) in &seen.0 {
                assert!(before <= *at && *at <= after, "{before} {at} {after}");
                if let Body::IcmpError(e) = body {
                    assert_eq!(((e.icmp_type, e.code), e.from), (error, ip));
                    assert_eq!((e.quoted_source, e.quoted_destination), (local, remote));
                    assert_eq!(e.quoted_payload.0, message);
                }
            }
            let handshakes = seen.handshakes();
            let conversation = handshakes.conversation(Some(local), remote).unwrap();
            let attempt = conversation.end(local).unwrap().last().unwrap();
            let Outcome::Unreachable { icmp } = attempt.outcome(after) else {
                panic!("{attempt:?}");
            };
            assert_eq!(icmp.class(), IcmpClass::PortUnreachable);
            assert_eq!(conversation.errors().iter().map(|e| e.count).sum::<u64>(), 1);
        }
    });
}

#[test]
fn a_handshake_is_answered() {
    in_namespace(|| {
        for ip in LOCALHOSTS {
            let mut capture = Capture::open().unwrap();
            let [a, b] = [(); 2].map(|()| UdpSocket::bind((ip, 0)).unwrap());
            let (local, remote) = (a.local_addr().unwrap(), b.local_addr().unwrap());
            let before = clock::now();
            let message = initiation(&mut tunn(1, 2));
            a.send_to(&message, remote).unwrap();
            let mut out = [0; 2048];
            let TunnResult::WriteToNetwork(answer) = tunn(2, 1).decapsulate(Some(ip), &message, &mut out)
            else {
                panic!("no response");
            };
            b.send_to(answer, local).unwrap();

            let mut seen = Seen::default();
            seen.await_until(&mut capture, |s| s.packets().count() == 4);
            let handshakes = seen.handshakes();
            let conversation = handshakes.conversation(Some(local), remote).unwrap();
            let attempt = conversation.end(local).unwrap().last().unwrap();
            assert!(matches!(attempt.outcome(clock::now()), Outcome::Answered { .. }));
            assert_eq!(attempt.taps.sightings, 2);
            assert_eq!(conversation.messages().total(), 2);

            // The responder's key opens what was captured; boringtun's clock runs on the tai64 crate's scale.
            let (at, Body::Packet(captured)) = &seen.0[0] else {
                panic!("{:?}", seen.0);
            };
            let initiation = Initiation::parse(captured.payload.0.as_array().unwrap()).unwrap();
            let opened = open_initiation(&PrivateKey::from_bytes([2; 32]), &initiation).unwrap();
            assert_eq!(opened.initiator, PrivateKey::from_bytes([1; 32]).public());
            let stamp = opened.timestamp.unix(Scale::Rust).unwrap();
            assert!(before <= stamp && stamp <= *at, "{before} {stamp} {at}");
        }
    });
}

#[test]
fn nothing_else_passes_the_filter() {
    in_namespace(|| {
        for ip in LOCALHOSTS {
            let mut capture = Capture::open().unwrap();
            let [a, b] = [(); 2].map(|()| UdpSocket::bind((ip, 0)).unwrap());
            let open = b.local_addr().unwrap();
            let mut warp = vec![7; 148];
            warp[..4].copy_from_slice(&[1, 2, 3, 4]);
            let mut data = vec![7; 1452];
            data[..4].copy_from_slice(&[4, 0, 0, 0]);
            for payload in [warp, data, vec![9; 148], vec![0; 92], b"hello".to_vec(), vec![]] {
                a.send_to(&payload, open).unwrap();
            }
            // An error about something else.
            a.send_to(&[9; 148], closed(ip)).unwrap();
            let fence = initiation(&mut tunn(1, 2));
            a.send_to(&fence, open).unwrap();

            let mut seen = Seen::default();
            seen.await_until(&mut capture, |s| s.packets().count() == 2);
            assert_eq!(seen.0.len(), 2, "{:?}", seen.0);
            assert!(seen.packets().all(|p| p.payload.0 == fence));
        }
    });
}

#[test]
fn what_was_sent_before_the_tap_is_not_seen() {
    in_namespace(|| {
        let [a, b] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [old, new] = [(); 2].map(|()| initiation(&mut tunn(1, 2)));
        a.send_to(&old, b.local_addr().unwrap()).unwrap();
        let mut capture = Capture::open().unwrap();
        a.send_to(&new, b.local_addr().unwrap()).unwrap();
        let mut seen = Seen::default();
        seen.await_until(&mut capture, |s| s.packets().count() == 2);
        assert!(seen.packets().all(|p| p.payload.0 == new));
    });
}

#[test]
fn a_look_is_bounded_and_losses_are_told() {
    in_namespace(|| {
        let mut capture = Capture::open().unwrap();
        let [a, b] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        // Responses: initiations beyond a rate are counted by the tap, and not shown one by one.
        let mut message = initiation(&mut tunn(1, 2));
        message.truncate(92);
        message[0] = 2;
        let to = b.local_addr().unwrap();
        let sent = 30_000;
        for _ in 0..sent {
            a.send_to(&message, to).unwrap();
        }
        let mut seen = Seen::default();
        let mut status = seen.look(&mut capture);
        assert_eq!(seen.0.len(), 4096);
        assert_eq!(status.state, SourceState::Degraded);
        let mut before = 0;
        while seen.0.len() > before {
            before = seen.0.len();
            status = seen.look(&mut capture);
        }
        assert!(status.lost > 0);
        assert_eq!(seen.0.len() as u64 + status.lost, 2 * sent);
        let sum = seen.handshakes().messages();
        assert_eq!(sum.responses, 1);
        assert!(
            status
                .reason
                .unwrap()
                .contains(&format!("{} of {}", status.lost, 2 * sent))
        );
    });
}

#[test]
fn the_kernel_takes_the_filter_and_counts_what_passes() {
    in_namespace(|| {
        let mut socket = PacketSocket::open(&filter::program().unwrap(), 1 << 16).unwrap();
        assert!(socket.receive().unwrap().is_none());
        let [a, b] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        a.send_to(&initiation(&mut tunn(1, 2)), b.local_addr().unwrap())
            .unwrap();
        a.send_to(&[9; 148], b.local_addr().unwrap()).unwrap();
        for _ in 0..2 {
            let received = socket.receive().unwrap().expect("a packet");
            assert_eq!(received.bytes.len(), 20 + 8 + 148);
            assert!(received.at.is_some());
        }
        assert!(socket.receive().unwrap().is_none());
        for _ in 0..2 {
            let counts = socket.counts().unwrap();
            assert_eq!((counts.passed, counts.dropped), (2, 0));
        }
    });
}

/// Not a test by itself: what runs as `nobody`.
#[test]
fn as_nobody() {
    if std::env::var_os("WGNAT_TEST_AS_NOBODY").is_some() {
        let Err(error) = Capture::open() else {
            panic!("nobody may capture");
        };
        assert!(
            matches!(
                error,
                ObserveError::Denied {
                    needs: "CAP_NET_RAW",
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[test]
fn without_the_capability_its_name_is_the_reason() {
    in_namespace(|| {
        // A copy where nobody may read it: the build directory may be private.
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("child");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let out = Command::new(program)
            .args(["--exact", "as_nobody"])
            .env("WGNAT_TEST_AS_NOBODY", "1")
            .current_dir("/")
            .uid(65_534)
            .gid(65_534)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && text.contains("1 passed"), "{text}");
    });
}

#[test]
fn while_no_data_flows_it_sleeps_and_the_first_message_wakes_it() {
    in_namespace(|| {
        let mut capture = Capture::with_data().unwrap();
        let mut seen = Seen::default();
        let busy = capture.interval();
        let mut looks = 0;
        while capture.interval() == busy {
            seen.look(&mut capture);
            looks += 1;
            assert!(looks < 100, "it never rests");
        }
        assert!(capture.interval() >= 10 * busy);
        assert!(seen.packets().next().is_none());
        send(&data_message());
        seen.await_until(&mut capture, |seen| seen.packets().next().is_some());
        assert_eq!(capture.interval(), busy, "the next ones are fetched by the clock");
    });
}

/// Type 4, a receiver's index, the counter 0, and 16 bytes that nobody can open.
fn data_message() -> Vec<u8> {
    let mut data = vec![4, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd];
    data.resize(8 + 8 + 16, 0);
    data
}

/// Sends it over loopback, to where nobody reads it.
fn send(payload: &[u8]) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(payload, other.local_addr().unwrap()).unwrap();
}

/// How many packet sockets of this namespace take every packet.
fn taps() -> usize {
    let table = std::fs::read_to_string("/proc/thread-self/net/packet").unwrap();
    table
        .lines()
        .filter(|line| line.split_whitespace().nth(3) == Some("0003"))
        .count()
}

#[test]
fn where_there_can_be_no_session_nothing_listens_for_data_until_the_next_handshake() {
    in_namespace(|| {
        let mut capture = Capture::with_data_until(Span::from_millis(300)).unwrap();
        let mut seen = Seen::default();
        assert_eq!(taps(), 2);
        while taps() == 2 {
            seen.look(&mut capture);
        }
        assert_eq!(taps(), 1);
        // Nobody could have agreed on a key for it.
        send(&data_message());
        seen.look(&mut capture);
        assert!(seen.packets().next().is_none());

        // An initiation: type 1, 148 bytes.
        let mut initiation = vec![1, 0, 0, 0];
        initiation.resize(148, 7);
        send(&initiation);
        seen.await_until(&mut capture, |seen| seen.packets().count() >= 1);
        assert_eq!(taps(), 2);
        send(&data_message());
        seen.await_until(&mut capture, |seen| seen.packets().any(WirePacket::is_data));
    });
}

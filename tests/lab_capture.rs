//! Capture and tracker on real wireguard-go peers with a NAT in between: one handshake, seen from three places.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod lab;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lab::{Lab, Nat, Tunnel, tunnel};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wgnat::observation::Body;
use wgnat::observe::capture::Capture;
use wgnat::observe::{Emit, Observer};
use wgnat::sys::clock;
use wgnat::time::Timestamp;
use wgnat::track::handshake::{Attempt, Conversation, Handshakes, Outcome};
use wgnat::types::PrivateKey;
use wgnat::wire::mac::ReceiverKeys;
use wgnat::wire::noise::open_initiation;
use wgnat::wire::tai64n::Scale;
use wgnat::wire::wireguard::{Initiation, Kind, classify};

const LIMIT: Duration = Duration::from_secs(15);

/// A tap in one namespace and what it saw.
struct Tap {
    capture: Capture,
    handshakes: Handshakes,
    initiations: Vec<(Timestamp, Vec<u8>)>,
}

impl Tap {
    fn open(at: &lab::Namespace) -> Self {
        Self {
            capture: at.run(Capture::open).expect("a tap"),
            handshakes: Handshakes::default(),
            initiations: Vec::new(),
        }
    }

    /// Looks whenever something passes, until `enough`.
    fn await_until(&mut self, enough: impl Fn(&Handshakes) -> bool) {
        let deadline = clock::instant() + LIMIT;
        while !enough(&self.handshakes) {
            let left = deadline.saturating_duration_since(clock::instant());
            assert!(!left.is_zero(), "not seen: {:?}", self.handshakes);
            let mut fds = [PollFd::new(self.capture.wakeup().unwrap(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
            let mut send = |at, _, _, body| match body {
                Body::Packet(packet) => {
                    let kind = classify(&packet.payload.0, packet.payload_len).unwrap().kind;
                    if kind == Kind::Initiation {
                        self.initiations.push((at, packet.payload.0.clone()));
                    }
                    self.handshakes.apply_packet(at, &packet);
                }
                Body::IcmpError(error) => self.handshakes.apply_icmp(at, &error),
                other => panic!("not of the wire: {other:?}"),
            };
            let source = self.capture.source();
            self.capture.look(&mut Emit::new(source, &mut send)).unwrap();
        }
    }
}

/// The attempts with an answer, with their conversations.
fn answered(handshakes: &Handshakes) -> Vec<(&Conversation, &Attempt)> {
    let ends = handshakes
        .conversations()
        .flat_map(|c| c.ends().iter().map(move |e| (c, e)));
    let attempts = ends.flat_map(|(c, e)| e.attempts().map(move |a| (c, a)));
    attempts.filter(|(_, a)| a.answer.is_some()).collect()
}

#[test]
fn one_handshake_from_both_ends_and_from_the_nat_between() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    let [mut client, mut router, mut server] = [lab.client(), lab.router(), lab.server()].map(Tap::open);
    tunnel.knock();
    client.await_until(|h| answered(h).len() == 1);
    server.await_until(|h| answered(h).len() == 1);
    router.await_until(|h| answered(h).len() == 2);

    let endpoint = SocketAddr::new(lab.server_ip(), tunnel::PORT);
    let outer = IpAddr::from(lab::addresses::ROUTER_WAN.v4);
    let (at_client, ours) = answered(&client.handshakes)[0];
    let (local, remote) = at_client.local_remote().unwrap();
    assert_eq!(
        (local.address.ip(), remote.address),
        (IpAddr::from(lab.client_at().v4), endpoint)
    );
    assert!(matches!(ours.outcome(clock::now()), Outcome::Answered { .. }));
    assert_eq!(ours.taps.out_through().count(), 1);

    let (at_server, theirs) = answered(&server.handshakes)[0];
    let (local, remote) = at_server.local_remote().unwrap();
    assert_eq!((local.address, remote.address.ip()), (endpoint, outer));
    assert_eq!((theirs.sender, theirs.mac1), (ours.sender, ours.mac1));

    // The NAT shows it twice: before and after translation.
    let between = answered(&router.handshakes);
    assert!(
        between
            .iter()
            .all(|(_, a)| (a.sender, a.mac1) == (ours.sender, ours.mac1))
    );
    let initiators: Vec<_> = between.iter().map(|(_, a)| a.initiator).collect();
    assert_eq!(initiators, [ours.initiator, theirs.initiator]);

    // wireguard-go's timestamps are on the kernel's scale, and whitened.
    let (at, bytes) = &server.initiations[0];
    let key = PrivateKey::from_bytes(*tunnel.server.keys.private_bytes());
    assert_eq!(ReceiverKeys::of(&key.public()).made(bytes), Some(true));
    let initiation = Initiation::parse(bytes.as_array().unwrap()).unwrap();
    let opened = open_initiation(&key, &initiation).unwrap();
    assert_eq!(opened.initiator.to_string(), tunnel.client.keys.public());
    assert_eq!(opened.timestamp.likely_scale(), Scale::Kernel);
    let stamp = opened.timestamp.unix(Scale::Kernel).unwrap();
    assert!(
        stamp <= *at && *at - stamp < Duration::from_secs(10),
        "{stamp} {at}"
    );
}

#[test]
fn lost_responses_look_different_from_each_end() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    let _fault = lab.inflict(&lab::Fault::drop_message(lab::Message::Response));
    let [mut client, mut server] = [lab.client(), lab.server()].map(Tap::open);
    tunnel.knock();
    client.await_until(|h| h.messages().initiations == 2);
    server.await_until(|h| answered(h).len() == 2);

    let now = clock::now() + wgnat::track::handshake::ANSWER_WITHIN;
    let conversation = client.handshakes.conversations().next().unwrap();
    let (local, _) = conversation.local_remote().unwrap();
    assert_eq!(local.unanswered(now), 2);
    assert_eq!(local.last().map(|a| a.try_number), Some(2));
    let spacing = local.retry_spacing().unwrap();
    assert!(
        Duration::from_secs(5) <= spacing && spacing < Duration::from_secs(7),
        "{spacing:?}"
    );
    assert!(answered(&client.handshakes).is_empty());

    let conversation = server.handshakes.conversations().next().unwrap();
    let (_, remote) = conversation.local_remote().unwrap();
    assert_eq!((remote.unanswered(now), remote.answered), (0, 2));
}

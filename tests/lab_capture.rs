//! Capture and tracker on real wireguard-go peers with a NAT in between: one handshake, seen from three places.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod lab;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::{Lab, Nat, SOON, Tunnel, tunnel};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wgnat::observation::packet::InitiationTally;
use wgnat::observation::{Body, SourceStatus};
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

const LIMIT: Duration = SOON;

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
            self.look(&mut |tally| panic!("no flood: {tally:?}"));
        }
    }

    /// Looks once.
    fn look(&mut self, counted: &mut dyn FnMut(&InitiationTally)) -> SourceStatus {
        let mut send = |at, _, _, body| match body {
            Body::Packet(packet) => {
                let kind = classify(&packet.payload.0, packet.payload_len).unwrap().kind;
                if kind == Kind::Initiation {
                    self.initiations.push((at, packet.payload.0.clone()));
                }
                self.handshakes.apply_packet(at, &packet);
            }
            Body::IcmpError(error) => self.handshakes.apply_icmp(at, &error),
            Body::Initiations(tally) => {
                counted(&tally);
                self.handshakes.apply_tally(at, &tally);
            }
            other => panic!("not of the wire: {other:?}"),
        };
        let source = self.capture.source();
        self.capture.look(&mut Emit::new(source, &mut send)).unwrap()
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
    assert!(stamp <= *at && *at - stamp < SOON, "{stamp} {at}");
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
    assert!(Duration::from_secs(5) <= spacing && spacing < SOON, "{spacing:?}");
    assert!(answered(&client.handshakes).is_empty());

    let conversation = server.handshakes.conversations().next().unwrap();
    let (_, remote) = conversation.local_remote().unwrap();
    assert_eq!((remote.unanswered(now), remote.answered), (0, 2));
}

/// Sends initiations from the client for `time`, as many as go but at most 60,000 a second; after half of it does `midway`.
fn flood(lab: &Lab, time: Duration, midway: impl FnOnce() + Send) {
    let to = SocketAddr::new(lab.server_ip(), tunnel::PORT);
    lab.client().run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(to).unwrap();
        let mut message = [0x5a; 148];
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        let (began, mut sent, mut midway) = (lab::Watch::start(), 0u32, Some(midway));
        loop {
            let elapsed = began.elapsed();
            if elapsed * 2 > time
                && let Some(midway) = midway.take()
            {
                midway();
            }
            if elapsed > time {
                break;
            }
            if f64::from(sent) > elapsed.as_secs_f64() * 60_000.0 {
                std::thread::yield_now();
                continue;
            }
            message[4..8].copy_from_slice(&sent.to_le_bytes());
            let _ = socket.send(&message);
            sent += 1;
        }
    });
}

#[test]
fn of_a_flood_a_sample_is_taken_and_this_hosts_own_handshakes_are_seen() {
    let Some(lab) = Lab::pair() else { return };
    let server = lab.server().clone();
    let sink = server.run(|| UdpSocket::bind(("0.0.0.0", tunnel::PORT)).unwrap());
    let mut tap = Tap::open(&server);
    let arrived = || server.counter("Ip", "InReceives");
    let before = arrived();

    // In the middle of it the server calls somebody, who answers.
    let caller = server.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
    let answerer = lab.client().run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap());
    let called = SocketAddr::new(lab.client_at().v4.into(), answerer.local_addr().unwrap().port());
    let mut call = [7; 148];
    call[..8].copy_from_slice(&[1, 0, 0, 0, 9, 9, 9, 9]);
    let mut answer = [8; 92];
    answer[..12].copy_from_slice(&[2, 0, 0, 0, 3, 3, 3, 3, 9, 9, 9, 9]);
    let handshake = || {
        caller.send_to(&call, called).unwrap();
        answerer.set_read_timeout(Some(LIMIT)).unwrap();
        let (_, from) = answerer.recv_from(&mut [0; 200]).unwrap();
        answerer.send_to(&answer, from).unwrap();
    };
    let (mut lost, mut tallied, mut coarsest) = (0, 0u64, 1);
    let mut looks = 0u64;
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&lab, Duration::from_secs(3), handshake));
        // As the supervisor does it; until all has been told that came.
        let deadline = clock::instant() + LIMIT * 4;
        let mut last = false;
        loop {
            assert!(clock::instant() < deadline, "it does not end");
            let rest = PollTimeout::try_from(tap.capture.rest()).unwrap();
            poll(&mut [], rest).unwrap();
            let mut fds = [PollFd::new(tap.capture.wakeup().unwrap(), PollFlags::POLLIN)];
            let came = poll(
                &mut fds,
                PollTimeout::try_from(Duration::from_millis(1_100)).unwrap(),
            )
            .unwrap();
            let status = tap.look(&mut |tally| {
                tallied += tally.count;
                coarsest = coarsest.max(tally.one_in);
            });
            (lost, looks) = (status.lost, looks + 1);
            // A second after the last one what was counted in it has been told.
            if last && came == 0 {
                break;
            }
            last = flooding.is_finished();
        }
        flooding.join().unwrap();
    });
    drop(sink);

    // But for the answer all that came were initiations.
    let came = arrived() - before - 1;
    let (told, margin) = tap.handshakes.inflow.total();
    assert!(came > 15_000, "no flood: {came}");
    assert!(coarsest >= 4 && tallied > came / 2, "{coarsest} {tallied} {came}");
    // Five standard errors; what found no room in the receive buffer is told apart.
    let error = margin.expect("an estimate") as f64 / 1.96 * 5.0;
    let (told, least, most) = (
        told as f64,
        came.saturating_sub(lost) as f64 - error,
        came as f64 + error,
    );
    assert!(
        least <= told && told <= most,
        "{told} of {came} told, ± {margin:?}; {lost} lost, one in {coarsest}"
    );
    // Not one wake-up for each of them, and few shown.
    assert!(looks < came / 50, "{looks} looks at {came}");
    assert!(tap.initiations.len() < 10_000, "{} shown", tap.initiations.len());

    let local = SocketAddr::new(lab.server_ip(), caller.local_addr().unwrap().port());
    let own = tap
        .handshakes
        .conversation(Some(local), called)
        .expect("its own handshake");
    let attempt = own.end(local).unwrap().last().unwrap();
    assert!(
        matches!(attempt.outcome(clock::now()), Outcome::Answered { .. }),
        "{attempt:?}"
    );
}

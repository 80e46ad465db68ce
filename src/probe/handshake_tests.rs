use boringtun::noise::Tunn;

use super::*;
use crate::types::{PresharedKey, PrivateKey};
use crate::wire::boring;
use crate::wire::noise::initiator::Fresh;
use crate::wire::noise::open_initiation;
use crate::wire::tai64n::Scale;

const US: [u8; 32] = [0x11; 32];
const THEM: [u8; 32] = [0x22; 32];

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + millis * 1_000_000)
}

fn identity(own: [u8; 32], peer: [u8; 32], preshared: Option<PresharedKey>) -> Identity {
    Identity::new(
        PrivateKey::from_bytes(own),
        PrivateKey::from_bytes(peer).public(),
        preshared,
    )
    .unwrap()
}

fn probe(count: u32) -> HandshakeProbe {
    let plan = Plan {
        count,
        interval: Span::from_secs(1),
        timeout: Span::from_secs(5),
    };
    HandshakeProbe::new(identity(US, THEM, None), plan, [9; 32], at(0))
}

fn them(preshared: Option<[u8; 32]>) -> Tunn {
    let public = PrivateKey::from_bytes(US).public().0;
    Tunn::new(THEM.into(), public.into(), preshared, None, 7, None)
}

/// Gives it its turn at its wish and lets it send.
fn send(probe: &mut HandshakeProbe) -> (Timestamp, Vec<u8>) {
    let wish = probe.wants_turn().expect("it wants to send");
    assert_eq!(probe.poll_transmit(), None);
    probe.handle_timeout(wish);
    assert_eq!(probe.poll_transmit(), None, "it has no turn yet");
    probe.grant(wish);
    probe.handle_timeout(wish);
    (wish, probe.poll_transmit().expect("an initiation"))
}

fn outcomes(probe: &mut HandshakeProbe) -> Vec<Outcome> {
    std::iter::from_fn(|| probe.poll_event())
        .filter_map(|event| match event {
            Event::Attempt(attempt) => Some(attempt.outcome),
            Event::Stray(_) | Event::Done => None,
        })
        .collect()
}

#[test]
fn each_answer_gives_a_round_trip_and_nothing_is_confirmed() {
    let (mut probe, mut peer) = (probe(3), them(None));
    for n in 0..3 {
        let (sent, initiation) = send(&mut probe);
        assert_eq!(sent, at(n * 1000));
        let answer = boring::answer(&mut peer, &initiation);
        probe.handle_input(sent + Span::from_millis(20), &answer);
        assert_eq!(probe.poll_transmit(), None, "no keepalive confirms the session");
        let rtt = Span::from_millis(20);
        assert_eq!(outcomes(&mut probe), [Outcome::Answered { rtt }]);
    }
    assert!(probe.is_done() && probe.into_session().2.is_some());
}

#[test]
fn stamps_are_on_the_kernels_scale_and_rise() {
    let mut probe = probe(5);
    let mut last = None;
    for _ in 0..5 {
        let (sent, bytes) = send(&mut probe);
        let initiation = Initiation::parse(bytes.as_slice().try_into().unwrap()).unwrap();
        let stamp = open_initiation(&PrivateKey::from_bytes(THEM), &initiation)
            .unwrap()
            .timestamp;
        assert_eq!(stamp.likely_scale(), Scale::Kernel);
        assert!(
            sent - stamp.unix(Scale::Kernel).unwrap() < Span::from_millis(17),
            "not in the future"
        );
        assert!(last.is_none_or(|last| stamp > last));
        last = Some(stamp);
    }
}

#[test]
fn silence_is_said_after_two_tries_at_least() {
    let mut probe = probe(1);
    send(&mut probe);
    probe.handle_timeout(at(5_000));
    assert!(!probe.is_done(), "one lost packet is no verdict");
    send(&mut probe);
    probe.handle_timeout(at(20_000));
    let waited = Span::from_secs(5);
    assert_eq!(outcomes(&mut probe), vec![Outcome::Silent { waited }; 2]);
    assert!(probe.is_done());
}

#[test]
fn a_late_answer_counts_for_its_own_initiation() {
    let (mut probe, mut peer) = (probe(2), them(None));
    let (_, first) = send(&mut probe);
    let (_, second) = send(&mut probe);
    let answers = [first, second].map(|i| boring::answer(&mut peer, &i));
    probe.handle_input(at(1_100), &answers[1]);
    probe.handle_input(at(3_000), &answers[0]);
    let rtts = [100, 3000].map(|ms| Outcome::Answered {
        rtt: Span::from_millis(ms),
    });
    assert_eq!(outcomes(&mut probe), rtts);
    // The same answer again is a stray.
    probe.handle_input(at(3_001), &answers[0]);
    assert!(outcomes(&mut probe).is_empty());
}

#[test]
fn preshared_keys_that_differ_are_proved() {
    let (mut probe, mut peer) = (probe(2), them(Some([5; 32])));
    for _ in 0..2 {
        let (sent, initiation) = send(&mut probe);
        probe.handle_input(sent, &boring::answer(&mut peer, &initiation));
    }
    let rtt = Span::ZERO;
    assert_eq!(
        outcomes(&mut probe),
        vec![Outcome::PresharedKeyDiffers { rtt }; 2]
    );
    assert!(probe.is_done() && probe.into_session().2.is_none());
}

#[test]
fn a_cookie_is_used_in_the_retry() {
    let mut probe = probe(1);
    let mut peer = them(None);
    // Ten handshakes in this second are as many as boringtun takes.
    let flood = identity(US, THEM, None);
    for n in 0..11 {
        let (_, initiation) = flood.initiate(Fresh {
            sender: crate::types::SessionIndex(n),
            ephemeral: [3; 32],
            timestamp: Tai64n::new(at(-10_000 + i64::from(n) * 50), Scale::Kernel),
            cookie: None,
        });
        let _ = peer.decapsulate(Some(boring::FROM), &initiation, &mut [0; 2048]);
    }
    let (sent, initiation) = send(&mut probe);
    let reply = boring::answer(&mut peer, &initiation);
    assert_eq!(reply.len(), 64);
    probe.handle_input(sent, &reply);
    assert_eq!(outcomes(&mut probe), [Outcome::Cookie { rtt: Span::ZERO }]);
    let (sent, retry) = send(&mut probe);
    let parsed = Initiation::parse(retry.as_slice().try_into().unwrap()).unwrap();
    assert!(parsed.has_mac2());
    probe.handle_input(sent, &boring::answer(&mut peer, &retry));
    assert_eq!(outcomes(&mut probe), [Outcome::Answered { rtt: Span::ZERO }]);
}

#[test]
fn a_gateway_that_calls_back_is_answered_and_its_data_confirms() {
    let (mut probe, mut peer) = (probe(2), them(None));
    let (sent, _) = send(&mut probe);
    let call = boring::initiation(&mut peer);
    probe.handle_input(sent + Span::from_millis(300), &call);
    let response = probe.poll_transmit().expect("it is answered");
    assert_eq!(outcomes(&mut probe), [], "not before it confirms");
    let confirm = boring::answer(&mut peer, &response);
    probe.handle_input(sent + Span::from_millis(320), &confirm);
    let called = Outcome::CalledBack {
        after: Span::from_millis(300),
        confirmed: Some(0.32),
    };
    assert_eq!(outcomes(&mut probe), [called]);
    // The second initiation finds the peer installed.
    let (sent, initiation) = send(&mut probe);
    probe.handle_input(sent, &boring::answer(&mut peer, &initiation));
    assert_eq!(outcomes(&mut probe), [Outcome::Answered { rtt: Span::ZERO }]);
}

#[test]
fn what_is_not_for_us_is_a_stray_and_answers_nothing() {
    let mut probe = probe(1);
    send(&mut probe);
    let other = identity([0x44; 32], US, None);
    let (_, call) = other.initiate(Fresh {
        sender: crate::types::SessionIndex(1),
        ephemeral: [3; 32],
        timestamp: Tai64n::new(at(0), Scale::Kernel),
        cookie: None,
    });
    for (datagram, kind) in [
        (b"HTTP/1.1 400 Bad Request".to_vec(), StrayKind::NotWireguard),
        (call.to_vec(), StrayKind::OtherInitiation),
        ([&[2, 0, 0, 0][..], &[0; 88]].concat(), StrayKind::OtherResponse),
        ([&[3, 0, 0, 0][..], &[0; 60]].concat(), StrayKind::OtherCookie),
    ] {
        probe.handle_input(at(1), &datagram);
        assert_eq!(probe.poll_transmit(), None);
        match probe.poll_event() {
            Some(Event::Stray(stray)) => assert_eq!(stray.kind, kind),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_icmp_error_is_put_to_the_initiation_that_it_quotes() {
    let mut probe = probe(2);
    let (_, first) = send(&mut probe);
    send(&mut probe);
    let seen = |quoted: &[u8], icmp_type, code| IcmpSeen {
        from: Some("192.0.2.9".parse().unwrap()),
        v6: false,
        icmp_type,
        code,
        quoted: quoted.to_vec(),
    };
    probe.handle_icmp(at(1_002), &seen(&first, 3, 4));
    assert_eq!(outcomes(&mut probe), [], "too big is no refusal");
    probe.handle_icmp(at(1_003), &seen(&first, 3, 3));
    probe.handle_icmp(at(1_004), &seen(&[], 3, 3));
    let found = outcomes(&mut probe);
    assert!(matches!(found[0], Outcome::Icmp { after, .. } if after == Span::from_millis(1003)));
    assert!(matches!(found[1], Outcome::Icmp { after, .. } if after == Span::from_millis(4)));
    assert!(probe.is_done());
}

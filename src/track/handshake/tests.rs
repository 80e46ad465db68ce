use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::observation::packet::Bytes;
use crate::time::Span;
use crate::types::IfIndex;
use crate::wire::icmp::IcmpClass;

const US: &str = "192.0.2.1:51820";
const PEER: &str = "198.51.100.2:51820";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + millis * 1_000_000)
}

fn packet(from: &str, to: &str, payload: Vec<u8>) -> WirePacket {
    WirePacket {
        direction: if from == US { Direction::Out } else { Direction::In },
        if_index: Some(IfIndex(2)),
        source: addr(from),
        destination: addr(to),
        tos: 0x88,
        payload_len: u32::try_from(payload.len()).unwrap(),
        payload: Bytes(payload),
    }
}

fn initiation(sender: u32) -> Vec<u8> {
    let mut payload = [&[1, 0, 0, 0], &sender.to_le_bytes()[..]].concat();
    payload.resize(148, 0);
    payload[116..120].copy_from_slice(&sender.to_be_bytes());
    payload
}

fn response(sender: u32, receiver: u32) -> Vec<u8> {
    let mut payload = [
        &[2, 0, 0, 0],
        &sender.to_le_bytes()[..],
        &receiver.to_le_bytes()[..],
    ]
    .concat();
    payload.resize(92, 0);
    payload
}

fn cookie(receiver: u32) -> Vec<u8> {
    let mut payload = [&[3, 0, 0, 0], &receiver.to_le_bytes()[..]].concat();
    payload.resize(64, 7);
    payload
}

fn unreachable(code: u8, quoted: &[u8]) -> IcmpError {
    IcmpError {
        direction: Direction::In,
        from: "203.0.113.9".parse().unwrap(),
        icmp_type: 3,
        code,
        mtu: None,
        quoted_source: addr(US),
        quoted_destination: addr(PEER),
        quoted_payload: Bytes(quoted.to_vec()),
    }
}

/// Initiations of ours at these milliseconds, with indices 1, 2, 3 …
fn tried(times: &[i64]) -> Handshakes {
    let mut h = Handshakes::default();
    for (sender, millis) in (1..).zip(times) {
        h.apply_packet(at(*millis), &packet(US, PEER, initiation(sender)));
    }
    h
}

fn us(h: &Handshakes) -> &End {
    h.between(51820, addr(PEER)).unwrap().end(addr(US)).unwrap()
}

fn outcomes(h: &Handshakes, now: Timestamp) -> Vec<Outcome> {
    us(h).attempts().map(|a| a.outcome(now)).collect()
}

#[test]
fn silence_becomes_unanswered_when_the_timeout_is_over() {
    let h = tried(&[0, 5_100]);
    assert_eq!(
        outcomes(&h, at(5_200)),
        [Outcome::Pending, Outcome::Pending].map(|_| Outcome::Pending)
    );
    assert_eq!(us(&h).unanswered(at(5_200)), 1);
    assert_eq!(us(&h).due(at(5_200)), Some(at(5_100 + 5_334)));
    assert_eq!(outcomes(&h, at(10_434)), [Outcome::Unanswered; 2]);
    assert_eq!(us(&h).unanswered(at(10_434)), 2);
    assert_eq!(us(&h).due(at(10_434)), None);
    assert_eq!(us(&h).unanswered_since(), Some(at(0)));
    assert_eq!(us(&h).retry_spacing(), Some(Span::from_millis(5_100)));
    let tries: Vec<u32> = us(&h).attempts().map(|a| a.try_number).collect();
    assert_eq!(tries, [1, 2]);
}

#[test]
fn a_response_answers_the_initiation_with_its_index() {
    let mut h = tried(&[0, 5_000, 10_000]);
    h.apply_packet(at(10_030), &packet(PEER, US, response(77, 3)));
    let rtt = Span::from_millis(30);
    assert_eq!(outcomes(&h, at(20_000))[2], Outcome::Answered { rtt });
    assert_eq!(
        (us(&h).unanswered(at(20_000)), us(&h).unanswered_since()),
        (0, None)
    );
    assert_eq!(us(&h).rtts().collect::<Vec<_>>(), [rtt]);
    // A new attempt after an answer is a first attempt again.
    h.apply_packet(at(12_000), &packet(US, PEER, initiation(4)));
    assert_eq!(us(&h).last().unwrap().try_number, 1);
    assert_eq!(us(&h).unanswered_since(), Some(at(12_000)));
}

#[test]
fn a_late_response_leaves_the_later_attempts_unanswered() {
    let mut h = tried(&[0, 5_000, 10_000]);
    h.apply_packet(at(10_500), &packet(PEER, US, response(77, 1)));
    assert_eq!(us(&h).unanswered(at(30_000)), 2);
    assert_eq!(us(&h).unanswered_since(), Some(at(5_000)));
}

#[test]
fn one_message_on_several_interfaces_is_one_message() {
    let mut h = Handshakes::default();
    for (bytes, from, to) in [
        (initiation(1), US, PEER),
        (response(9, 1), PEER, US),
        (cookie(1), PEER, US),
    ] {
        for (direction, if_index) in [
            (Direction::Out, 4),
            (Direction::Out, 2),
            (Direction::In, 2),
            (Direction::In, 2),
        ] {
            let mut seen = packet(from, to, bytes.clone());
            (seen.direction, seen.if_index) = (direction, Some(IfIndex(if_index)));
            h.apply_packet(at(i64::from(bytes[0])), &seen);
        }
    }
    let sum = h.messages();
    assert_eq!(
        (sum.initiations, sum.responses, sum.cookie_replies, sum.total()),
        (1, 1, 1, 3)
    );
    let attempt = us(&h).last().unwrap();
    assert_eq!(attempt.taps.sightings, 4);
    assert_eq!(
        attempt.taps.out_through().collect::<Vec<_>>(),
        [IfIndex(4), IfIndex(2)]
    );
    assert_eq!(attempt.taps.in_through().collect::<Vec<_>>(), [IfIndex(2)]);
    assert_eq!(attempt.answer.unwrap().taps.sightings, 4);
}

#[test]
fn cookies_are_answers_and_the_retry_carries_its_mac2() {
    let mut h = tried(&[0]);
    h.apply_packet(at(20), &packet(PEER, US, cookie(1)));
    assert_eq!(
        outcomes(&h, at(9_000)),
        [Outcome::Cookie {
            after: Span::from_millis(20)
        }]
    );
    assert_eq!((us(&h).unanswered(at(9_000)), us(&h).cookies), (0, 1));
    let mut retry = initiation(2);
    retry[132] = 1;
    h.apply_packet(at(5_020), &packet(US, PEER, retry));
    let retry = us(&h).last().unwrap();
    assert!(retry.mac2_set && retry.try_number == 2);
}

#[test]
fn errors_belong_to_the_attempt_that_they_quote() {
    let mut h = tried(&[0, 5_000]);
    h.apply_icmp(at(5_001), &unreachable(13, &initiation(1)));
    let seen = outcomes(&h, at(6_000));
    let Outcome::Unreachable { icmp } = seen[0] else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (icmp.class(), icmp.words()),
        (IcmpClass::Prohibited, "communication administratively prohibited")
    );
    assert_eq!(seen[1], Outcome::Pending);
    // Errors are no answer of the peer's.
    assert_eq!(us(&h).unanswered(at(20_000)), 2);
    // Eight quoted bytes suffice; a quote without payload is taken for the newest attempt.
    for quoted in [&initiation(2)[..8], &[]] {
        let mut h = tried(&[0, 5_000]);
        h.apply_icmp(at(5_001), &unreachable(3, quoted));
        let seen = outcomes(&h, at(6_000));
        assert!(
            matches!(
                seen[..],
                [Outcome::Unanswered, Outcome::Unreachable { .. }]
                    | [Outcome::Pending, Outcome::Unreachable { .. }]
            ),
            "{seen:?}"
        );
    }
}

#[test]
fn errors_are_counted_by_kind_and_not_by_sighting() {
    let mut h = tried(&[0]);
    for _ in 0..3 {
        h.apply_icmp(at(1), &unreachable(3, &initiation(1)));
    }
    for counter in 0..5 {
        let data = [4, 0, 0, 0, 9, 0, 0, 0, counter, 0, 0, 0, 0, 0, 0, 0];
        let mut error = unreachable(4, &data);
        error.mtu = Some(1400 - u32::from(counter));
        h.apply_icmp(at(2), &error);
    }
    let conversation = h.conversation(Some(addr(US)), addr(PEER)).unwrap();
    let tallies: Vec<_> = conversation
        .errors()
        .iter()
        .map(|t| (t.kind, t.count, t.mtu))
        .collect();
    assert_eq!(
        tallies,
        [
            (Some(Kind::Initiation), 1, None),
            (Some(Kind::Data), 5, Some(1396))
        ]
    );
    for code in 0..16 {
        h.apply_icmp(at(3), &unreachable(code, &initiation(1)));
    }
    let conversation = h.conversation(None, addr(PEER)).unwrap();
    assert_eq!(
        (conversation.errors().len(), conversation.errors_forgotten),
        (ERRORS_KEPT, 9)
    );
}

#[test]
fn errors_about_strangers_open_a_conversation_only_for_wireguard() {
    let mut h = Handshakes::default();
    h.apply_icmp(at(0), &unreachable(3, &[]));
    assert_eq!((h.conversations().len(), h.stray_errors), (0, 1));
    h.apply_icmp(at(0), &unreachable(3, &initiation(1)));
    assert_eq!(h.conversations().len(), 1);
}

#[test]
fn answers_from_another_address_are_matched_by_index() {
    let mut h = tried(&[0]);
    h.apply_packet(at(8), &packet("198.51.100.77:51820", US, response(5, 1)));
    let attempt = us(&h).last().unwrap();
    assert_eq!(attempt.answer.unwrap().from, addr("198.51.100.77:51820"));
    assert_eq!(h.messages().stray_responses, 0);
    h.apply_packet(at(9), &packet(PEER, US, response(5, 99)));
    h.apply_packet(at(9), &packet(PEER, US, response(5, 99)));
    assert_eq!((h.messages().responses, h.messages().stray_responses), (2, 1));
}

#[test]
fn directions_tell_which_end_is_local() {
    let mut h = tried(&[0]);
    let locals = |h: &Handshakes| {
        let c = h.conversations().next().unwrap();
        c.local_remote()
            .map(|(local, remote)| (local.address, remote.address))
    };
    assert_eq!(locals(&h), Some((addr(US), addr(PEER))));
    h.apply_packet(at(1), &packet(PEER, US, response(5, 1)));
    assert_eq!(locals(&h), Some((addr(US), addr(PEER))));
    assert_eq!(h.by_local_port(51820).count(), 1);
    assert_eq!(h.by_local_port(1).count(), 0);
    // Forwarded: it comes in and goes out.
    let mut forwarded = packet(PEER, US, response(5, 1));
    forwarded.direction = Direction::Out;
    h.apply_packet(at(1), &forwarded);
    forwarded = packet(US, PEER, initiation(1));
    forwarded.direction = Direction::In;
    h.apply_packet(at(1), &forwarded);
    assert_eq!(locals(&h), None);
}

#[test]
fn addresses_match_as_devices_write_them() {
    let h = tried(&[0]);
    let mapped: SocketAddr = "[::ffff:198.51.100.2]:51820".parse().unwrap();
    assert!(h.conversation(None, mapped).is_some());
    assert!(h.between(51820, mapped).is_some());
    assert!(h.between(51821, mapped).is_none());
    assert!(h.conversation(None, addr("198.51.100.2:51821")).is_none());
}

#[test]
fn data_is_counted_and_other_payloads_are_not_messages() {
    let mut h = Handshakes::default();
    for (len, first) in [(32, 4), (1452, 4), (148, 9), (100, 1)] {
        let mut seen = packet(PEER, US, vec![first, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        seen.payload_len = len;
        h.apply_packet(at(0), &seen);
    }
    let mut warp = initiation(1);
    warp[1] = 1;
    h.apply_packet(at(0), &packet(PEER, US, warp));
    let sum = h.messages();
    assert_eq!(
        (sum.keepalives, sum.data, sum.total(), h.unreadable),
        (1, 1, 2, 3)
    );
}

#[test]
fn history_is_bounded_and_its_counts_stay() {
    let times: Vec<i64> = (0..100).map(|i| i * 5_000).collect();
    let h = tried(&times);
    assert_eq!((us(&h).attempts().len(), us(&h).forgotten), (ATTEMPTS_KEPT, 36));
    assert_eq!(
        (us(&h).messages.initiations, us(&h).unanswered(at(600_000))),
        (100, 100)
    );
    assert_eq!(us(&h).unanswered_since(), Some(at(0)));
}

#[test]
fn a_flood_of_made_up_addresses_leaves_our_own_attempts_alone() {
    let mut h = tried(&[0]);
    for i in 0..20_000u32 {
        let from = SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + i).into(), 7);
        let mut flood = packet(PEER, US, initiation(i));
        flood.source = from;
        h.apply_packet(at(1 + i64::from(i)), &flood);
        assert!(h.conversations().len() <= CONVERSATIONS_KEPT);
    }
    assert_eq!(h.dropped + h.conversations().len() as u64, 20_001);
    assert_eq!(us(&h).attempts().len(), 1);
    assert!(h.by_index.len() <= 2 * ALL_ATTEMPTS_KEPT);
    // The newest of the flood are still there, and found.
    let last = SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + 19_999).into(), 7);
    assert!(h.conversation(Some(addr(US)), last).is_some());
    // By either end the index finds what a walk over all finds, in the same order.
    for end in [addr(US), last] {
        let starts = |c: &Conversation| (c.first_at, c.key());
        let found: Vec<_> = h.by_remote(end).map(starts).collect();
        let walked: Vec<_> = h
            .conversations()
            .filter(|c| c.end(end).is_some())
            .map(starts)
            .collect();
        assert_eq!(found, walked);
        assert!(!found.is_empty());
    }
    assert!(h.by_end.len() <= 2 * CONVERSATIONS_KEPT);
}

#[test]
fn the_most_that_is_kept_is_under_thirteen_mebibytes() {
    let attempts = ALL_ATTEMPTS_KEPT * (size_of::<Attempt>() + size_of::<SessionIndex>());
    let index = 2 * ALL_ATTEMPTS_KEPT * (size_of::<(SessionIndex, usize)>() + 1) * 8 / 7;
    let conversations = CONVERSATIONS_KEPT
        * (size_of::<Conversation>() + ERRORS_KEPT * size_of::<IcmpTally>() + 2 * size_of::<(Pair, usize)>());
    // A B-tree's nodes are half full at the least.
    let ends = 2 * CONVERSATIONS_KEPT * 2 * size_of::<(SocketAddr, usize)>();
    let most = attempts + index + conversations + ends;
    assert!(most < 13 << 20, "{attempts} + {index} + {conversations} + {ends}");
}

#[test]
fn many_attempts_of_many_ends_are_bounded_together() {
    let mut h = Handshakes::default();
    for i in 0..40_000u32 {
        let mut flood = packet(PEER, US, initiation(i));
        flood.source = SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + i % 512).into(), 7);
        h.apply_packet(at(i64::from(i)), &flood);
        let kept: usize = h.conversations().map(Conversation::kept).sum();
        if i % 1000 == 0 {
            assert_eq!(kept, h.attempts);
        }
        assert!(h.attempts <= ALL_ATTEMPTS_KEPT);
    }
    assert!(h.dropped > 0);
}

fn any_packet() -> impl Strategy<Value = WirePacket> {
    let ends = [US, PEER, "198.51.100.77:9", "[2001:db8::1]:1"];
    let payload = prop_oneof![
        (0..6u32).prop_map(initiation),
        (0..6u32, 0..6u32).prop_map(|(s, r)| response(s, r)),
        (0..6u32).prop_map(cookie),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    (0..4usize, 0..4usize, payload, 0..3usize).prop_map(move |(from, to, payload, way)| {
        let mut p = packet(ends[from], ends[to], payload);
        p.direction = [Direction::In, Direction::Out, Direction::Unknown][way];
        p
    })
}

proptest! {
    #[test]
    fn a_second_sighting_changes_no_count(packets in proptest::collection::vec(any_packet(), 0..60)) {
        let (mut once, mut twice) = (Handshakes::default(), Handshakes::default());
        for (step, packet) in (0..).zip(&packets) {
            if packet.payload.0.first() == Some(&4) {
                continue; // data is counted as it comes
            }
            once.apply_packet(at(step * 1_000), packet);
            twice.apply_packet(at(step * 1_000), packet);
            twice.apply_packet(at(step * 1_000), packet);
        }
        prop_assert_eq!(once.messages(), twice.messages());
        let now = at(1_000_000);
        for (one, two) in once.conversations().zip(twice.conversations()) {
            for (one, two) in one.ends().iter().zip(two.ends()) {
                prop_assert_eq!(one.unanswered(now), two.unanswered(now));
                let seen = |end: &End| end.attempts().map(|a| a.outcome(now)).collect::<Vec<_>>();
                prop_assert_eq!(seen(one), seen(two));
            }
        }
    }

    #[test]
    fn counts_agree_with_the_attempts(packets in proptest::collection::vec((any_packet(), 0..9_000i64), 0..60)) {
        let mut h = Handshakes::default();
        let mut time = 0;
        for (packet, gap) in &packets {
            time += gap;
            h.apply_packet(at(time), packet);
            let quoted = unreachable(3, packet.payload.0.get(..8).unwrap_or(&[]));
            h.apply_icmp(at(time), &quoted);
        }
        let now = at(time + 60_000);
        for conversation in h.conversations() {
            prop_assert!(conversation.first_at <= conversation.last_at);
            for end in conversation.ends() {
                let silent = end.attempts().rev().take_while(|a| !a.is_answered()).count();
                prop_assert_eq!(end.unanswered(now) as usize, silent);
                prop_assert_eq!(end.attempts().filter(|a| a.answer.is_some()).count() as u64, end.answered);
                let since = end.attempts().rev().take_while(|a| !a.is_answered()).last().map(|a| a.at);
                prop_assert_eq!(end.unanswered_since(), since);
            }
        }
    }
}

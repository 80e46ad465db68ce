//! What a packet becomes, from its link header on: messages, look-alikes, cut ones, fragments, errors.

use super::*;
use crate::track::handshake::Outcome;

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const SERVER: [u8; 4] = [198, 51, 100, 2];

fn udp(from: ([u8; 4], u16), to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut p = vec![0x45, 0];
    p.extend((20 + length).to_be_bytes());
    p.extend([0, 7, 0, 0, 64, 17, 0, 0]);
    p.extend([from.0, to.0].concat());
    p.extend(
        [
            from.1.to_be_bytes(),
            to.1.to_be_bytes(),
            length.to_be_bytes(),
            [0, 0],
        ]
        .concat(),
    );
    p.extend(payload);
    p
}

fn there(payload: &[u8]) -> Vec<u8> {
    udp((CLIENT, 4000), (SERVER, 53), payload)
}

fn back(payload: &[u8]) -> Vec<u8> {
    udp((SERVER, 53), (CLIENT, 4000), payload)
}

/// Bytes that look random, `seed` apart.
fn random(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    })
    .take(len)
    .collect();
    if let Some(top) = bytes.get_mut(31) {
        *top &= 0x7f;
    }
    bytes
}

fn initiation(sender: u32) -> Vec<u8> {
    let mut payload = [&[1, 0, 0, 0][..], &sender.to_le_bytes(), &random(sender, 124)].concat();
    payload.resize(148, 0);
    payload
}

fn response(receiver: u32, sender: u32) -> Vec<u8> {
    let indices = [sender.to_le_bytes(), receiver.to_le_bytes()].concat();
    let mut payload = [&[2, 0, 0, 0][..], &indices, &random(sender, 64)].concat();
    payload.resize(92, 0);
    payload
}

fn data(index: u32, counter: u64) -> Vec<u8> {
    [
        &[4, 0, 0, 0][..],
        &index.to_le_bytes(),
        &counter.to_le_bytes(),
        &random(index, 112),
    ]
    .concat()
}

fn feed(packets: &[Vec<u8>]) -> (World, Held) {
    let mut feed = Feed::new(KeyRing::default());
    for (n, bytes) in (0..).zip(packets) {
        feed.packet(&Packet {
            at: Some(Timestamp::from_nanos(n * 10_000_000)),
            link: LinkType::RawIp,
            direction: Direction::Unknown,
            wire_len: u32::try_from(bytes.len()).unwrap(),
            bytes,
        });
    }
    feed.finish()
}

#[test]
fn a_tunnel_on_the_dns_port_is_found() {
    let mut packets = vec![there(&initiation(1)), back(&response(1, 9))];
    packets.extend((0..10).flat_map(|n| [there(&data(9, n)), back(&data(1, n))]));
    let (world, held) = feed(&packets);
    assert_eq!((held.packets, held.udp), (22, 22));
    assert_eq!((world.sessions.data, world.sessions.unconfirmed), (20, 0));
    let tunnel = &world.sessions.tunnels()[0];
    assert_eq!(
        (tunnel.handshakes, tunnel.ends[0].to_string()),
        (1, "192.0.2.1:4000".to_owned())
    );
}

#[test]
fn lookalikes_are_counted_and_not_tracked() {
    let mut stun = vec![1, 1, 0, 60, 0x21, 0x12, 0xa4, 0x42];
    stun.resize(148, 7);
    let mut zeros = vec![1, 0, 0, 0];
    zeros.resize(148, 0);
    let mut warp = initiation(5);
    warp[1] = 9;
    let mut packets = vec![
        there(&stun),
        there(&zeros),
        there(&warp),
        there(b"TS\xf0\x9f\x92\xacdisco"),
    ];
    // Data of nowhere: another index each time, counters at random.
    packets.extend((0..50u32).map(|n| there(&data(n, u64::from(n.wrapping_mul(0x9e37_79b9))))));
    packets.push(there(&random(3, 148)));
    let (world, held) = feed(&packets);
    assert_eq!((held.unlikely, held.reserved), (1, 1));
    assert_eq!(
        (
            world.handshakes.messages().total(),
            world.sessions.tunnels().len()
        ),
        (0, 0)
    );
    assert_eq!(world.sessions.unconfirmed, 50);
}

#[test]
fn dialects_are_named_and_not_tracked() {
    let changed = |mut payload: Vec<u8>, header: u32| {
        payload[..4].copy_from_slice(&header.to_le_bytes());
        payload
    };
    let (world, held) = feed(&[
        there(&changed(initiation(1), 0x5a1b_9c3d)),
        back(&changed(response(1, 9), 0x7777_0001)),
        there(&changed(data(9, 0), 0x1111_2222)),
    ]);
    assert_eq!(held.changed_headers, 1);
    assert_eq!(world.handshakes.messages().total(), 0);
    assert!(world.sessions.tunnels().is_empty());
}

#[test]
fn what_tailscale_moves_is_meant() {
    let mut disco = b"TS\xf0\x9f\x92\xac".to_vec();
    disco.resize(122, 9);
    for with_disco in [false, true] {
        let elsewhere = |payload: &[u8]| udp((CLIENT, 4001), (SERVER, 53), payload);
        let mut packets = vec![there(&initiation(1)), back(&response(1, 9))];
        if with_disco {
            packets.push(there(&disco));
        }
        packets.extend((0..5).map(|n| there(&data(9, n))));
        packets.extend((5..10).map(|n| elsewhere(&data(9, n))));
        let (world, held) = feed(&packets);
        assert_eq!(held.disco, u64::from(with_disco));
        let tunnel = &world.sessions.tunnels()[0];
        assert_eq!(tunnel.moves().len(), 1);
        assert_eq!(world.sessions.moves_on_purpose(tunnel), with_disco);
    }
}

#[test]
fn handshakes_cut_by_the_snapshot_length_still_pair() {
    let cut = |mut packet: Vec<u8>| {
        packet.truncate(28 + 40);
        packet
    };
    let (world, held) = feed(&[
        cut(there(&initiation(1))),
        cut(back(&response(1, 9))),
        cut(there(&data(9, 0))),
    ]);
    assert_eq!(held.cut_handshakes, 2);
    let conversation = world.handshakes.conversations().next().unwrap();
    let attempt = conversation
        .ends()
        .iter()
        .flat_map(|e| e.attempts())
        .next()
        .unwrap();
    assert!(matches!(attempt.outcome(world.now), Outcome::Answered { .. }));
    assert_eq!(world.sessions.data, 1);
    // Without its indices there is nothing to tell.
    let (world, held) = feed(&[there(&initiation(1))[..28 + 9].to_vec()]);
    assert_eq!((held.malformed, world.handshakes.messages().total()), (1, 0));
}

#[test]
fn first_fragments_count_and_later_ones_are_counted() {
    let mut first = there(&data(9, 0));
    first[6] = 0x20;
    first.truncate(28 + 48);
    let mut later = first.clone();
    later[7] = 6;
    let (world, held) = feed(&[there(&initiation(1)), back(&response(1, 9)), first, later]);
    assert_eq!((held.later_fragments, world.sessions.data), (1, 1));
    let tunnel = &world.sessions.tunnels()[0];
    let sent = world.sessions.sent(tunnel, crate::track::sessions::Side::First);
    assert_eq!(sent.bytes, 128);
}

#[test]
fn errors_about_other_traffic_are_not_ours() {
    let about = |quoted: &[u8]| {
        let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
        icmp.extend(quoted);
        let total = u16::try_from(20 + icmp.len()).unwrap().to_be_bytes();
        let mut p = vec![0x45, 0, total[0], total[1], 0, 7, 0, 0, 64, 1, 0, 0];
        p.extend([SERVER, CLIENT].concat());
        p.extend(icmp);
        p
    };
    let dns = there(&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let (world, held) = feed(&[about(&dns), about(&there(&initiation(1)))]);
    assert_eq!(held.icmp, 2);
    let errors: Vec<_> = world
        .handshakes
        .conversations()
        .flat_map(|c| c.errors())
        .collect();
    assert_eq!((errors.len(), errors[0].count), (1, 1));
}

#[test]
fn time_that_runs_backwards_or_is_missing_is_told() {
    let mut feed = Feed::new(KeyRing::default());
    let bytes = there(&initiation(1));
    for at in [
        None,
        Some(Timestamp::from_secs(10)),
        Some(Timestamp::from_secs(5)),
        None,
    ] {
        feed.packet(&Packet {
            at,
            link: LinkType::Other(105),
            direction: Direction::Unknown,
            wire_len: 1,
            bytes: &bytes,
        });
    }
    assert_eq!((feed.held.undated, feed.held.backwards), (2, 1));
    assert_eq!((feed.held.not_ip, feed.held.unknown_link), (4, Some((4, 105))));
    let (world, _) = feed.finish();
    assert_eq!(world.now, Timestamp::from_secs(10));
}

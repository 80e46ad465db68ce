//! Sessions over time: beginnings, moves, translations, two hosts with one key, floods.

use proptest::prelude::*;

use super::*;
use crate::time::Span;

const CLIENT: &str = "192.0.2.1:40000";
const SERVER: &str = "198.51.100.2:51820";
const OTHER: &str = "203.0.113.7:40000";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(millis * 1_000_000)
}

struct Net(Sessions);

impl Net {
    fn new() -> Self {
        Self(Sessions::default())
    }

    /// `from` made a handshake with `to`: their indices.
    fn shake(&mut self, millis: i64, from: &str, to: &str, indices: (u32, u32)) {
        self.0.response(&Established {
            at: at(millis),
            initiator: addr(from),
            responder: addr(to),
            initiator_index: SessionIndex(indices.0),
            responder_index: SessionIndex(indices.1),
        });
    }

    fn send(&mut self, millis: i64, from: &str, to: &str, index: u32, counter: u64) -> bool {
        self.0.data(&DataMessage {
            at: at(millis),
            source: addr(from),
            destination: addr(to),
            receiver: SessionIndex(index),
            counter,
            len: 128,
        })
    }

    fn only(&self) -> &Tunnel {
        assert_eq!(self.0.tunnels().len(), 1);
        &self.0.tunnels()[0]
    }

    fn sent(&self, side: Side) -> DataCounts {
        self.0.sent(self.only(), side)
    }
}

/// A client with a session to a server: its data carries 9, the server's carries 1.
fn connected() -> Net {
    let mut net = Net::new();
    net.shake(0, CLIENT, SERVER, (1, 9));
    for n in 0..10 {
        assert!(net.send(10 + n, CLIENT, SERVER, 9, n.unsigned_abs()));
        assert!(net.send(11 + n, SERVER, CLIENT, 1, n.unsigned_abs()));
    }
    net
}

#[test]
fn data_belongs_to_its_session_and_loss_is_exact() {
    let mut net = connected();
    net.send(100, CLIENT, SERVER, 9, 20);
    net.send(100, SERVER, CLIENT, 1, 11);
    let (first, second) = (net.sent(Side::First), net.sent(Side::Second));
    assert_eq!(
        (first.messages, first.lost, second.messages, second.lost),
        (11, 10, 11, 1)
    );
    assert_eq!((net.0.data, net.0.unconfirmed), (22, 0));
    assert!(!net.send(100, SERVER, CLIENT, 77, 0));
    assert_eq!(net.0.unconfirmed, 1);
}

#[test]
fn rekeys_end_old_sessions_and_keep_their_counts() {
    let mut net = connected();
    for round in 1..10u32 {
        let now = i64::from(round) * 120_000;
        net.shake(now, CLIENT, SERVER, (round * 10 + 1, round * 10 + 9));
        net.send(now + 1, CLIENT, SERVER, round * 10 + 9, 0);
    }
    net.shake(1_100_000, CLIENT, SERVER, (500, 501));
    let tunnel = net.only();
    assert_eq!(
        (tunnel.handshakes, tunnel.rekeys.count, tunnel.rekeys.early),
        (11, 10, 1)
    );
    assert_eq!(tunnel.rekeys.longest, Some(Span::from_secs(120)));
    assert!(net.0.live(tunnel).count() <= 4);
    assert_eq!(net.sent(Side::First).messages, 19);
    // What is over is over: its index means nothing any more.
    assert!(!net.send(1_100_001, CLIENT, SERVER, 9, 11));
}

#[test]
fn a_session_from_before_the_capture_needs_several_messages() {
    let mut net = Net::new();
    let known: Vec<bool> = (0..6)
        .map(|n| net.send(n, CLIENT, SERVER, 9, 1000 + n.unsigned_abs()))
        .collect();
    assert_eq!(known, [false, false, false, true, true, true]);
    for n in 0..6 {
        net.send(n, SERVER, CLIENT, 1, 50 + n.unsigned_abs());
    }
    let tunnel = net.only();
    assert_eq!((tunnel.handshakes, tunnel.without_handshake), (0, 1));
    assert_eq!(net.0.live(tunnel).count(), 1);
    assert_eq!(
        (net.sent(Side::First).messages, net.sent(Side::Second).messages),
        (6, 6)
    );
    assert_eq!((net.0.unconfirmed, net.0.data), (0, 12));
}

#[test]
fn what_does_not_count_up_is_no_session() {
    let mut net = Net::new();
    for (n, index) in (0..100i64).zip(100..) {
        net.send(n, CLIENT, SERVER, 9, 5);
        net.send(
            n,
            CLIENT,
            SERVER,
            10,
            n.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3,
        );
        net.send(n, CLIENT, SERVER, index, n.unsigned_abs());
        net.send(n, CLIENT, SERVER, 11, u64::MAX - 200 + n.unsigned_abs());
    }
    assert_eq!(
        (net.0.tunnels().len(), net.0.data, net.0.unconfirmed),
        (0, 0, 400)
    );
}

#[test]
fn the_same_session_from_another_address_is_a_move() {
    let mut net = connected();
    assert!(net.send(31_000, OTHER, SERVER, 9, 10));
    // One message could be half of a pair of sightings.
    assert_eq!(net.only().moves().len(), 0);
    net.send(31_001, OTHER, SERVER, 9, 11);
    net.send(31_002, SERVER, OTHER, 1, 10);
    let tunnel = net.only();
    let moves: Vec<_> = tunnel.moves().copied().collect();
    assert_eq!(moves.len(), 1);
    let m = moves[0];
    assert_eq!(
        (m.at, m.side, m.from, m.to),
        (at(31_000), Side::First, addr(CLIENT), addr(OTHER))
    );
    assert_eq!((m.proof, m.is_port_only()), (Proof::SameSession, false));
    assert_eq!(m.silence, Span::from_millis(31_000 - 19));
    assert_eq!(tunnel.ends[0], addr(OTHER));
    // A rekey from there belongs to the same tunnel.
    net.shake(120_000, OTHER, SERVER, (2, 8));
    assert_eq!(net.only().handshakes, 2);
    assert_eq!(net.sent(Side::First).lost, 0);
}

#[test]
fn late_messages_from_the_old_address_do_not_move_it_back() {
    let mut net = connected();
    net.send(100, OTHER, SERVER, 9, 11);
    net.send(101, OTHER, SERVER, 9, 12);
    net.send(102, CLIENT, SERVER, 9, 10);
    net.send(103, SERVER, CLIENT, 1, 10);
    assert_eq!((net.only().moves().len(), net.only().to_old_address), (1, 0));
    // A server that never follows has not accepted what came from there.
    for n in 0..5 {
        net.send(20_000 + n, SERVER, CLIENT, 1, 11 + n.unsigned_abs());
    }
    assert_eq!((net.only().moves().len(), net.only().to_old_address), (1, 5));
}

#[test]
fn a_port_alone_may_change_and_back() {
    let mut net = connected();
    let ports = ["192.0.2.1:40001", CLIENT, "192.0.2.1:40002"];
    for (round, from) in (1..).zip(ports) {
        for n in 0..3 {
            net.send(
                round * 60_000 + n,
                from,
                SERVER,
                9,
                round.unsigned_abs() * 100 + n.unsigned_abs(),
            );
        }
    }
    assert_eq!(net.only().moves().len(), 3);
    assert!(net.only().moves().all(Move::is_port_only));
    assert!(net.only().moves().all(|m| m.quiet > Span::from_secs(59)));
}

#[test]
fn both_sides_of_a_translation_in_one_capture_are_no_move() {
    // The router sees each packet twice: as the client sends it, and as its own address sends it on.
    let outside = "203.0.113.1:1024";
    let mut net = Net::new();
    net.shake(0, outside, SERVER, (1, 9));
    net.shake(0, CLIENT, SERVER, (1, 9));
    for n in 0..20 {
        for from in [CLIENT, outside] {
            net.send(n, from, SERVER, 9, n.unsigned_abs());
        }
        for to in [outside, CLIENT] {
            net.send(n, SERVER, to, 1, n.unsigned_abs());
        }
    }
    let tunnel = net.only();
    let aliases: Vec<_> = tunnel.aliases().map(|alias| alias.address).collect();
    assert_eq!((tunnel.moves().len(), aliases), (0, vec![addr(CLIENT)]));
    assert_eq!(
        (
            tunnel.handshakes,
            net.sent(Side::First).messages,
            net.sent(Side::First).duplicates
        ),
        (1, 20, 20)
    );

    // The same without a handshake.
    let mut net = Net::new();
    for n in 0..20 {
        for from in [CLIENT, outside] {
            net.send(n, from, SERVER, 9, 500 + n.unsigned_abs());
        }
    }
    assert_eq!(net.0.tunnels().iter().map(|t| t.moves().len()).sum::<usize>(), 0);
}

/// Another host with the client's key makes a handshake; the server's newest session is then with that one.
fn second_host(net: &mut Net, millis: i64) {
    net.shake(millis, OTHER, SERVER, (2, 8));
    net.send(millis + 1, OTHER, SERVER, 8, 0);
    net.send(millis + 2, SERVER, OTHER, 2, 0);
}

#[test]
fn two_hosts_with_one_key_contradict_each_other() {
    let mut net = connected();
    second_host(&mut net, 20_000);
    // The first host knows nothing of that and goes on; the server follows it with the newest session.
    for n in 0..10 {
        net.send(25_000 + n * 500, CLIENT, SERVER, 9, 10 + n.unsigned_abs());
        net.send(25_001 + n * 500, SERVER, CLIENT, 2, 1 + n.unsigned_abs());
    }
    net.0.finish();
    let rivalry = net.0.tunnels().iter().find_map(|t| t.rivalry).expect("two hosts");
    assert_eq!(rivalry.with, addr(SERVER));
    let mut hosts = rivalry.hosts;
    hosts.sort_unstable();
    assert_eq!(hosts, [addr(CLIENT), addr(OTHER)]);
}

#[test]
fn two_hosts_with_one_key_are_seen_from_the_middle_too() {
    // The first host's handshake was before the capture, and it has sent once when the second one comes.
    let mut net = Net::new();
    net.send(0, CLIENT, SERVER, 9, 100);
    second_host(&mut net, 1_000);
    for n in 0..10 {
        net.send(5_000 + n * 500, CLIENT, SERVER, 9, 101 + n.unsigned_abs());
        net.send(5_001 + n * 500, SERVER, CLIENT, 2, 1 + n.unsigned_abs());
    }
    net.0.finish();
    assert!(net.0.tunnels().iter().any(|t| t.rivalry.is_some()));
    assert!(net.0.tunnels().iter().all(|t| t.moves().len() == 0));
}

#[test]
fn two_peers_with_keys_of_their_own_do_not() {
    let mut net = connected();
    second_host(&mut net, 20_000);
    for n in 0..10 {
        net.send(25_000 + n * 500, CLIENT, SERVER, 9, 10 + n.unsigned_abs());
        net.send(25_001 + n * 500, SERVER, CLIENT, 1, 10 + n.unsigned_abs());
        net.send(25_002 + n * 500, OTHER, SERVER, 8, 1 + n.unsigned_abs());
        net.send(25_003 + n * 500, SERVER, OTHER, 2, 1 + n.unsigned_abs());
    }
    net.0.finish();
    assert!(
        net.0
            .tunnels()
            .iter()
            .all(|t| t.rivalry.is_none() && t.moves().len() == 0)
    );
}

#[test]
fn roaming_with_a_new_handshake_is_a_move_and_no_second_host() {
    let mut net = connected();
    // Until it is confirmed the server goes on with the old session, to the new address.
    net.shake(20_000, OTHER, SERVER, (2, 8));
    net.send(20_001, SERVER, OTHER, 1, 10);
    net.send(20_002, SERVER, OTHER, 1, 11);
    net.send(20_003, OTHER, SERVER, 8, 0);
    // A straggler from the old address.
    net.send(20_100, CLIENT, SERVER, 9, 10);
    for n in 0..10 {
        net.send(25_000 + n, OTHER, SERVER, 8, 1 + n.unsigned_abs());
    }
    net.0.finish();
    assert!(net.0.tunnels().iter().all(|t| t.rivalry.is_none()));
    let moves: Vec<_> = net.0.tunnels().iter().flat_map(|t| t.moves().copied()).collect();
    assert_eq!(moves.len(), 1);
    assert_eq!(
        (moves[0].from, moves[0].to, moves[0].at),
        (addr(CLIENT), addr(OTHER), at(20_000))
    );
    assert_eq!(moves[0].proof, Proof::OtherSideFollowed);
}

#[test]
fn equal_indices_of_two_clients_are_two_sessions() {
    let mut net = Net::new();
    net.shake(0, CLIENT, SERVER, (1, 9));
    net.shake(0, OTHER, SERVER, (1, 8));
    for n in 0..10 {
        net.send(n, SERVER, CLIENT, 1, n.unsigned_abs());
        net.send(n, SERVER, OTHER, 1, n.unsigned_abs());
    }
    net.0.finish();
    assert_eq!(net.0.tunnels().len(), 2);
    for tunnel in net.0.tunnels() {
        assert_eq!(
            (net.0.sent(tunnel, Side::Second).messages, tunnel.moves().len()),
            (10, 0)
        );
        assert!(tunnel.kin.is_empty());
    }
}

#[test]
fn a_flood_of_handshakes_is_bounded() {
    let mut net = connected();
    for n in 0..20_000u32 {
        let from = SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(), 7);
        net.shake(1000 + i64::from(n), &from.to_string(), SERVER, (n, n));
        assert!(net.0.tunnels().len() <= TUNNELS_KEPT && net.0.slots.len() <= SESSIONS_KEPT);
        net.send(1000 + i64::from(n), CLIENT, SERVER, 9, 10 + u64::from(n));
    }
    assert_eq!(net.0.dropped_tunnels + net.0.tunnels().len() as u64, 20_001);
    // Who goes on talking is kept.
    let tunnel = net.0.between(addr(CLIENT), addr(SERVER)).unwrap();
    assert_eq!(net.0.sent(tunnel, Side::First).messages, 20_010);
    assert!(net.0.by_index.len() <= 2 * SESSIONS_KEPT && net.0.by_pair.len() <= TUNNELS_KEPT);
}

proptest! {
    /// Whatever comes: no panic, the chains of equal indices stay sound, and every message is counted once.
    #[test]
    fn any_traffic(steps in proptest::collection::vec((0..6u8, 0..3usize, 0..3usize, 0..4u32, 0..4u32, 0..40u64), 0..300)) {
        let ends = [CLIENT, SERVER, OTHER];
        let mut net = Net::new();
        let mut data = 0;
        for (time, (what, from, to, one, two, counter)) in (0..).zip(steps) {
            if what == 0 {
                net.shake(time * 700, ends[from], ends[to], (one, two));
            } else {
                net.send(time * 700, ends[from], ends[to], one, counter);
                data += 1;
            }
            for (index, head) in &net.0.by_index {
                let (mut next, mut length) = (Some(*head), 0);
                while let Some(id) = next {
                    let stream = net.0.stream(id).expect("a chain leads to streams");
                    prop_assert_eq!(stream.index, Some(SessionIndex(*index)));
                    next = stream.next;
                    length += 1;
                    prop_assert!(length <= 2 * SESSIONS_KEPT);
                }
            }
        }
        net.0.finish();
        prop_assert_eq!(net.0.data + net.0.unconfirmed, data);
    }
}

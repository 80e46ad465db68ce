use super::*;
use crate::types::PublicKey;
use Implementation::{Boringtun, Kernel, WireguardGo};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + secs)
}

fn snapshot(rx: u64, tx: u64, handshake: Option<i64>) -> PeerSnapshot {
    PeerSnapshot {
        public_key: PublicKey([7; 32]),
        has_preshared_key: false,
        endpoint: Some(SocketAddr::from(([198, 51, 100, 7], 51820))),
        last_handshake: handshake.map(at),
        rx_bytes: rx,
        tx_bytes: tx,
        keepalive: None,
        allowed_ips: Vec::new(),
    }
}

fn track(implementation: Implementation, snapshots: &[(i64, u64, u64, Option<i64>)]) -> PeerTrack {
    let (t, rx, tx, hs) = snapshots[0];
    let mut peer = PeerTrack::new(at(t), &snapshot(rx, tx, hs));
    for (t, rx, tx, hs) in &snapshots[1..] {
        peer.apply(at(*t), &snapshot(*rx, *tx, *hs), implementation);
    }
    peer
}

#[test]
fn attempts_are_proven_by_the_bytes_sent() {
    for (implementation, snapshots, expected) in [
        // Seen at once: three left; the newest may still be answered.
        (Kernel, vec![(0, 0, 3 * 148, None)], Some((3, 2))),
        // Five seconds on without another: the newest is unanswered too.
        (
            Kernel,
            vec![(0, 0, 2 * 148, None), (5, 0, 2 * 148, None)],
            Some((2, 2)),
        ),
        (
            WireguardGo,
            vec![(0, 0, 148, None), (5, 0, 2 * 148, None)],
            Some((2, 1)),
        ),
        // Never tried.
        (Kernel, vec![(0, 0, 0, None)], None),
        // It answered: rx is no longer zero, and nothing has left since.
        (
            Kernel,
            vec![(0, 0, 2 * 148, None), (1, 92, 3 * 148, Some(1))],
            None,
        ),
        // boringtun's counters hold no handshake bytes.
        (Boringtun, vec![(0, 0, 3 * 148, None)], None),
        // An old session; two initiations leave while watched.
        (
            Kernel,
            vec![
                (0, 5_000, 7_001, Some(-500)),
                (1, 5_000, 7_149, Some(-500)),
                (6, 5_000, 7_297, Some(-500)),
            ],
            Some((2, 1)),
        ),
        // A responder: what it sends are responses.
        (
            Kernel,
            vec![
                (0, 148, 92, None),
                (5, 2 * 148, 2 * 92, None),
                (10, 3 * 148, 3 * 92, None),
            ],
            None,
        ),
    ] {
        let peer = track(implementation, &snapshots);
        let counted = peer.counted_attempts(implementation);
        assert_eq!(
            counted.map(|c| (c.sent, c.unanswered)),
            expected,
            "{implementation:?} {snapshots:?}"
        );
    }
}

#[test]
fn unheard_data_is_dated_from_the_first_byte() {
    let mut steps = vec![(0, 92, 400, Some(-3))];
    steps.extend((1..=8).map(|t| (t, 92, 400 + 128 * i64::unsigned_abs(t), Some(-3))));
    let peer = track(Kernel, &steps);
    assert_eq!(peer.traffic.unheard_since, Some(at(1)));
    assert_eq!(peer.traffic.unheard_bytes, 8 * 128);
    // A keepalive is heard, but it is not data.
    steps.push((9, 124, 400 + 128 * 9, Some(-3)));
    steps.push((10, 124, 400 + 128 * 10, Some(-3)));
    let peer = track(Kernel, &steps);
    assert_eq!(peer.traffic.unheard_since, Some(at(10)));
    assert_eq!(peer.traffic.undelivered_since, Some(at(1)));
    // Data is both.
    steps.push((11, 124 + 128, 400 + 128 * 11, Some(-3)));
    let peer = track(Kernel, &steps);
    assert_eq!(peer.traffic.unheard_since, None);
    assert_eq!(peer.traffic.undelivered_since, None);
    // A response in between is a handshake, and answers no data.
    let peer = track(
        Kernel,
        &[
            (0, 92, 0, Some(0)),
            (1, 92, 640, Some(0)),
            (2, 184, 788, Some(2)),
            (3, 184, 1_500, Some(2)),
        ],
    );
    assert_eq!(peer.traffic.unheard_since, Some(at(1)));
    assert_eq!(peer.handshake_gap(), Some(Span::from_secs(2)));
}

#[test]
fn keepalives_sent_are_not_data() {
    let mut peer = PeerTrack::new(at(0), &snapshot(92, 180, Some(0)));
    for n in 1..20 {
        let mut s = snapshot(92, 180 + 32 * n, Some(0));
        s.keepalive = Some(5);
        peer.apply(at(5 * n as i64), &s, Kernel);
    }
    assert_eq!(peer.traffic.data_sent_at, None);
    assert_eq!(peer.traffic.unheard_since, None);
}

#[test]
fn small_packets_add_up_to_data() {
    // 32 bytes of content in 64, twice a second: two keepalives' worth each time, and too many of them.
    let mut peer = PeerTrack::new(at(0), &snapshot(92, 500, Some(-5)));
    let start = at(0);
    for n in 1..=8u32 {
        let s = snapshot(92, 500 + 64 * u64::from(n), Some(-5));
        peer.apply(start + Span::from_millis(500) * n, &s, WireguardGo);
    }
    assert!(peer.traffic.unheard_since.is_some_and(|since| since <= at(1)));
}

#[test]
fn counters_that_go_back_start_anew() {
    let peer = track(
        Kernel,
        &[(0, 900, 900, Some(0)), (1, 950, 990, Some(0)), (2, 0, 148, None)],
    );
    assert_eq!(peer.first_at, at(2));
    assert_eq!(peer.delta(), (0, 0));
    assert_eq!(peer.newest.last_handshake, None);
}

#[test]
fn histories_are_bounded() {
    let mut peer = PeerTrack::new(at(0), &snapshot(0, 0, None));
    for n in 0..100u16 {
        let mut s = snapshot(0, 0, Some(i64::from(n) * 10));
        s.endpoint = Some(SocketAddr::from(([198, 51, 100, 7], 1_000 + n)));
        peer.apply(at(i64::from(n) + 1), &s, Kernel);
    }
    assert_eq!(peer.endpoint_changes.len(), MAX_CHANGES);
    assert_eq!(peer.endpoint_change_count, 100);
    assert_eq!(peer.handshakes.len(), MAX_HANDSHAKES);
}

#[test]
fn boringtuns_rounded_age_is_one_handshake() {
    let peer = track(
        Boringtun,
        &[
            (0, 10, 10, Some(-5)),
            (1, 10, 10, Some(-6)),
            (2, 10, 10, Some(-5)),
        ],
    );
    assert_eq!(peer.handshakes.len(), 1);
    assert_eq!(peer.handshake_gap(), None);
}

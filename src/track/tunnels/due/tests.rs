use super::super::peer::PeerTrack;
use super::super::wire::{Attempt, IcmpSeen, Outcome, PeerWire};
use super::*;
use crate::observation::Source;
use crate::observation::device::{DeviceSnapshot, Implementation, PeerSnapshot};
use crate::track::handshake::IcmpNote;
use crate::types::PublicKey;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos(1_700_000_000_000_000_000 + millis * 1_000_000)
}

fn device(implementation: Implementation) -> DeviceTrack {
    DeviceTrack {
        info: DeviceSnapshot {
            name: "wg0".to_owned(),
            if_index: None,
            implementation,
            public_key: None,
            listen_port: Some(51820),
            fwmark: 0,
            peers: Vec::new(),
            problems: Vec::new(),
        },
        source: Source::WireguardUapi,
        seen_at: at(0),
        vanished_at: None,
        peers: std::collections::BTreeMap::new(),
    }
}

fn snapshot(rx: u64, tx: u64, handshake: Option<i64>, keepalive: Option<u16>) -> PeerSnapshot {
    PeerSnapshot {
        public_key: PublicKey([1; 32]),
        has_preshared_key: false,
        endpoint: Some(std::net::SocketAddr::from(([198, 51, 100, 7], 51820))),
        last_handshake: handshake.map(at),
        rx_bytes: rx,
        tx_bytes: tx,
        keepalive,
        allowed_ips: Vec::new(),
    }
}

fn wire(attempts: &[(i64, Outcome)]) -> PeerWire {
    PeerWire {
        attempts: attempts
            .iter()
            .map(|(millis, outcome)| Attempt {
                at: at(*millis),
                outcome: *outcome,
            })
            .collect(),
        ..PeerWire::default()
    }
}

fn port_unreachable(millis: i64) -> IcmpSeen {
    IcmpSeen {
        at: at(millis),
        note: IcmpNote {
            at: at(millis),
            from: std::net::IpAddr::from([198, 51, 100, 7]),
            icmp_type: 3,
            code: 3,
            sent_here: false,
        },
        about: None,
        count: 1,
    }
}

/// When and for what, in milliseconds after the start.
fn due(
    implementation: Implementation,
    snapshots: &[(i64, PeerSnapshot)],
    wire: &PeerWire,
    now: i64,
) -> Option<(i64, &'static str)> {
    due_with_tap(implementation, snapshots, wire, None, now)
}

/// The same, where the wire is watched since `tapped`.
fn due_with_tap(
    implementation: Implementation,
    snapshots: &[(i64, PeerSnapshot)],
    wire: &PeerWire,
    tapped: Option<i64>,
    now: i64,
) -> Option<(i64, &'static str)> {
    let (first_at, first) = &snapshots[0];
    let mut peer = PeerTrack::new(at(*first_at), first);
    for (millis, snapshot) in &snapshots[1..] {
        peer.apply(at(*millis), snapshot, implementation);
    }
    of(&device(implementation), &peer, wire, tapped.map(at), at(now)).map(|due| {
        let millis = (due.at.as_nanos() - at(0).as_nanos()) / 1_000_000;
        let what = [
            "next handshake attempt",
            "to answer",
            "to send anything",
            "to take",
        ]
        .into_iter()
        .find(|words| due.what.contains(words));
        (millis, what.unwrap_or("something else"))
    })
}

#[test]
fn attempts_on_the_wire() {
    use Outcome::{Answered, Pending, Unanswered, Unreachable};
    let never = [(0, snapshot(0, 0, None, None))];
    let retry = "next handshake attempt";
    for (attempts, now, expected) in [
        // Nothing was tried, and nothing makes it try.
        (vec![], 5_000, None),
        // One is under way: its retry would be the first proof.
        (vec![(4_000, Pending)], 5_000, Some((4_000 + 5_634, retry))),
        // One failed and the next is under way: its end is the verdict.
        (
            vec![(1_000, Unanswered), (6_200, Pending)],
            7_000,
            Some((6_200 + 5_634, "to answer")),
        ),
        // One failed and its retry is on the way.
        (vec![(1_000, Unanswered)], 6_350, Some((6_634, retry))),
        // That has passed: nothing left, and nothing is due.
        (vec![(1_000, Unanswered)], 7_000, None),
        // Two failed: settled.
        (
            vec![(1_000, Unanswered), (6_200, Unanswered), (11_400, Pending)],
            12_000,
            None,
        ),
        (vec![(1_000, Unanswered), (6_200, Unreachable)], 7_000, None),
        // Answered: whether it was taken shows in the device a moment later.
        (
            vec![(1_000, Answered(at(1_030)))],
            1_100,
            Some((1_030 + 800, "to take")),
        ),
        (vec![(1_000, Answered(at(1_030)))], 2_000, None),
    ] {
        assert_eq!(
            due(Implementation::Boringtun, &never, &wire(&attempts), now),
            expected,
            "{attempts:?} at {now}"
        );
    }
}

#[test]
fn attempts_in_the_counters() {
    let retry = "next handshake attempt";
    let seen = |millis, tx| (millis, snapshot(0, tx, None, None));
    for (snapshots, now, expected) in [
        // One left, unknown when.
        (vec![seen(0, 148)], 100, Some((5_634, retry))),
        // Two: the first failed, the second may be new.
        (vec![seen(0, 296)], 100, Some((5_634, "to answer"))),
        // Two failed. Whether it still tries is open until a retry would have come.
        (vec![seen(0, 296), seen(5_000, 296)], 5_000, Some((6_000, retry))),
        (vec![seen(0, 296), seen(6_100, 296)], 6_100, None),
        // It was seen to try: settled.
        (
            vec![seen(0, 296), seen(2_000, 444), seen(5_000, 444)],
            5_000,
            None,
        ),
    ] {
        assert_eq!(
            due(Implementation::Kernel, &snapshots, &PeerWire::default(), now),
            expected,
            "{snapshots:?}"
        );
    }
}

#[test]
fn an_attempt_from_before_the_tap_was_open_is_followed_by_one_that_it_sees() {
    let seen = |millis, tx| (millis, snapshot(0, tx, None, None));
    let snapshots = [seen(0, 296), seen(1_000, 444), seen(5_000, 444), seen(6_200, 444)];
    for (tapped, now, expected) in [
        (None, 6_200, None),
        (Some(0), 6_200, None),
        (Some(500), 6_200, Some((7_000, "next handshake attempt"))),
        (Some(500), 7_100, None),
    ] {
        let due = due_with_tap(
            Implementation::Kernel,
            &snapshots,
            &PeerWire::default(),
            tapped,
            now,
        );
        assert_eq!(due, expected, "{tapped:?} {now}");
    }
}

#[test]
fn a_keepalive_never_rests() {
    let dead = |keepalive| [(0, snapshot(9_000, 9_001, Some(-400_000), keepalive))];
    let none = PeerWire::default();
    assert_eq!(due(Implementation::Kernel, &dead(None), &none, 5_000), None);
    assert_eq!(
        due(Implementation::Kernel, &dead(Some(25)), &none, 5_000),
        Some((6_000, "next handshake attempt"))
    );
    assert_eq!(due(Implementation::Kernel, &dead(Some(25)), &none, 6_500), None);
    let live = [(0, snapshot(9_000, 9_001, Some(-40_000), Some(25)))];
    assert_eq!(due(Implementation::Kernel, &live, &none, 5_000), None);
}

#[test]
fn unanswered_data() {
    let ping = |secs: i64, rx| {
        let tx = 10_000 + 128 * secs.unsigned_abs();
        (secs * 1_000, snapshot(rx, tx, Some(-10_000), None))
    };
    let none = PeerWire::default();
    let mut snapshots: Vec<_> = (0..=2).map(|s| ping(s, 92)).collect();
    // One second without an answer happens.
    assert_eq!(due(Implementation::Kernel, &snapshots, &none, 2_000), None);
    snapshots.push(ping(3, 92));
    // Data first seen at 1 s: 15 s for the protocol to react.
    assert_eq!(
        due(Implementation::Kernel, &snapshots, &none, 3_000),
        Some((16_300, "to send anything"))
    );
    // The network has said why: there is nothing to wait for.
    let told = PeerWire {
        icmp: Some(port_unreachable(1_001)),
        ..PeerWire::default()
    };
    assert_eq!(due(Implementation::Kernel, &snapshots, &told, 3_000), None);
    // Data came.
    snapshots.push(ping(4, 92 + 1_400));
    assert_eq!(due(Implementation::Kernel, &snapshots, &none, 4_000), None);
}

#[test]
fn without_an_endpoint_nothing_is_due() {
    let mut peer = snapshot(0, 0, None, Some(25));
    peer.endpoint = None;
    let pending = wire(&[(0, Outcome::Pending)]);
    assert_eq!(due(Implementation::Kernel, &[(0, peer)], &pending, 10), None);
}

//! Days in a moment: what a window forgets, and what it must not.

use super::*;
use crate::observation::conntrack::{CtCpuStats, CtStats};
use crate::observation::device::PeerSnapshot;
use crate::observation::device::{DeviceSnapshot, Implementation};
use crate::observation::packet::{Bytes, Direction, WirePacket};
use crate::observation::socket::{DestinationTally, ProcessFacts, ProcessTable, SocketTally, StateCounts};
use crate::observation::{SourceState, SourceStatus};
use crate::types::{Proto, PublicKey};

const FAR: Span = crate::config::agent::LONG_WINDOW;

fn at(secs: i64, source: Source, body: Body) -> Observation {
    Observation {
        at: Timestamp::from_secs(secs),
        took: Span::ZERO,
        source,
        body,
    }
}

fn stats(drop: u32) -> Body {
    Body::ConntrackStats(CtStats {
        count: 10,
        max: Some(100),
        cpus: vec![CtCpuStats {
            drop,
            ..CtCpuStats::default()
        }],
    })
}

fn dropped(world: &World) -> u64 {
    world.conntrack.moved().map_or(0, |moved| moved.drop)
}

#[test]
fn what_happened_is_forgotten_after_two_windows_and_not_before_one() {
    let mut windows = Windows::new(Timestamp::from_secs(0), FAR);
    windows.apply(at(1, Source::Conntrack, stats(0)));
    // Long after the start, three packets are dropped; then never again.
    for second in 2..1000 {
        windows.apply(at(second, Source::Conntrack, stats(0)));
    }
    windows.apply(at(1000, Source::Conntrack, stats(3)));
    let mut last_near = 0;
    let mut last_far = 0;
    for second in 1001..4000 {
        windows.apply(at(second, Source::Conntrack, stats(3)));
        if dropped(windows.near()) == 3 {
            last_near = second;
        }
        if dropped(windows.far()) == 3 {
            last_far = second;
        }
        assert!(windows.near().watched() <= NEAR * 2 + Span::from_secs(1));
        assert!(windows.far().watched() <= FAR * 2 + Span::from_secs(1));
    }
    assert!((1059..=1121).contains(&last_near), "{last_near}");
    // Conntrack itself forgets what moved more than some minutes ago.
    assert!((1500..=2801).contains(&last_far), "{last_far}");
}

#[test]
fn another_length_is_taken_over_while_it_watches() {
    let mut windows = Windows::new(Timestamp::from_secs(0), FAR);
    let mut longest = Span::ZERO;
    for second in 0..4000 {
        if second == 2000 {
            windows.set_far(Span::from_secs(120));
        }
        windows.apply(at(second, Source::Conntrack, stats(0)));
        if second >= 2002 {
            longest = longest.max(windows.far().watched());
        }
        assert!(
            second < 2500 || windows.far().watched() >= Span::from_secs(119),
            "{second}"
        );
    }
    assert!(longest <= FAR * 2, "{longest:?}");
    assert!(windows.far().watched() <= Span::from_secs(241));
}

#[test]
fn what_was_told_once_is_known_for_ever() {
    let mut windows = Windows::new(Timestamp::from_secs(0), FAR);
    let device = DeviceSnapshot {
        name: "wg0".to_owned(),
        if_index: None,
        implementation: Implementation::Kernel,
        public_key: None,
        listen_port: None,
        fwmark: 0,
        peers: Vec::new(),
        problems: Vec::new(),
    };
    windows.apply(at(1, Source::WireguardNetlink, Body::Devices(vec![device])));
    windows.apply(at(1, Source::WireguardNetlink, Body::Status(SourceStatus::ok())));
    for second in (2..20_000).step_by(50) {
        windows.apply(at(second, Source::Conntrack, stats(0)));
    }
    assert!(windows.near().tunnels.device("wg0").is_some());
    assert!(windows.far().tunnels.device("wg0").is_some());
    let status = windows.near().sources.get(Source::WireguardNetlink).unwrap();
    assert_eq!(status.state, SourceState::Ok);
}

#[test]
fn a_clock_that_is_set_begins_both_windows_anew_and_loses_no_state() {
    for (second, step) in [
        (1000 - 3600, Step::Back(Span::from_secs(3600))),
        (1000 + 86_400, Step::Forward(Span::from_secs(86_400))),
    ] {
        let mut windows = Windows::new(Timestamp::from_secs(900), FAR);
        windows.apply(at(990, Source::Conntrack, stats(0)));
        windows.apply(at(1000, Source::Conntrack, stats(3)));
        let (_, stepped) = windows.apply(at(second, Source::Host, Body::Status(SourceStatus::ok())));
        assert_eq!(stepped, Some(step));
        assert_eq!(windows.near().now, Timestamp::from_secs(second));
        assert_eq!(dropped(windows.near()), 0);
        assert_eq!(windows.near().conntrack.newest().unwrap().count, 10);
        let (_, stepped) = windows.apply(at(second + 1, Source::Conntrack, stats(5)));
        assert_eq!(stepped, None);
        assert_eq!(dropped(windows.near()), 2);
    }
}

#[test]
fn a_late_observation_is_no_step() {
    let mut windows = Windows::new(Timestamp::from_secs(900), FAR);
    windows.apply(at(1000, Source::Conntrack, stats(0)));
    assert_eq!(windows.apply(at(995, Source::Conntrack, stats(0))).1, None);
}

/// A host on which nothing stays: peers that roam and go, callers from new ports, destinations and processes that come
/// and go.
fn restless(second: i64) -> Vec<Observation> {
    let n = u32::try_from(second).unwrap();
    let [.., high, low] = n.to_be_bytes();
    let peers = (0..20_u8).map(|peer| PeerSnapshot {
        public_key: PublicKey([if peer < 15 { peer } else { low }; 32]),
        has_preshared_key: false,
        endpoint: Some(([203, 0, high, peer], 1024 + u16::from(low)).into()),
        last_handshake: Some(Timestamp::from_secs(second - second % 120)),
        rx_bytes: u64::from(n) * 100,
        tx_bytes: u64::from(n) * 100,
        keepalive: Some(25),
        allowed_ips: vec!["10.0.0.0/24".parse().unwrap()],
    });
    let device = DeviceSnapshot {
        name: "wg0".to_owned(),
        if_index: None,
        implementation: Implementation::Kernel,
        public_key: None,
        listen_port: Some(51820),
        fwmark: 0,
        peers: peers.collect(),
        problems: Vec::new(),
    };
    let mut initiation = [&[1, 0, 0, 0], &n.to_le_bytes()[..]].concat();
    initiation.resize(148, low);
    let packet = WirePacket {
        direction: Direction::In,
        if_index: None,
        source: ([198, 51, high, low], 40_000).into(),
        destination: ([192, 0, 2, 1], 51820).into(),
        tos: 0,
        payload_len: 148,
        payload: Bytes(initiation),
    };
    let destination = |index: u8| {
        let mut states = StateCounts::default();
        states.0[1] = 5;
        DestinationTally {
            proto: Proto::Tcp,
            source: [10, 0, 0, 2].into(),
            destination: ([203, 0, index, low], 443).into(),
            ports_in_range: 5,
            states,
            time_wait_left: [0; 6],
            inodes: vec![n],
            uids: Vec::new(),
        }
    };
    let process = ProcessFacts {
        pid: 1000 + n % 30_000,
        start_ticks: u64::from(n),
        comm: "short".to_owned(),
        exe: None,
        runtime: None,
        fds: 10,
        sockets: 5,
        fd_limit: Some(1024),
    };
    vec![
        at(second, Source::WireguardNetlink, Body::Devices(vec![device])),
        at(second, Source::Capture, Body::Packet(packet)),
        at(
            second,
            Source::Sockets,
            Body::Sockets(SocketTally {
                destinations: (0..20).map(destination).collect(),
                ..SocketTally::default()
            }),
        ),
        at(
            second,
            Source::Processes,
            Body::Processes(ProcessTable {
                owners: vec![(n, process.pid)],
                processes: vec![process],
                unreadable: 0,
            }),
        ),
        at(second, Source::Conntrack, stats(n)),
    ]
}

#[test]
fn a_restless_day_leaves_no_more_than_its_last_hour() {
    let mut windows = Windows::new(Timestamp::from_secs(100), FAR);
    // What it holds, by what it would print: that shows every collection, whoever keeps it.
    let mut sizes = Vec::new();
    for second in (100..86_500).step_by(20) {
        for observation in restless(second) {
            windows.apply(observation);
        }
        if second % 7200 == 100 {
            let held = format!("{:?}{:?}", windows.near(), windows.far());
            sizes.push(held.len());
        }
    }
    let (first, rest) = sizes[1..].split_first().unwrap();
    let largest = rest.iter().max().unwrap();
    assert!(*largest < first + first / 2, "{sizes:?}");
}

fn path(target: &str, millis: u64) -> Body {
    let rtts = crate::observation::path::Rtts(vec![Span::from_millis(millis); 10]);
    Body::Path(Box::new(crate::observation::path::PathSample {
        sent: 10,
        rtts,
        ..crate::observation::path::PathSample::unmeasured(target.parse().unwrap())
    }))
}

fn median(world: &World, target: &str) -> Option<Span> {
    let mut paths = world.paths.iter();
    paths.find(|p| p.sample.target.to_string() == target)?.now.median
}

#[test]
fn every_target_is_known_between_its_rounds_and_its_past_from_afar() {
    let mut windows = Windows::new(Timestamp::from_secs(0), FAR);
    // Slowed down by the CPU budget: a round each five minutes, two near windows long.
    for second in (10..4000).step_by(10) {
        windows.apply(at(second, Source::Host, Body::Status(SourceStatus::ok())));
        if second % 300 == 10 {
            for (target, millis) in [("192.0.2.1", 5), ("192.0.2.2", 7)] {
                windows.apply(at(second, Source::Paths, path(target, millis)));
            }
        }
        for world in [windows.near(), windows.far()] {
            assert_eq!(median(world, "192.0.2.1"), Some(Span::from_millis(5)), "{second}");
            assert_eq!(median(world, "192.0.2.2"), Some(Span::from_millis(7)), "{second}");
        }
    }
    let far = windows.far().paths.iter().next().unwrap();
    assert!(far.past.len() >= 3, "{}", far.past.len());
    // Nothing newer comes: what is hours old is no longer how things are.
    for second in (4000..20_000).step_by(10) {
        windows.apply(at(second, Source::Host, Body::Status(SourceStatus::ok())));
    }
    for world in [windows.near(), windows.far()] {
        assert_eq!(world.paths.iter().count(), 0);
    }
}

#[test]
fn whoever_is_no_longer_asked_is_forgotten_at_once_and_stays_so() {
    let mut windows = Windows::new(Timestamp::from_secs(0), FAR);
    windows.apply(at(1, Source::Conntrack, stats(0)));
    windows.apply(at(1, Source::Paths, path("192.0.2.1", 5)));
    windows.apply(at(1, Source::Paths, Body::Status(SourceStatus::ok())));
    assert!(windows.near().sources.sees(Source::Paths));
    windows.forget(Source::Paths);
    for second in (1..3000).step_by(10) {
        for world in [windows.near(), windows.far()] {
            assert_eq!(world.paths.iter().count(), 0, "{second}");
            assert!(world.sources.get(Source::Paths).is_none(), "{second}");
            assert!(world.conntrack.newest().is_some(), "{second}");
        }
        windows.apply(at(second, Source::Host, Body::Status(SourceStatus::ok())));
    }
}

/// What a source told before it went blind is not how things are now: the next world does not know it.
#[test]
fn what_a_blind_source_once_told_is_not_handed_on() {
    let mut windows = Windows::new(Timestamp::from_secs(0), FAR);
    let status = |status| Body::Status(status);
    windows.apply(at(1, Source::Conntrack, status(SourceStatus::ok())));
    windows.apply(at(1, Source::Conntrack, stats(0)));
    assert!(windows.sight().sees.contains(&Source::Conntrack));
    windows.apply(at(
        2,
        Source::Conntrack,
        status(SourceStatus::unavailable("killed")),
    ));
    assert!(windows.sight().blind.contains(&Source::Conntrack));
    // Within one world a single look that fails takes nothing back.
    assert!(windows.near().sources.sees(Source::Conntrack));
    for second in 3..200 {
        windows.apply(at(second, Source::Host, status(SourceStatus::ok())));
        windows.handle_timeout(Timestamp::from_secs(second));
    }
    assert!(
        !windows.near().sources.sees(Source::Conntrack),
        "or its rules would be told clear"
    );
    assert!(
        windows.near().sources.get(Source::Conntrack).is_some(),
        "that it is blind is known"
    );
    windows.apply(at(201, Source::Conntrack, status(SourceStatus::ok())));
    windows.apply(at(201, Source::Conntrack, stats(0)));
    assert!(windows.sight().blind.is_empty());
}

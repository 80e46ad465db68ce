//! Watching, with observers that are made up.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::*;
use crate::config::Flags;
use crate::config::file::File;
use crate::observation::device::{DeviceSnapshot, Implementation, PeerSnapshot};
use crate::observation::host::{RouteAnswer, RouteWay};
use crate::observation::{Request, SourceState};
use crate::observe::{Emit, ObserveError, Observer};
use crate::types::PublicKey;

const PEERS: u16 = 1_000;

/// Sees two devices with many peers.
struct Devices;

impl Observer for Devices {
    fn source(&self) -> Source {
        Source::WireguardNetlink
    }

    fn interval(&self) -> Span {
        Span::from_secs(60)
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let devices = ["wg0", "wg1"].map(device).to_vec();
        emit.emit(Timestamp::from_secs(100), Span::ZERO, Body::Devices(devices));
        Ok(SourceStatus::ok())
    }
}

/// Knows no way.
struct Routes;

impl Observer for Routes {
    fn source(&self) -> Source {
        Source::Routes
    }

    fn interval(&self) -> Span {
        Span::from_secs(60)
    }

    fn look(&mut self, _emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        Ok(SourceStatus::ok())
    }

    fn ask(&mut self, request: &Request, emit: &mut Emit<'_>) -> Result<(), ObserveError> {
        if let Request::RouteLookup(query) = request {
            let answer = RouteAnswer {
                query: query.clone(),
                way: RouteWay::None { errno: 101 },
            };
            emit.emit(Timestamp::from_secs(100), Span::ZERO, Body::RouteAnswer(answer));
        }
        Ok(())
    }
}

fn key(number: u16) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    PublicKey(bytes)
}

fn endpoint(number: u16) -> SocketAddr {
    (Ipv4Addr::new(203, 0, 113, 9), number).into()
}

fn device(name: &str) -> DeviceSnapshot {
    let peers = (1..=PEERS).map(|number| PeerSnapshot {
        public_key: key(number),
        has_preshared_key: false,
        endpoint: Some(endpoint(number)),
        last_handshake: None,
        rx_bytes: 0,
        tx_bytes: 0,
        keepalive: None,
        allowed_ips: Vec::new(),
    });
    DeviceSnapshot {
        name: name.to_owned(),
        if_index: None,
        implementation: Implementation::Kernel,
        public_key: None,
        listen_port: None,
        fwmark: 0,
        peers: peers.collect(),
        problems: Vec::new(),
    }
}

fn settings() -> Settings {
    let flags = Flags {
        duration: Some(Span::ZERO),
        ..Flags::default()
    };
    Settings::build(&flags, File::default())
}

fn start(settings: &Settings, observers: Vec<(Source, Opener)>) -> Watch<'_> {
    Watch::start(Plan {
        started: Timestamp::from_secs(100),
        settings,
        observers,
        recorder: None,
        anonymiser: None,
        first_look: Span::ZERO,
    })
}

#[test]
fn more_ways_are_asked_for_than_an_observer_queues() {
    let (settings, mut progress) = (settings(), Progress::new(true));
    let observers: Vec<(Source, Opener)> = vec![
        (Source::Routes, Arc::new(|| Ok(Box::new(Routes)))),
        (Source::WireguardNetlink, Arc::new(|| Ok(Box::new(Devices)))),
    ];
    let mut watch = start(&settings, observers);
    watch.until_done(&mut progress);
    let world = watch.finish(&mut progress).unwrap().world;
    let known = |name: &str| {
        let way = |n: &u16| world.routes.to_endpoint(name, key(*n), endpoint(*n).ip(), 0);
        (1..=PEERS).filter(|n| way(n).is_some()).count()
    };
    assert_eq!((known("wg0"), known("wg1")), (1_000, 1_000));
    let status = world.sources.get(Source::Routes).unwrap();
    assert_eq!((status.state, &status.reason), (SourceState::Ok, &None));
}

#[test]
fn ways_that_were_not_asked_for_are_counted() {
    let (settings, mut progress) = (settings(), Progress::new(true));
    let mut watch = start(
        &settings,
        vec![(Source::Routes, Arc::new(|| Ok(Box::new(Routes))))],
    );
    watch.engine.stop();
    while watch.engine.running().next().is_some() {
        if let Step::Seen(seen) = watch.engine.wait(Span::from_secs(60)) {
            watch.see(&seen);
        }
    }
    watch.see(&Observation {
        at: Timestamp::from_secs(101),
        took: Span::ZERO,
        source: Source::WireguardNetlink,
        body: Body::Devices(vec![device("wg0")]),
    });
    let world = watch.finish(&mut progress).unwrap().world;
    let status = world.sources.get(Source::Routes).unwrap();
    assert_eq!(status.state, SourceState::Degraded);
    let reason = status.reason.as_deref().unwrap();
    assert!(reason.contains("1000 of the ways"), "{reason}");
}

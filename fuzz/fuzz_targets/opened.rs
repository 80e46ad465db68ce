//! Handshake messages of strangers and a real key: whatever comes is checked and folded without harm, in bounded memory.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use wgnat::observation::packet::{Bytes, Direction, WirePacket};
use wgnat::observation::{Body, Observation, Source};
use wgnat::observe::capture::governor::{Governor, Initiation};
use wgnat::observe::keys;
use wgnat::observe::keys::inbox::Incoming;
use wgnat::time::{Span, Timestamp};
use wgnat::track::World;
use wgnat::types::PrivateKey;
use wgnat::wire::key_ring::KeyRing;

fuzz_target!(|messages: Vec<(u16, u16, Vec<u8>)>| {
    let mut ring = KeyRing::default();
    let private = PrivateKey::from_bytes([0x22; 32]);
    let reached = private.public();
    ring.know(reached, Some(Box::new(private)));
    let mut governor = Governor::default();
    let mut world = World::new(Timestamp::from_secs(1_700_000_000));
    let here: SocketAddr = ([10, 0, 0, 1], 51820).into();
    for (millis, port, payload) in messages {
        let at = Timestamp::from_nanos(1_700_000_000_000_000_000 + i64::from(millis) * 1_000_000);
        let source: SocketAddr = ([10, 0, 0, 2], port).into();
        let message = Incoming {
            at,
            source,
            destination: here,
            payload: payload.clone(),
        };
        let mut apply = |source, body| {
            world.apply(&Observation {
                at,
                took: Span::ZERO,
                source,
                body,
            });
        };
        if let Some((_, tallies)) = governor.flush(at) {
            tallies.for_each(|tally| apply(Source::Capture, Body::Initiations(tally)));
        }
        let initiation = Initiation {
            at,
            direction: Direction::In,
            if_index: None,
            destination: here,
            id: None,
            one_in: 1 << (port % 8),
        };
        let admitted = payload.first() != Some(&1) || governor.admits(&initiation);
        let packet = Body::Packet(WirePacket {
            direction: Direction::In,
            if_index: None,
            source,
            destination: here,
            tos: 0,
            payload_len: payload.len() as u32,
            payload: Bytes(payload),
        });
        if admitted {
            apply(Source::Capture, packet);
        }
        if let Some(checked) = keys::check(&ring, &message, Some(reached)) {
            apply(Source::Keys, Body::Checked(checked));
        }
    }
});

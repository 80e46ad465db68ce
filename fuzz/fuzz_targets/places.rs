//! Two places and the sessions between: any messages at any times, in bounded memory, and what is compared adds up.
#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use wgnat::observation::packet::{Bytes, Direction, WirePacket};
use wgnat::time::Timestamp;
use wgnat::track::places::{Comparison, PlaceLog};
use wgnat::track::sessions::{Sessions, Side};
use wgnat::wire::dialect::ChangedHeaders;

fuzz_target!(|messages: Vec<(u32, u8, u8, u8, u16, u8, Vec<u8>)>| {
    let mut logs = [PlaceLog::default(), PlaceLog::default()];
    let mut sessions = Sessions::default();
    let mut dialect = ChangedHeaders::default();
    for (nanos, places, from, to, len, kind, rest) in &messages {
        let at = Timestamp::from_nanos(i64::from(*nanos) * 100_000);
        let address = |n: u8| SocketAddr::from(([10, 0, 0, n & 7], 51820 + u16::from(n >> 3)));
        let mut payload = vec![kind & 7, 0, 0, 0];
        payload.extend(rest);
        let length = match kind & 7 {
            1 => 148,
            2 => 92,
            3 => 64,
            _ => 32 + u32::from(*len % 1500),
        };
        if kind & 8 == 0 {
            payload.resize(length as usize, *kind);
        }
        let packet = WirePacket {
            direction: match places >> 2 & 3 {
                0 => Direction::In,
                1 => Direction::Out,
                _ => Direction::Unknown,
            },
            if_index: None,
            source: address(*from),
            destination: address(*to),
            tos: 0,
            payload_len: length,
            payload: Bytes(payload),
        };
        for (n, log) in logs.iter_mut().enumerate() {
            if places & (1 << n) != 0 {
                log.passed(at);
                log.packet(at, &packet);
            }
        }
        if places & 16 != 0 {
            logs[0].sampled(u32::from(*len));
        }
        sessions.apply_packet(at, &packet);
        dialect.note(packet.source, packet.destination, &packet.payload.0, length);
    }
    let [first, second] = &logs;
    let comparison = Comparison::of(first, second);
    for link in &comparison.links {
        for passage in [&link.onward, &link.back] {
            assert!(passage.arrived() <= passage.sent());
        }
    }
    for tunnel in sessions.tunnels() {
        for side in [Side::First, Side::Second] {
            let _ = sessions.answers(tunnel, side);
        }
    }
    let _ = sessions.contest_due(Timestamp::EPOCH);
    sessions.finish();
});

//! Nanoseconds a packet: reading a frame, classing a payload, tracking a handshake.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use wgnat::observation::packet::{Bytes, Direction, WirePacket};
use wgnat::observe::capture::decode::decode;
use wgnat::time::Timestamp;
use wgnat::track::handshake::Handshakes;
use wgnat::track::places::PlaceLog;
use wgnat::track::sessions::{DataMessage, Sessions};
use wgnat::types::{IfIndex, SessionIndex};
use wgnat::wire::frame;
use wgnat::wire::wireguard::{Message, classify};

/// An IPv4 packet with a UDP datagram from `client` to 198.51.100.2:51820.
fn packet(client: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = |more: usize| {
        u16::try_from(payload.len() + more)
            .unwrap_or(u16::MAX)
            .to_be_bytes()
    };
    let (total, udp) = (length(28), length(8));
    let mut p = vec![0x45, 0x88, total[0], total[1], 0, 7, 0x40, 0, 64, 17, 0, 0];
    p.extend(client.octets());
    p.extend([198, 51, 100, 2, 0x9c, 0x40, 0xca, 0x6c, udp[0], udp[1], 0, 0]);
    p.extend(payload);
    p
}

fn message(kind: u8, first: u32, second: u32, len: usize) -> Vec<u8> {
    let mut m = vec![kind, 0, 0, 0];
    m.extend(first.to_le_bytes());
    m.extend(second.to_le_bytes());
    m.resize(len, 0x5a);
    m
}

/// `peers` clients that each make a handshake and are answered: initiation, response, initiation, response …
fn handshakes(peers: u32, each: u32) -> Vec<WirePacket> {
    let server: SocketAddr = (Ipv4Addr::new(198, 51, 100, 2), 51820).into();
    let seen = |direction, source, destination, payload: Vec<u8>| WirePacket {
        direction,
        if_index: Some(IfIndex(2)),
        source,
        destination,
        tos: 0x88,
        payload_len: u32::try_from(payload.len()).unwrap_or(0),
        payload: Bytes(payload),
    };
    let mut all = Vec::new();
    for round in 0..each {
        for peer in 0..peers {
            let client = (Ipv4Addr::from_bits(0x0a00_0000 + peer), 40_000).into();
            let index = round * peers + peer;
            all.push(seen(Direction::In, client, server, message(1, index, index, 148)));
            all.push(seen(
                Direction::Out,
                server,
                client,
                message(2, !index, index, 92),
            ));
        }
    }
    all
}

fn track(packets: &[WirePacket]) -> Handshakes {
    let mut handshakes = Handshakes::default();
    for (at, packet) in (0..).zip(packets) {
        handshakes.apply_packet(Timestamp::from_nanos(at * 10_000), packet);
    }
    handshakes
}

fn frames(c: &mut Criterion) {
    let client = Ipv4Addr::new(192, 0, 2, 1);
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Elements(1));
    for (name, payload) in [
        ("initiation", message(1, 7, 7, 148)),
        ("data", message(4, 7, 7, 1452)),
        ("other", vec![9; 512]),
    ] {
        let bytes = packet(client, &payload);
        group.bench_function(format!("parse/{name}"), |b| {
            b.iter(|| frame::parse(black_box(&bytes)))
        });
        let len = u32::try_from(payload.len()).unwrap_or(0);
        group.bench_function(format!("classify/{name}"), |b| {
            b.iter(|| classify(black_box(&payload), len))
        });
        group.bench_function(format!("message/{name}"), |b| {
            b.iter(|| Message::parse(black_box(&payload), len).is_some())
        });
        group.bench_function(format!("observation/{name}"), |b| {
            b.iter(|| decode(black_box(&bytes), Direction::In, Some(IfIndex(2))))
        });
    }
    group.finish();
}

fn tracker(c: &mut Criterion) {
    let mut group = c.benchmark_group("tracker");
    for (name, packets) in [
        ("10 peers", handshakes(10, 1000)),
        ("1,000 peers", handshakes(1000, 10)),
        ("flood of 20,000 addresses", handshakes(20_000, 1)),
    ] {
        group.throughput(Throughput::Elements(packets.len() as u64));
        group.bench_function(name, |b| {
            b.iter_batched_ref(|| (), |()| track(&packets), BatchSize::LargeInput)
        });
    }
    // One message, again and again: what folding costs.
    let one = handshakes(1, 1).into_iter().take(1);
    let again: Vec<_> = one.flat_map(|p| std::iter::repeat_n(p, 10_000)).collect();
    group.throughput(Throughput::Elements(again.len() as u64));
    group.bench_function("sightings of one message", |b| b.iter(|| track(&again)));
    group.finish();
}

/// Data of `sessions` sessions in turn, one way, each message once.
fn data(sessions: u32, count: u64) -> Vec<DataMessage> {
    let server: SocketAddr = (Ipv4Addr::new(198, 51, 100, 2), 51820).into();
    (0..count)
        .map(|n| {
            let session = u32::try_from(n % u64::from(sessions)).unwrap_or(0);
            DataMessage {
                at: Timestamp::from_nanos(i64::try_from(n).unwrap_or(0) * 10_000),
                source: (Ipv4Addr::from_bits(0x0a00_0000 + session), 40_000).into(),
                destination: server,
                receiver: SessionIndex(session.wrapping_mul(0x9e37_79b9)),
                counter: n / u64::from(sessions),
                len: 1452,
            }
        })
        .collect()
}

/// What a data message costs: in the session tracker, and in the log of one of two places.
fn sessions(c: &mut Criterion) {
    let mut group = c.benchmark_group("data");
    for sessions in [1, 100] {
        let messages = data(sessions, 100_000);
        group.throughput(Throughput::Elements(messages.len() as u64));
        group.bench_function(format!("sessions/{sessions}"), |b| {
            b.iter(|| {
                let mut tracker = Sessions::default();
                messages.iter().filter(|m| tracker.data(m)).count()
            })
        });
        group.bench_function(format!("place log/{sessions}"), |b| {
            b.iter(|| {
                let mut log = PlaceLog::default();
                for m in &messages {
                    log.data_message(m, Direction::Unknown);
                }
                log
            })
        });
    }
    group.finish();
}

criterion_group!(benches, frames, tracker, sessions);
criterion_main!(benches);

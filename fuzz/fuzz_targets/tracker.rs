//! The handshake tracker: any packets at any times, in bounded memory.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use wgnat::observation::packet::{Bytes, Direction, IcmpError, WirePacket};
use wgnat::time::Timestamp;
use wgnat::track::handshake::Handshakes;

fuzz_target!(|packets: Vec<(u32, u8, [u8; 4], u16, Vec<u8>)>| {
    let mut tracker = Handshakes::default();
    for (nanos, kind, address, port, payload) in &packets {
        let at = Timestamp::from_nanos(i64::from(*nanos) * 1000);
        let here: SocketAddr = ([10, 0, 0, 1], 51820).into();
        let there = SocketAddr::new(IpAddr::from(*address), *port);
        let (source, destination) = if kind & 1 == 0 {
            (here, there)
        } else {
            (there, here)
        };
        if kind & 2 == 0 {
            tracker.apply_packet(
                at,
                &WirePacket {
                    direction: if kind & 4 == 0 {
                        Direction::In
                    } else {
                        Direction::Out
                    },
                    if_index: None,
                    source,
                    destination,
                    tos: 0,
                    payload_len: payload.len() as u32,
                    payload: Bytes(payload.clone()),
                },
            );
        } else {
            tracker.apply_icmp(
                at,
                &IcmpError {
                    direction: Direction::In,
                    from: there.ip(),
                    icmp_type: 3,
                    code: kind >> 4,
                    mtu: None,
                    quoted_source: here,
                    quoted_destination: there,
                    quoted_payload: Bytes(payload.clone()),
                },
            );
        }
    }
});

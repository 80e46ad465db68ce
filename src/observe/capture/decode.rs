//! A packet → the observation that it is, if any. Pure: a capture file's packets take the same way.

use std::net::SocketAddr;

use crate::observation::Body;
use crate::observation::packet::{Bytes, Direction, IcmpError, WirePacket};
use crate::types::{IfIndex, SessionIndex};
use crate::wire::frame::{self, Frame, Udp};
use crate::wire::wireguard::{self, Class, DATA_HEADER_LEN, INITIATION_LEN, Kind, classify};

/// Reads `bytes` (from the network header on). `None` for what is neither a WireGuard message nor an ICMP error
/// about one.
pub fn decode(bytes: &[u8], direction: Direction, if_index: Option<IfIndex>) -> Option<Body> {
    body(&frame::parse(bytes)?, direction, if_index)
}

/// To whom the initiation that `frame` is goes, and which one it is; `None` where it is none.
pub fn initiation(frame: &Frame<'_>) -> Option<(SocketAddr, Option<Id>)> {
    let Frame::Udp(udp) = frame else { return None };
    let class = classify(udp.payload, udp.payload_len).filter(|c| c.is_standard())?;
    let whole = udp.payload.first_chunk().and_then(wireguard::Initiation::parse);
    let id = whole.map(|whole| (whole.sender, *whole.mac1));
    (class.kind == Kind::Initiation).then_some((udp.destination, id))
}

/// The sender's index and the first MAC: what tells one initiation from another, also across a NAT.
pub type Id = (SessionIndex, [u8; 16]);

/// As [`decode`], of a packet that is already read. This copies what is kept of it.
pub fn body(frame: &Frame<'_>, direction: Direction, if_index: Option<IfIndex>) -> Option<Body> {
    match frame {
        Frame::Udp(udp) => {
            let class = classify(udp.payload, udp.payload_len).filter(|c| c.is_standard())?;
            Some(Body::Packet(WirePacket {
                direction,
                if_index,
                source: udp.source,
                destination: udp.destination,
                tos: udp.tos,
                payload_len: udp.payload_len,
                payload: kept(class, udp),
            }))
        }
        Frame::IcmpError(error) => Some(Body::IcmpError(IcmpError {
            direction,
            from: error.from,
            icmp_type: error.icmp_type,
            code: error.code,
            mtu: error.mtu,
            quoted_source: error.quoted.source,
            quoted_destination: error.quoted.destination,
            quoted_payload: quoted(&error.quoted)?,
        })),
    }
}

/// Handshake messages whole, of data the clear header: what it carries is nobody's business.
fn kept(class: Class, udp: &Udp<'_>) -> Bytes {
    let most = match class.kind {
        Kind::Data => DATA_HEADER_LEN,
        _ => INITIATION_LEN,
    };
    Bytes(udp.payload.get(..most).unwrap_or(udp.payload).to_vec())
}

/// What is quoted of a message; empty where the quote ends before it and only the length speaks for WireGuard.
fn quoted(udp: &Udp<'_>) -> Option<Bytes> {
    if udp.payload.len() < 4 {
        return (Kind::Data.fits(udp.payload_len)).then(Bytes::default);
    }
    let class = classify(udp.payload, udp.payload_len).filter(|c| c.is_standard())?;
    Some(kept(class, udp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::build;

    fn decode_v4(protocol: u8, payload: &[u8]) -> Option<Body> {
        decode(&build::v4(protocol, payload), Direction::Out, Some(IfIndex(3)))
    }

    fn message(kind: u8, len: usize) -> Vec<u8> {
        let mut payload = vec![0x5a; len];
        payload[..4].copy_from_slice(&[kind, 0, 0, 0]);
        payload
    }

    #[test]
    fn handshakes_are_kept_whole_and_data_by_its_header() {
        for (kind, len, kept) in [(1, 148, 148), (2, 92, 92), (3, 64, 64), (4, 1452, 16)] {
            let Some(Body::Packet(seen)) = decode_v4(17, &build::udp(&message(kind, len))) else {
                panic!("not read: {kind}");
            };
            assert_eq!(seen.payload.0, message(kind, len)[..kept]);
            assert_eq!(seen.payload_len as usize, len);
            assert_eq!(
                (seen.direction, seen.if_index),
                (Direction::Out, Some(IfIndex(3)))
            );
        }
    }

    #[test]
    fn an_initiation_is_known_before_it_is_copied() {
        for (kind, len, is_one) in [(1, 148, true), (1, 147, false), (2, 92, false), (4, 148, false)] {
            let packet = build::v4(17, &build::udp(&message(kind, len)));
            let known = initiation(&frame::parse(&packet).unwrap());
            let Some(Body::Packet(seen)) = decode(&packet, Direction::In, None) else {
                assert_eq!(known, None);
                continue;
            };
            let id = (SessionIndex(0x5a5a_5a5a), [0x5a; 16]);
            let expected = is_one.then_some((seen.destination, Some(id)));
            assert_eq!(known, expected, "{kind} {len}");
        }
        let inner = build::v4(17, &build::udp(&message(1, 148)));
        let error = build::v4(1, &build::icmp(3, 3, [0; 4], &inner));
        assert_eq!(initiation(&frame::parse(&error).unwrap()), None);
    }

    #[test]
    fn what_is_not_standard_wireguard_is_left_out() {
        let mut warp = message(1, 148);
        warp[1] = 1;
        for payload in [warp, message(9, 148), message(1, 100), vec![1, 0, 0]] {
            assert_eq!(decode_v4(17, &build::udp(&payload)), None);
            let about = build::icmp(3, 3, [0; 4], &build::v4(17, &build::udp(&payload)));
            assert_eq!(decode_v4(1, &about), None);
        }
    }

    #[test]
    fn errors_keep_what_they_quote() {
        let inner = build::v4(17, &build::udp(&message(1, 148)));
        for (cut, kept) in [(28, 0), (36, 8), (176, 148)] {
            let about = build::icmp(3, 3, [0; 4], &inner[..cut]);
            let Some(Body::IcmpError(seen)) = decode_v4(1, &about) else {
                panic!("not read: {cut}");
            };
            assert_eq!(seen.quoted_payload.0, message(1, 148)[..kept]);
        }
    }
}

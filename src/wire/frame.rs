//! A packet from the network header on: the UDP datagram in it, or the one that an ICMP error quotes.
//!
//! In: bytes as a cooked packet socket or a raw-IP capture has them. Out: borrowed parts, nothing copied. Quotes
//! may end after the UDP header: RFC 792 asks for eight bytes of it and no more.

use std::net::{IpAddr, SocketAddr};

use pnet_packet::icmp::IcmpPacket;
use pnet_packet::ip::IpNextHeaderProtocols as Next;
use pnet_packet::udp::UdpPacket;

use super::icmp;
use super::ip::{self, IpPacket};

/// Octets of a UDP header (RFC 768).
const UDP_HEADER: usize = 8;

/// What wgnat reads of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A UDP datagram, or the first fragment of one.
    Udp(Udp<'a>),
    /// An ICMP or ICMPv6 error that quotes a UDP datagram.
    IcmpError(IcmpQuote<'a>),
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
    /// The TOS or traffic class byte.
    pub tos: u8,
    /// The payload's length on the wire, in bytes.
    pub payload_len: u32,
    /// The payload, as far as it is there.
    pub payload: &'a [u8],
}

/// An ICMP error about a UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpQuote<'a> {
    /// Who sent the error.
    pub from: IpAddr,
    /// Whom it tells.
    pub to: IpAddr,
    /// ICMP type (RFC 792) or ICMPv6 type (RFC 4443), by the family of `from`.
    pub icmp_type: u8,
    /// The code within the type.
    pub code: u8,
    /// The next hop's MTU, where "fragmentation needed" or "packet too big" says it.
    pub mtu: Option<u32>,
    /// The datagram that could not be delivered, as far as it is quoted.
    pub quoted: Udp<'a>,
}

/// Reads `bytes`, which begin with an IPv4 or IPv6 header. `None` for all that is neither UDP nor an error about it,
/// and for what is malformed.
pub fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
    let packet = ip::parse(bytes)?;
    match packet.protocol {
        Next::Udp => udp(&packet, false).map(Frame::Udp),
        Next::Icmp if !packet.is_v6() => icmp_error(&packet).map(Frame::IcmpError),
        Next::Icmpv6 if packet.is_v6() => icmp_error(&packet).map(Frame::IcmpError),
        _ => None,
    }
}

fn udp<'a>(packet: &IpPacket<'a>, quoted: bool) -> Option<Udp<'a>> {
    let header = UdpPacket::new(packet.payload)?;
    let length = match usize::from(header.get_length()) {
        0 => packet.payload_len, // RFC 2675 and segmentation offload
        length => length,
    };
    // A receiver drops a datagram that claims more than its packet holds. A quote may be cut, and routers have been
    // seen to change the quoted total length.
    if length > packet.payload_len && !packet.fragmented && !quoted {
        return None;
    }
    let payload_len = length.checked_sub(UDP_HEADER)?;
    let payload = packet.payload.get(UDP_HEADER..)?;
    Some(Udp {
        source: packet.source_port(header.get_source()),
        destination: packet.destination_port(header.get_destination()),
        tos: packet.tos,
        payload_len: u32::try_from(payload_len).ok()?,
        payload: payload.get(..payload_len).unwrap_or(payload),
    })
}

fn icmp_error<'a>(packet: &IpPacket<'a>) -> Option<IcmpQuote<'a>> {
    let v6 = packet.is_v6();
    // Both families begin with type, code and checksum, then four bytes whose meaning hangs on the type.
    let header = IcmpPacket::new(packet.payload)?;
    let (icmp_type, code) = (header.get_icmp_type().0, header.get_icmp_code().0);
    if packet.fragmented || !icmp::is_error(v6, icmp_type) {
        return None;
    }
    let rest = *packet.payload.get(4..)?.first_chunk::<4>()?;
    let mut quote = packet.payload.get(8..)?;
    // RFC 4884: where this length is set, extension objects follow the quote. It counts words of 32 bits (IPv4) or
    // 64 bits (IPv6).
    let quoted_len = if v6 {
        usize::from(rest[0]) * 8
    } else {
        usize::from(rest[1]) * 4
    };
    let extended = matches!((v6, icmp_type), (false, 3 | 11 | 12) | (true, 1 | 3));
    if extended && quoted_len > 0 {
        quote = quote.get(..quoted_len).unwrap_or(quote);
    }
    let mtu = match (v6, icmp_type, code) {
        (false, 3, 4) => u32::from(u16::from_be_bytes([rest[2], rest[3]])), // RFC 1191
        (true, 2, _) => u32::from_be_bytes(rest),
        _ => 0,
    };
    let inner = ip::parse(quote)?;
    if inner.protocol != Next::Udp || inner.is_v6() != v6 {
        return None;
    }
    Some(IcmpQuote {
        from: packet.source,
        to: packet.destination,
        icmp_type,
        code,
        mtu: (mtu > 0).then_some(mtu),
        quoted: udp(&inner, true)?,
    })
}

/// Packets for tests.
#[cfg(test)]
pub(crate) mod build {
    /// IPv4 from 192.0.2.1 to 198.51.100.2, TOS 0x88.
    pub fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
        let mut p = vec![0x45, 0x88, total[0], total[1], 0, 7, 0x40, 0, 64, protocol, 0, 0];
        p.extend([192, 0, 2, 1, 198, 51, 100, 2]);
        p.extend(payload);
        p
    }

    /// IPv6 from 2001:db8::1 to 2001:db8::2, traffic class 0x88.
    pub fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let mut p = vec![0x68, 0x80, 0, 0, length[0], length[1], next, 64];
        for last in [1, 2] {
            p.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        p.extend(payload);
        p
    }

    /// UDP from port 40000 to 51820.
    pub fn udp(payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
        let mut p = vec![0x9c, 0x40, 0xca, 0x6c, length[0], length[1], 0, 0];
        p.extend(payload);
        p
    }

    /// An ICMP or ICMPv6 message's body.
    pub fn icmp(icmp_type: u8, code: u8, rest: [u8; 4], quote: &[u8]) -> Vec<u8> {
        let mut p = vec![icmp_type, code, 0, 0];
        p.extend(rest);
        p.extend(quote);
        p
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quote(bytes: &[u8]) -> Option<IcmpQuote<'_>> {
        match parse(bytes) {
            Some(Frame::IcmpError(quote)) => Some(quote),
            _ => None,
        }
    }

    #[test]
    fn udp_of_both_families() {
        for (packet, source) in [
            (build::v4(17, &build::udp(&[7; 148])), "192.0.2.1:40000"),
            (build::v6(17, &build::udp(&[7; 148])), "[2001:db8::1]:40000"),
        ] {
            let Some(Frame::Udp(seen)) = parse(&packet) else {
                panic!("not read");
            };
            assert_eq!(seen.source, source.parse().unwrap());
            assert_eq!(seen.destination.port(), 51820);
            assert_eq!(
                (seen.payload, seen.payload_len, seen.tos),
                (&[7; 148][..], 148, 0x88)
            );
        }
    }

    #[test]
    fn udp_length_decides_and_lies_are_refused() {
        let mut datagram = build::udp(&[7; 32]);
        datagram[5] = 8 + 30;
        let packet = build::v4(17, &datagram);
        let Some(Frame::Udp(seen)) = parse(&packet) else {
            panic!("not read");
        };
        assert_eq!((seen.payload.len(), seen.payload_len), (30, 30));
        for lie in [7, 41] {
            datagram[5] = lie;
            assert_eq!(parse(&build::v4(17, &datagram)), None, "length {lie}");
        }
        datagram[5] = 41;
        let mut fragment = build::v4(17, &datagram);
        fragment[6] = 0x20;
        assert!(matches!(parse(&fragment), Some(Frame::Udp(u)) if u.payload_len == 33));
    }

    #[test]
    fn errors_name_the_quoted_datagram() {
        let inner = build::v4(17, &build::udp(&[7; 148]));
        let packet = build::v4(1, &build::icmp(3, 4, [0, 0, 5, 120], &inner));
        let seen = quote(&packet).unwrap();
        assert_eq!((seen.icmp_type, seen.code, seen.mtu), (3, 4, Some(1400)));
        assert_eq!(seen.quoted.source, "192.0.2.1:40000".parse().unwrap());
        assert_eq!(seen.quoted.payload, [7; 148]);

        let inner = build::v6(17, &build::udp(&[7; 148]));
        let packet = build::v6(58, &build::icmp(2, 0, [0, 0, 5, 0], &inner));
        assert_eq!(quote(&packet).unwrap().mtu, Some(1280));
    }

    #[test]
    fn quotes_may_end_after_the_udp_header() {
        let inner = build::v4(17, &build::udp(&[7; 148]));
        let packet = build::v4(1, &build::icmp(3, 3, [0; 4], &inner[..28]));
        let seen = quote(&packet).unwrap();
        assert_eq!((seen.quoted.payload, seen.quoted.payload_len), (&[][..], 148));
        let packet = build::v4(1, &build::icmp(3, 3, [0; 4], &inner[..27]));
        assert_eq!(quote(&packet), None);
    }

    #[test]
    fn extensions_are_not_taken_for_payload() {
        let mut inner = build::v4(17, &build::udp(&[7; 148]))[..32].to_vec();
        inner.extend([0xee; 40]); // RFC 4884 objects
        let packet = build::v4(1, &build::icmp(11, 0, [0, 8, 0, 0], &inner));
        assert_eq!(quote(&packet).unwrap().quoted.payload, [7; 4]);
    }

    #[test]
    fn other_messages_are_left_out() {
        let inner = build::v4(17, &build::udp(&[7; 148]));
        let tcp = build::v4(6, &build::udp(&[7; 148]));
        for packet in [
            build::v4(1, &build::icmp(8, 0, [0; 4], &inner)),
            build::v4(1, &build::icmp(3, 3, [0; 4], &tcp)),
            build::v4(58, &build::icmp(1, 4, [0; 4], &inner)),
            build::v6(58, &build::icmp(129, 0, [0; 4], &inner)),
            build::v6(58, &build::icmp(1, 4, [0; 4], &inner)),
            tcp,
        ] {
            assert_eq!(parse(&packet), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), v6 in any::<bool>()) {
            let _ = parse(&bytes);
            // Deeper: a sound outer header about anything, and a sound quote header about anything.
            for protocol in [1, 17, 44, 58] {
                let make = if v6 { build::v6 } else { build::v4 };
                let packet = make(protocol, &bytes);
                let cut = &packet[..packet.len() - bytes.len() / 3];
                if let Some(Frame::Udp(udp)) = parse(cut) {
                    prop_assert!(udp.payload.len() <= udp.payload_len as usize);
                }
                let icmp_type = if v6 { 1 } else { 3 };
                let about = make(if v6 { 58 } else { 1 }, &build::icmp(icmp_type, 0, [0; 4], &packet));
                let _ = parse(&about);
            }
        }
    }
}

//! The quick way from an IP header to a UDP payload, for files of a million packets.
//!
//! In: bytes from the IP header on, whole or cut at the end. Out: a datagram by reference, or which kind of packet it
//! is instead. Every read is checked; options, extension headers and first fragments take a slower path in the same
//! file. Later fragments have no UDP header and are only counted; a first fragment's UDP header gives the length of
//! the whole datagram, so the message in it is still recognised.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// RFC 790.
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// IPv6 extension headers that are walked (RFC 8200 section 4, RFC 4302).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// How many of them: each at most once, destination options twice.
const MAX_EXTENSIONS: usize = 8;
/// IPv4's "more fragments" and offset bits (RFC 791).
const V4_MORE: u16 = 0x2000;
const V4_OFFSET: u16 = 0x1fff;
/// The same in IPv6's fragment header (RFC 8200 section 4.5).
const V6_MORE: u16 = 0x0001;
const V6_OFFSET: u16 = 0xfff8;

/// What an IP packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network<'a> {
    /// A UDP datagram, or the first fragment of one.
    Udp(Datagram<'a>),
    /// ICMP or ICMPv6: rare enough to be read with care, elsewhere.
    Icmp,
    /// A fragment after the first.
    LaterFragment,
    /// Another protocol.
    Other,
    /// Cut before its UDP header, or contradicting itself.
    Malformed,
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
    /// The TOS or traffic class byte.
    pub tos: u8,
    /// Whether the rest comes in later fragments.
    pub fragmented: bool,
    /// The payload's length on the wire, in bytes.
    pub payload_len: u32,
    /// The payload, as far as it was captured.
    pub payload: &'a [u8],
}

/// Reads an IP packet of either version.
#[inline]
pub fn network(bytes: &[u8]) -> Network<'_> {
    let read = match bytes.first().map(|b| b >> 4) {
        Some(4) => v4(bytes),
        Some(6) => v6(bytes),
        _ => None,
    };
    read.unwrap_or(Network::Malformed)
}

#[inline]
fn v4(bytes: &[u8]) -> Option<Network<'_>> {
    let (header, after) = bytes.split_first_chunk::<20>()?;
    let [
        first,
        tos,
        l,
        m,
        _,
        _,
        f,
        g,
        _,
        protocol,
        _,
        _,
        a,
        b,
        c,
        d,
        w,
        x,
        y,
        z,
    ] = *header;
    let fragment = u16::from_be_bytes([f, g]);
    match protocol {
        _ if fragment & V4_OFFSET != 0 => return Some(Network::LaterFragment),
        UDP => {}
        ICMP => return Some(Network::Icmp),
        _ => return Some(Network::Other),
    }
    let header_len = usize::from(first & 0x0f) * 4;
    let options = header_len.checked_sub(20)?;
    // Packets above 64 KiB that are yet to be segmented have length 0.
    let total = match usize::from(u16::from_be_bytes([l, m])) {
        0 => bytes.len(),
        total => total,
    };
    let part = Part {
        source: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        destination: IpAddr::V4(Ipv4Addr::new(w, x, y, z)),
        tos,
        fragmented: fragment & V4_MORE != 0,
        room: total.checked_sub(header_len)?,
        bytes: after.get(options..)?,
    };
    part.udp()
}

#[inline]
fn v6(bytes: &[u8]) -> Option<Network<'_>> {
    let (header, after) = bytes.split_first_chunk::<40>()?;
    let (fixed, addresses) = header.split_first_chunk::<8>()?;
    let (source, destination) = addresses.split_first_chunk::<16>()?;
    let [a, b, _, _, l, m, next, _] = *fixed;
    let part = Part {
        source: IpAddr::V6(Ipv6Addr::from(*source)),
        destination: IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(destination).ok()?)),
        tos: a << 4 | b >> 4,
        fragmented: false,
        // Jumbograms (RFC 2675) and packets that are yet to be segmented have length 0.
        room: match usize::from(u16::from_be_bytes([l, m])) {
            0 => after.len(),
            length => length,
        },
        bytes: after,
    };
    match next {
        UDP => part.udp(),
        _ => extensions(part, next),
    }
}

/// Walks IPv6 extension headers.
fn extensions(mut part: Part<'_>, mut next: u8) -> Option<Network<'_>> {
    for _ in 0..MAX_EXTENSIONS {
        let length = match next {
            UDP => return part.udp(),
            ICMPV6 => return Some(Network::Icmp),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => usize::from(*part.bytes.get(1)?) * 8 + 8,
            // Its length counts 4-octet units, less 2.
            AUTHENTICATION => usize::from(*part.bytes.get(1)?) * 4 + 8,
            FRAGMENT => {
                let [_, _, a, b, ..] = *part.bytes.first_chunk::<8>()?;
                let field = u16::from_be_bytes([a, b]);
                if field & V6_OFFSET != 0 {
                    return Some(Network::LaterFragment);
                }
                part.fragmented = field & V6_MORE != 0;
                8
            }
            _ => return Some(Network::Other),
        };
        next = *part.bytes.first()?;
        part.bytes = part.bytes.get(length..)?;
        part.room = part.room.checked_sub(length)?;
    }
    None
}

/// An IP packet's payload and what its header said.
struct Part<'a> {
    source: IpAddr,
    destination: IpAddr,
    tos: u8,
    fragmented: bool,
    /// The payload's length by the IP header.
    room: usize,
    /// The payload as far as it was captured, with what may follow (Ethernet pads to 60 bytes).
    bytes: &'a [u8],
}

impl<'a> Part<'a> {
    #[inline]
    fn udp(self) -> Option<Network<'a>> {
        let (header, payload) = self.bytes.split_first_chunk::<8>()?;
        let [a, b, c, d, l, m, _, _] = *header;
        let length = match usize::from(u16::from_be_bytes([l, m])) {
            0 => self.room,
            length => length,
        };
        // Receivers drop a datagram that claims more than its packet holds.
        if length > self.room && !self.fragmented {
            return None;
        }
        let payload_len = length.checked_sub(8)?;
        let here = payload_len.min(self.room.checked_sub(8)?);
        Some(Network::Udp(Datagram {
            source: SocketAddr::new(self.source, u16::from_be_bytes([a, b])),
            destination: SocketAddr::new(self.destination, u16::from_be_bytes([c, d])),
            tos: self.tos,
            fragmented: self.fragmented,
            payload_len: u32::try_from(payload_len).ok()?,
            payload: payload.get(..here).unwrap_or(payload),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn udp(payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
        [&[0x9c, 0x40, 0xca, 0x6c, length[0], length[1], 0, 0], payload].concat()
    }

    fn v4(protocol: u8, fragment: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let total = u16::try_from(20 + options.len() + payload.len())
            .unwrap()
            .to_be_bytes();
        let [f, g] = fragment.to_be_bytes();
        let first = 0x45 + u8::try_from(options.len() / 4).unwrap();
        let header = [first, 0x88, total[0], total[1], 0, 7, f, g, 64, protocol, 0, 0];
        [&header[..], &[192, 0, 2, 1, 198, 51, 100, 2], options, payload].concat()
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let source = "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets();
        let destination = "2001:db8::2".parse::<Ipv6Addr>().unwrap().octets();
        [
            &[0x68, 0x80, 0, 0, length[0], length[1], next, 64],
            &source[..],
            &destination,
            payload,
        ]
        .concat()
    }

    fn datagram(bytes: &[u8]) -> Datagram<'_> {
        match network(bytes) {
            Network::Udp(datagram) => datagram,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_families_with_and_without_extras() {
        let inner = udp(&[7; 40]);
        let hop = |next: u8, more: &[u8]| [&[next, 0, 0, 0, 0, 0, 0, 0], more].concat();
        for (packet, source) in [
            (v4(17, 0, &[], &inner), "192.0.2.1:40000"),
            (v4(17, 0x4000, &[1; 8], &inner), "192.0.2.1:40000"),
            (v6(17, &inner), "[2001:db8::1]:40000"),
            (v6(0, &hop(60, &hop(17, &inner))), "[2001:db8::1]:40000"),
            (v6(44, &hop(17, &inner)), "[2001:db8::1]:40000"),
        ] {
            let seen = datagram(&packet);
            assert_eq!(seen.source, source.parse().unwrap());
            assert_eq!((seen.destination.port(), seen.tos), (51820, 0x88));
            assert_eq!(
                (seen.payload, seen.payload_len, seen.fragmented),
                (&[7; 40][..], 40, false)
            );
            // Ethernet pads short frames; what lies behind the packet is not payload.
            let padded = [&packet[..], &[0; 9]].concat();
            assert_eq!(datagram(&padded).payload, [7; 40]);
            // A snapshot length cuts the payload, not its length.
            let cut = datagram(&packet[..packet.len() - 30]);
            assert_eq!((cut.payload, cut.payload_len), (&[7; 10][..], 40));
        }
    }

    #[test]
    fn fragments() {
        let mut inner = udp(&[7; 40]);
        inner[5] = 8 + 148;
        let first = v4(17, 0x2000, &[], &inner);
        let seen = datagram(&first);
        assert_eq!(
            (seen.payload.len(), seen.payload_len, seen.fragmented),
            (40, 148, true)
        );
        let first = v6(44, &[&[17, 0, 0, 1, 0, 0, 0, 9], &inner[..]].concat());
        assert_eq!(
            (datagram(&first).payload_len, datagram(&first).fragmented),
            (148, true)
        );
        assert_eq!(network(&v4(17, 0x2001, &[], &inner)), Network::LaterFragment);
        assert_eq!(network(&v4(17, 0x0001, &[], &inner)), Network::LaterFragment);
        assert_eq!(
            network(&v6(44, &[17, 0, 0, 8, 0, 0, 0, 9, 1])),
            Network::LaterFragment
        );
        // Not a fragment, yet longer than its packet.
        assert_eq!(network(&v4(17, 0, &[], &inner)), Network::Malformed);
    }

    #[test]
    fn others() {
        for (packet, expected) in [
            (v4(6, 0, &[], &udp(&[7; 40])), Network::Other),
            (v4(1, 0, &[], &[]), Network::Icmp),
            (v6(58, &[]), Network::Icmp),
            (v6(6, &[]), Network::Other),
            (v4(17, 0, &[], &[0; 7]), Network::Malformed),
            (vec![], Network::Malformed),
            (vec![0x55; 60], Network::Malformed),
            (v6(0, &[0; 72]), Network::Malformed),
        ] {
            assert_eq!(network(&packet), expected, "{packet:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..2, next: u8) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if version == 0 { 0x40 | *first & 0x0f } else { 0x60 };
            }
            let place = if version == 0 { 9 } else { 6 };
            if let Some(byte) = bytes.get_mut(place) {
                *byte = [UDP, ICMP, FRAGMENT, HOP_BY_HOP, next][usize::from(next) % 5];
            }
            if let Network::Udp(datagram) = network(&bytes) {
                prop_assert!(datagram.payload.len() <= datagram.payload_len as usize);
            }
        }
    }
}

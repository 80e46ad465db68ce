//! IPv4 and IPv6 headers: where a packet goes, what it carries, and where that begins.
//!
//! In: bytes from the network header on, whole or cut at the end. Out: addresses, protocol and payload, options and
//! extension headers walked over. Fragments other than the first carry no transport header and are left out.

use std::net::{IpAddr, SocketAddr};

use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols as Next};
use pnet_packet::ipv4::{Ipv4Flags, Ipv4Packet};
use pnet_packet::ipv6::{ExtensionPacket, FragmentPacket, Ipv6Packet};

/// Octets of an IPv6 header (RFC 8200, section 3).
const V6_HEADER: usize = 40;
/// Extension headers that are walked; the RFC wants each kind at most once, seven in all with destination options
/// twice (section 4.1).
const MAX_EXTENSIONS: usize = 8;
/// The offset's bits in a fragment header, and the M flag (RFC 8200, section 4.5).
const V6_FRAGMENT_OFFSET: u16 = 0xfff8;
const V6_MORE_FRAGMENTS: u16 = 0x0001;

/// An IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// The source.
    pub source: IpAddr,
    /// The destination.
    pub destination: IpAddr,
    /// The TOS or traffic class byte (DSCP and ECN).
    pub tos: u8,
    /// What it carries.
    pub protocol: IpNextHeaderProtocol,
    /// More fragments follow: the payload is the first of several parts.
    pub fragmented: bool,
    /// The payload, as far as it is there.
    pub payload: &'a [u8],
    /// The payload's length by the header, in bytes; more than `payload` holds where the packet was cut.
    pub payload_len: usize,
}

impl IpPacket<'_> {
    /// The source with a port.
    pub fn source_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.source, port)
    }

    /// The destination with a port.
    pub fn destination_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.destination, port)
    }

    /// Whether it is IPv6.
    pub fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }
}

/// Reads a packet of either family, told apart by its version.
pub fn parse(bytes: &[u8]) -> Option<IpPacket<'_>> {
    match bytes.first()? >> 4 {
        4 => parse_v4(bytes),
        6 => parse_v6(bytes),
        _ => None,
    }
}

fn parse_v4(bytes: &[u8]) -> Option<IpPacket<'_>> {
    let header = Ipv4Packet::new(bytes)?;
    let start = usize::from(header.get_header_length()) * 4;
    if start < Ipv4Packet::minimum_packet_size() || header.get_fragment_offset() != 0 {
        return None;
    }
    // The kernel shows packets larger than 64 KiB, on their way to be segmented, with length 0.
    let total = match usize::from(header.get_total_length()) {
        0 => bytes.len(),
        total => total,
    };
    Some(IpPacket {
        source: header.get_source().into(),
        destination: header.get_destination().into(),
        tos: header.get_dscp() << 2 | header.get_ecn(),
        protocol: header.get_next_level_protocol(),
        fragmented: header.get_flags() & Ipv4Flags::MoreFragments != 0,
        payload: bytes.get(start..bytes.len().min(total))?,
        payload_len: total.checked_sub(start)?,
    })
}

fn parse_v6(bytes: &[u8]) -> Option<IpPacket<'_>> {
    let header = Ipv6Packet::new(bytes)?;
    let after = bytes.get(V6_HEADER..)?;
    // Jumbograms (RFC 2675) and packets on their way to be segmented have length 0.
    let stated = match usize::from(header.get_payload_length()) {
        0 => after.len(),
        stated => stated,
    };
    let mut packet = IpPacket {
        source: header.get_source().into(),
        destination: header.get_destination().into(),
        tos: header.get_traffic_class(),
        protocol: header.get_next_header(),
        fragmented: false,
        payload: after.get(..after.len().min(stated))?,
        payload_len: stated,
    };
    for _ in 0..MAX_EXTENSIONS {
        let (next, length) = match packet.protocol {
            Next::Hopopt | Next::Ipv6Route | Next::Ipv6Opts => {
                let extension = ExtensionPacket::new(packet.payload)?;
                (
                    extension.get_next_header(),
                    usize::from(extension.get_hdr_ext_len()) * 8 + 8,
                )
            }
            // RFC 4302: its length counts 4-octet units, less 2.
            Next::Ah => {
                let extension = ExtensionPacket::new(packet.payload)?;
                (
                    extension.get_next_header(),
                    usize::from(extension.get_hdr_ext_len()) * 4 + 8,
                )
            }
            Next::Ipv6Frag => {
                let fragment = FragmentPacket::new(packet.payload)?;
                let word = fragment.get_fragment_offset_with_flags();
                if word & V6_FRAGMENT_OFFSET != 0 {
                    return None;
                }
                packet.fragmented |= word & V6_MORE_FRAGMENTS != 0;
                (fragment.get_next_header(), 8)
            }
            _ => return Some(packet),
        };
        packet.protocol = next;
        packet.payload = packet.payload.get(length..)?;
        packet.payload_len = packet.payload_len.checked_sub(length)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::frame::build;

    #[test]
    fn options_and_extensions_are_walked_over() {
        let plain = build::v4(17, b"payload");
        let seen = parse(&plain).unwrap();
        assert_eq!(seen.source, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(
            (seen.payload, seen.payload_len, seen.tos),
            (&b"payload"[..], 7, 0x88)
        );

        let mut options = plain.clone();
        options[0] = 0x47; // two words of options
        options.splice(20..20, [1; 8]);
        options[3] += 8;
        assert_eq!(parse(&options).unwrap().payload, b"payload");

        let inner = [&[17, 0, 1, 4, 0, 0, 0, 0][..], b"payload"].concat();
        let hop_by_hop = build::v6(0, &inner);
        let seen = parse(&hop_by_hop).unwrap();
        assert_eq!(
            (seen.protocol, seen.payload, seen.payload_len),
            (Next::Udp, &b"payload"[..], 7)
        );
    }

    #[test]
    fn only_first_fragments_have_a_transport_header() {
        let mut v4 = build::v4(17, b"payload");
        v4[6] = 0x20; // MF
        assert!(parse(&v4).unwrap().fragmented);
        v4[7] = 1;
        assert_eq!(parse(&v4), None);

        let fragment = |word: [u8; 2]| {
            build::v6(
                44,
                &[&[17, 0, word[0], word[1], 0, 0, 0, 9][..], b"payload"].concat(),
            )
        };
        let first = fragment([0, 1]);
        assert!(parse(&first).unwrap().fragmented);
        assert!(
            !parse(&fragment([0, 0])).unwrap().fragmented,
            "an atomic fragment"
        );
        assert_eq!(parse(&fragment([0, 8])), None);
    }

    #[test]
    fn padding_is_cut_and_cuts_are_told() {
        let mut padded = build::v4(17, b"payload");
        padded.extend([0; 19]);
        assert_eq!(parse(&padded).unwrap().payload, b"payload");
        let whole = build::v6(17, b"payload");
        let cut = parse(&whole[..43]).unwrap();
        assert_eq!((cut.payload, cut.payload_len), (&b"pay"[..], 7));
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let plain = build::v4(17, b"payload");
        for (at, value) in [(0, 0x44), (0, 0x4f), (0, 0x57), (3, 19)] {
            let mut lie = plain.clone();
            lie[at] = value;
            assert_eq!(parse(&lie), None, "byte {at} = {value:#x}");
        }
        let endless = build::v6(0, &[0; 8 * 16]);
        assert_eq!(parse(&endless), None);
        assert_eq!(parse(&build::v6(43, &[17, 255])), None);
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), first in any::<u8>()) {
            if let Some(byte) = bytes.first_mut() {
                *byte = if first & 1 == 0 { 0x40 | (first >> 1 & 15) } else { 0x60 };
            }
            if let Some(packet) = parse(&bytes) {
                prop_assert!(packet.payload.len() <= packet.payload_len);
            }
        }
    }
}

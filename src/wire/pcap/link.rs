//! From a captured frame to the IP packet in it: Ethernet with its tags, raw IP, Linux cooked, loopback.
//!
//! In: a frame and its link type. Out: the bytes from the IP header on, and the direction where the link header
//! says it. Numbers are the registry's (draft-ietf-opsawg-pcaplinktype); layouts are libpcap's pcap-linktype pages.

use crate::observation::packet::Direction;

/// How a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// 1: IEEE 802.3.
    Ethernet,
    /// 12, 14 (BSD's numbers for it), 101, 228 and 229: an IP header; its version says which.
    RawIp,
    /// 113: what Linux gives for `-i any`, version 1.
    LinuxCooked,
    /// 276: the same, version 2.
    LinuxCooked2,
    /// 0 and 108: BSD's loopback; four bytes of address family, in the host's or in network order.
    Loopback,
    /// Anything else.
    Other(u32),
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_PPPOE_SESSION: u16 = 0x8864;
/// IEEE 802.1Q, 802.1ad, and what was used before 802.1ad.
const ETHERTYPES_VLAN: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
/// Tags that are walked.
const MAX_TAGS: usize = 4;
/// Octets of a PPPoE header (RFC 2516, section 4).
const PPPOE_HEADER: usize = 6;
const PPP_IPV4: u16 = 0x0021;
const PPP_IPV6: u16 = 0x0057;
/// `PACKET_OUTGOING` (linux/if_packet.h).
const PACKET_OUTGOING: u16 = 4;
/// AF_INET, and AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS.
const FAMILIES: [u32; 5] = [2, 10, 24, 28, 30];

impl LinkType {
    /// From the number in a file.
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 | 108 => Self::Loopback,
            1 => Self::Ethernet,
            12 | 14 | 101 | 228 | 229 => Self::RawIp,
            113 => Self::LinuxCooked,
            276 => Self::LinuxCooked2,
            other => Self::Other(other),
        }
    }

    /// The IP packet in `frame`; `None` where it holds none, or is cut before it.
    #[inline]
    pub fn ip(self, frame: &[u8]) -> Option<(Direction, &[u8])> {
        match self {
            Self::Ethernet => {
                let (header, rest) = frame.split_first_chunk::<14>()?;
                let [.., a, b] = *header;
                Some((
                    Direction::Unknown,
                    by_ethertype(u16::from_be_bytes([a, b]), rest)?,
                ))
            }
            Self::RawIp => Some((Direction::Unknown, frame)),
            Self::LinuxCooked => {
                let (header, rest) = frame.split_first_chunk::<16>()?;
                let [a, b, .., y, z] = *header;
                let kind = u16::from_be_bytes([a, b]);
                Some((cooked(kind), by_ethertype(u16::from_be_bytes([y, z]), rest)?))
            }
            Self::LinuxCooked2 => {
                let (header, rest) = frame.split_first_chunk::<20>()?;
                let [a, b, _, _, _, _, _, _, _, _, kind, ..] = *header;
                Some((
                    cooked(kind.into()),
                    by_ethertype(u16::from_be_bytes([a, b]), rest)?,
                ))
            }
            Self::Loopback => {
                let (family, rest) = frame.split_first_chunk::<4>()?;
                let known = |f| FAMILIES.contains(&f);
                let sound = known(u32::from_le_bytes(*family)) || known(u32::from_be_bytes(*family));
                sound.then_some((Direction::Unknown, rest))
            }
            Self::Other(_) => None,
        }
    }
}

fn cooked(kind: u16) -> Direction {
    match kind {
        PACKET_OUTGOING => Direction::Out,
        0..=3 => Direction::In,
        _ => Direction::Unknown,
    }
}

#[inline]
fn by_ethertype(ethertype: u16, rest: &[u8]) -> Option<&[u8]> {
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Some(rest),
        _ => tagged(ethertype, rest),
    }
}

fn tagged(mut ethertype: u16, mut rest: &[u8]) -> Option<&[u8]> {
    for _ in 0..MAX_TAGS {
        if !ETHERTYPES_VLAN.contains(&ethertype) {
            break;
        }
        let ([_, _, a, b], after) = rest.split_first_chunk::<4>()?;
        ethertype = u16::from_be_bytes([*a, *b]);
        rest = after;
    }
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Some(rest),
        ETHERTYPE_PPPOE_SESSION => {
            let ([a, b], packet) = rest.get(PPPOE_HEADER..)?.split_first_chunk::<2>()?;
            matches!(u16::from_be_bytes([*a, *b]), PPP_IPV4 | PPP_IPV6).then_some(packet)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: &[u8] = &[0x45, 1, 2, 3];

    fn frame(head: &[&[u8]]) -> Vec<u8> {
        let mut frame = head.concat();
        frame.extend(IP);
        frame
    }

    #[test]
    fn every_link_type_finds_the_packet() {
        let mac: &[u8] = &[2; 12];
        let outgoing = &[0, 4, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0];
        let incoming2: &[u8] = &[0, 0, 0, 0, 0, 7, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0];
        for (number, bytes, direction) in [
            (1, frame(&[mac, &[8, 0]]), Direction::Unknown),
            (1, frame(&[mac, &[0x86, 0xdd]]), Direction::Unknown),
            (1, frame(&[mac, &[0x81, 0, 0, 7, 8, 0]]), Direction::Unknown),
            (
                1,
                frame(&[mac, &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 8, 0]]),
                Direction::Unknown,
            ),
            (
                1,
                frame(&[mac, &[0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0, 0x21]]),
                Direction::Unknown,
            ),
            (12, frame(&[]), Direction::Unknown),
            (14, frame(&[]), Direction::Unknown),
            (101, frame(&[]), Direction::Unknown),
            (228, frame(&[]), Direction::Unknown),
            (229, frame(&[]), Direction::Unknown),
            (113, frame(&[outgoing, &[8, 0]]), Direction::Out),
            (
                113,
                frame(&[&[0, 0], &[0; 12], &[0x81, 0, 0, 7, 8, 0]]),
                Direction::In,
            ),
            (276, frame(&[&[8, 0], incoming2]), Direction::In),
            (0, frame(&[&[2, 0, 0, 0]]), Direction::Unknown),
            (108, frame(&[&[0, 0, 0, 30]]), Direction::Unknown),
        ] {
            let link = LinkType::from_number(number);
            assert_eq!(link.ip(&bytes), Some((direction, IP)), "{number} {bytes:02x?}");
        }
    }

    #[test]
    fn others_and_cut_frames_hold_none() {
        for (number, bytes) in [
            (1, frame(&[&[2; 12], &[8, 6]])),
            (1, vec![2; 13]),
            (
                1,
                frame(&[&[2; 12], &[0x88, 0x64, 0x11, 0, 0, 1, 0, 6, 0xc0, 0x21]]),
            ),
            (1, [&[2; 12][..], &[0x81, 0, 0]].concat()),
            (1, frame(&[&[2; 12], &[0x81, 0, 0, 7].repeat(5), &[8, 0]])),
            (113, vec![0; 15]),
            (276, vec![0; 19]),
            (0, frame(&[&[7, 0, 0, 0]])),
            (105, frame(&[])),
        ] {
            assert_eq!(
                LinkType::from_number(number).ip(&bytes),
                None,
                "{number} {bytes:02x?}"
            );
        }
    }
}

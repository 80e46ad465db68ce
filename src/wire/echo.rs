//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4): requests that carry a nonce, and the replies to them.
//!
//! In: a nonce and sizes, or a datagram. Out: a datagram, or whether it answers. Pure.

use pnet_packet::util::checksum;

/// Type, code, checksum, identifier, sequence.
pub const HEADER: usize = 8;

/// Bytes of the nonce by which a reply is told from every other; it follows the header.
pub const NONCE: usize = 8;

/// The smallest echo that carries the nonce.
pub const LEAST: usize = HEADER + NONCE;

/// An echo request of `length` bytes (at least [`LEAST`]), header included. The checksum is ICMP's; the kernel makes
/// ICMPv6's, which covers addresses too.
pub fn request(v6: bool, identifier: u16, sequence: u16, nonce: [u8; NONCE], length: usize) -> Vec<u8> {
    let mut packet = vec![0_u8; length.max(LEAST)];
    let (header, payload) = packet.split_at_mut(HEADER);
    header[0] = if v6 { 128 } else { 8 };
    header[4..6].copy_from_slice(&identifier.to_be_bytes());
    header[6..8].copy_from_slice(&sequence.to_be_bytes());
    payload[..NONCE].copy_from_slice(&nonce);
    if !v6 {
        let sum = checksum(&packet, 1);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Whether `datagram` (from the ICMP header on) is the reply that carries `nonce`.
pub fn is_reply(v6: bool, datagram: &[u8], nonce: [u8; NONCE]) -> bool {
    let reply = if v6 { 129 } else { 0 };
    datagram.len() >= LEAST && datagram[0] == reply && datagram[1] == 0 && datagram[HEADER..LEAST] == nonce
}

/// What follows an IPv4 header, which a raw socket hands out with the packet.
pub fn after_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    if first >> 4 != 4 {
        return None;
    }
    packet.get(usize::from(first & 0x0f) * 4..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reply_is_known_by_its_nonce() {
        let mut packet = request(false, 1, 2, [7; 8], 64);
        assert_eq!(packet.len(), 64);
        assert!(!is_reply(false, &packet, [7; 8]), "a request is no reply");
        packet[0] = 0;
        assert!(is_reply(false, &packet, [7; 8]));
        assert!(!is_reply(false, &packet, [8; 8]));
        assert!(!is_reply(true, &packet, [7; 8]));
        assert_eq!(request(true, 1, 2, [7; 8], 0).len(), LEAST);
    }

    #[test]
    fn the_checksum_covers_all() {
        let packet = request(false, 0x1234, 9, [3; 8], 33);
        assert_eq!(checksum(&packet, usize::MAX), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..80), v6: bool) {
            let _ = is_reply(v6, &bytes, [1; 8]);
            if let Some(rest) = after_ipv4_header(&bytes) {
                prop_assert!(rest.len() <= bytes.len());
            }
        }
    }
}

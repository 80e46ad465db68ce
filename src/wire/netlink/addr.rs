//! An address in 16 bytes, either family: what tables of hundreds of thousands of entries are keyed by.
//!
//! In: network-order bytes. Out: [`IpAddr`]. An IPv4 address is kept in its IPv4-mapped form (RFC 4291, section
//! 2.5.5.2), so that a dual-stack socket's `::ffff:192.0.2.1` and a plain socket's `192.0.2.1` are one address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What precedes the IPv4 address in an IPv4-mapped one, as the low half's upper bits.
const MAPPED: u64 = 0xffff << 32;

/// An IPv4 or IPv6 address; two machine words, so that comparing and hashing are cheap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Addr {
    high: u64,
    low: u64,
}

impl Addr {
    /// `::`, which also stands for "none".
    pub const UNSPECIFIED: Self = Self { high: 0, low: 0 };

    /// From an IPv4 address in network order.
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        Self {
            high: 0,
            low: MAPPED | u32::from_be_bytes(bytes) as u64,
        }
    }

    /// From an IPv6 address in network order; an IPv4-mapped one becomes the IPv4 address.
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
        Self {
            high: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_be_bytes(rest),
        }
    }

    /// As the standard library has it.
    pub const fn ip(self) -> IpAddr {
        let bits = (self.high as u128) << 64 | self.low as u128;
        Ipv6Addr::from_bits(bits).to_canonical()
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(v4: Ipv4Addr) -> Self {
        Self::from_v4(v4.octets())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_round_trip_and_mapped_is_v4() {
        for text in [
            "0.0.0.0",
            "192.0.2.1",
            "255.255.255.255",
            "::",
            "::1",
            "2001:db8::ff",
        ] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Addr::from(ip).ip(), ip);
        }
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let plain: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(Addr::from(mapped), Addr::from(plain));
        assert_eq!(Addr::from(mapped).ip(), plain);
    }
}

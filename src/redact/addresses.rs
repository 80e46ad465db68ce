//! Addresses: replaced so that prefixes stay prefixes, whatever their length.
//!
//! Each bit after the kept ones is flipped or not by a keyed hash of the bits before it (as Crypto-PAn does: Xu et
//! al., "Prefix-Preserving IP Address Anonymization", 2002). The kept bits hold what a diagnosis needs: private,
//! link-local, shared (RFC 6598) and Fly's ranges stay what they are. Loopback, unspecified and multicast addresses
//! are left alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use blake2::{Blake2s256, Digest};
use hashbrown::HashMap;

use crate::types::Cidr;

/// Replacements remembered; beyond it they are computed anew, with the same result.
const CACHE: usize = 65_536;

/// Replaces addresses under a key.
pub struct Addresses {
    key: [u8; 32],
    cache: HashMap<IpAddr, IpAddr>,
}

impl Addresses {
    /// Under `key`.
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            cache: HashMap::new(),
        }
    }

    /// A keyed hash of `data` for `purpose`.
    pub fn keyed(&self, purpose: &[u8], data: &[u8]) -> [u8; 32] {
        let mut hash = Blake2s256::new();
        hash.update(self.key);
        hash.update([u8::try_from(purpose.len()).unwrap_or(u8::MAX)]);
        hash.update(purpose);
        hash.update(data);
        hash.finalize().into()
    }

    /// Replaces an address.
    pub fn ip(&mut self, ip: &mut IpAddr) {
        let other = match self.cache.get(ip) {
            Some(known) => *known,
            None => {
                let other = self.other(*ip);
                if self.cache.len() < CACHE {
                    self.cache.insert(*ip, other);
                }
                other
            }
        };
        *ip = other;
    }

    /// Replaces an address, keeps its port.
    pub fn socket(&mut self, address: &mut SocketAddr) {
        let mut ip = address.ip();
        self.ip(&mut ip);
        address.set_ip(ip);
    }

    /// Replaces a prefix by the one that its addresses move to.
    pub fn cidr(&mut self, cidr: &mut Cidr) {
        let mut ip = cidr.addr();
        self.ip(&mut ip);
        // Masking cannot fail: the prefix length was valid for the family.
        *cidr = Cidr::new(ip, cidr.prefix()).unwrap_or(*cidr);
    }

    fn other(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(a) => IpAddr::V4(self.v4(a)),
            IpAddr::V6(a) => match a.to_ipv4_mapped() {
                Some(inner) => IpAddr::V6(self.v4(inner).to_ipv6_mapped()),
                None => IpAddr::V6(self.v6(a)),
            },
        }
    }

    fn v4(&self, a: Ipv4Addr) -> Ipv4Addr {
        if a.is_loopback() || a.is_unspecified() || a.is_multicast() || a.is_broadcast() {
            return a;
        }
        let keep = match a.octets() {
            // These octets hold special ranges no longer than /16; keeping 16 bits keeps addresses in or out of them.
            [100 | 169 | 172 | 192 | 198, ..] => 16,
            _ => 8,
        };
        let bits = self.flip(u128::from(a.to_bits()) << 96, keep, 32) >> 96;
        Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or_default())
    }

    fn v6(&self, a: Ipv6Addr) -> Ipv6Addr {
        if a.is_loopback() || a.is_unspecified() || a.is_multicast() {
            return a;
        }
        let keep = match a.segments() {
            [0xfe80..=0xfebf, ..] => 64,
            // fdaa::/16 is Fly's 6PN, ff9b NAT64 (RFC 6052); global addresses keep their registry's first 16 bits.
            [0x64, 0xff9b, ..] => 96,
            _ => 16,
        };
        Ipv6Addr::from_bits(self.flip(a.to_bits(), keep, 128))
    }

    /// Flips bits `keep..width`, counted from the most significant of `value`, each by a hash of those before it.
    fn flip(&self, value: u128, keep: u32, width: u32) -> u128 {
        let mut other = value;
        for bit in keep..width {
            let before = value & !(u128::MAX >> bit);
            let mut input = [0; 21];
            input[..16].copy_from_slice(&before.to_be_bytes());
            input[16..20].copy_from_slice(&bit.to_be_bytes());
            input[20] = u8::from(width == 32);
            if self.keyed(b"address", &input)[0] & 1 == 1 {
                other ^= 1 << (127 - bit);
            }
        }
        other
    }
}

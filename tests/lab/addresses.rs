//! Where the hosts of a lab are: documentation and private ranges only.

use std::net::{Ipv4Addr, Ipv6Addr};

/// An address of each family.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// The router's address on the same /24 and /64.
    pub fn gateway(self) -> Self {
        self.with_host(1)
    }

    /// The network itself, a /24 and a /64.
    pub fn network(self) -> Self {
        self.with_host(0)
    }

    fn with_host(self, host: u8) -> Self {
        let [a, b, c, _] = self.v4.octets();
        let v6 = self.v6.to_bits() >> 64 << 64 | u128::from(host);
        Self {
            v4: Ipv4Addr::new(a, b, c, host),
            v6: Ipv6Addr::from_bits(v6),
        }
    }
}

const fn at(v4: [u8; 4], v6: [u16; 3], host: u16) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]),
        v6: Ipv6Addr::new(v6[0], v6[1], v6[2], 0, 0, 0, 0, host),
    }
}

/// The client behind the router.
pub const CLIENT: Addresses = at([10, 77, 0, 2], [0xfd77, 0, 0], 2);
/// The second client, on the router's lan1.
pub const CLIENT2: Addresses = at([10, 78, 0, 2], [0xfd78, 0, 0], 2);
/// The client's second uplink, on the router's lan2.
pub const CLIENT_ROAMED: Addresses = at([10, 79, 0, 2], [0xfd79, 0, 0], 2);
/// The router's address towards the server, which is the external address of its NAT.
pub const ROUTER_WAN: Addresses = at([203, 0, 113, 1], [0x2001, 0xdb8, 0x113], 1);
/// The server.
pub const SERVER: Addresses = at([203, 0, 113, 9], [0x2001, 0xdb8, 0x113], 9);
/// More addresses of the server, for fan-out.
pub const SERVER_MORE: [Ipv4Addr; 3] = [
    Ipv4Addr::new(203, 0, 113, 10),
    Ipv4Addr::new(203, 0, 113, 11),
    Ipv4Addr::new(203, 0, 113, 12),
];
/// The client of a pair.
pub const PAIR_CLIENT: Addresses = at([198, 51, 100, 2], [0x2001, 0xdb8, 0x51], 2);
/// The server of a pair.
pub const PAIR_SERVER: Addresses = at([198, 51, 100, 9], [0x2001, 0xdb8, 0x51], 9);
/// The only addresses of a lone host.
pub const LOOPBACK: Addresses = at([127, 0, 0, 1], [0, 0, 0], 1);

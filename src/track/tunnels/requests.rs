//! Which routes are worth asking the kernel for.
//!
//! In: devices and their peers. Out: [`Request`]s, each once, an endpoint's again when its address changes. Why ask
//! at all: rules, marks and tables combine in the kernel only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::DeviceTrack;
use crate::observation::{Request, RoutePurpose, RouteQuery};
use crate::types::{Cidr, PublicKey};

/// Endpoints asked for per device; those of further peers are not looked up.
const MAX_ENDPOINTS: usize = 1_024;
/// AllowedIPs asked for per device; further ones are not looked up.
const MAX_ALLOWED_IPS: usize = 64;

/// What was asked of one device already.
#[derive(Debug, Default)]
pub(super) struct Asked {
    endpoints: BTreeMap<PublicKey, (IpAddr, u32)>,
    allowed_ips: BTreeSet<(PublicKey, Cidr)>,
}

impl Asked {
    /// The questions about `device` that were not asked yet.
    pub(super) fn next(&mut self, device: &DeviceTrack) -> Vec<Request> {
        let mut requests = Vec::new();
        let name = &device.info.name;
        let mark = device.info.fwmark;
        for (key, peer) in device.present_peers() {
            if let Some(endpoint) = peer.newest.endpoint {
                let known = self.endpoints.get(key).copied();
                let wanted = (endpoint.ip(), mark);
                if known != Some(wanted) && (known.is_some() || self.endpoints.len() < MAX_ENDPOINTS) {
                    self.endpoints.insert(*key, wanted);
                    requests.push(Request::RouteLookup(RouteQuery {
                        destination: endpoint.ip(),
                        mark,
                        purpose: RoutePurpose::Endpoint {
                            device: name.clone(),
                            peer: *key,
                        },
                    }));
                }
            }
            for prefix in &peer.newest.allowed_ips {
                if self.allowed_ips.len() >= MAX_ALLOWED_IPS || !self.allowed_ips.insert((*key, *prefix)) {
                    continue;
                }
                requests.push(Request::RouteLookup(RouteQuery {
                    destination: representative(*prefix),
                    // What programs send carries no mark; wg-quick's rules catch exactly that.
                    mark: 0,
                    purpose: RoutePurpose::AllowedIp {
                        device: name.clone(),
                        peer: *key,
                        prefix: *prefix,
                    },
                }));
            }
        }
        requests
    }
}

/// One address that stands for `prefix`: about two thirds into it, where this host's own address, a gateway and
/// smaller networks carved out at either end are least likely. A default route is stood for by an address of the
/// public Internet.
pub fn representative(prefix: Cidr) -> IpAddr {
    match prefix.addr() {
        IpAddr::V4(_) if prefix.prefix() <= 1 => {
            // 0.0.0.0/0 and 0.0.0.0/1: 96.0.0.1; 128.0.0.0/1: 160.0.0.1. Both are ordinary unicast.
            let high = prefix.addr() != IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            IpAddr::V4(Ipv4Addr::new(if high { 160 } else { 96 }, 0, 0, 1))
        }
        // 2000::/3 is global unicast (RFC 4291, section 2.4).
        IpAddr::V6(_) if prefix.prefix() <= 3 && prefix.contains(GLOBAL_V6.into()) => GLOBAL_V6.into(),
        IpAddr::V4(base) => {
            let host_bits = 32 - u32::from(prefix.prefix());
            let offset = if host_bits <= 2 {
                host_bits.min(1)
            } else {
                // 101010… in binary.
                0xAAAA_AAAA_u32 & u32::MAX.checked_shr(32 - host_bits).unwrap_or(0)
            };
            IpAddr::V4(Ipv4Addr::from_bits(base.to_bits() | offset))
        }
        IpAddr::V6(base) => {
            let host_bits = 128 - u32::from(prefix.prefix());
            let offset = if host_bits <= 2 {
                u128::from(host_bits.min(1))
            } else {
                (u128::MAX / 3 * 2) & u128::MAX.checked_shr(128 - host_bits).unwrap_or(0)
            };
            IpAddr::V6(Ipv6Addr::from_bits(base.to_bits() | offset))
        }
    }
}

const GLOBAL_V6: Ipv6Addr = Ipv6Addr::new(0x2600, 0, 0, 0, 0, 0, 0, 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_representative_lies_inside() {
        for (prefix, expected) in [
            ("10.0.0.5/32", "10.0.0.5"),
            ("10.0.0.4/31", "10.0.0.5"),
            ("10.0.0.4/30", "10.0.0.5"),
            ("10.0.0.0/24", "10.0.0.170"),
            ("0.0.0.0/0", "96.0.0.1"),
            ("128.0.0.0/1", "160.0.0.1"),
            ("::/0", "2600::1"),
            ("fd00::5/128", "fd00::5"),
            ("fd00::/127", "fd00::1"),
            ("fd00::/64", "fd00::aaaa:aaaa:aaaa:aaaa"),
        ] {
            let prefix: Cidr = prefix.parse().unwrap();
            let address = representative(prefix);
            assert_eq!(address.to_string(), expected);
            assert!(prefix.contains(address), "{prefix}");
        }
        assert!(
            "8000::/1"
                .parse()
                .is_ok_and(|p: Cidr| p.contains(representative(p)))
        );
    }
}

//! Which local ends are served here: a listener's, or an unconnected UDP socket's.

use hashbrown::HashSet;

use super::ports::PortSet;
use crate::wire::netlink::addr::Addr;

/// Ends with an address of their own that are kept apart at most. Of those beyond, the port counts as served at
/// every address.
const SPECIFIC: usize = 4096;

const ANY_V4: Addr = Addr::from_v4([0; 4]);

/// Served local ends.
pub struct Served {
    /// Ports served at any address.
    ports: PortSet,
    /// Ports served at every address. Whether `::` serves IPv4 too is not asked: it does unless told not to.
    everywhere: PortSet,
    specific: HashSet<(Addr, u16)>,
}

impl Served {
    /// Nothing is served.
    pub fn new() -> Self {
        Self {
            ports: PortSet::new(),
            everywhere: PortSet::new(),
            specific: HashSet::new(),
        }
    }

    /// `address` (or every one, where it is unspecified) is served at `port`.
    pub fn insert(&mut self, address: Addr, port: u16) {
        self.ports.insert(port);
        let everywhere = address == ANY_V4 || address == Addr::UNSPECIFIED;
        if everywhere || self.specific.len() >= SPECIFIC && !self.specific.contains(&(address, port)) {
            self.everywhere.insert(port);
        } else {
            self.specific.insert((address, port));
        }
    }

    /// Whether a connection at this local end was accepted here.
    #[inline]
    pub fn contains(&self, address: Addr, port: u16) -> bool {
        self.ports.contains(port)
            && (self.everywhere.contains(port) || self.specific.contains(&(address, port)))
    }

    /// The ports that are served at some address.
    pub fn ports(&self) -> &PortSet {
        &self.ports
    }

    /// The ports that are served on loopback addresses alone, ascending. What was beyond the bound counts as served everywhere.
    pub fn loopback_only(&self) -> Vec<u16> {
        loopback_only(self.specific.iter().copied(), |port| {
            self.everywhere.contains(port)
        })
    }

    /// How many of `ports` are served at some address.
    pub fn count_common(&self, ports: &PortSet) -> u32 {
        self.ports.count_common(ports)
    }

    /// Nothing is served any more.
    pub fn clear(&mut self) {
        self.ports.clear();
        self.everywhere.clear();
        self.specific.clear();
    }
}

/// Of `ends`, each with an address of its own, the ports that have loopback addresses only and are not served `everywhere`.
pub(super) fn loopback_only(
    ends: impl Iterator<Item = (Addr, u16)>,
    everywhere: impl Fn(u16) -> bool,
) -> Vec<u16> {
    let mut inside = std::collections::BTreeSet::new();
    let mut outside = HashSet::new();
    for (address, port) in ends {
        if address.ip().is_loopback() {
            inside.insert(port);
        } else {
            outside.insert(port);
        }
    }
    inside.retain(|port| !outside.contains(port) && !everywhere(*port));
    inside.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Addr = Addr::from_v4([10, 0, 0, 1]);
    const B: Addr = Addr::from_v4([10, 0, 0, 2]);

    #[test]
    fn a_listener_serves_its_own_address() {
        let mut served = Served::new();
        served.insert(A, 80);
        served.insert(ANY_V4, 81);
        served.insert(Addr::UNSPECIFIED, 82);
        for (address, port, is) in [
            (A, 80, true),
            (B, 80, false),
            (B, 81, true),
            (B, 82, true),
            (A, 83, false),
        ] {
            assert_eq!(served.contains(address, port), is, "{address:?} {port}");
        }
        served.clear();
        assert!(!served.contains(A, 80) && !served.contains(A, 81));
    }

    #[test]
    fn what_only_loopback_serves_is_told_apart() {
        let mut served = Served::new();
        let local = |last| Addr::from_v4([127, 0, 0, last]);
        for (address, port) in [
            (local(1), 80),
            (local(53), 53),
            (Addr::from("::1".parse::<std::net::IpAddr>().unwrap()), 8080),
            (local(1), 81),
            (A, 81),
            (local(1), 82),
            (ANY_V4, 82),
            (A, 83),
            (Addr::UNSPECIFIED, 84),
        ] {
            served.insert(address, port);
        }
        assert_eq!(served.loopback_only(), [53, 80, 8080]);
    }

    #[test]
    fn beyond_the_bound_a_port_counts_as_served_everywhere() {
        let mut served = Served::new();
        for port in 0..5000 {
            served.insert(A, port);
        }
        assert_eq!(served.specific.len(), SPECIFIC);
        assert!(served.contains(A, 4999) && served.contains(B, 4999));
        assert!(served.contains(A, 1) && !served.contains(B, 1));
    }
}

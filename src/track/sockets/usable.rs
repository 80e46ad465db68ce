//! How many local ports a destination can have at all, and which TIME_WAIT sockets do not stand in the way.
//!
//! In: settings and a tally. Out: counts. Reserved ports are in neither: the tally leaves them out of all that it counts
//! inside the range.

use std::net::IpAddr;

use super::Key;
use crate::observation::host::Sysctls;
use crate::observation::socket::{SocketTally, TIME_WAIT_CLASSES};
use crate::time::Span;
use crate::types::{PortRange, Proto};

/// TIME_WAIT lasts this long (`TCP_TIMEWAIT_LEN`, include/net/tcp.h).
pub const TIME_WAIT: Span = Span::from_secs(60);

/// How long a TIME_WAIT must have lasted before `tcp_tw_reuse` gives its port away: fixed at a second before Linux
/// 6.14, since then the default of `tcp_tw_reuse_delay`.
const DEFAULT_REUSE_DELAY: Span = Span::from_secs(1);

/// The ports that connections of one (protocol, source, destination) can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usable {
    /// `ip_local_port_range`.
    pub range: PortRange,
    /// Reserved ports inside the range (`ip_local_reserved_ports`).
    pub reserved: u32,
    /// Other ports inside the range that listeners (TCP) or other sockets (UDP) hold.
    pub taken: u32,
    /// What is left of the range.
    pub ports: u32,
}

impl Usable {
    /// Works it out for a destination that itself holds `held` ports; `None` where the range is not known.
    ///
    /// A listener's port is of no use to any `connect` (its bind bucket is not shared, `__inet_hash_connect`). A UDP
    /// socket binds before it connects, so any other socket's port is of no use to it.
    pub fn of(sysctls: &Sysctls, tally: &SocketTally, proto: Proto, held: u32) -> Option<Self> {
        let range = sysctls.local_port_range?;
        let reserved = reserved_inside(range, &sysctls.reserved_ports);
        let taken = match proto {
            Proto::Tcp => tally.listen_ports_in_range,
            Proto::Udp => tally.udp_ports_in_range.saturating_sub(held),
        };
        Some(Self {
            range,
            reserved,
            taken,
            ports: range.len().saturating_sub(reserved.saturating_add(taken)),
        })
    }

    /// `held` as a share of what is usable, from 0 up; 1 where nothing is usable.
    pub fn share(&self, held: u32) -> f64 {
        if self.ports == 0 {
            return 1.0;
        }
        f64::from(held) / f64::from(self.ports)
    }
}

/// Ports of `reserved` inside `range`, each counted once even where entries overlap.
fn reserved_inside(range: PortRange, reserved: &[PortRange]) -> u32 {
    let mut parts: Vec<(u32, u32)> = reserved
        .iter()
        .map(|r| (u32::from(r.low.max(range.low)), u32::from(r.high.min(range.high))))
        .filter(|(low, high)| low <= high)
        .collect();
    parts.sort_unstable();
    let (mut count, mut next) = (0, 0);
    for (low, high) in parts {
        let low = low.max(next);
        if low <= high {
            count += high - low + 1;
            next = high + 1;
        }
    }
    count
}

/// After how long the kernel gives the port of a TIME_WAIT towards `key` to a new connection; `None` where it never
/// does (`tcp_twsk_unique`). It also takes TCP timestamps on the old connection, which both ends must have agreed on:
/// that cannot be seen from here.
pub fn reuse_delay(sysctls: &Sysctls, key: &Key) -> Option<Span> {
    if key.proto != Proto::Tcp || sysctls.others.get("net.ipv4.tcp_timestamps") == Some(&0) {
        return None;
    }
    let loopback = is_loopback(key.source) || is_loopback(key.destination.ip());
    let in_force = match sysctls.tcp_tw_reuse {
        Some(0) => false,
        Some(1) => true,
        // 2 is loopback only, and the default since Linux 4.19.
        Some(_) | None => loopback,
    };
    let delay = sysctls
        .tcp_tw_reuse_delay
        .map_or(DEFAULT_REUSE_DELAY, |ms| Span::from_millis(ms.into()));
    in_force.then_some(delay)
}

fn is_loopback(addr: IpAddr) -> bool {
    addr.to_canonical().is_loopback()
}

/// How many of the TIME_WAIT sockets in `left` are younger than `age`, taking each class to be evenly spread.
pub fn younger_than(left: &[u32; TIME_WAIT_CLASSES], age: Span) -> u32 {
    let age = age.as_secs_f64();
    let mut young = 0.0;
    for (class, count) in left.iter().rev().enumerate() {
        #[allow(clippy::cast_precision_loss)] // 0..6
        let starts = class as f64 * 10.0;
        young += f64::from(*count) * ((age - starts) / 10.0).clamp(0.0, 1.0);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a sum of six u32 shares; saturates
    let young = young.ceil() as u32;
    young
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(low: u16, high: u16) -> PortRange {
        PortRange { low, high }
    }

    fn sysctls(reuse: Option<u32>) -> Sysctls {
        Sysctls {
            local_port_range: Some(PortRange::LINUX_DEFAULT),
            tcp_tw_reuse: reuse,
            ..Sysctls::default()
        }
    }

    #[test]
    fn reserved_ports_count_once_and_inside_only() {
        let inside = range(100, 199);
        for (reserved, expected) in [
            (vec![], 0),
            (vec![range(1, 99)], 0),
            (vec![range(90, 109)], 10),
            (vec![range(110, 119), range(115, 124)], 15),
            (vec![range(115, 124), range(110, 119), range(111, 112)], 15),
            (vec![range(190, 65535)], 10),
            (vec![range(5, 4)], 0),
        ] {
            assert_eq!(reserved_inside(inside, &reserved), expected, "{reserved:?}");
        }
    }

    #[test]
    fn usable_ports() {
        let tally = SocketTally {
            listen_ports_in_range: 3,
            udp_ports_in_range: 500,
            ..SocketTally::default()
        };
        let mut settings = sysctls(None);
        settings.reserved_ports = vec![range(40000, 40001)];
        let ports = |settings: &Sysctls, proto, held| {
            let usable = Usable::of(settings, &tally, proto, held)?;
            Some((usable.ports, usable.share(usable.ports / 2) > 0.49))
        };
        assert_eq!(ports(&settings, Proto::Tcp, 7), Some((28_227, true)));
        assert_eq!(ports(&settings, Proto::Udp, 400), Some((28_130, true)));
        settings.reserved_ports = vec![range(1, 65535)];
        assert_eq!(ports(&settings, Proto::Tcp, 7), Some((0, true)));
        settings.local_port_range = None;
        assert_eq!(ports(&settings, Proto::Tcp, 7), None);
    }

    #[test]
    fn reuse_follows_the_kernels_table() {
        let loopback = "127.0.0.1";
        let own = "10.9.9.1";
        for (reuse, addr, expected) in [
            (Some(0), loopback, false),
            (Some(0), own, false),
            (Some(1), loopback, true),
            (Some(1), own, true),
            (Some(2), loopback, true),
            (Some(2), "::1", true),
            (Some(2), "::ffff:127.0.0.1", true),
            (Some(2), own, false),
            (None, own, false),
        ] {
            let ip: IpAddr = addr.parse().unwrap();
            let key = Key {
                proto: Proto::Tcp,
                source: ip,
                destination: (ip, 80).into(),
            };
            let mut settings = sysctls(reuse);
            assert_eq!(
                reuse_delay(&settings, &key).is_some(),
                expected,
                "{reuse:?} {addr}"
            );
            settings.others.insert("net.ipv4.tcp_timestamps".to_owned(), 0);
            assert_eq!(reuse_delay(&settings, &key), None);
        }
    }

    #[test]
    fn young_time_waits() {
        let left = [10, 20, 30, 40, 50, 60];
        for (millis, expected) in [
            (0, 0),
            (1000, 6),
            (10_000, 60),
            (15_000, 85),
            (60_000, 210),
            (90_000, 210),
        ] {
            assert_eq!(
                younger_than(&left, Span::from_millis(millis)),
                expected,
                "{millis}"
            );
        }
    }
}

//! What buys time: more addresses, and the settings that people reach for first. Room, not a cure.

use super::sizing::TIME_WAIT_SECONDS;
use super::{Case, Remedy};
use crate::finding::Fix;
use crate::words::{count, number};

/// The range that is proposed: 50,000 ports, even and odd ends as the kernel prefers, and clear of the low ports where
/// most listeners are.
const WIDER: (u16, u16) = (15_000, 64_999);

/// Fixes in the order of how little they disturb.
pub fn fixes(case: &Case<'_>, remedy: Remedy) -> Vec<Fix> {
    // A leak and a dead destination fill any range.
    // And where ports suffice, room would only be noise: half the range is where `connect` begins to search.
    let short = case.share().is_some_and(|share| share >= 0.5);
    if matches!(remedy, Remedy::Close | Remedy::Reach) || !short {
        return Vec::new();
    }
    let mut fixes = Vec::new();
    if remedy.pools() && case.sockets.time_wait > 0 && !case.reused {
        fixes.push(reuse(case));
    }
    fixes.extend(wider(case));
    fixes
}

fn reuse(case: &Case<'_>) -> Fix {
    let ceiling = case.ports.map_or_else(String::new, |p| {
        format!(
            " The ceiling of {} new connections a second (a sixtieth of the ports) becomes about {}.",
            number(f64::from(p.usable) / TIME_WAIT_SECONDS),
            count(p.usable)
        )
    });
    Fix {
        title: "For room: let outgoing connections take over ports in TIME_WAIT".to_owned(),
        why: format!(
            "Room, not a cure: the opening and closing goes on. A port becomes free a second after the close instead of 60 s, \
             where both ends use TCP timestamps; it concerns outgoing connections only.{ceiling}"
        ),
        command: Some("sysctl -w net.ipv4.tcp_tw_reuse=1".to_owned()),
        ..Fix::default()
    }
}

fn wider(case: &Case<'_>) -> Option<Fix> {
    let range = case.ports?.range;
    let (low, high) = WIDER;
    let ports = u32::from(high - low) + 1;
    (range < ports).then(|| Fix {
        title: "For room: widen the range of local ports".to_owned(),
        why: format!(
            "Room, not a cure: {} ports instead of {}. First look for listeners inside the new range: an outgoing connection may \
             take such a port while the service restarts, which then fails with EADDRINUSE. Put their ports into \
             ip_local_reserved_ports, together with what is there already.",
            count(ports),
            count(range)
        ),
        command: Some(format!(
            "ss -Htuln    # listeners; reserve those between {low} and {high}\n\
             sysctl net.ipv4.ip_local_reserved_ports\n\
             sysctl -w net.ipv4.ip_local_port_range=\"{low} {high}\""
        )),
        ..Fix::default()
    })
}

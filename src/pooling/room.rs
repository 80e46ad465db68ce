//! What buys time: more addresses, and the settings that people reach for first. Room, not a cure.

use super::sizing::TIME_WAIT_SECONDS;
use super::{Case, Remedy, Served};
use crate::finding::Fix;
use crate::types::PortRange;
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
            "Room, not a cure: {} ports instead of {}. {}",
            count(ports),
            count(range),
            case.served
                .map_or_else(unknown_listeners, |served| swallowed_words(&served))
        ),
        command: Some(match case.served {
            None => format!(
                "ss -Htuln    # listeners; reserve those between {low} and {high}\n\
                 sysctl net.ipv4.ip_local_reserved_ports\n{}",
                set_range()
            ),
            Some(served) => match reservation(&served) {
                Some(list) => format!(
                    "sysctl -w net.ipv4.ip_local_reserved_ports=\"{list}\"\n{}",
                    set_range()
                ),
                None => set_range(),
            },
        }),
        ..Fix::default()
    })
}

fn set_range() -> String {
    let (low, high) = WIDER;
    format!("sysctl -w net.ipv4.ip_local_port_range=\"{low} {high}\"")
}

fn unknown_listeners() -> String {
    "First look for listeners inside the new range: an outgoing connection may take such a port while the service restarts, which \
     then fails with EADDRINUSE. Put their ports into ip_local_reserved_ports, together with what is there already."
        .to_owned()
}

/// Ports told one by one.
const NAMED: usize = 8;

/// Ports of services that the wider range would swallow and that are not reserved.
fn swallowed(served: &Served<'_>) -> Vec<u16> {
    let (low, high) = WIDER;
    let reserved = |port: u16| served.reserved.iter().any(|r| (r.low..=r.high).contains(&port));
    let inside = served.ports.iter().filter(|p| (low..=high).contains(*p));
    inside.filter(|p| !reserved(**p)).copied().collect()
}

fn swallowed_words(served: &Served<'_>) -> String {
    let ports = swallowed(served);
    let more = match served.left_out {
        0 => String::new(),
        n => format!(" {} more ports of services were not looked at.", count(n)),
    };
    if ports.is_empty() {
        return format!("No service of this host listens inside the new range now.{more}");
    }
    let named: Vec<String> = ports.iter().take(NAMED).map(ToString::to_string).collect();
    let further = match ports.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!(
        "Services listen inside the new range, on {}{further}: an outgoing connection may take such a port while the service \
         restarts, which then fails with EADDRINUSE. So these ports are reserved first.{more}",
        named.join(", ")
    )
}

/// What to reserve: what is reserved already, and the swallowed ports. `None` where nothing is to be added.
fn reservation(served: &Served<'_>) -> Option<String> {
    let ports = swallowed(served);
    if ports.is_empty() {
        return None;
    }
    let range = |r: &PortRange| match r.low == r.high {
        true => r.low.to_string(),
        false => format!("{}-{}", r.low, r.high),
    };
    let kept = served.reserved.iter().map(range);
    let list: Vec<String> = kept.chain(ports.iter().map(ToString::to_string)).collect();
    Some(list.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn range(low: u16, high: u16) -> PortRange {
        PortRange { low, high }
    }

    #[test]
    fn a_wider_range_spares_the_services() {
        let reserved = [range(9000, 9009), range(20_001, 20_001)];
        let served = |ports| Served {
            ports,
            left_out: 0,
            reserved: &reserved,
        };
        let swallows = served(&[22, 9005, 20_000, 20_001, 64_999, 65_000]);
        assert_eq!(swallowed(&swallows), [20_000, 64_999]);
        assert_eq!(
            reservation(&swallows).as_deref(),
            Some("9000-9009,20001,20000,64999"),
            "what is reserved stays so"
        );
        assert!(swallowed_words(&swallows).contains("on 20000, 64999:"));
        let spares = served(&[22, 443]);
        assert_eq!(reservation(&spares), None);
        assert!(swallowed_words(&spares).starts_with("No service"));
    }

    #[test]
    fn many_services_are_not_all_named() {
        let ports: Vec<u16> = (20_000..20_020).collect();
        let served = Served {
            ports: &ports,
            left_out: 7,
            reserved: &[],
        };
        let words = swallowed_words(&served);
        assert!(
            words.contains("20007 and 12 more:") && words.contains("7 more ports"),
            "{words}"
        );
        assert_eq!(reservation(&served).unwrap().split(',').count(), 20);
    }
}

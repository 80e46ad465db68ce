//! `wg-no-route`: this host has no way to the peer's endpoint.

use super::view::{View, views};
use super::words::quote;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::host::{Link, RouteWay};
use crate::rules::{Area, Input, Rule};

const CODE: &str = "wg-no-route";

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "the kernel has no route to the peer's endpoint, or the interface of that route is down",
    meaning: "The tunnel's own packets travel over the ordinary network, to the peer's endpoint. This host has no \
              way to that address: the network is not connected, a default route is missing, a route forbids it, or \
              the address is IPv6 and this host has none. WireGuard cannot send a single packet.",
    detection: "The kernel itself is asked which way a packet with the device's firewall mark would go to the endpoint. \
                It answers with an error, or with an interface that is down or has no carrier. A device with a live \
                session is not judged: its packets do leave, from another network namespace.",
    fix: "Connect the network that leads there (`ip link set up dev …`, DHCP), add the missing route, or set an \
          endpoint in an address family that this host has.",
    needs: &[super::DEVICES, &[Source::Routes]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input)
        .filter_map(|view| {
            let confidence = match view.outer_route_disproved() {
                false => Confidence::Certain,
                true if refused_here(&view) => Confidence::Likely,
                true => return None,
            };
            let missing = missing(&view)?;
            Some(finding(&view, &missing, confidence))
        })
        .collect()
}

/// Whether this namespace refused packets for want of a route while nothing was heard from the peer: a young session
/// then proves no other way out, the way was lost since its handshake.
fn refused_here(view: &View<'_>) -> bool {
    let counter = match view.endpoint() {
        Some(endpoint) if endpoint.is_ipv6() => "Ip6.OutNoRoutes",
        _ => "Ip.OutNoRoutes",
    };
    view.peer.traffic.heard_at.is_none() && view.world.counters.delta(counter).is_some_and(|n| n > 0)
}

/// What is missing.
enum Missing<'a> {
    /// The kernel's errno.
    Route(i32),
    /// The interface that is there but dead.
    Link(&'a Link),
}

fn missing<'a>(view: &View<'a>) -> Option<Missing<'a>> {
    match view.way()? {
        RouteWay::None { errno } => words(*errno).map(|_| Missing::Route(*errno)),
        RouteWay::Via {
            out, local: false, ..
        } => {
            let link = view.world.routes.link(*out)?;
            let is_device = view.info().if_index == Some(*out);
            (!is_device && (!link.admin_up || !link.carrier)).then_some(Missing::Link(link))
        }
        RouteWay::Via { .. } => None,
    }
}

/// What an errno of a route look-up means (Linux, asm-generic numbers; fib_props in net/ipv4/fib_semantics.c).
/// `None` for one that says nothing about routes.
fn words(errno: i32) -> Option<&'static str> {
    Some(match errno {
        101 => "no route leads there (ENETUNREACH)",
        113 => "a route says unreachable (EHOSTUNREACH)",
        13 => "a route prohibits it (EACCES)",
        22 => "a blackhole route swallows it (EINVAL)",
        95 | 97 | 99 => "this host does not speak that address family",
        _ => return None,
    })
}

fn finding(view: &View<'_>, missing: &Missing<'_>, confidence: Confidence) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let address = view.endpoint().map_or_else(String::new, |e| e.ip().to_string());
    let mark = view.info().fwmark;
    let mut finding = view.finding(CODE, Severity::Critical, confidence);
    let routes = view.world.routes.tables();
    let default_routes = routes.map(|t| {
        t.routes
            .iter()
            .filter(|r| r.destination.is_default() && r.kind == "unicast")
            .filter(|r| Some(r.destination.addr().is_ipv6()) == view.endpoint().map(|e| e.is_ipv6()))
            .count() as u64
    });
    let base = Evidence::new();
    match missing {
        Missing::Route(errno) => {
            finding.title = format!("No route to {endpoint}, the peer of {name}");
            finding.summary = format!(
                "The kernel refuses to send to {address}: {}. So {name} cannot even call its peer.",
                words(*errno).unwrap_or("an error")
            );
            finding.evidence = base.with("errno", *errno);
        }
        Missing::Link(link) => {
            let state = if link.admin_up {
                "has no carrier"
            } else {
                "is set down"
            };
            finding.title = format!("{} towards {endpoint}, the peer of {name}, {state}", link.name);
            finding.summary = format!(
                "Packets to {address} would leave through {}, which {state}. So {name} cannot reach its peer.",
                link.name
            );
            finding.evidence = base
                .with("out_interface", link.name.clone())
                .with("admin_up", link.admin_up)
                .with("carrier", link.carrier);
        }
    }
    finding.evidence = finding
        .evidence
        .with("destination", address.clone())
        .with("fwmark", mark)
        .maybe("default_routes", default_routes)
        .maybe("ip_out_no_routes", view.world.counters.delta("Ip.OutNoRoutes"));
    finding.impact = "Nothing passes through the tunnel to this peer.".to_owned();
    finding.fixes = fixes(view, missing, &address, mark);
    finding
}

fn fixes(view: &View<'_>, missing: &Missing<'_>, address: &str, mark: u32) -> Vec<Fix> {
    let with_mark = if mark == 0 {
        String::new()
    } else {
        format!(" mark {mark:#x}")
    };
    let look = view.here(&format!("ip route get {address}{with_mark}"));
    match missing {
        Missing::Link(link) if !link.admin_up => vec![Fix {
            title: format!("Bring {} up", link.name),
            why: "The only way to the peer leads through it.".to_owned(),
            command: Some(view.here(&format!("ip link set up dev {}", quote(&link.name)))),
            expect: Evidence::new().with("admin_up", true),
            ..Fix::default()
        }],
        Missing::Link(link) => vec![Fix {
            title: format!("Reconnect {}, or route around it", link.name),
            why: "It is set up but has no carrier: a cable, a radio link or the other end is missing."
                .to_owned(),
            command: Some(look),
            expect: Evidence::new().with("carrier", true),
            ..Fix::default()
        }],
        Missing::Route(_) => vec![Fix {
            title: "Give this host a way there: a default route, or one for this address".to_owned(),
            why:
                "The command shows what the kernel answers; once it names an interface, the tunnel can call."
                    .to_owned(),
            command: Some(look),
            expect: Evidence::new().with("errno", 0),
            ..Fix::default()
        }],
    }
}

#[cfg(test)]
mod tests;

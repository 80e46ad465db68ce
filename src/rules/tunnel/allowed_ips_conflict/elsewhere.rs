//! Prefixes that the routes send past the device.

use std::net::IpAddr;

use super::super::view::{View, views};
use super::super::words::quote;
use super::CODE;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::host::{Route, RouteWay};
use crate::rules::Input;
use crate::types::{Cidr, IfIndex};

/// Prefixes named in a summary; all are in the evidence.
const SHOWN: usize = 3;

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input).filter_map(|view| elsewhere(&view)).collect()
}

/// One prefix that goes elsewhere.
struct Stray {
    prefix: Cidr,
    /// An address of it.
    address: IpAddr,
    /// Where it goes; `None` for nowhere.
    out: Option<String>,
    /// The route that wins, where it is not a default route.
    by: Option<Cidr>,
    /// Where it goes is another WireGuard device, with a peer that has these addresses: one of the two may be a spare.
    rival: bool,
}

fn elsewhere(view: &View<'_>) -> Option<Finding> {
    let link = view.link()?;
    let tables = view.world.routes.tables()?;
    if !link.admin_up || tables.routes_left_out > 0 {
        return None;
    }
    let into_device = tables.routes.iter().filter(|r| r.out == Some(link.index)).count() as u64;
    let carries = view.live() || view.peer.newest.rx_bytes > 0 && view.peer.newest.last_handshake.is_some();
    if into_device == 0 && carries {
        return None;
    }
    let strays: Vec<Stray> = view
        .world
        .routes
        .to_allowed_ips(view.name(), view.key)
        .filter(|(prefix, _, _)| view.peer.newest.allowed_ips.contains(prefix))
        .filter_map(|(prefix, address, way)| stray(view, link.index, prefix, address, way))
        .collect();
    let confidence = match into_device {
        0 => Confidence::Possible,
        _ if strays.iter().all(|s| s.rival) => Confidence::Possible,
        _ => Confidence::Likely,
    };
    (!strays.is_empty()).then(|| finding(view, &strays, confidence, into_device))
}

fn stray(view: &View<'_>, device: IfIndex, prefix: Cidr, address: IpAddr, way: &RouteWay) -> Option<Stray> {
    // A default route in AllowedIPs is often fed by policy routing or a routing daemon.
    if prefix.prefix() <= 1 {
        return None;
    }
    // Routing the endpoint itself into the tunnel would be a loop, so such a prefix is left out on purpose.
    if view.endpoint().is_some_and(|e| prefix.contains(e.ip())) {
        return None;
    }
    let routes = &view.world.routes;
    if routes.covering(address).any(|r| r.out == Some(device)) {
        return None;
    }
    match way {
        RouteWay::Via { local: true, .. } => None,
        RouteWay::Via { out, .. } if *out == device => None,
        RouteWay::Via { out, .. } => {
            let winner = routes
                .covering(address)
                .filter(|r| r.out == Some(*out))
                .max_by_key(|r| r.destination.prefix())
                .map(|r: &Route| r.destination)?;
            // A smaller network inside the prefix: carved out on purpose, as far as one can tell.
            (winner.prefix() <= prefix.prefix()).then(|| Stray {
                prefix,
                address,
                out: Some(routes.link_name(*out)),
                by: (!winner.is_default()).then_some(winner),
                rival: rival(view, *out, prefix),
            })
        }
        // ENETUNREACH only: a route that says unreachable, prohibit or blackhole was put there by somebody.
        RouteWay::None { errno: 101 } => Some(Stray {
            prefix,
            address,
            out: None,
            by: None,
            rival: false,
        }),
        RouteWay::None { .. } => None,
    }
}

/// Whether `out` is another device with a peer that has the whole of `prefix`.
fn rival(view: &View<'_>, out: IfIndex, prefix: Cidr) -> bool {
    let name = view.world.routes.link_name(out);
    let Some(device) = view
        .world
        .tunnels
        .device(&name)
        .filter(|d| d.vanished_at.is_none())
    else {
        return false;
    };
    device
        .present_peers()
        .flat_map(|(_, peer)| &peer.newest.allowed_ips)
        .any(|held| held.overlaps(&prefix) && held.prefix() <= prefix.prefix())
}

fn finding(view: &View<'_>, strays: &[Stray], confidence: Confidence, into_device: u64) -> Finding {
    let name = view.name();
    let shown = strays
        .iter()
        .take(SHOWN)
        .map(|s| s.prefix.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let more = strays.len().saturating_sub(SHOWN);
    let and_more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let mut finding = view.finding(CODE, Severity::Warning, confidence);
    let first = strays.first();
    let place = match first.and_then(|s| s.out.as_deref()) {
        Some(out) => format!("leaves through {out}"),
        None => "has no route".to_owned(),
    };
    finding.title = format!("Traffic for {shown}{and_more} {place}, not through {name}");
    finding.summary = match first.and_then(|s| s.by) {
        Some(by) => format!(
            "AllowedIPs give {shown}{and_more} to peer {}, but the route {by} takes the traffic past the tunnel: it \
             {place}.",
            view.key.short()
        ),
        None => format!(
            "AllowedIPs give {shown}{and_more} to peer {}, but no route leads there through {name}: the traffic {place}.",
            view.key.short()
        ),
    };
    if strays.iter().all(|s| s.rival) {
        finding.summary.push_str(
            " A peer of that tunnel has the same addresses; if one is the other's spare, this is meant.",
        );
    } else if into_device == 0 {
        finding.summary.push_str(&format!(
            " {name} has no route at all; if an application or eBPF feeds it, this is meant."
        ));
    }
    finding.evidence = Evidence::new()
        .with(
            "prefixes",
            strays.iter().map(|s| s.prefix.to_string()).collect::<Vec<_>>(),
        )
        .maybe("out_interface", first.and_then(|s| s.out.clone()))
        .maybe("winning_route", first.and_then(|s| s.by).map(|by| by.to_string()))
        .with("routes_into_device", into_device);
    finding.impact = "Programs that talk to these addresses bypass the tunnel or get no answer.".to_owned();
    finding.fixes = fixes(view, strays);
    finding
}

fn fixes(view: &View<'_>, strays: &[Stray]) -> Vec<Fix> {
    let Some(stray) = strays.first() else {
        return Vec::new();
    };
    let expect = Evidence::new().with("out_interface", view.name());
    if stray.by == Some(stray.prefix) {
        // The same prefix on two interfaces: taking it over would cut the other network off.
        return vec![Fix {
            title: format!("Renumber one of the two networks {}, or list single hosts in AllowedIPs", stray.prefix),
            why: "Both sides use the same addresses, so one of them is always out of reach. The command shows which one \
                  wins now."
                .to_owned(),
            command: Some(view.here(&format!("ip route get {}", stray.address))),
            expect,
            ..Fix::default()
        }];
    }
    let commands: Vec<String> = strays
        .iter()
        .take(8)
        .map(|s| {
            let ip = if s.prefix.addr().is_ipv4() { "ip" } else { "ip -6" };
            view.here(&format!("{ip} route add {} dev {}", s.prefix, quote(view.name())))
        })
        .collect();
    vec![Fix {
        title: format!("Route the addresses into {}", view.name()),
        why: "`wg` sets AllowedIPs but makes no routes; wg-quick adds both.".to_owned(),
        command: Some(commands.join("\n")),
        expect,
        ..Fix::default()
    }]
}

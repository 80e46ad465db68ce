//! `wg-endpoint-loop`: the way to the endpoint leads into the tunnel itself.

use super::view::{View, views};
use super::words::quote;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::host::RouteWay;
use crate::rules::{Area, Input, Rule};

const CODE: &str = "wg-endpoint-loop";

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "critical",
    holds_when: "the route to the peer's endpoint leads into the WireGuard device itself",
    meaning: "A tunnel wraps each packet into another one that goes to the peer's endpoint over the ordinary network. \
              Here the routing table sends that outer packet into the tunnel again, so it never leaves the host. \
              Typical: AllowedIPs (or a hand-made route) of 0.0.0.0/0 that cover the endpoint's own address, without \
              the firewall mark by which wg-quick keeps the two apart.",
    detection: "The kernel is asked which way a packet with the device's firewall mark would go to the endpoint, and it \
                names the device itself. Not judged where the session is alive or where handshakes are seen to leave \
                through another interface: then the device's socket lives in another network namespace and the route \
                here does not apply.",
    fix: "Give the endpoint a route of its own past the tunnel, or use wg-quick's way: a firewall mark on the device and \
          a rule that sends only unmarked packets into the tunnel's table.",
    needs: &[super::DEVICES, &[Source::Routes]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    views(input).filter(loops).map(|view| finding(&view)).collect()
}

fn loops(view: &View<'_>) -> bool {
    let Some(RouteWay::Via {
        out, local: false, ..
    }) = view.way()
    else {
        return false;
    };
    let device = view.link().map(|link| link.index).or(view.info().if_index);
    let leaves_elsewhere = view.wire.out_through.iter().any(|i| i != out);
    device == Some(*out) && !view.outer_route_disproved() && !leaves_elsewhere
}

fn finding(view: &View<'_>) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let address = view.endpoint().map(|e| e.ip());
    let text = address.map_or_else(String::new, |a| a.to_string());
    let mark = view.info().fwmark;
    let culprit = address.and_then(|a| {
        view.peer
            .newest
            .allowed_ips
            .iter()
            .filter(|prefix| prefix.contains(a))
            .max_by_key(|prefix| prefix.prefix())
    });
    let mut finding = view.finding(CODE, Severity::Critical, Confidence::Certain);
    finding.title = format!("The way to {endpoint} leads into {name} itself");
    finding.summary = format!(
        "{name}'s own packets to {text} are routed into {name} again{}, so they never leave this host.{}",
        if mark == 0 {
            String::new()
        } else {
            format!(", in spite of its firewall mark {mark:#x}")
        },
        culprit.map_or_else(String::new, |prefix| format!(
            " The peer's AllowedIPs {prefix} cover its own endpoint."
        ))
    );
    finding.evidence = Evidence::new()
        .with("destination", text.clone())
        .with("out_interface", name)
        .with("fwmark", mark)
        .maybe("allowed_ips_covering_endpoint", culprit.map(ToString::to_string))
        .maybe("attempts_by_counters", view.silence.counted.map(|c| c.sent));
    finding.impact =
        "Nothing passes through the tunnel to this peer, and with a default route nothing else either."
            .to_owned();
    finding.fixes = fixes(view, &text);
    finding
}

fn fixes(view: &View<'_>, address: &str) -> Vec<Fix> {
    let expect = || Evidence::new().with("out_interface", "another than the tunnel");
    let device = view.link().map(|l| l.index);
    let v6 = address.contains(':');
    // The best default route that does not lead into the tunnel is the way that the outer packets should take.
    let gateway = view.world.routes.tables().and_then(|tables| {
        tables
            .routes
            .iter()
            .filter(|r| r.destination.is_default() && r.destination.addr().is_ipv6() == v6)
            .filter(|r| r.kind == "unicast" && r.out.is_some() && r.out != device)
            .min_by_key(|r| r.priority)
    });
    let past = gateway.and_then(|route| {
        let out = quote(&view.world.routes.link(route.out?)?.name);
        let via = route.gateway.map_or_else(String::new, |g| format!(" via {g}"));
        let ip = if v6 { "ip -6" } else { "ip" };
        Some(view.here(&format!("{ip} route add {address}{via} dev {out}")))
    });
    vec![
        Fix {
            title: "Route the endpoint past the tunnel".to_owned(),
            why: "A route for this one address wins over the wide one. It must be made again when the gateway changes."
                .to_owned(),
            command: past.or_else(|| Some(view.here(&format!("ip route get {address}")))),
            expect: expect(),
            ..Fix::default()
        },
        Fix {
            title: "Let wg-quick do it".to_owned(),
            why: "For a default route in AllowedIPs it marks the outer packets and routes only unmarked ones into the \
                  tunnel; it needs no change when the gateway does."
                .to_owned(),
            command: Some(view.here(&format!(
                "wg-quick down {0}; wg-quick up {0}",
                quote(view.name())
            ))),
            expect: expect(),
            ..Fix::default()
        },
    ]
}

#[cfg(test)]
mod tests;

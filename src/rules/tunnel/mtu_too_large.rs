//! `wg-mtu-too-large`: what the tunnel makes does not fit into the link beneath it.

use std::collections::BTreeMap;

use super::view::{View, views};
use super::words::quote;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::host::RouteWay;
use crate::rules::{Area, Input, Rule};

const CODE: &str = "wg-mtu-too-large";

/// IPv4 header 20, UDP header 8, WireGuard data header 16, authentication tag 16.
const OVERHEAD_V4: u32 = 60;
/// IPv6 header 40, and the same.
const OVERHEAD_V6: u32 = 80;
/// IPv6 does not work below this (RFC 8200, section 5).
const MIN_MTU_V6: u32 = 1280;

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "the tunnel's MTU and WireGuard's overhead (60 bytes over IPv4, 80 over IPv6) exceed the MTU of the \
                 link or route towards the endpoint",
    meaning: "Each packet in the tunnel grows by 60 bytes (80 over IPv6) when it is wrapped. The tunnel accepts packets \
              so large that, wrapped, they do not fit into the link beneath. They are cut into fragments, which is \
              slow and which firewalls like to drop, or thrown away. Small packets pass, so ping and the start of a \
              connection work and a download hangs.",
    detection: "Plain arithmetic: the device's MTU plus the overhead for the endpoint's address family, against the \
                smaller of the outgoing link's MTU and the route's MTU that the kernel names.",
    fix: "Lower the tunnel's MTU to the number given, on both sides of the tunnel: `ip link set dev wg0 mtu N` now, \
          `MTU = N` in the [Interface] section for good.",
    needs: &[super::DEVICES, &[Source::Routes]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    // One finding a device, about the peer with the narrowest way: a device has one MTU.
    let mut narrowest = BTreeMap::new();
    for view in views(input) {
        let Some(sizes) = sizes(&view).filter(|s| s.inner + s.overhead > s.outer) else {
            continue;
        };
        let fits = sizes.fits();
        match narrowest.get(view.name()) {
            Some((_, known)) if Sizes::fits(known) <= fits => {}
            _ => {
                narrowest.insert(view.name(), (view, sizes));
            }
        }
    }
    narrowest
        .values()
        .map(|(view, sizes)| finding(view, sizes))
        .collect()
}

struct Sizes {
    inner: u32,
    overhead: u32,
    outer: u32,
    link: String,
    link_mtu: u32,
    route_mtu: Option<u32>,
}

impl Sizes {
    /// The largest MTU of the tunnel that fits.
    fn fits(&self) -> u32 {
        self.outer.saturating_sub(self.overhead)
    }
}

fn sizes(view: &View<'_>) -> Option<Sizes> {
    let endpoint = view.endpoint()?;
    let device = view.link()?;
    let RouteWay::Via {
        out,
        mtu,
        local: false,
        ..
    } = view.way()?
    else {
        return None;
    };
    if *out == device.index {
        return None;
    }
    let link = view.world.routes.link(*out)?;
    let route_mtu = mtu.filter(|m| *m > 0);
    Some(Sizes {
        inner: device.mtu,
        overhead: if endpoint.is_ipv4() {
            OVERHEAD_V4
        } else {
            OVERHEAD_V6
        },
        outer: route_mtu.map_or(link.mtu, |route| route.min(link.mtu)),
        link: link.name.clone(),
        link_mtu: link.mtu,
        route_mtu,
    })
}

fn finding(view: &View<'_>, sizes: &Sizes) -> Finding {
    let name = view.name();
    let endpoint = view.endpoint().map_or_else(String::new, |e| e.to_string());
    let fits = sizes.fits();
    let over = sizes.inner + sizes.overhead - sizes.outer;
    let by_route = sizes.route_mtu.is_some_and(|m| m < sizes.link_mtu);
    let mut finding = view.finding(CODE, Severity::Warning, Confidence::Certain);
    finding.subject = Subject::Device {
        name: name.to_owned(),
    };
    finding.title = format!("{name}'s MTU of {} is too large: {fits} fits", sizes.inner);
    finding.summary = format!(
        "A full packet of {} bytes becomes {} with WireGuard's {} bytes around it; {} {} carries {}. That is {over} \
         bytes too much.",
        sizes.inner,
        sizes.inner + sizes.overhead,
        sizes.overhead,
        if by_route { "the route through" } else { "the link" },
        sizes.link,
        sizes.outer
    );
    finding.evidence = Evidence::new()
        .with("tunnel_mtu", sizes.inner)
        .with("overhead_bytes", sizes.overhead)
        .with("out_interface", sizes.link.clone())
        .with("out_mtu", sizes.link_mtu)
        .maybe("route_mtu", sizes.route_mtu)
        .with("mtu_that_fits", fits)
        .with("endpoint", endpoint);
    finding.impact =
        "Large packets are fragmented or lost: connections open and then hang or crawl.".to_owned();
    let mut why = "Set it on both sides; the change takes effect at once and interrupts nothing.".to_owned();
    if fits < MIN_MTU_V6 {
        why.push_str(" Below 1280 IPv6 inside the tunnel stops working.");
    }
    finding.fixes = vec![Fix {
        title: format!("Set {name}'s MTU to {fits}"),
        why,
        command: Some(view.here(&format!("ip link set dev {} mtu {fits}", quote(name)))),
        snippet: Some(format!("[Interface]\nMTU = {fits}")),
        expect: Evidence::new().with("tunnel_mtu", fits),
    }];
    finding
}

#[cfg(test)]
mod tests;

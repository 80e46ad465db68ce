//! `wg-allowed-ips-conflict`: AllowedIPs that two peers claim, or that the routes send elsewhere.

use crate::finding::Finding;
use crate::rules::{Area, Input, Rule};

mod claims;
mod elsewhere;

const CODE: &str = "wg-allowed-ips-conflict";

/// The rule.
pub const RULE: Rule = Rule {
    code: CODE,
    area: Area::Wireguard,
    severity: "warning",
    holds_when: "two peers of a device claim the same AllowedIPs, or routes send a peer's addresses elsewhere",
    meaning: "AllowedIPs say which inner addresses belong to which peer: packets to them are encrypted for that peer, and \
              packets from any other source are dropped. An address can belong to one peer of a device only; if two \
              list the same prefix, the one configured last takes it and the other silently loses it.\n\n\
              AllowedIPs do not make routes (wg-quick adds them, `wg` does not). Where the routing table sends a \
              peer's addresses to another interface, they never see the tunnel.",
    detection: "The same prefix in two peers of a configuration, or a prefix that is configured for one peer and that the \
                device holds for another: `certain`. A peer without any AllowedIPs beside others that have some: \
                `possible`, as this may be meant.\n\n\
                For the routes the kernel is asked which way an address of each prefix would go. A way through \
                another interface is reported where the route that wins covers the whole prefix (a smaller network \
                carved out of a wide prefix is normal) and no table holds a route into the device for it (policy \
                routing is normal too). Default routes are left alone. Where the device has no route at all and yet \
                carries traffic, something else feeds it (eBPF, an application) and nothing is said.",
    fix: "Give each prefix to one peer. For a missing route: `ip route add PREFIX dev wg0`, or use wg-quick. Where a \
          local network has the same addresses as the far one, one of them must be renumbered, or the hosts \
          that matter be listed one by one.",
    needs: &[super::DEVICES],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let mut findings = claims::check(input);
    findings.extend(elsewhere::check(input));
    findings
}

#[cfg(test)]
mod tests;

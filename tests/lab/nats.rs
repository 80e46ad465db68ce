//! NATs that RFC 4787 has names for, made with nftables on the lab's router.

use super::addresses::{CLIENT, ROUTER_WAN};
use super::{Lab, StunServer};

fn table(body: &str) -> String {
    format!("table ip lab_nat\ndelete table ip lab_nat\ntable ip lab_nat {{\n{body}\n}}\n")
}

const POST: &str = "chain post { type nat hook postrouting priority srcnat; oifname \"wan0\" masquerade; }";

/// Endpoint-independent mapping and filtering: "full cone" in RFC 3489's words.
pub fn full_cone() -> String {
    table(&format!(
        "chain pre {{ type nat hook prerouting priority dstnat; iifname \"wan0\" udp dport 1024-65535 dnat to {}; }}\n{POST}",
        CLIENT.v4
    ))
}

/// Endpoint-independent mapping, address-dependent filtering: "restricted cone".
pub fn address_restricted() -> String {
    table(&format!(
        "set known {{ type ipv4_addr; flags dynamic, timeout; timeout 60s; }}
chain out {{ type filter hook forward priority filter; iifname \"lan0\" oifname \"wan0\" update @known {{ ip daddr }}; }}
chain pre {{ type nat hook prerouting priority dstnat; iifname \"wan0\" ip saddr @known udp dport 1024-65535 dnat to {}; }}
{POST}",
        CLIENT.v4
    ))
}

/// A full cone that also leads its own address back in.
pub fn hairpinning() -> String {
    table(&format!(
        "chain pre {{ type nat hook prerouting priority dstnat;
iifname \"wan0\" udp dport 1024-65535 dnat to {client};
iifname \"lan0\" ip daddr {wan} udp dport 1024-65535 dnat to {client}; }}
chain post {{ type nat hook postrouting priority srcnat; oifname \"wan0\" masquerade; oifname \"lan0\" ip saddr {client} masquerade; }}",
        client = CLIENT.v4,
        wan = ROUTER_WAN.v4
    ))
}

/// Two external addresses, given out by destination or, where `persistent`, by source.
pub fn pool(persistent: bool) -> String {
    let flag = if persistent { " persistent" } else { "" };
    table(&format!(
        "chain post {{ type nat hook postrouting priority srcnat; oifname \"wan0\" snat to 203.0.113.1-203.0.113.3{flag}; }}"
    ))
}

/// The addresses of [`pool`] at the router, and servers at three addresses by which it can be told.
pub fn pool_and_servers(lab: &Lab) -> [StunServer; 2] {
    lab.router().ip(&[
        "address add 203.0.113.2/24 dev wan0",
        "address add 203.0.113.3/24 dev wan0",
    ]);
    [
        StunServer::reflect_all(lab),
        StunServer::reflect(lab, lab.server(), &["--address", "203.0.113.11,203.0.113.12"]),
    ]
}

/// All flows leave by this external address.
pub fn snat(to: &str) -> String {
    table(&format!(
        "chain post {{ type nat hook postrouting priority srcnat; oifname \"wan0\" snat to {to}; }}"
    ))
}

/// Masquerading with flags: `persistent`, `random`, `fully-random`, or several with commas.
pub fn masquerade(flags: &str) -> String {
    table(&format!(
        "chain post {{ type nat hook postrouting priority srcnat; oifname \"wan0\" masquerade {flags}; }}"
    ))
}

/// STUN requests to the lab's server are led to an application-level gateway at this port of the router itself.
pub fn through_alg(port: u16) -> String {
    table(&format!(
        "chain pre {{ type nat hook prerouting priority dstnat; iifname \"lan0\" udp dport 3478 redirect to :{port}; }}\n{POST}"
    ))
}

/// A firewall that drops UDP in both directions, with NAT.
pub fn udp_dropped() -> String {
    table(&format!(
        "chain no_udp {{ type filter hook forward priority filter; meta l4proto udp drop; }}\n{POST}"
    ))
}

/// A NAT that lets through so many new flows a second.
pub fn rate_limited(per_second: u32) -> String {
    table(&format!(
        "chain slow {{ type filter hook forward priority filter; iifname \"lan0\" ct state new limit rate over {per_second}/second burst {per_second} packets drop; }}\n{POST}"
    ))
}

/// A NAT that allows each host so many flows at a time, as a carrier's does.
pub fn flow_limited(flows: u32) -> String {
    table(&format!(
        "set flows {{ type ipv4_addr; flags dynamic; }}
chain few {{ type filter hook forward priority filter; iifname \"lan0\" ct state new add @flows {{ ip saddr ct count over {flows} }} drop; }}
{POST}"
    ))
}

/// IPv6 that leaves by the router's own address, with flags behind a space as [`masquerade`] has them.
pub fn masquerade_ipv6(flags: &str) -> String {
    format!(
        "table ip6 lab_nat\ndelete table ip6 lab_nat\ntable ip6 lab_nat {{ chain post {{ type nat hook postrouting priority \
         srcnat; oifname \"wan0\" masquerade{flags}; }}; }}\n"
    )
}

//! The newest discovery as the rules of this area read it.

use std::net::IpAddr;

use crate::finding::Subject;
use crate::observation::nat::{Family, FamilyFacts, NatFacts, is_inside};
use crate::rules::Input;
use crate::time::Timestamp;
use crate::types::Proto;

/// The newest discovery and when it ended.
pub fn newest<'a>(input: &Input<'a>) -> Option<(Timestamp, &'a NatFacts)> {
    input.world.nat.newest()
}

/// Each family that a NAT is in front of.
pub fn translated<'a>(input: &Input<'a>) -> impl Iterator<Item = (Timestamp, &'a FamilyFacts)> {
    newest(input).into_iter().flat_map(|(at, facts)| {
        facts
            .families
            .iter()
            .filter(|f| f.translated == Some(true))
            .map(move |f| (at, f))
    })
}

/// The NAT in front, by its external address.
pub fn subject(external: Option<IpAddr>) -> Subject {
    Subject::Nat {
        address: external,
        proto: None,
        destination: None,
    }
}

/// The NAT in front, for UDP.
pub fn udp_subject(family: &FamilyFacts) -> Subject {
    Subject::Nat {
        address: family.external.map(|e| e.ip()),
        proto: Some(Proto::Udp),
        destination: None,
    }
}

/// Addresses in a sentence.
pub fn list(addresses: &[IpAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    all.join(", ")
}

/// Links into which packets go whole, to leave again elsewhere: what is counted, translated or dropped on the way out of there
/// is not the NAT's in front of this host.
const TUNNELS: [&str; 10] = [
    "wireguard",
    "tun",
    "ipip",
    "ip6tnl",
    "sit",
    "gre",
    "ip6gre",
    "vti",
    "vti6",
    "xfrm",
];

/// Whether a connection from `source` leaves into a tunnel.
pub fn in_tunnel(input: &Input<'_>, source: IpAddr) -> bool {
    let routes = &input.world.routes;
    let addresses = routes.tables().map_or(&[][..], |t| &t.addresses);
    let link = addresses
        .iter()
        .find(|a| a.address == source)
        .and_then(|a| routes.link(a.index));
    link.is_some_and(|l| l.kind.as_deref().is_some_and(|kind| TUNNELS.contains(&kind)))
}

/// Whether a connection from `source` to the outside passes the NAT in front, as far as is known: where a discovery told, as it
/// told; else where `source` is an address that means nothing outside, for whoever has a public one needs no NAT.
pub fn faces_nat(input: &Input<'_>, source: IpAddr) -> bool {
    let translated = newest(input)
        .and_then(|(_, facts)| facts.families.iter().find(|f| f.family == Family::of(source)))
        .and_then(|f| f.translated);
    !in_tunnel(input, source) && translated.unwrap_or_else(|| is_inside(source))
}

/// Who lives in one of these has one operator, mostly: a /16 or a /32.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            [a, b, 0, 0].into()
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            [a, b, 0, 0, 0, 0, 0, 0].into()
        }
    }
}

//! rtnetlink: links, addresses, routes and policy rules ↔ the types of [`crate::observation::host`].
//!
//! In: a message's payload (what follows the netlink header). Out: `None` for what is not of interest or not whole.
//! Why attribute by attribute rather than whole messages: a kernel newer than the decoder may send an attribute that
//! the decoder refuses, and one such attribute must not cost the link; it also saves decoding what nobody reads.

use std::net::IpAddr;

use netlink_packet_core::{Emitable, NlaBuffer, NlasIterator, Parseable, ParseableParametrized};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeader};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage, RouteMetric,
    RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAttribute, RuleFlags, RuleHeader, RuleMessage};

use crate::observation::host::{Address, Link, LinkStats, PolicyRule, Route, RouteWay};
use crate::types::{Cidr, IfIndex};

// include/uapi/linux/rtnetlink.h
/// `RTM_NEWLINK`.
pub const NEW_LINK: u16 = 16;
/// `RTM_GETLINK`.
pub const GET_LINK: u16 = 18;
/// `RTM_NEWADDR`.
pub const NEW_ADDRESS: u16 = 20;
/// `RTM_GETADDR`.
pub const GET_ADDRESS: u16 = 22;
/// `RTM_NEWROUTE`.
pub const NEW_ROUTE: u16 = 24;
/// `RTM_GETROUTE`.
pub const GET_ROUTE: u16 = 26;
/// `RTM_NEWRULE`.
pub const NEW_RULE: u16 = 32;
/// `RTM_GETRULE`.
pub const GET_RULE: u16 = 34;

/// `RT_TABLE_LOCAL`: this host's own addresses, which every host has.
const LOCAL_TABLE: u32 = 255;

// Sizes of ifinfomsg, ifaddrmsg, rtmsg and fib_rule_hdr.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const RULE_HEADER: usize = 12;

// include/uapi/linux/if_link.h
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_INFO_KIND: u16 = 1;

fn attributes(payload: &[u8], header: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(payload.get(header..).unwrap_or_default()).map_while(Result::ok)
}

fn emit(message: &impl Emitable) -> Vec<u8> {
    let mut payload = vec![0; message.buffer_len()];
    message.emit(&mut payload);
    payload
}

fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

/// Asks for all links, or for those of one kind (a kernel that does not know the kind returns all).
pub fn links_request(kind: Option<&str>) -> Vec<u8> {
    let mut message = LinkMessage::default();
    if let Some(kind) = kind {
        let kind = LinkInfo::Kind(InfoKind::from(kind));
        message.attributes = vec![LinkAttribute::LinkInfo(vec![kind])];
    }
    emit(&message)
}

/// Asks for one link.
pub fn link_request(index: u32) -> Vec<u8> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    emit(&message)
}

/// Reads one link.
pub fn parse_link(payload: &[u8]) -> Option<Link> {
    let header = LinkHeader::parse(payload).ok()?;
    let mut link = Link {
        index: IfIndex(header.index),
        name: String::new(),
        kind: None,
        admin_up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        loopback: header.flags.contains(LinkFlags::Loopback),
        mtu: 0,
        stats: LinkStats::default(),
    };
    for attribute in attributes(payload, LINK_HEADER) {
        match attribute.kind() {
            IFLA_LINKINFO => link.kind = parse_kind(attribute.value()),
            IFLA_IFNAME | IFLA_MTU | IFLA_STATS64 => {
                match LinkAttribute::parse_with_param(&attribute, header.interface_family) {
                    Ok(LinkAttribute::IfName(name)) => link.name = name,
                    Ok(LinkAttribute::Mtu(mtu)) => link.mtu = mtu,
                    Ok(LinkAttribute::Stats64(stats)) => {
                        link.stats = LinkStats {
                            rx_packets: stats.rx_packets,
                            tx_packets: stats.tx_packets,
                            rx_bytes: stats.rx_bytes,
                            tx_bytes: stats.tx_bytes,
                            rx_errors: stats.rx_errors,
                            tx_errors: stats.tx_errors,
                            rx_dropped: stats.rx_dropped,
                            tx_dropped: stats.tx_dropped,
                            rx_length_errors: stats.rx_length_errors,
                            rx_frame_errors: stats.rx_frame_errors,
                            tx_carrier_errors: stats.tx_carrier_errors,
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn parse_kind(link_info: &[u8]) -> Option<String> {
    attributes(link_info, 0)
        .find(|a| a.kind() == IFLA_INFO_KIND)
        .and_then(|a| InfoKind::parse(&a).ok())
        .map(|kind| kind.to_string())
}

/// Asks for all addresses of both families.
pub fn addresses_request() -> Vec<u8> {
    emit(&AddressHeader::default())
}

/// Reads one address.
pub fn parse_address(payload: &[u8]) -> Option<Address> {
    let header = AddressHeader::parse(payload).ok()?;
    let (mut local, mut address) = (None, None);
    for attribute in attributes(payload, ADDRESS_HEADER) {
        match AddressAttribute::parse(&attribute) {
            Ok(AddressAttribute::Local(ip)) => local = Some(ip),
            Ok(AddressAttribute::Address(ip)) => address = Some(ip),
            _ => {}
        }
    }
    // On a point-to-point interface IFA_ADDRESS is the other end's and IFA_LOCAL is ours.
    Some(Address {
        index: IfIndex(header.index),
        address: local.or(address)?,
        prefix: header.prefix_len,
    })
}

/// Asks for all routes of one family.
pub fn routes_request(v6: bool) -> Vec<u8> {
    emit(&RouteHeader {
        address_family: family(v6),
        ..RouteHeader::default()
    })
}

/// Reads one route; `None` for those of the local table and for cached ones.
pub fn parse_route(payload: &[u8]) -> Option<Route> {
    let header = RouteHeader::parse(payload).ok()?;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => [0u8; 4].into(),
        AddressFamily::Inet6 => [0u8; 16].into(),
        _ => return None,
    };
    let parts = RouteParts::read(&header, payload);
    let table = parts.table.unwrap_or(header.table.into());
    if table == LOCAL_TABLE {
        return None;
    }
    Some(Route {
        destination: Cidr::new(parts.destination.unwrap_or(any), header.destination_prefix_length)?,
        table,
        kind: kind_name(header.kind),
        out: parts.out,
        gateway: parts.gateway,
        priority: parts.priority,
        mtu: parts.mtu,
    })
}

/// Asks which way a packet to `destination` that carries `mark` would go.
pub fn lookup_request(destination: IpAddr, mark: u32) -> Vec<u8> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.is_ipv6());
    message.header.destination_prefix_length = if destination.is_ipv6() { 128 } else { 32 };
    message.attributes = vec![RouteAttribute::Destination(destination.into())];
    if mark != 0 {
        message.attributes.push(RouteAttribute::Mark(mark));
    }
    emit(&message)
}

/// Reads the answer to a look-up.
pub fn parse_way(payload: &[u8]) -> Option<RouteWay> {
    let header = RouteHeader::parse(payload).ok()?;
    // What the kernel answers a sender with (net/ipv4/fib_semantics.c, fib_props).
    let errno = match header.kind {
        RouteType::Unreachable => Some(113),
        RouteType::Prohibit => Some(13),
        RouteType::BlackHole => Some(22),
        _ => None,
    };
    if let Some(errno) = errno {
        return Some(RouteWay::None { errno });
    }
    let parts = RouteParts::read(&header, payload);
    Some(RouteWay::Via {
        out: parts.out?,
        gateway: parts.gateway,
        source: parts.source,
        mtu: parts.mtu,
        local: header.kind == RouteType::Local,
    })
}

#[derive(Default)]
struct RouteParts {
    destination: Option<IpAddr>,
    table: Option<u32>,
    out: Option<IfIndex>,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    priority: u32,
    mtu: Option<u32>,
}

impl RouteParts {
    fn read(header: &RouteHeader, payload: &[u8]) -> Self {
        let mut parts = Self::default();
        for attribute in attributes(payload, ROUTE_HEADER) {
            let param = (header.address_family, header.kind, RouteLwEnCapType::None);
            if let Ok(attribute) = RouteAttribute::parse_with_param(&attribute, param) {
                parts.take(attribute);
            }
        }
        parts
    }

    fn take(&mut self, attribute: RouteAttribute) {
        match attribute {
            RouteAttribute::Destination(a) => self.destination = ip(a),
            RouteAttribute::Table(table) => self.table = Some(table),
            RouteAttribute::Oif(index) => self.out = Some(IfIndex(index)),
            RouteAttribute::Gateway(a) => self.gateway = ip(a),
            RouteAttribute::Via(RouteVia::Inet(a)) => self.gateway = Some(a.into()),
            RouteAttribute::Via(RouteVia::Inet6(a)) => self.gateway = Some(a.into()),
            RouteAttribute::PrefSource(a) => self.source = ip(a),
            RouteAttribute::Priority(priority) => self.priority = priority,
            RouteAttribute::Metrics(metrics) => {
                self.mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            // Of several next hops the first stands for all.
            RouteAttribute::MultiPath(hops) => {
                if let Some(hop) = hops.into_iter().next() {
                    self.out = Some(IfIndex(hop.interface_index));
                    hop.attributes.into_iter().for_each(|a| self.take(a));
                }
            }
            _ => {}
        }
    }
}

fn ip(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(a.into()),
        RouteAddress::Inet6(a) => Some(a.into()),
        _ => None,
    }
}

/// The kernel's and `ip route`'s names.
fn kind_name(kind: RouteType) -> String {
    match kind {
        RouteType::Unicast => "unicast",
        RouteType::Local => "local",
        RouteType::Broadcast => "broadcast",
        RouteType::Anycast => "anycast",
        RouteType::Multicast => "multicast",
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        RouteType::Nat => "nat",
        RouteType::ExternalResolve => "xresolve",
        RouteType::Unspec => "unspec",
        other => return u8::from(other).to_string(),
    }
    .to_owned()
}

/// Asks for all policy rules of one family.
pub fn rules_request(v6: bool) -> Vec<u8> {
    let mut message = RuleMessage::default();
    message.header.family = family(v6);
    emit(&message)
}

/// Reads one policy rule.
pub fn parse_rule(payload: &[u8]) -> Option<PolicyRule> {
    let header = RuleHeader::parse(payload).ok()?;
    let v6 = match header.family {
        AddressFamily::Inet => false,
        AddressFamily::Inet6 => true,
        _ => return None,
    };
    let mut rule = PolicyRule {
        v6,
        priority: 0,
        table: header.table.into(),
        fwmark: None,
        invert: header.flags.contains(RuleFlags::Invert),
        suppress_prefix_len: None,
    };
    for attribute in attributes(payload, RULE_HEADER) {
        match RuleAttribute::parse(&attribute) {
            Ok(RuleAttribute::Priority(priority)) => rule.priority = priority,
            Ok(RuleAttribute::Table(table)) => rule.table = table,
            Ok(RuleAttribute::FwMark(mark)) => rule.fwmark = Some(mark),
            // The kernel always sends it; all ones (-1) is "off".
            Ok(RuleAttribute::SuppressPrefixLen(len)) => {
                rule.suppress_prefix_len = Some(len).filter(|l| *l != u32::MAX);
            }
            _ => {}
        }
    }
    Some(rule)
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;

//! What behaviour discovery found out about the NAT in front of this host (RFC 5780, in RFC 4787's terms).

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::time::{Span, span_secs};

/// One run of discovery.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NatFacts {
    /// The servers that were asked, in the order given.
    pub servers: Vec<ServerFacts>,
    /// What was found, one for each address family that was tried; IPv4 first.
    pub families: Vec<FamilyFacts>,
    /// What the default gateway says of itself, where it was asked.
    #[serde(default)]
    pub gateways: Vec<GatewayFacts>,
    /// The routers on the way to the first server, by the TTL that ended at them; silent ones are absent.
    #[serde(default)]
    pub hops: Vec<Hop>,
    /// What opening many flows told, where that was asked for.
    #[serde(default)]
    pub quota: Option<QuotaFacts>,
}

/// One STUN server at one address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerFacts {
    /// As it was named.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The least time from request to response over UDP; `None` where no acceptable response came.
    pub udp_rtt: Option<f64>,
    /// Over TCP, from the first SYN to the response; `None` where none came.
    pub tcp_rtt: Option<f64>,
    /// What it calls itself.
    pub software: Option<String>,
    /// Its other address and port, where it has them and they may be used.
    pub other: Option<SocketAddr>,
    /// What was wrong with it or with what it said, a sentence each.
    pub problems: Vec<String>,
}

/// Seconds beyond which a server answers too slowly for its silence to tell anything: silence is certain after 2.6 s, and
/// half of that is left for what takes it longer.
const SLOW: f64 = 1.3;

impl ServerFacts {
    /// It answers over TCP, in good time, and not over UDP.
    pub fn silent_over_udp(&self) -> bool {
        self.udp_rtt.is_none() && self.tcp_rtt.is_some_and(|rtt| rtt <= SLOW)
    }

    /// It answers over UDP so slowly that what is not answered may yet come.
    pub fn slow(&self) -> bool {
        self.udp_rtt.is_some_and(|rtt| rtt > SLOW)
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// As people write it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

/// What a NAT's mapping or filtering depends on (RFC 4787, sections 4.1 and 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Behaviour {
    /// Not told by the tests that could be made.
    #[default]
    Unknown,
    /// There is no NAT (mapping), or nothing is filtered and there is no NAT (filtering).
    None,
    /// On nothing outside.
    EndpointIndependent,
    /// On the outside address.
    AddressDependent,
    /// On the outside address and port.
    AddressAndPortDependent,
}

impl Behaviour {
    /// The contract's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::None => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
        }
    }
}

/// How a NAT with several external addresses gives them out (RFC 4787, section 4.1, REQ-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// One internal address had one external address in all flows.
    Paired,
    /// Flows of one internal address had several external addresses.
    Arbitrary,
}

impl Pooling {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paired => "paired",
            Self::Arbitrary => "arbitrary",
        }
    }
}

/// What was found for one address family. `None` is "not told by the tests that could be made".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FamilyFacts {
    /// Which.
    pub family: Family,
    /// This host's address and port towards the servers.
    pub local: Option<SocketAddr>,
    /// Where the first server saw that socket.
    pub external: Option<SocketAddr>,
    /// Every external address that was seen, sorted.
    pub external_addresses: Vec<IpAddr>,
    /// Whether something on the way translates addresses or ports.
    pub translated: Option<bool>,
    /// What the external port depends on.
    pub mapping: Behaviour,
    /// What is let in.
    pub filtering: Behaviour,
    /// Whether two hosts behind the NAT reach each other by its external address.
    pub hairpinning: Option<bool>,
    /// Whether the NAT keeps local port numbers where it can.
    pub port_preservation: Option<bool>,
    /// Whether it keeps even ports even and odd ones odd.
    pub parity_preservation: Option<bool>,
    /// Sockets whose mapping was seen, and those of them that kept their port.
    pub ports_seen: u32,
    /// See `ports_seen`.
    pub ports_kept: u32,
    /// How external addresses are given out.
    pub pooling: Option<Pooling>,
    /// Nothing comes back over UDP while TCP to the same servers works.
    pub udp_blocked: Option<bool>,
    /// Servers that answer over TCP and not over UDP.
    pub silent_over_udp: u32,
    /// Something on the way rewrites addresses inside STUN messages (MAPPED-ADDRESS differs from XOR-MAPPED-ADDRESS).
    pub alg: Option<bool>,
    /// How long an idle UDP mapping lives, where that was measured.
    pub lifetime: Option<LifetimeFacts>,
    /// Tests that were left out or told nothing, and why.
    pub left_out: Vec<LeftOutTest>,
}

impl FamilyFacts {
    /// Nothing known yet.
    pub fn new(family: Family) -> Self {
        Self {
            family,
            local: None,
            external: None,
            external_addresses: Vec::new(),
            translated: None,
            mapping: Behaviour::Unknown,
            filtering: Behaviour::Unknown,
            hairpinning: None,
            port_preservation: None,
            parity_preservation: None,
            ports_seen: 0,
            ports_kept: 0,
            pooling: None,
            udp_blocked: None,
            silent_over_udp: 0,
            alg: None,
            lifetime: None,
            left_out: Vec::new(),
        }
    }
}

/// A test that told nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutTest {
    /// Which: `mapping`, `filtering`, `hairpinning`, ….
    pub test: String,
    /// Why, in a sentence.
    pub why: String,
}

/// How long an idle UDP mapping lives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LifetimeFacts {
    /// The longest idle time after which the mapping still let an answer in.
    #[serde(with = "span_secs")]
    pub alive_after: Span,
    /// The shortest after which it no longer did; `None` where it lived through all that was tried, or that could not be told.
    pub gone_after: Option<f64>,
}

/// What the default gateway says of its outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayFacts {
    /// The gateway.
    pub gateway: IpAddr,
    /// How it was asked: `pcp`, `nat-pmp` or `upnp`.
    pub protocol: String,
    /// The external address that it names.
    pub external: Option<IpAddr>,
    /// It answers that it has no external address, or none that it would name.
    #[serde(default)]
    pub says_none: bool,
    /// Why it names none.
    #[serde(default)]
    pub problem: Option<String>,
}

/// A router on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The TTL that ended there.
    pub ttl: u8,
    /// Its address, as its ICMP error names it.
    pub address: IpAddr,
}

/// What opening many flows at our own reflector told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QuotaFacts {
    /// Flows that were tried.
    pub tried: u32,
    /// Flows that were answered.
    pub answered: u32,
    /// The number of flows after which no new one was answered; `None` where all were.
    pub quota: Option<u32>,
    /// The lowest and highest external port.
    pub ports: Option<(u16, u16)>,
    /// Size of the aligned block that holds all external ports, where a block explains them.
    pub block: Option<(u16, u32)>,
    /// Two flows to different destinations shared an external address and port.
    pub overloading: Option<bool>,
    /// How long after the flows had gone quiet a new one was let through.
    pub hold_seconds: Option<f64>,
    /// Flows went unanswered while many were opened, and new ones were answered when few were: what is limited is how many
    /// begin in a second. `None` where that was not tried or could not be told.
    #[serde(default)]
    pub rate_limited: Option<bool>,
}

/// What a limit of the NAT in front counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Flows to one address, port and protocol.
    Destination,
    /// Flows to one address.
    Address,
    /// All flows of this host.
    Host,
}

/// How many flows the NAT in front allows, as the user says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// What `--nat-profile` says.
    pub profile: String,
    /// What people call that NAT.
    pub title: String,
    /// Concurrent flows in each scope.
    pub flows: u32,
    /// What is counted together.
    pub scope: Scope,
    /// How long it holds a port after the connection has closed.
    #[serde(with = "span_secs")]
    pub hold: Span,
    /// A common value, not that NAT's own.
    pub assumed: bool,
    /// What gives more, in a sentence.
    pub more: String,
}

/// RFC 6598's shared address space, which carriers use between their customers' routers and their own NAT.
pub const fn is_shared(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            a == 100 && b & 0xC0 == 64
        }
        IpAddr::V6(_) => false,
    }
}

/// A unique local address (RFC 4193), such as Fly's 6PN.
pub const fn is_unique_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.segments()[0] & 0xFE00 == 0xFC00,
    }
}

/// An address that only means something inside (RFC 1918, RFC 4193, RFC 6598, link-local).
pub const fn is_inside(address: IpAddr) -> bool {
    let own = match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xFFC0 == 0xFE80,
    };
    own || is_shared(address) || is_unique_local(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (text, shared, inside) in [
            ("100.63.255.255", false, false),
            ("100.64.0.0", true, true),
            ("100.127.255.255", true, true),
            ("100.128.0.0", false, false),
            ("10.0.0.1", false, true),
            ("203.0.113.1", false, false),
            ("fdaa::3", false, true),
            ("fe80::1", false, true),
            ("2001:db8::1", false, false),
        ] {
            assert_eq!(
                (is_shared(ip(text)), is_inside(ip(text))),
                (shared, inside),
                "{text}"
            );
        }
        assert!(is_unique_local(ip("fdaa::3")) && !is_unique_local(ip("2001:db8::1")));
    }
}

//! The NAT in front as the contract has it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::observation::nat as model;

/// NAT in front of this host, where it was probed. The fields up to `mapping_lifetime_seconds` are those of IPv4 where that
/// was probed, else of IPv6; `families` has each.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Nat {
    /// What a flow's external port depends on: `none` (no NAT), `endpoint-independent`, `address-dependent`,
    /// `address-and-port-dependent`, `unknown` (RFC 4787, section 4.1); null where it was not probed.
    pub mapping: Option<String>,
    /// What is let in, by the same words (RFC 4787, section 5).
    pub filtering: Option<String>,
    /// Whether hosts behind the NAT reach each other by its external address.
    pub hairpinning: Option<bool>,
    /// Whether the NAT keeps local port numbers where it can.
    pub port_preservation: Option<bool>,
    /// Whether nothing comes back over UDP while TCP works.
    pub udp_blocked: Option<bool>,
    /// Every external address that was seen, of both families.
    pub external: Vec<String>,
    /// How long an idle UDP mapping lives at least, in seconds; null where it was not measured.
    pub mapping_lifetime_seconds: Option<f64>,
    /// How long at most; null where it outlived the measurement, was not measured, or could not be told (`left_out` says why).
    pub mapping_lifetime_at_most_seconds: Option<f64>,
    /// Each address family that was probed.
    pub families: Vec<NatFamily>,
    /// The STUN servers that were asked.
    pub servers: Vec<NatServer>,
    /// What the default gateway says of its outside.
    pub gateways: Vec<NatGateway>,
    /// Routers on the way to the first server that answered.
    pub hops: Vec<NatHop>,
    /// What opening many flows told; null where that was not asked for.
    pub quota: Option<NatQuota>,
}

/// What was found for one address family.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NatFamily {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// This host's address and port towards the servers.
    pub local: Option<String>,
    /// Where the first server saw that.
    pub external: Option<String>,
    /// Every external address that was seen.
    pub external_addresses: Vec<String>,
    /// Whether something on the way translates addresses or ports.
    pub translated: Option<bool>,
    /// As in `nat`.
    pub mapping: String,
    /// As in `nat`.
    pub filtering: String,
    /// As in `nat`.
    pub hairpinning: Option<bool>,
    /// As in `nat`.
    pub port_preservation: Option<bool>,
    /// Whether even ports stay even and odd ones odd.
    pub parity_preservation: Option<bool>,
    /// Sockets whose mapping was seen.
    pub ports_seen: u32,
    /// Those of them that kept their port number.
    pub ports_kept: u32,
    /// `paired` (one external address in all flows) or `arbitrary`.
    pub pooling: Option<String>,
    /// As in `nat`.
    pub udp_blocked: Option<bool>,
    /// Whether something on the way rewrites addresses inside STUN messages.
    pub alg_rewrites: Option<bool>,
    /// As in `nat`.
    pub mapping_lifetime_seconds: Option<f64>,
    /// As in `nat`.
    pub mapping_lifetime_at_most_seconds: Option<f64>,
    /// Tests that told nothing, and why.
    pub left_out: Vec<NatLeftOut>,
}

/// A test that told nothing.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NatLeftOut {
    /// Which.
    pub test: String,
    /// Why.
    pub why: String,
}

/// A STUN server at one address.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NatServer {
    /// As it was named.
    pub name: String,
    /// Its address and port.
    pub address: String,
    /// The least time from request to response over UDP, in seconds; null where none came.
    pub udp_rtt_seconds: Option<f64>,
    /// From SYN to response over TCP, in seconds; null where none came.
    pub tcp_rtt_seconds: Option<f64>,
    /// What it calls itself.
    pub software: Option<String>,
    /// Its other address and port.
    pub other: Option<String>,
    /// What was wrong with it.
    pub problems: Vec<String>,
}

/// What the default gateway says.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NatGateway {
    /// The gateway's address.
    pub gateway: String,
    /// `pcp`, `nat-pmp` or `upnp`.
    pub protocol: String,
    /// The external address that it names.
    pub external: Option<String>,
    /// Why it names none, in words; null where it names one.
    pub problem: Option<String>,
}

/// A router on the way.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NatHop {
    /// The TTL that ended there.
    pub ttl: u8,
    /// Its address.
    pub address: String,
}

/// What opening many flows told.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NatQuota {
    /// Flows that were tried.
    pub tried: u32,
    /// Flows that were answered.
    pub answered: u32,
    /// Flows after which no new one was answered; null where all were.
    pub quota: Option<u32>,
    /// The lowest external port.
    pub lowest_port: Option<u16>,
    /// The highest.
    pub highest_port: Option<u16>,
    /// The first port of the aligned block that holds all external ports, where one explains them.
    pub block_first: Option<u16>,
    /// Its size in ports.
    pub block_size: Option<u32>,
    /// Whether two flows to different destinations shared an external address and port.
    pub overloading: Option<bool>,
    /// How long after the flows went quiet a new one was let through, in seconds.
    pub hold_seconds: Option<f64>,
    /// Whether it is the number of new flows in a second that is limited, not that of all; null where that was not told.
    pub rate_limited: Option<bool>,
}

pub(super) fn nat(facts: &model::NatFacts) -> Nat {
    let main = facts.families.first();
    let lifetime = |f: &model::FamilyFacts| f.lifetime.map(|l| l.alive_after.as_secs_f64());
    let at_most = |f: &model::FamilyFacts| f.lifetime.and_then(|l| l.gone_after);
    Nat {
        mapping: main.map(|f| f.mapping.name().to_owned()),
        filtering: main.map(|f| f.filtering.name().to_owned()),
        hairpinning: main.and_then(|f| f.hairpinning),
        port_preservation: main.and_then(|f| f.port_preservation),
        udp_blocked: main.and_then(|f| f.udp_blocked),
        external: facts
            .families
            .iter()
            .flat_map(|f| &f.external_addresses)
            .map(ToString::to_string)
            .collect(),
        mapping_lifetime_seconds: main.and_then(lifetime),
        mapping_lifetime_at_most_seconds: main.and_then(at_most),
        families: facts
            .families
            .iter()
            .map(|f| NatFamily {
                family: f.family.name().to_owned(),
                local: f.local.map(|a| a.to_string()),
                external: f.external.map(|a| a.to_string()),
                external_addresses: f.external_addresses.iter().map(ToString::to_string).collect(),
                translated: f.translated,
                mapping: f.mapping.name().to_owned(),
                filtering: f.filtering.name().to_owned(),
                hairpinning: f.hairpinning,
                port_preservation: f.port_preservation,
                parity_preservation: f.parity_preservation,
                ports_seen: f.ports_seen,
                ports_kept: f.ports_kept,
                pooling: f.pooling.map(|p| p.name().to_owned()),
                udp_blocked: f.udp_blocked,
                alg_rewrites: f.alg,
                mapping_lifetime_seconds: lifetime(f),
                mapping_lifetime_at_most_seconds: at_most(f),
                left_out: f
                    .left_out
                    .iter()
                    .map(|l| NatLeftOut {
                        test: l.test.clone(),
                        why: l.why.clone(),
                    })
                    .collect(),
            })
            .collect(),
        servers: facts.servers.iter().map(server).collect(),
        gateways: facts
            .gateways
            .iter()
            .map(|g| NatGateway {
                gateway: g.gateway.to_string(),
                protocol: g.protocol.clone(),
                external: g.external.map(|a| a.to_string()),
                problem: g.problem.clone(),
            })
            .collect(),
        hops: facts
            .hops
            .iter()
            .map(|h| NatHop {
                ttl: h.ttl,
                address: h.address.to_string(),
            })
            .collect(),
        quota: facts.quota.as_ref().map(quota),
    }
}

fn server(s: &model::ServerFacts) -> NatServer {
    NatServer {
        name: s.name.clone(),
        address: s.address.to_string(),
        udp_rtt_seconds: s.udp_rtt,
        tcp_rtt_seconds: s.tcp_rtt,
        software: s.software.clone(),
        other: s.other.map(|a| a.to_string()),
        problems: s.problems.clone(),
    }
}

fn quota(q: &model::QuotaFacts) -> NatQuota {
    NatQuota {
        tried: q.tried,
        answered: q.answered,
        quota: q.quota,
        lowest_port: q.ports.map(|(low, _)| low),
        highest_port: q.ports.map(|(_, high)| high),
        block_first: q.block.map(|(first, _)| first),
        block_size: q.block.map(|(_, size)| size),
        overloading: q.overloading,
        hold_seconds: q.hold_seconds,
        rate_limited: q.rate_limited,
    }
}

//! What the observers say: timestamped facts, without any judgement.
//!
//! In: made by `observe`. Out: eaten by [`crate::track::World::apply`], written and read by `--record` and
//! `--replay` ([`log`]). Why one type: a live host, a capture file and a recorded case are then the same input.

pub mod connect;
pub mod conntrack;
pub mod device;
pub mod fly;
pub mod fly_toml;
pub mod host;
pub mod log;
pub mod nat;
pub mod nat_rules;
pub mod packet;
pub mod path;
pub mod probe;
pub mod socket;
pub mod target;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::time::{Span, Timestamp, span_secs};
use crate::types::{Cidr, PublicKey};

/// One fact, when it was seen, how long the look took, and who looked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When it was seen (wall clock).
    pub at: Timestamp,
    /// How long the look took, in seconds; zero for events.
    #[serde(with = "span_secs", default, skip_serializing_if = "Span::is_zero")]
    pub took: Span,
    /// Who looked.
    pub source: Source,
    /// What was seen.
    pub body: Body,
}

/// A source of facts: one observer each. The name is the collector's name in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Host facts and sysctls.
    Host,
    /// Kernel WireGuard devices by generic netlink.
    WireguardNetlink,
    /// Userspace WireGuard devices by UAPI sockets.
    WireguardUapi,
    /// Handshake messages and ICMP errors about them on the wire.
    Capture,
    /// Links, addresses, routes and rules by rtnetlink.
    Routes,
    /// TCP and UDP sockets by `sock_diag`.
    Sockets,
    /// Conntrack statistics and table by ctnetlink.
    Conntrack,
    /// Source NAT rules by nf_tables' netlink.
    NatRules,
    /// Protocol counters from `/proc/net`.
    Counters,
    /// Processes, their descriptors and limits from `/proc`.
    Processes,
    /// Connects and closes, counted in the kernel by eBPF.
    Bpf,
    /// Every other network namespace of the host, with `--all-netns`.
    Namespaces,
    /// Peers named on the command line or in a wg-quick file.
    Config,
    /// Behaviour discovery of the NAT in front, against STUN servers.
    Nat,
    /// What the devices' own keys open of the handshakes that reach them.
    Keys,
    /// Paths to named targets, measured.
    Paths,
    /// Active probes of peers.
    Probe,
    /// What the kernel's WireGuard says in the kernel's log.
    KernelLog,
    /// A fly.toml.
    FlyToml,
}

impl Source {
    /// Every source, in the order in which the report lists them.
    pub const ALL: [Self; 19] = [
        Self::Host,
        Self::WireguardNetlink,
        Self::WireguardUapi,
        Self::Capture,
        Self::Routes,
        Self::Sockets,
        Self::Conntrack,
        Self::NatRules,
        Self::Counters,
        Self::Processes,
        Self::Bpf,
        Self::Namespaces,
        Self::Config,
        Self::Nat,
        Self::Keys,
        Self::Paths,
        Self::Probe,
        Self::KernelLog,
        Self::FlyToml,
    ];

    /// Whether it is looked at only where the user asks for it. Findings that need it are then no part of a run without it.
    pub const fn on_request(self) -> bool {
        matches!(self, Self::Nat | Self::Paths | Self::FlyToml)
    }

    /// The name in reports and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::WireguardNetlink => "wireguard-netlink",
            Self::WireguardUapi => "wireguard-uapi",
            Self::Capture => "capture",
            Self::Routes => "routes",
            Self::Sockets => "sockets",
            Self::Conntrack => "conntrack",
            Self::NatRules => "nat-rules",
            Self::Counters => "counters",
            Self::Processes => "processes",
            Self::Namespaces => "namespaces",
            Self::Bpf => "bpf",
            Self::Config => "config",
            Self::Nat => "nat",
            Self::Paths => "paths",
            Self::Keys => "keys",
            Self::Probe => "probe",
            Self::KernelLog => "kernel-log",
            Self::FlyToml => "fly-toml",
        }
    }
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// How the source itself fares; sent after opening and whenever it changes, and at the end.
    Status(SourceStatus),
    /// Facts of the host that do not change during a look.
    Host(host::HostFacts),
    /// The settings that matter, as they are now.
    Sysctls(host::Sysctls),
    /// Every device of one source at one moment (those that vanished are absent).
    Devices(Vec<device::DeviceSnapshot>),
    /// Peers that a file or the command line names.
    ConfiguredPeers(Vec<device::ConfiguredPeer>),
    /// A WireGuard message on the wire.
    Packet(packet::WirePacket),
    /// An ICMP error about a WireGuard message.
    IcmpError(packet::IcmpError),
    /// How the data messages among the packets are sampled. Without it they are all there or none.
    Sampling(packet::Sampling),
    /// What keys say of a handshake message.
    Checked(packet::CheckedMessage),
    /// A reason in the kernel's log.
    KernelLine(device::KernelLine),
    /// Initiations that were only counted.
    Initiations(packet::InitiationTally),
    /// Links, addresses, routes and rules.
    Routes(host::RouteTables),
    /// The kernel's answer to a route look-up that the core asked for.
    RouteAnswer(host::RouteAnswer),
    /// Protocol counters (`/proc/net/snmp`, `netstat`, `snmp6`), cumulative.
    Counters(host::Counters),
    /// The socket table, folded.
    Sockets(socket::SocketTally),
    /// Processes that hold sockets or near their limit.
    Processes(socket::ProcessTable),
    /// Connections counted at each connect and close.
    Connects(connect::ConnectTally),
    /// Conntrack count, limit and per-CPU counters.
    ConntrackStats(conntrack::CtStats),
    /// The conntrack table, folded.
    ConntrackTally(conntrack::CtTally),
    /// What discovery found out about the NAT in front.
    Nat(nat::NatFacts),
    /// How many flows the NAT in front allows, as the user says.
    NatBudget(nat::Budget),
    /// New conntrack entries, counted by events.
    ConntrackEvents(conntrack::CtEvents),
    /// A named target, measured.
    Path(Box<path::PathSample>),
    /// What an earlier run measured of a target.
    PathPast(path::PathPast),
    /// What an active probe saw.
    Probe(probe::ProbeFact),
    /// Source NAT rules.
    NatRules(nat_rules::NatRules),
    /// What a Fly machine found of its private network.
    FlyNet(fly::FlyNet),
    /// What a fly.toml says.
    FlyToml(Box<fly_toml::FlyTomlFacts>),
}

/// How well a source can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// It sees all that it is made to see.
    Ok,
    /// It sees a part; the reason says which part is missing.
    Degraded,
    /// It sees nothing.
    Unavailable,
}

/// A source's own health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// How well it sees.
    pub state: SourceState,
    /// Why it is not `ok`: what was tried, what was refused, which capability is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// CPU seconds that it has used.
    #[serde(with = "span_secs", default)]
    pub cost_cpu: Span,
    /// Events that it knows it lost (full buffers).
    #[serde(default)]
    pub lost: u64,
}

impl SourceStatus {
    /// Sees everything; cost to be filled in by the supervisor.
    pub fn ok() -> Self {
        Self {
            state: SourceState::Ok,
            reason: None,
            cost_cpu: Span::ZERO,
            lost: 0,
        }
    }

    /// Sees a part.
    pub fn degraded(reason: impl Into<String>) -> Self {
        Self {
            state: SourceState::Degraded,
            reason: Some(reason.into()),
            ..Self::ok()
        }
    }

    /// Sees nothing.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self {
            state: SourceState::Unavailable,
            reason: Some(reason.into()),
            ..Self::ok()
        }
    }
}

/// What the core would like to be looked up: an effect as a value. The command hands it to the observer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Ask the kernel which way a packet would go (`RTM_GETROUTE`).
    RouteLookup(RouteQuery),
    /// Find the processes that hold these socket inodes.
    OwnersOf(Vec<u32>),
}

/// A route look-up and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RouteQuery {
    /// Where the packet would go.
    pub destination: IpAddr,
    /// The firewall mark that it would carry (`fwmark` of the device), 0 for none.
    pub mark: u32,
    /// What the answer is for.
    pub purpose: RoutePurpose,
}

/// Why a route was looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoutePurpose {
    /// The outer way to a peer's endpoint.
    Endpoint {
        /// The device's name.
        device: String,
        /// The peer.
        peer: PublicKey,
    },
    /// The inner way to one of a peer's AllowedIPs: it should lead into the device.
    AllowedIp {
        /// The device's name.
        device: String,
        /// The peer.
        peer: PublicKey,
        /// The prefix that it stands for.
        prefix: Cidr,
    },
}

//! The report's model: what every output renders. Plain data; JSON's version 1 is a frozen copy in `output::json`.

pub mod agent;
pub mod build;
pub mod captured;
pub mod changes;
mod conntrack;
pub mod exit;
pub mod kept;
pub mod namespaces;
pub mod past;
pub mod paths;
pub mod period;
pub mod places;
pub mod probed;
mod proved;
#[cfg(test)]
#[path = "../../tests/common/samples/mod.rs"]
pub(crate) mod sample;
mod sockets;
pub mod unseen;
mod wireguard;

use std::net::{IpAddr, SocketAddr};

use crate::finding::{Finding, ProcessRef, Severity};
use crate::observation::conntrack::{CtTally, SnatTally};
use crate::observation::fly::FlyNet;
use crate::observation::fly_toml::FlyTomlFacts;
use crate::observation::host::HostFacts;
use crate::observation::nat::NatFacts;
use crate::observation::{Source, SourceStatus};
use crate::rules::{NotChecked, Suppressed};
use crate::time::{Span, Timestamp};
use crate::types::{Cidr, Proto, PublicKey};

/// A whole diagnosis.
#[derive(Debug)]
pub struct Report {
    /// When it was made.
    pub generated_at: Timestamp,
    /// How long was watched.
    pub duration: Span,
    /// The version of wgnat.
    pub version: String,
    /// The host, where it could be read.
    pub host: Option<HostFacts>,
    /// The verdict.
    pub status: Status,
    /// Every source, how it fared and what it cost.
    pub collectors: Vec<(Source, SourceStatus)>,
    /// Findings, worst first.
    pub findings: Vec<Finding>,
    /// Findings folded beneath others.
    pub suppressed: Vec<Suppressed>,
    /// Rules that could not be checked.
    pub not_checked: Vec<NotChecked>,
    /// Rules that found something and could not look everywhere.
    pub in_part: Vec<NotChecked>,
    /// WireGuard as tables.
    pub wireguard: Wireguard,
    /// Sockets as tables.
    pub sockets: Sockets,
    /// Conntrack as a table; `None` where it was not observed.
    pub conntrack: Option<Conntrack>,
    /// The NAT in front of this host; `None` where it was not probed.
    pub nat: Option<NatFacts>,
    /// The capture files that were read.
    pub captures: Vec<captured::CaptureRow>,
    /// What the agent has confined itself to, by name; `None` for a command that looks once.
    pub confined: Option<Vec<&'static str>>,
    /// Measured paths.
    pub paths: Vec<paths::PathRow>,
    /// Two captures side by side, where the same messages passed both places.
    pub places: Option<places::PlacesRow>,
    /// Other network namespaces of the host, where they were looked at.
    pub namespaces: Vec<namespaces::NamespaceRow>,
    /// What changed since the report before; `None` for a command that compares with none.
    pub changes: Option<changes::Changes>,
    /// The stretch of time that it is about, where it comes from history.
    pub period: Option<period::Period>,
    /// What was found of a Fly machine's private network.
    pub fly_net: Option<FlyNet>,
    /// The fly.toml that was read.
    pub fly_toml: Option<FlyTomlFacts>,
}

impl Report {
    /// The findings that the one at `index` explains.
    pub fn explained_by(&self, index: usize) -> impl Iterator<Item = &Finding> {
        self.suppressed
            .iter()
            .filter(move |s| s.explained_by == index)
            .map(|s| &s.finding)
    }

    /// Why `source` does not see all, in words.
    pub fn reason_for(&self, source: Source) -> &str {
        match self.collectors.iter().find(|(s, _)| *s == source) {
            None => "not looked at in this run",
            Some((_, status)) => status.reason.as_deref().unwrap_or("no reason given"),
        }
    }
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Info findings at most.
    Ok,
    /// A warning is the worst.
    Warning,
    /// Something is critical.
    Critical,
    /// Nothing could be observed.
    Unknown,
}

impl Status {
    /// The worst of `findings`, folded ones among them: a symptom hurts no less for having a cause. `Unknown` where
    /// no source sees.
    pub fn of<'a>(findings: impl Iterator<Item = &'a Finding>, anything_seen: bool) -> Self {
        match findings.map(|f| f.severity).max() {
            Some(Severity::Critical) => Self::Critical,
            Some(Severity::Warning) => Self::Warning,
            _ if anything_seen => Self::Ok,
            _ => Self::Unknown,
        }
    }

    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

/// WireGuard as tables.
#[derive(Debug, Default)]
pub struct Wireguard {
    /// Devices.
    pub devices: Vec<DeviceRow>,
    /// Peers.
    pub peers: Vec<PeerRow>,
    /// Devices and peers beyond what is followed.
    pub devices_left_out: u64,
    /// See `devices_left_out`.
    pub peers_left_out: u64,
    /// Handshake attempts seen on the wire, oldest first; bounded.
    pub handshakes: Vec<HandshakeRow>,
    /// Handshakes that did not fit.
    pub handshakes_left_out: u64,
    /// Tunnels that a capture file shows, those with the most traffic first; bounded.
    pub tunnels: Vec<captured::TunnelRow>,
    /// Tunnels that did not fit.
    pub tunnels_left_out: u64,
    /// Messages seen by kind; `None` where the wire was not watched.
    pub messages: Option<MessageCounts>,
    /// What was probed, in the order in which it was named.
    pub probes: Vec<probed::ProbeRow>,
}

/// Messages seen on the wire by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCounts {
    /// Type 1, looked at one by one.
    pub initiation: u64,
    /// Type 1 that came in, those included that were only counted, with the margin of error where a sample was taken;
    /// `None` for captures.
    pub initiations_in: Option<(u64, Option<u64>)>,
    /// Type 2.
    pub response: u64,
    /// Type 3.
    pub cookie_reply: u64,
    /// Type 4; `None` where the capture filter leaves data out.
    pub data: Option<u64>,
}

/// A WireGuard device.
#[derive(Debug)]
pub struct DeviceRow {
    /// Its name.
    pub name: String,
    /// Its implementation (`kernel`, `wireguard-go`, …).
    pub implementation: &'static str,
    /// Its public key.
    pub public_key: Option<PublicKey>,
    /// Its UDP port.
    pub listen_port: Option<u16>,
    /// Its firewall mark.
    pub fwmark: u32,
    /// Its MTU.
    pub mtu: Option<u32>,
    /// Whether it is up.
    pub up: Option<bool>,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// How a peer fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// A live session.
    Up,
    /// A session that has run out, and nothing wants to be sent.
    Idle,
    /// A handshake is under way.
    Handshaking,
    /// Handshakes go unanswered or a finding says that it fails.
    Failing,
    /// Never had a handshake.
    Never,
    /// No endpoint is known: it can only wait to be called.
    NoEndpoint,
    /// Not known.
    Unknown,
}

impl PeerState {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Idle => "idle",
            Self::Handshaking => "handshaking",
            Self::Failing => "failing",
            Self::Never => "never",
            Self::NoEndpoint => "no-endpoint",
            Self::Unknown => "unknown",
        }
    }
}

/// A WireGuard peer.
#[derive(Debug)]
pub struct PeerRow {
    /// Its device; `None` for a peer that only a configuration names.
    pub device: Option<String>,
    /// Its key.
    pub public_key: PublicKey,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// When its last handshake completed.
    pub last_handshake: Option<Timestamp>,
    /// Bytes received and sent in all, as the device counts; `None` for a peer that no device has.
    pub rx_bytes: Option<u64>,
    /// See `rx_bytes`.
    pub tx_bytes: Option<u64>,
    /// Bytes received and sent while watched; `None` where the device was read once only.
    pub rx_delta: Option<u64>,
    /// See `rx_delta`.
    pub tx_delta: Option<u64>,
    /// The newest handshake round trip seen on the wire.
    pub rtt: Option<Span>,
    /// Handshake attempts seen on the wire without an answer since the last answer; `None` where the wire was
    /// not watched.
    pub unanswered: Option<u32>,
    /// Persistent keepalive in seconds.
    pub keepalive: Option<u16>,
    /// AllowedIPs.
    pub allowed_ips: Vec<Cidr>,
    /// How it fares.
    pub state: PeerState,
}

/// A handshake attempt on the wire.
#[derive(Debug)]
pub struct HandshakeRow {
    /// When its initiation passed.
    pub at: Timestamp,
    /// The device and peer, where they could be told.
    pub device: Option<String>,
    /// See `device`.
    pub public_key: Option<PublicKey>,
    /// Who initiated.
    pub initiator: SocketAddr,
    /// Who was called.
    pub responder: SocketAddr,
    /// `answered`, `unanswered`, `pending`, `cookie` or `unreachable`; of a probe also `called-back`, `rejected` or
    /// `not-sent`.
    pub outcome: &'static str,
    /// From initiation to response.
    pub rtt: Option<Span>,
    /// The capture file that holds it, where two were read as two places.
    pub capture: Option<String>,
}

/// Sockets as tables.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Usable ephemeral ports (the range less reserved ones); `None` where the range could not be read.
    pub ports_available: Option<u32>,
    /// Busiest destinations first; bounded.
    pub destinations: Vec<DestinationRow>,
    /// Destinations that did not fit.
    pub destinations_left_out: u64,
    /// Processes that hold sockets, those with most first; bounded.
    pub processes: Vec<ProcessRow>,
    /// Processes that did not fit.
    pub processes_left_out: u64,
    /// TCP sockets in all, and of these TIME_WAIT; `None` where sockets were not observed.
    pub tcp_total: Option<u32>,
    /// See `tcp_total`.
    pub time_wait_total: Option<u32>,
    /// The kernel changed the table while it was read: the numbers are close, not exact.
    pub inexact: bool,
}

/// Outbound use of one destination.
#[derive(Debug)]
pub struct DestinationRow {
    /// The transport.
    pub proto: Proto,
    /// The local address.
    pub source: IpAddr,
    /// The destination.
    pub destination: SocketAddr,
    /// The process, where known.
    pub process: Option<ProcessRef>,
    /// Ephemeral ports held.
    pub held: u32,
    /// Usable ports for this tuple.
    pub available: Option<u32>,
    /// Sockets established.
    pub established: u32,
    /// Sockets in TIME_WAIT.
    pub time_wait: u32,
    /// Sockets in SYN_SENT.
    pub syn_sent: u32,
    /// Sockets in CLOSE_WAIT.
    pub close_wait: u32,
    /// Connections opened per second, where it could be told.
    pub opens_per_second: Option<f64>,
    /// `exhausted`, `low`, `rising`, `steady`.
    pub state: &'static str,
}

/// A process.
#[derive(Debug)]
pub struct ProcessRow {
    /// Who.
    pub process: ProcessRef,
    /// Sockets held.
    pub sockets: u32,
    /// Descriptors open.
    pub fds: u32,
    /// Soft limit.
    pub fd_limit: Option<u64>,
}

/// Conntrack as a table.
#[derive(Debug)]
pub struct Conntrack {
    /// Entries; `None` where the statistics could not be read.
    pub count: Option<u32>,
    /// The limit.
    pub max: Option<u32>,
    /// Growth of the count while watched, entries per second.
    pub per_second: Option<f64>,
    /// New entries by events, where they were counted.
    pub new: Option<crate::track::conntrack::NewEntries>,
    /// How far each counter moved while watched, by the kernel's names; `None` where they were not read twice.
    pub counters: Option<Vec<(&'static str, u64)>>,
    /// The folded table, where it was dumped.
    pub tally: Option<CtTally>,
    /// SNAT use with the range it was measured against.
    pub snat: Vec<SnatRow>,
}

/// SNAT port use towards one destination.
#[derive(Debug)]
pub struct SnatRow {
    /// As tallied.
    pub tally: SnatTally,
    /// NAT ports of the range that are in use.
    pub held: u32,
    /// The range's size, where it could be told.
    pub range: Option<u32>,
    /// Whether the range was inferred from the ports in use rather than known.
    pub range_inferred: bool,
}

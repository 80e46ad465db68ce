//! WireGuard, sockets and conntrack as tables in version 1.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::captured::{Tunnel, tunnel};
use super::finding::{Process, process};
use super::probed::{Probe, probe};
use super::time;
use crate::report;

/// WireGuard on this host.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Wireguard {
    /// Devices.
    pub devices: Vec<Device>,
    /// Their peers, and peers that only a configuration names.
    pub peers: Vec<Peer>,
    /// Devices that are there and not listed.
    pub devices_left_out: u64,
    /// Peers that are there and not listed.
    pub peers_left_out: u64,
    /// Handshake attempts seen on the wire, oldest first.
    pub handshakes: Vec<Handshake>,
    /// Handshake attempts that were seen and are not listed.
    pub handshakes_left_out: u64,
    /// Tunnels that capture files show, those with the most traffic first.
    pub tunnels: Vec<Tunnel>,
    /// Tunnels that capture files show and that are not listed.
    pub tunnels_left_out: u64,
    /// Messages seen on the wire by kind.
    pub messages: Messages,
    /// Peers that were probed, and what that proved; empty where nothing was probed.
    pub probes: Vec<Probe>,
}

/// A WireGuard device.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Which WireGuard runs it: `kernel`, `wireguard-go`, `boringtun`, `gotatun` or `unknown`.
    pub implementation: String,
    /// Its public key in base64.
    pub public_key: Option<String>,
    /// The UDP port that it listens on.
    pub listen_port: Option<u16>,
    /// The firewall mark of its outer packets; 0 for none.
    pub fwmark: u32,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// Whether it is up.
    pub up: Option<bool>,
    /// What could not be read of it.
    pub problems: Vec<String>,
}

/// A WireGuard peer.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Peer {
    /// Its device; null for a peer that only a configuration names.
    pub device: Option<String>,
    /// Its public key in base64.
    pub public_key: String,
    /// Where its packets go: address and port.
    pub endpoint: Option<String>,
    /// When its last handshake completed; null where it never did or that is not known (`state` tells).
    #[schemars(extend("format" = "date-time"))]
    pub last_handshake: Option<String>,
    /// Bytes received since the device was made, as the device counts them.
    pub rx_bytes: Option<u64>,
    /// Bytes sent since the device was made, as the device counts them.
    pub tx_bytes: Option<u64>,
    /// Bytes received while watched.
    pub rx_bytes_watched: Option<u64>,
    /// Bytes sent while watched.
    pub tx_bytes_watched: Option<u64>,
    /// The newest handshake's round trip, in seconds, where one was seen on the wire.
    pub rtt_seconds: Option<f64>,
    /// Handshake attempts seen on the wire since the last answer; null where the wire was not watched.
    pub unanswered: Option<u32>,
    /// Persistent keepalive in seconds; null for off.
    pub keepalive_seconds: Option<u16>,
    /// AllowedIPs as ADDRESS/PREFIX.
    pub allowed_ips: Vec<String>,
    /// How it fares: `up`, `idle`, `handshaking`, `failing`, `never`, `no-endpoint` or `unknown`.
    pub state: String,
}

/// A handshake attempt on the wire.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Handshake {
    /// When the initiation passed.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
    /// The device, where it could be told.
    pub device: Option<String>,
    /// The peer's public key in base64, where it could be told.
    pub public_key: Option<String>,
    /// The initiator's address and port.
    pub initiator: String,
    /// The responder's address and port.
    pub responder: String,
    /// What came of it: `answered`, `unanswered`, `pending`, `cookie` or `unreachable`. Of a probe also `called-back` (the
    /// peer began a handshake of its own), `rejected` (the preshared keys differ) and `not-sent`.
    pub outcome: String,
    /// From initiation to response, in seconds.
    pub rtt_seconds: Option<f64>,
    /// The capture file that holds it, where two were read as two places; else null.
    pub capture: Option<String>,
}

/// WireGuard messages seen on the wire by kind; each is null where the wire was not watched for it.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Messages {
    /// Handshake initiations (type 1) that were looked at one by one.
    pub initiation: Option<u64>,
    /// Handshake initiations that came in at an interface of this host, repeats and those that were only counted included;
    /// an estimate where there is a margin. Null for captures.
    pub initiations_in: Option<u64>,
    /// By how much `initiations_in` may be too high or too low, in 19 of 20 cases; null where it is exact.
    pub initiations_in_margin: Option<u64>,
    /// Handshake responses (type 2).
    pub response: Option<u64>,
    /// Cookie replies (type 3).
    pub cookie_reply: Option<u64>,
    /// Transport data (type 4).
    pub data: Option<u64>,
}

/// Sockets and ephemeral ports.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Sockets {
    /// Local ports that connections may use: the ephemeral range less reserved ports.
    pub ports_available: Option<u32>,
    /// TCP sockets in all.
    pub tcp: Option<u32>,
    /// TCP sockets in TIME_WAIT.
    pub time_wait: Option<u32>,
    /// Outbound use by destination, the busiest first.
    pub destinations: Vec<Destination>,
    /// Destinations that are not listed.
    pub destinations_left_out: u64,
    /// Processes that hold sockets, those with most first.
    pub processes: Vec<ProcessRow>,
    /// Processes that are not listed.
    pub processes_left_out: u64,
    /// The table changed while it was read: the numbers are close, not exact.
    pub inexact: bool,
}

/// Outbound use of one destination from one local address.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Destination {
    /// `tcp` or `udp`.
    pub proto: String,
    /// The local address.
    pub source: String,
    /// The remote address.
    pub address: String,
    /// The remote port.
    pub port: u16,
    /// The process, where known.
    pub process: Option<Process>,
    /// Local ports in use.
    pub in_use: u32,
    /// Local ports that can be used towards this destination.
    pub available: Option<u32>,
    /// Sockets in ESTABLISHED.
    pub established: u32,
    /// Sockets in TIME_WAIT.
    pub time_wait: u32,
    /// Sockets in SYN_SENT.
    pub syn_sent: u32,
    /// Sockets in CLOSE_WAIT.
    pub close_wait: u32,
    /// Connections opened per second.
    pub opens_per_second: Option<f64>,
    /// `exhausted`, `low`, `rising` or `steady`.
    pub state: String,
}

/// A process that holds sockets.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProcessRow {
    /// Which one.
    #[serde(flatten)]
    pub process: Process,
    /// Sockets that it holds.
    pub sockets: u32,
    /// Descriptors that it has open.
    pub fds: u32,
    /// Its soft limit of open descriptors.
    pub fd_limit: Option<u64>,
}

/// Connection tracking and NAT on this host. Every field is null where conntrack was not observed.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Conntrack {
    /// Entries in the table.
    pub count: Option<u32>,
    /// The table's limit (`nf_conntrack_max`).
    pub max: Option<u32>,
    /// Growth of the count while watched, in entries per second.
    pub per_second: Option<f64>,
    /// New entries per second, counted by events; null unless that was asked for (`--conntrack-events`).
    pub new_per_second: Option<f64>,
    /// New entries while watched, likewise.
    pub new_entries: Option<u64>,
    /// Events were lost, so there were more new entries than counted; null where they were not counted.
    pub new_entries_at_least: Option<bool>,
    /// Taken NAT ports met for each new entry; null where new entries were not counted, or none was new.
    pub collisions_per_new_entry: Option<f64>,
    /// How far each counter moved while watched, by the kernel's names.
    pub counters: Option<BTreeMap<String, u64>>,
    /// What the table holds, where it was read.
    pub table: Option<ConntrackTable>,
    /// Port use of source NAT towards each destination, the fullest first.
    pub snat: Option<Vec<NatAddressUse>>,
}

/// What the table holds.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConntrackTable {
    /// Entries seen.
    pub entries: u64,
    /// TCP entries.
    pub tcp: u64,
    /// UDP entries.
    pub udp: u64,
    /// Entries of other protocols.
    pub other: u64,
    /// Entries that have seen no reply.
    pub unreplied: u64,
    /// Entries that are not evicted early.
    pub assured: u64,
    /// TCP entries that are closing.
    pub tcp_closing: u64,
    /// TCP entries that are established.
    pub tcp_established: u64,
    /// Of these idle for over an hour.
    pub tcp_established_idle: Option<u64>,
    /// Entries towards port 53.
    pub dns: u64,
    /// What did not fit into `snat`.
    pub snat_left_out: LeftOut,
    /// The table changed while it was read: the numbers are close, not exact.
    pub inexact: bool,
}

/// What did not fit into a bounded list.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct LeftOut {
    /// Items.
    pub items: u64,
    /// Entries in them.
    pub members: u64,
}

/// Port use of one NAT address towards one destination.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NatAddressUse {
    /// The translated source address.
    pub nat_address: String,
    /// `tcp` or `udp`.
    pub proto: String,
    /// The remote address.
    pub address: String,
    /// The remote port.
    pub port: u16,
    /// The zone of connection tracking, each of which has all ports for itself; 0 unless a rule sets one.
    pub zone: u16,
    /// NAT ports in use.
    pub in_use: u32,
    /// Ports in the NAT's range.
    pub available: Option<u32>,
    /// Whether `available` was inferred from the ports in use rather than known.
    pub available_inferred: bool,
    /// The lowest NAT port in use.
    pub min_port: u16,
    /// The highest NAT port in use.
    pub max_port: u16,
    /// Entries whose NAT port is the original source port.
    pub preserved: u32,
    /// Entries that are closing.
    pub closing: u32,
    /// Entries that have seen no reply.
    pub unreplied: u32,
}

pub(super) fn wireguard(w: &report::Wireguard) -> Wireguard {
    Wireguard {
        devices: w.devices.iter().map(device).collect(),
        peers: w.peers.iter().map(peer).collect(),
        handshakes: w.handshakes.iter().map(handshake).collect(),
        devices_left_out: w.devices_left_out,
        peers_left_out: w.peers_left_out,
        handshakes_left_out: w.handshakes_left_out,
        tunnels: w.tunnels.iter().map(tunnel).collect(),
        tunnels_left_out: w.tunnels_left_out,
        probes: w.probes.iter().map(probe).collect(),
        messages: w.messages.map_or_else(Messages::default, |m| Messages {
            initiation: Some(m.initiation),
            initiations_in: m.initiations_in.map(|(count, _)| count),
            initiations_in_margin: m.initiations_in.and_then(|(_, margin)| margin),
            response: Some(m.response),
            cookie_reply: Some(m.cookie_reply),
            data: m.data,
        }),
    }
}

fn device(d: &report::DeviceRow) -> Device {
    Device {
        name: d.name.clone(),
        implementation: d.implementation.to_owned(),
        public_key: d.public_key.map(|k| k.to_string()),
        listen_port: d.listen_port,
        fwmark: d.fwmark,
        mtu: d.mtu,
        up: d.up,
        problems: d.problems.clone(),
    }
}

fn peer(p: &report::PeerRow) -> Peer {
    Peer {
        device: p.device.clone(),
        public_key: p.public_key.to_string(),
        endpoint: p.endpoint.map(|e| e.to_string()),
        last_handshake: p.last_handshake.map(time),
        rx_bytes: p.rx_bytes,
        tx_bytes: p.tx_bytes,
        rx_bytes_watched: p.rx_delta,
        tx_bytes_watched: p.tx_delta,
        rtt_seconds: p.rtt.map(|rtt| rtt.as_secs_f64()),
        unanswered: p.unanswered,
        keepalive_seconds: p.keepalive,
        allowed_ips: p.allowed_ips.iter().map(ToString::to_string).collect(),
        state: p.state.name().to_owned(),
    }
}

fn handshake(h: &report::HandshakeRow) -> Handshake {
    Handshake {
        at: time(h.at),
        device: h.device.clone(),
        public_key: h.public_key.map(|k| k.to_string()),
        initiator: h.initiator.to_string(),
        responder: h.responder.to_string(),
        outcome: h.outcome.to_owned(),
        rtt_seconds: h.rtt.map(|rtt| rtt.as_secs_f64()),
        capture: h.capture.clone(),
    }
}

pub(super) fn sockets(s: &report::Sockets) -> Sockets {
    Sockets {
        ports_available: s.ports_available,
        tcp: s.tcp_total,
        time_wait: s.time_wait_total,
        destinations: s.destinations.iter().map(destination).collect(),
        destinations_left_out: s.destinations_left_out,
        processes_left_out: s.processes_left_out,
        inexact: s.inexact,
        processes: s
            .processes
            .iter()
            .map(|p| ProcessRow {
                process: process(&p.process),
                sockets: p.sockets,
                fds: p.fds,
                fd_limit: p.fd_limit,
            })
            .collect(),
    }
}

fn destination(d: &report::DestinationRow) -> Destination {
    Destination {
        proto: d.proto.name().to_owned(),
        source: d.source.to_string(),
        address: d.destination.ip().to_string(),
        port: d.destination.port(),
        process: d.process.as_ref().map(process),
        in_use: d.held,
        available: d.available,
        established: d.established,
        time_wait: d.time_wait,
        syn_sent: d.syn_sent,
        close_wait: d.close_wait,
        opens_per_second: d.opens_per_second,
        state: d.state.to_owned(),
    }
}

pub(super) fn conntrack(c: &report::Conntrack) -> Conntrack {
    Conntrack {
        count: c.count,
        max: c.max,
        per_second: c.per_second,
        new_per_second: c.new.map(|n| n.per_second),
        new_entries: c.new.map(|n| n.count),
        new_entries_at_least: c.new.map(|n| n.at_least),
        collisions_per_new_entry: c.new.and_then(|n| n.collisions),
        counters: c
            .counters
            .as_ref()
            .map(|list| list.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()),
        table: c.tally.as_ref().map(|t| ConntrackTable {
            entries: t.entries,
            tcp: t.tcp,
            udp: t.udp,
            other: t.other,
            unreplied: t.unreplied,
            assured: t.assured,
            tcp_closing: t.tcp_closing,
            tcp_established: t.tcp_established,
            tcp_established_idle: t.tcp_established_idle,
            dns: t.dns,
            snat_left_out: LeftOut {
                items: t.snat_left_out.items,
                members: t.snat_left_out.members,
            },
            inexact: t.inexact,
        }),
        snat: c
            .tally
            .as_ref()
            .map(|_| c.snat.iter().map(nat_address_use).collect()),
    }
}

fn nat_address_use(row: &report::SnatRow) -> NatAddressUse {
    let t = &row.tally;
    NatAddressUse {
        nat_address: t.nat_address.to_string(),
        proto: t.proto.name().to_owned(),
        address: t.destination.ip().to_string(),
        port: t.destination.port(),
        zone: t.zone,
        in_use: t.ports,
        available: row.range,
        available_inferred: row.range_inferred,
        min_port: t.min_port,
        max_port: t.max_port,
        preserved: t.preserved,
        closing: t.closing,
        unreplied: t.unreplied,
    }
}

/// Another network namespace of the host.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Namespace {
    /// Its name: as `ip netns` has it, or a process in it.
    pub name: String,
    /// Its inode number, as in `net:[INODE]`.
    pub inode: u64,
    /// `ok`; `degraded`: a part was not seen; `unavailable`: it could not be entered; `gone`: it ended while it was watched.
    pub state: String,
    /// Why it is not `ok`.
    pub reason: Option<String>,
    /// Conntrack entries; null where they were not counted.
    pub conntrack_count: Option<u32>,
    /// TCP sockets; null where they were not counted.
    pub tcp_sockets: Option<u64>,
    /// Findings about it.
    pub findings: usize,
}

pub(super) fn namespace(n: &report::namespaces::NamespaceRow) -> Namespace {
    Namespace {
        name: n.name.clone(),
        inode: n.inode,
        state: n.state.name().to_owned(),
        reason: n.reason.clone(),
        conntrack_count: n.conntrack,
        tcp_sockets: n.tcp_sockets,
        findings: n.findings,
    }
}

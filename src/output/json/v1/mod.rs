//! `wgnat.report/1`, frozen: fields may be added, never renamed, removed or given another meaning.
//!
//! In: a [`crate::report::Report`]. Out: types that serialise to the contract. The documentation of each type and field
//! is its description in the JSON Schema. What is not known is `null`, never zero.

mod captured;
mod changes;
mod finding;
mod fly;
mod nat;
mod paths;
mod places;
mod probed;
mod tables;

pub use captured::{Capture, Side, Tunnel};
pub use changes::{Change, Changes, Compared, Gap, Held, Period, Trend};
pub use finding::{
    Candidate, Confidence, Evidence, Explained, Finding, Fix, Process, Severity, Subject, Suppressed,
};
pub use fly::{FlyMachine, FlyNet, FlyResolver, FlyService, FlyToml};
pub use nat::{Nat, NatFamily, NatGateway, NatHop, NatLeftOut, NatQuota, NatServer};
pub use paths::{Certificate, Hop, Loss, Mtu, Path, Rtt, Usual};
pub use places::{Link, Mapping, Places, Way};
pub use probed::{Attempts, Inner, LifetimeSearch, MtuSearch, Probe, Refusal, RoundTrips, Websocket};
pub use tables::{
    Conntrack, ConntrackTable, Destination, Device, Handshake, LeftOut, Messages, Namespace, NatAddressUse,
    Peer, ProcessRow, Sockets, Wireguard,
};

use schemars::JsonSchema;
use serde::Serialize;

use crate::observation::SourceState;
use crate::report;
use crate::rules::NotChecked as ModelNotChecked;
use crate::time::Timestamp;

/// A time as RFC 3339 in UTC, to the millisecond.
pub(super) fn time(at: Timestamp) -> String {
    at.millis().to_string()
}

/// One diagnosis of one host: what wgnat found, what it looked at, and what it could not see.
///
/// Durations are in seconds, times are RFC 3339 in UTC, byte counts are in bytes, public keys are base64. Private and
/// pre-shared keys never appear. What is not known is null or absent, never zero. Within version 1 fields are only
/// ever added.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(title = "wgnat report, version 1")]
pub struct Report {
    /// Which contract this document keeps.
    pub schema: SchemaName,
    /// When the report was made.
    #[schemars(extend("format" = "date-time"))]
    pub generated_at: String,
    /// How long the host was watched, in seconds.
    pub duration_seconds: f64,
    /// Who made it.
    pub agent: Agent,
    /// The host that was looked at.
    pub host: Host,
    /// The verdict: the worst severity among the findings.
    pub status: Status,
    /// Every source of facts that was tried, how well it saw, and what that cost.
    pub collectors: Vec<Collector>,
    /// What is wrong: critical first, then warnings, then infos; within a severity causes before symptoms.
    pub findings: Vec<Finding>,
    /// Findings that hold too, but that one of `findings` explains.
    pub suppressed: Vec<Suppressed>,
    /// Findings that could be neither found nor ruled out, because a source was missing.
    pub not_checked: Vec<NotChecked>,
    /// Findings that were found, and that may hold elsewhere too: a source that would tell was missing.
    pub checked_in_part: Vec<NotChecked>,
    /// WireGuard's devices, peers and handshakes.
    pub wireguard: Wireguard,
    /// Sockets and ephemeral ports.
    pub sockets: Sockets,
    /// Connection tracking and NAT on this host.
    pub conntrack: Conntrack,
    /// NAT in front of this host; empty where it was not probed.
    pub nat: Nat,
    /// Measured paths; empty where none was measured.
    pub paths: Vec<Path>,
    /// Capture files that were read; empty where a host was looked at.
    pub captures: Vec<Capture>,
    /// Two captures side by side; null unless the same messages passed both.
    pub places: Option<Places>,
    /// Other network namespaces of the host; empty unless they were asked for (`--all-netns`). A finding about one names it in
    /// `evidence.netns`.
    pub namespaces: Vec<Namespace>,
    /// What changed since the report before; null but for `wgnat report`.
    pub changes: Option<Changes>,
    /// The stretch of time that it is about, where it was made from history; else null.
    pub period: Option<Period>,
    /// A Fly machine's private network; null unless it was asked for (`--fly-checks`). `paths` has what was measured.
    pub fly_net: Option<FlyNet>,
    /// The fly.toml that was read; null where there was none.
    pub fly_toml: Option<FlyToml>,
}

/// The name of this contract.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum SchemaName {
    /// Version 1.
    #[serde(rename = "wgnat.report/1")]
    V1,
}

/// Who made the report.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Agent {
    /// The version of wgnat.
    pub version: String,
    /// What `wgnat agent` has confined itself to: `capabilities`, `no_new_privs`, `landlock`, `seccomp`; absent for a
    /// command that looks once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Vec<&'static str>>,
}

/// The host that was looked at. Every field is null where it could not be read.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Host {
    /// Its name.
    pub hostname: Option<String>,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: Option<String>,
    /// When it booted.
    #[schemars(extend("format" = "date-time"))]
    pub boot_at: Option<String>,
    /// The network namespace that was observed: the name that was asked for, else `net:[INODE]`.
    pub netns: Option<String>,
    /// CPUs online.
    pub cpus: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The capabilities that wgnat had, of those that matter to it; null where they could not be read.
    pub capabilities: Option<Vec<String>>,
    /// The Fly machine that this is; null elsewhere.
    pub fly: Option<FlyMachine>,
}

/// A Fly machine of the same organisation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Fly {
    /// Its app.
    pub app: String,
    /// Its region.
    pub region: String,
    /// Its id.
    pub machine: String,
}

/// The verdict.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing worse than an info.
    Ok,
    /// A warning is the worst.
    Warning,
    /// Something is critical.
    Critical,
    /// Nothing could be observed.
    Unknown,
}

/// A source of facts.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Collector {
    /// Its name.
    pub name: String,
    /// How well it saw.
    pub state: CollectorState,
    /// Why it is not `ok`: what was refused, which capability is needed.
    pub reason: Option<String>,
    /// CPU time that it used, in seconds.
    pub cost_cpu_seconds: f64,
    /// Events that it knows it lost.
    pub lost: u64,
}

/// How well a source saw.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CollectorState {
    /// All that it is made to see.
    Ok,
    /// A part.
    Degraded,
    /// Nothing.
    Unavailable,
}

/// A finding that could not be checked: it may hold or not.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NotChecked {
    /// Its code.
    pub code: String,
    /// The collectors that it needs and that saw nothing.
    pub missing: Vec<String>,
    /// Why they saw nothing.
    pub reason: Option<String>,
}

impl From<&report::Report> for Report {
    fn from(r: &report::Report) -> Self {
        Self {
            schema: SchemaName::V1,
            generated_at: time(r.generated_at),
            duration_seconds: r.duration.as_secs_f64(),
            agent: Agent {
                version: r.version.clone(),
                confinement: r.confined.clone(),
            },
            host: host(r),
            status: status(r.status),
            collectors: r.collectors.iter().map(collector).collect(),
            findings: finding::findings(r),
            suppressed: finding::suppressed(r),
            not_checked: r.not_checked.iter().map(|n| not_checked(r, n)).collect(),
            checked_in_part: r.in_part.iter().map(|n| not_checked(r, n)).collect(),
            wireguard: tables::wireguard(&r.wireguard),
            sockets: tables::sockets(&r.sockets),
            conntrack: r.conntrack.as_ref().map(tables::conntrack).unwrap_or_default(),
            nat: r.nat.as_ref().map(nat::nat).unwrap_or_default(),
            paths: r.paths.iter().map(paths::path).collect(),
            captures: r.captures.iter().map(captured::capture).collect(),
            places: r.places.as_ref().map(places::places),
            namespaces: r.namespaces.iter().map(tables::namespace).collect(),
            changes: r.changes.as_ref().map(changes::changes),
            period: r.period.as_ref().map(changes::period),
            fly_net: r.fly_net.as_ref().map(fly::fly_net),
            fly_toml: r.fly_toml.as_ref().map(fly::fly_toml),
        }
    }
}

const fn status(status: report::Status) -> Status {
    match status {
        report::Status::Ok => Status::Ok,
        report::Status::Warning => Status::Warning,
        report::Status::Critical => Status::Critical,
        report::Status::Unknown => Status::Unknown,
    }
}

fn host(r: &report::Report) -> Host {
    let Some(h) = &r.host else {
        return Host::default();
    };
    Host {
        hostname: Some(h.hostname.clone()),
        kernel: Some(h.kernel.clone()),
        boot_at: h.boot_at.map(time),
        netns: h
            .netns_name
            .clone()
            .or_else(|| h.netns.map(|id| format!("net:[{}]", id.0))),
        cpus: Some(h.cpus),
        memory_bytes: h.memory_bytes,
        capabilities: Some(h.capabilities.clone()),
        fly: h.fly.as_ref().map(fly::machine),
    }
}

fn collector((source, status): &(crate::observation::Source, crate::observation::SourceStatus)) -> Collector {
    Collector {
        name: source.name().to_owned(),
        state: match status.state {
            SourceState::Ok => CollectorState::Ok,
            SourceState::Degraded => CollectorState::Degraded,
            SourceState::Unavailable => CollectorState::Unavailable,
        },
        reason: status.reason.clone(),
        cost_cpu_seconds: status.cost_cpu.as_secs_f64(),
        lost: status.lost,
    }
}

fn not_checked(r: &report::Report, n: &ModelNotChecked) -> NotChecked {
    let reasons: Vec<String> = n
        .missing
        .iter()
        .map(|source| format!("{}: {}", source.name(), r.reason_for(*source)))
        .collect();
    NotChecked {
        code: n.code.to_owned(),
        missing: n.missing.iter().map(|s| s.name().to_owned()).collect(),
        reason: (!reasons.is_empty()).then(|| reasons.join("; ")),
    }
}

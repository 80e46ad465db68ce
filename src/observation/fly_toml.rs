//! What a fly.toml says, as far as it concerns the network: services, limits, health checks, metrics, process groups.
//!
//! Made by `wire::fly_toml`. Commands, environments and headers may hold secrets: of them only what is asked here is kept.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::time::{Span, span_secs};

/// The port where none is said (Fly's reference, `internal_port`).
pub const DEFAULT_INTERNAL_PORT: u16 = 8080;

/// The group that holds where `[processes]` names none (flyctl, `MachineProcessGroupApp`).
pub const DEFAULT_GROUP: &str = "app";

/// The file, and what it is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlyTomlFacts {
    /// The path, as it was named or found.
    pub path: String,
    /// It was named, and not merely found in the working directory.
    pub named: bool,
    /// Where wgnat's own settings let the agent listen.
    pub agent_listen: SocketAddr,
    /// What it says.
    pub file: FlyToml,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlyToml {
    /// `app`.
    pub app: Option<String>,
    /// `[processes]`, in the file's order; empty where there is but [`DEFAULT_GROUP`].
    pub groups: Vec<Group>,
    /// `[http_service]` and `[[services]]`, in the file's order.
    pub services: Vec<Service>,
    /// `[checks.NAME]`.
    pub checks: Vec<Check>,
    /// `[metrics]` or `[[metrics]]`.
    pub metrics: Vec<Metrics>,
    /// `[env]`'s `WGNAT_LISTEN`.
    pub agent_listen: Option<Told<SocketAddr>>,
    /// `[env]` has something for wgnat.
    pub env_for_agent: bool,
    /// Services, checks, groups and the like beyond the bounds.
    pub left_out: u64,
}

impl FlyToml {
    /// The names of all process groups.
    pub fn group_names(&self) -> Vec<&str> {
        if self.groups.is_empty() {
            vec![DEFAULT_GROUP]
        } else {
            self.groups.iter().map(|g| g.name.as_str()).collect()
        }
    }

    /// Where the agent of `group`'s machines listens, as far as this file says it: its command, then `[env]`.
    pub fn listen_of(&self, group: &str) -> Option<SocketAddr> {
        let command = self
            .groups
            .iter()
            .find(|g| g.name == group)
            .and_then(|g| g.listen);
        command.or(self.agent_listen.map(|told| told.value))
    }

    /// Whether the agent is meant to run in this app.
    pub fn runs_agent(&self) -> bool {
        self.env_for_agent || self.groups.iter().any(|g| g.runs != Runs::Other)
    }
}

/// A value and the line that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told<T> {
    /// What is said.
    pub value: T,
    /// The line, from 1.
    pub line: u32,
}

/// A process group: machines of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its line.
    pub line: u32,
    /// What its command starts.
    pub runs: Runs,
    /// `--listen` of the agent in its command.
    pub listen: Option<SocketAddr>,
}

/// What a group's command starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runs {
    /// Something else.
    Other,
    /// `wgnat agent` beside something else.
    WithAgent,
    /// `wgnat agent` and nothing else.
    OnlyAgent,
}

/// A service of the proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its line.
    pub line: u32,
    /// Which section.
    pub section: Section,
    /// UDP, which the proxy passes on as it is.
    pub udp: bool,
    /// `internal_port`; [`DEFAULT_INTERNAL_PORT`] where not said.
    pub internal_port: Option<Told<u16>>,
    /// Its outside ports. `[http_service]` has 80 and 443.
    pub ports: Vec<Ports>,
    /// `concurrency`.
    pub concurrency: Option<Concurrency>,
    /// Its health checks.
    pub checks: Vec<Check>,
    /// The groups that serve it; empty for all.
    pub groups: Vec<Told<String>>,
}

impl Service {
    /// The port inside the machine.
    pub fn port(&self) -> u16 {
        self.internal_port
            .map_or(DEFAULT_INTERNAL_PORT, |told| told.value)
    }

    /// Whether the proxy speaks HTTP to it.
    pub fn http(&self) -> bool {
        self.section == Section::HttpService || self.ports.iter().any(|ports| ports.http)
    }

    /// Whether machines of `group` serve it.
    pub fn served_by(&self, group: &str) -> bool {
        belongs(&self.groups, group)
    }
}

/// Whether a section with these `processes` holds for `group`: none named means all.
pub fn belongs(processes: &[Told<String>], group: &str) -> bool {
    processes.is_empty() || processes.iter().any(|name| name.value == group)
}

/// Which section a service stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    /// `[http_service]`.
    HttpService,
    /// `[[services]]`.
    Services,
}

/// Outside ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The line.
    pub line: u32,
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// The proxy speaks HTTP there.
    pub http: bool,
}

/// Limits of what the proxy sends to one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// Its line.
    pub line: u32,
    /// `type`: requests, not connections.
    pub requests: Option<Told<bool>>,
    /// `soft_limit`.
    pub soft: Option<Told<u32>>,
    /// `hard_limit`.
    pub hard: Option<Told<u32>>,
}

/// How a check asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// A request that must be answered with 2xx.
    Http,
    /// A connection.
    Tcp,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Its line.
    pub line: u32,
    /// The section that it stands in, as it is written (`[[services.tcp_checks]]`).
    pub section: String,
    /// How it asks; `None` where `type` is missing or unknown.
    pub kind: Option<CheckKind>,
    /// `interval`.
    pub interval: Option<Told<Wait>>,
    /// `timeout`.
    pub timeout: Option<Told<Wait>>,
    /// `grace_period`.
    pub grace: Option<Told<Wait>>,
    /// `path`.
    pub path: Option<Told<String>>,
    /// `port`, which top-level checks have.
    pub port: Option<Told<u16>>,
    /// The groups that a top-level check is for; empty for all.
    pub groups: Vec<Told<String>>,
}

/// A length of time; in seconds where serialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wait(#[serde(with = "span_secs")] pub Span);

/// A metrics section: what Fly's Prometheus scrapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Its line.
    pub line: u32,
    /// `port`.
    pub port: Option<Told<u16>>,
    /// `path`.
    pub path: Option<Told<String>>,
    /// `https`.
    pub https: Option<Told<bool>>,
    /// The groups that it is for; empty for all.
    pub groups: Vec<Told<String>>,
}

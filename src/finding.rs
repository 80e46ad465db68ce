//! A finding: one cause, with its evidence, its confidence and what to change.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use serde_json::Value;

use crate::time::Timestamp;
use crate::types::{Proto, PublicKey};

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will hurt, or hurts a little.
    Warning,
    /// Hurts now.
    Critical,
}

impl Severity {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// How sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A hint; never above warning.
    Possible,
    /// One cause explains it far better than the rest.
    Likely,
    /// The evidence admits no other cause.
    Certain,
}

impl Confidence {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Possible => "possible",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// One finding, as a rule makes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The code from the catalogue.
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// One line that names what is wrong and where, without a full stop.
    pub title: String,
    /// What it is about.
    pub subject: Subject,
    /// What happens and why, with the numbers: one to four sentences for somebody in a hurry.
    pub summary: String,
    /// The numbers, by stable snake_case names, in a telling order.
    pub evidence: Evidence,
    /// What it does to traffic.
    pub impact: String,
    /// Causes that the evidence does not tell apart, and what would settle each.
    pub candidates: Vec<Candidate>,
    /// What to change, best first.
    pub fixes: Vec<Fix>,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// How often it was seen.
    pub count: u32,
}

/// A cause that is still possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The cause in a phrase.
    pub cause: String,
    /// The finding it would be, where there is one.
    pub code: Option<&'static str>,
    /// What would settle it: something to look at or to run.
    pub settle: String,
}

/// Something to change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fix {
    /// What to do, in one line.
    pub title: String,
    /// Why it helps, and what it costs.
    pub why: String,
    /// A shell command to paste.
    pub command: Option<String>,
    /// A piece of configuration or code to paste.
    pub snippet: Option<String>,
    /// What should be seen afterwards, by name.
    pub expect: Evidence,
}

/// Named numbers, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence(pub Vec<(Cow<'static, str>, Value)>);

impl Evidence {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.push((Cow::Borrowed(name), value.into()));
        self
    }

    /// With one more where it is known: what was not measured is left out, never zero.
    #[must_use]
    pub fn maybe(self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(v) => self.with(name, v),
            None => self,
        }
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A WireGuard peer.
    Peer {
        /// The device, where there is one.
        device: Option<String>,
        /// The peer's key, where known.
        public_key: Option<PublicKey>,
        /// Where it is, where known.
        endpoint: Option<SocketAddr>,
        /// This side's outer address, where known.
        local: Option<SocketAddr>,
    },
    /// A WireGuard device (or another interface).
    Device {
        /// Its name.
        name: String,
    },
    /// Outbound flows to one destination.
    Destination {
        /// The transport.
        proto: Proto,
        /// The local address, where one.
        source: Option<IpAddr>,
        /// The remote address.
        address: IpAddr,
        /// The remote port.
        port: u16,
        /// The process, where known.
        process: Option<ProcessRef>,
    },
    /// A process.
    Process(ProcessRef),
    /// This host's conntrack table.
    Conntrack,
    /// A NAT: on this host, by its address, towards a destination where the finding is about one.
    Nat {
        /// The NAT's external address, where known.
        address: Option<IpAddr>,
        /// The transport.
        proto: Option<Proto>,
        /// The destination whose ports are concerned.
        destination: Option<SocketAddr>,
    },
    /// A measured path.
    Path {
        /// The target as it was named.
        target: String,
        /// The address that was tried, where the name has one.
        address: Option<IpAddr>,
    },
    /// A DNS server.
    Resolver {
        /// Its address and port.
        address: SocketAddr,
    },
    /// A configuration file.
    File {
        /// Its path, as it was named or found.
        path: String,
        /// The line that the finding is about, from 1.
        line: u32,
    },
    /// The host as a whole.
    Host,
}

/// A process in a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRef {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its executable, where readable.
    pub exe: Option<String>,
    /// Its runtime, where recognised.
    pub runtime: Option<String>,
}

impl Subject {
    /// The contract's word for the kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Peer { .. } => "peer",
            Self::Device { .. } => "device",
            Self::Destination { .. } => "destination",
            Self::Process(_) => "process",
            Self::Conntrack => "conntrack",
            Self::Nat { .. } => "nat",
            Self::Path { .. } => "path",
            Self::Resolver { .. } => "resolver",
            Self::File { .. } => "file",
            Self::Host => "host",
        }
    }

    /// The outer address at its other end, where it has one.
    pub fn endpoint(&self) -> Option<IpAddr> {
        match self {
            Self::Peer { endpoint, .. } => endpoint.map(|e| e.ip()),
            Self::Destination { address, .. } => Some(*address),
            Self::Path { address, .. } => *address,
            Self::Resolver { address } => Some(address.ip()),
            _ => None,
        }
    }

    /// As one text, without what may change while it is the same thing: with the code it tells whether two findings, found at
    /// different times, are one.
    pub fn identity(&self) -> String {
        match self {
            Self::Peer {
                device,
                public_key,
                endpoint,
                ..
            } => {
                let device = device.as_deref().unwrap_or("-");
                match (public_key, endpoint) {
                    (Some(key), _) => format!("peer {device} {key}"),
                    (None, Some(endpoint)) => format!("peer {device} {endpoint}"),
                    (None, None) => format!("peer {device}"),
                }
            }
            Self::Device { name } => format!("device {name}"),
            Self::Destination {
                proto,
                source,
                address,
                port,
                ..
            } => {
                let source = source.map_or("-".to_owned(), |s| s.to_string());
                format!("destination {} {source} {address} {port}", proto.name())
            }
            Self::Process(process) => format!("process {} {}", process.pid, process.comm),
            Self::Conntrack => "conntrack".to_owned(),
            Self::Nat {
                address,
                proto,
                destination,
            } => {
                let address = address.map_or("-".to_owned(), |a| a.to_string());
                let proto = proto.map_or("-", |p| p.name());
                let destination = destination.map_or("-".to_owned(), |d| d.to_string());
                format!("nat {address} {proto} {destination}")
            }
            Self::Path { target, .. } => format!("path {target}"),
            Self::Resolver { address } => format!("resolver {address}"),
            Self::File { path, line } => format!("file {path} {line}"),
            Self::Host => "host".to_owned(),
        }
    }

    /// Whether a cause found about `self` can explain a symptom found about `other`: they are about the same
    /// thing, or `self` is about a thing that holds the other.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host, _) => true,
            (
                Self::Peer {
                    device: d1,
                    public_key: k1,
                    endpoint: e1,
                    ..
                },
                Self::Peer {
                    device: d2,
                    public_key: k2,
                    endpoint: e2,
                    ..
                },
            ) => match (k1, k2) {
                (Some(k1), Some(k2)) => k1 == k2 && (d1 == d2 || d1.is_none() || d2.is_none()),
                _ => e1.is_some() && e1 == e2,
            },
            (Self::Device { name }, Self::Peer { device, .. }) => device.as_ref() == Some(name),
            (Self::Device { name: a }, Self::Device { name: b }) => a == b,
            (
                Self::Destination {
                    proto: p1,
                    source: s1,
                    address: a1,
                    port: o1,
                    ..
                },
                Self::Destination {
                    proto: p2,
                    source: s2,
                    address: a2,
                    port: o2,
                    ..
                },
            ) => p1 == p2 && a1 == a2 && o1 == o2 && (s1 == s2 || s1.is_none() || s2.is_none()),
            (Self::Process(a), Self::Process(b)) => a.pid == b.pid,
            (Self::Path { target: a, .. }, Self::Path { target: b, .. }) => a == b,
            (Self::Resolver { address: a }, Self::Resolver { address: b }) => a == b,
            (Self::File { .. }, Self::File { .. }) => self == other,
            (Self::Conntrack | Self::Nat { .. }, Self::Conntrack) => true,
            (Self::Conntrack, Self::Nat { .. }) => true,
            // A NAT's ports towards one destination serve every flow to it, and a full table turns away whatever is new.
            (
                Self::Nat {
                    proto: Some(p1),
                    destination: Some(d),
                    ..
                },
                Self::Destination {
                    proto: p2,
                    address,
                    port,
                    ..
                },
            ) => p1 == p2 && d.ip() == *address && d.port() == *port,
            (Self::Conntrack, Self::Destination { .. }) => true,
            // A NAT as a whole has every flow through it.
            (
                Self::Nat {
                    proto: None,
                    destination: None,
                    ..
                },
                Self::Destination { .. },
            ) => true,
            (
                Self::Nat {
                    proto: p1,
                    destination: d1,
                    ..
                },
                Self::Nat {
                    proto: p2,
                    destination: d2,
                    ..
                },
            ) => (p1.is_none() || p1 == p2) && (d1.is_none() || d1 == d2),
            _ => false,
        }
    }
}

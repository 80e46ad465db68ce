//! Findings in version 1.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::time;
use crate::finding as model;
use crate::report;

/// One cause of trouble, with its evidence and what to change.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Finding {
    /// What it is: a stable code from the catalogue (`wgnat explain CODE`).
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// What is wrong and where, in one line.
    pub title: String,
    /// What happens and why, in a few sentences.
    pub summary: String,
    /// What it is about.
    pub subject: Subject,
    /// What was measured, by stable names that end in their unit.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub evidence: Evidence,
    /// What it does to traffic.
    pub impact: String,
    /// Causes that the evidence does not tell apart.
    pub candidates: Vec<Candidate>,
    /// What to change, best first.
    pub fixes: Vec<Fix>,
    /// The findings in `suppressed` that this one explains.
    pub explains: Vec<Explained>,
    /// When it was first seen.
    #[schemars(extend("format" = "date-time"))]
    pub first_seen: String,
    /// When it was last seen.
    #[schemars(extend("format" = "date-time"))]
    pub last_seen: String,
    /// How often it was seen.
    pub count: u32,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will hurt, or hurts a little.
    Warning,
    /// Hurts now.
    Critical,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A hint; never above a warning.
    Possible,
    /// One cause explains it far better than the rest.
    Likely,
    /// The evidence admits no other cause.
    Certain,
}

/// What a finding is about; `kind` tells which fields there are.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Subject {
    /// A WireGuard peer.
    Peer {
        /// The device, where there is one.
        device: Option<String>,
        /// The peer's public key in base64, where known.
        public_key: Option<String>,
        /// Where the peer is: address and port.
        endpoint: Option<String>,
        /// This side's outer address and port, where known.
        local: Option<String>,
    },
    /// A WireGuard device or another network interface.
    Device {
        /// Its name.
        name: String,
    },
    /// Outbound flows to one destination.
    Destination {
        /// `tcp` or `udp`.
        proto: String,
        /// The local address, where one.
        source: Option<String>,
        /// The remote address.
        address: String,
        /// The remote port.
        port: u16,
        /// The process that owns the flows, where known.
        process: Option<Process>,
    },
    /// A process.
    Process {
        /// Which one.
        process: Process,
    },
    /// This host's connection tracking table.
    Conntrack,
    /// A NAT on this host.
    Nat {
        /// Its external address, where known.
        address: Option<String>,
        /// `tcp` or `udp`, where the finding is about one.
        proto: Option<String>,
        /// The address and port towards which its ports are counted, where the finding is about one.
        destination: Option<String>,
    },
    /// A measured path.
    Path {
        /// The target as it was named.
        target: String,
        /// The address that was tried, where the name has one.
        address: Option<String>,
    },
    /// A DNS server.
    Resolver {
        /// Its address.
        address: String,
        /// Its port.
        port: u16,
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

/// A process.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its executable, where readable.
    pub exe: Option<String>,
    /// Its runtime (`node`, `python`, `go`, …), where recognised.
    pub runtime: Option<String>,
}

/// A cause that is still possible.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Candidate {
    /// The cause in a phrase.
    pub cause: String,
    /// The finding that it would be, where there is one.
    pub code: Option<String>,
    /// What would settle it.
    pub settle: String,
}

/// Something to change.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Fix {
    /// What to do, in one line.
    pub title: String,
    /// Why it helps and what it costs.
    pub why: String,
    /// A shell command to paste.
    pub command: Option<String>,
    /// Configuration or code to paste.
    pub snippet: Option<String>,
    /// What should be measured afterwards, by the names that evidence has.
    #[schemars(with = "BTreeMap<String, Value>")]
    pub expect: Evidence,
}

/// A finding that another one explains.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explained {
    /// Its code.
    pub code: String,
    /// What it is about.
    pub subject: Subject,
}

/// A finding that holds, and the finding that explains it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Suppressed {
    /// The finding itself.
    #[serde(flatten)]
    pub finding: Finding,
    /// The code of the finding that explains it; that finding's `explains` names this one.
    pub explained_by: Option<String>,
}

/// Named values, in their telling order.
#[derive(Debug)]
pub struct Evidence(Vec<(Cow<'static, str>, Value)>);

impl Serialize for Evidence {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

pub(super) fn findings(r: &report::Report) -> Vec<Finding> {
    r.findings
        .iter()
        .enumerate()
        .map(|(index, f)| finding(f, r.explained_by(index).map(explained).collect()))
        .collect()
}

pub(super) fn suppressed(r: &report::Report) -> Vec<Suppressed> {
    r.suppressed
        .iter()
        .map(|s| Suppressed {
            finding: finding(&s.finding, Vec::new()),
            explained_by: r.findings.get(s.explained_by).map(|f| f.code.to_owned()),
        })
        .collect()
}

fn explained(f: &model::Finding) -> Explained {
    Explained {
        code: f.code.to_owned(),
        subject: subject(&f.subject),
    }
}

impl From<&model::Finding> for Finding {
    /// On its own, without what it explains.
    fn from(f: &model::Finding) -> Self {
        finding(f, Vec::new())
    }
}

fn finding(f: &model::Finding, explains: Vec<Explained>) -> Finding {
    Finding {
        code: f.code.to_owned(),
        severity: severity(f.severity),
        confidence: match f.confidence {
            model::Confidence::Possible => Confidence::Possible,
            model::Confidence::Likely => Confidence::Likely,
            model::Confidence::Certain => Confidence::Certain,
        },
        title: f.title.clone(),
        summary: f.summary.clone(),
        subject: subject(&f.subject),
        evidence: evidence(&f.evidence),
        impact: f.impact.clone(),
        candidates: f
            .candidates
            .iter()
            .map(|c| Candidate {
                cause: c.cause.clone(),
                code: c.code.map(str::to_owned),
                settle: c.settle.clone(),
            })
            .collect(),
        fixes: f
            .fixes
            .iter()
            .map(|x| Fix {
                title: x.title.clone(),
                why: x.why.clone(),
                command: x.command.clone(),
                snippet: x.snippet.clone(),
                expect: evidence(&x.expect),
            })
            .collect(),
        explains,
        first_seen: time(f.first_seen),
        last_seen: time(f.last_seen),
        count: f.count,
    }
}

pub(super) const fn severity(severity: model::Severity) -> Severity {
    match severity {
        model::Severity::Info => Severity::Info,
        model::Severity::Warning => Severity::Warning,
        model::Severity::Critical => Severity::Critical,
    }
}

/// What was not measured is left out. A name given twice keeps its last value: an object has each name once.
fn evidence(e: &model::Evidence) -> Evidence {
    let mut kept: Vec<(Cow<'static, str>, Value)> = Vec::with_capacity(e.0.len());
    for (name, value) in e.0.iter().filter(|(_, v)| !v.is_null()) {
        match kept.iter_mut().find(|(n, _)| n == name) {
            Some(known) => known.1 = value.clone(),
            None => kept.push((name.clone(), value.clone())),
        }
    }
    Evidence(kept)
}

pub(super) fn process(p: &model::ProcessRef) -> Process {
    Process {
        pid: p.pid,
        comm: p.comm.clone(),
        exe: p.exe.clone(),
        runtime: p.runtime.clone(),
    }
}

fn subject(s: &model::Subject) -> Subject {
    fn text(value: Option<&impl ToString>) -> Option<String> {
        value.map(ToString::to_string)
    }
    match s {
        model::Subject::Peer {
            device,
            public_key,
            endpoint,
            local,
        } => Subject::Peer {
            device: device.clone(),
            public_key: text(public_key.as_ref()),
            endpoint: text(endpoint.as_ref()),
            local: text(local.as_ref()),
        },
        model::Subject::Device { name } => Subject::Device { name: name.clone() },
        model::Subject::Destination {
            proto,
            source,
            address,
            port,
            process: owner,
        } => Subject::Destination {
            proto: proto.name().to_owned(),
            source: text(source.as_ref()),
            address: address.to_string(),
            port: *port,
            process: owner.as_ref().map(process),
        },
        model::Subject::Process(owner) => Subject::Process {
            process: process(owner),
        },
        model::Subject::Conntrack => Subject::Conntrack,
        model::Subject::Nat {
            address,
            proto,
            destination,
        } => Subject::Nat {
            address: text(address.as_ref()),
            proto: proto.map(|p| p.name().to_owned()),
            destination: text(destination.as_ref()),
        },
        model::Subject::Path { target, address } => Subject::Path {
            target: target.clone(),
            address: address.map(|a| a.to_string()),
        },
        model::Subject::Resolver { address } => Subject::Resolver {
            address: address.ip().to_string(),
            port: address.port(),
        },
        model::Subject::File { path, line } => Subject::File {
            path: path.clone(),
            line: *line,
        },
        model::Subject::Host => Subject::Host,
    }
}

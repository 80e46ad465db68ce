//! A finding as history keeps it, read back: `wgnat.report/1`'s form of it to [`Finding`].
//!
//! In: JSON that some wgnat wrote, perhaps an older or a newer one. Out: the finding, or nothing where the code is none of
//! this version's catalogue or the form is another; never a panic. Pure.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, ProcessRef, Severity, Subject};
use crate::observation::Source;
use crate::report::unseen::Unseen;
use crate::rules::registry;
use crate::time::Timestamp;
use crate::types::{Proto, PublicKey};

/// A finding as it was kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// As it was when last seen.
    pub finding: Finding,
    /// Whether another one explained it then.
    pub explained: bool,
    /// The sources by which it was found; where an older version wrote it, those that its rule cannot do without.
    pub seen_by: BTreeSet<Source>,
    /// Why it was not known whether it still held, where that was so.
    pub unseen: Option<Unseen>,
}

/// The finding in `data`.
pub fn read(data: &str) -> Option<Kept> {
    let form: Form = serde_json::from_str(data).ok()?;
    let confidence = [Confidence::Possible, Confidence::Likely, Confidence::Certain];
    let finding = Finding {
        code: code(&form.code)?,
        severity: severity(&form.severity)?,
        confidence: confidence.into_iter().find(|c| c.name() == form.confidence)?,
        title: form.title,
        subject: form.subject.model()?,
        summary: form.summary,
        evidence: form.evidence.0,
        impact: form.impact,
        candidates: form.candidates.into_iter().map(CandidateForm::model).collect(),
        fixes: form.fixes.into_iter().map(FixForm::model).collect(),
        first_seen: form.first_seen,
        last_seen: form.last_seen,
        count: form.count,
    };
    let by = |names: Vec<String>| {
        let is_named = |source: &Source| names.iter().any(|name| name == source.name());
        Source::ALL.into_iter().filter(is_named).collect()
    };
    Some(Kept {
        seen_by: form.seen_by.map_or_else(|| indispensable(finding.code), by),
        finding,
        explained: form.explained,
        unseen: form.unseen,
    })
}

fn indispensable(code: &str) -> BTreeSet<Source> {
    registry::needs(code)
        .iter()
        .filter(|group| group.len() == 1)
        .flat_map(|group| group.iter().copied())
        .collect()
}

/// The severity of this name.
pub fn severity(name: &str) -> Option<Severity> {
    [Severity::Info, Severity::Warning, Severity::Critical]
        .into_iter()
        .find(|severity| severity.name() == name)
}

/// The catalogue's own copy of a code.
pub fn code(code: &str) -> Option<&'static str> {
    registry::find(code).map(|rule| rule.code)
}

#[derive(Deserialize)]
struct Form {
    code: String,
    severity: String,
    confidence: String,
    title: String,
    subject: SubjectForm,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    evidence: Ordered,
    #[serde(default)]
    impact: String,
    #[serde(default)]
    candidates: Vec<CandidateForm>,
    #[serde(default)]
    fixes: Vec<FixForm>,
    first_seen: Timestamp,
    last_seen: Timestamp,
    count: u32,
    #[serde(default)]
    explained: bool,
    seen_by: Option<Vec<String>>,
    unseen: Option<Unseen>,
}

#[derive(Deserialize)]
struct CandidateForm {
    cause: String,
    code: Option<String>,
    #[serde(default)]
    settle: String,
}

impl CandidateForm {
    fn model(self) -> Candidate {
        Candidate {
            cause: self.cause,
            code: self.code.as_deref().and_then(code),
            settle: self.settle,
        }
    }
}

#[derive(Deserialize)]
struct FixForm {
    title: String,
    #[serde(default)]
    why: String,
    command: Option<String>,
    snippet: Option<String>,
    #[serde(default)]
    expect: Ordered,
}

impl FixForm {
    fn model(self) -> Fix {
        Fix {
            title: self.title,
            why: self.why,
            command: self.command,
            snippet: self.snippet,
            expect: self.expect.0,
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum SubjectForm {
    Peer {
        device: Option<String>,
        public_key: Option<String>,
        endpoint: Option<SocketAddr>,
        local: Option<SocketAddr>,
    },
    Device {
        name: String,
    },
    Destination {
        proto: String,
        source: Option<IpAddr>,
        address: IpAddr,
        port: u16,
        process: Option<ProcessForm>,
    },
    Process {
        process: ProcessForm,
    },
    Conntrack,
    Nat {
        address: Option<IpAddr>,
        proto: Option<String>,
        destination: Option<SocketAddr>,
    },
    Path {
        target: String,
        address: Option<IpAddr>,
    },
    Resolver {
        address: IpAddr,
        port: u16,
    },
    File {
        path: String,
        line: u32,
    },
    Host,
}

impl SubjectForm {
    fn model(self) -> Option<Subject> {
        Some(match self {
            Self::Peer {
                device,
                public_key,
                endpoint,
                local,
            } => Subject::Peer {
                device,
                public_key: match public_key {
                    Some(text) => Some(text.parse::<PublicKey>().ok()?),
                    None => None,
                },
                endpoint,
                local,
            },
            Self::Device { name } => Subject::Device { name },
            Self::Destination {
                proto: name,
                source,
                address,
                port,
                process,
            } => Subject::Destination {
                proto: proto(&name)?,
                source,
                address,
                port,
                process: process.map(ProcessForm::model),
            },
            Self::Process { process } => Subject::Process(process.model()),
            Self::Conntrack => Subject::Conntrack,
            Self::Nat {
                address,
                proto: name,
                destination,
            } => Subject::Nat {
                address,
                proto: name.as_deref().and_then(proto),
                destination,
            },
            Self::Path { target, address } => Subject::Path { target, address },
            Self::Resolver { address, port } => Subject::Resolver {
                address: SocketAddr::new(address, port),
            },
            Self::File { path, line } => Subject::File { path, line },
            Self::Host => Subject::Host,
        })
    }
}

fn proto(name: &str) -> Option<Proto> {
    [Proto::Tcp, Proto::Udp].into_iter().find(|p| p.name() == name)
}

#[derive(Deserialize)]
struct ProcessForm {
    pid: u32,
    comm: String,
    exe: Option<String>,
    runtime: Option<String>,
}

impl ProcessForm {
    fn model(self) -> ProcessRef {
        ProcessRef {
            pid: self.pid,
            comm: self.comm,
            exe: self.exe,
            runtime: self.runtime,
        }
    }
}

/// Evidence in the order in which it was written: a JSON object's own order, which a map would lose.
#[derive(Default)]
struct Ordered(Evidence);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Ordered;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of evidence")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    pairs.push((Cow::Owned(name), value));
                }
                Ok(Ordered(Evidence(pairs)))
            }
        }
        d.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    /// Through JSON and back, as a text of v1 and then as a finding.
    #[test]
    fn every_finding_of_the_samples_comes_back_as_it_was() {
        let mut seen = 0;
        for report in [
            sample::ports_exhausted(),
            sample::tunnel_silent(),
            sample::hostile_names(),
        ] {
            for mut original in report.findings {
                // What is not known is left out of the document.
                original.evidence.0.retain(|(_, value)| !value.is_null());
                let data = crate_json(&original);
                let back = read(&data).unwrap();
                assert_eq!(back.finding, original);
                assert!(!back.explained && back.unseen.is_none());
                seen += 1;
            }
        }
        assert!(seen >= 3, "{seen}");
    }

    /// The document, which a floor above writes: made by hand of its parts, so that this floor needs no other.
    fn crate_json(finding: &Finding) -> String {
        let mut out = Vec::new();
        let report = crate::report::Report {
            findings: vec![finding.clone()],
            ..sample::empty()
        };
        wgnat::output::json::render(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let start = text.find("\"findings\": [").unwrap() + "\"findings\": [".len();
        let end = text.find("  ],\n  \"suppressed\"").unwrap();
        text[start..end].trim().to_owned()
    }

    #[test]
    fn what_is_another_form_is_nothing() {
        for data in ["", "null", "[]", "{}", "{\"code\":\"fd-limit\"}", "{\"code\":7}"] {
            assert!(read(data).is_none(), "{data}");
        }
        let known = crate_json(&sample::ports_exhausted().findings[0]);
        assert!(read(&known).is_some());
        assert!(read(&known.replace("ports-exhausted", "of-a-newer-wgnat")).is_none());
        assert!(read(&known.replace("\"critical\"", "\"dreadful\"")).is_none());
        assert!(read(&known.replacen('{', "{\"added\": 1, ", 1)).is_some());
    }
}

//! What measured paths and name servers say.

mod dns_failing;
mod dns_slow;
mod jitter;
mod latency;
mod loss;
mod mtu;
#[cfg(test)]
mod testing;

use super::{Input, Rule};
use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::observation::Source;
use crate::observation::target::Method;
use crate::time::Span;
use crate::track::paths::Path;
use crate::words::rounded;

/// The rules, causes before symptoms.
pub const RULES: &[Rule] = &[
    mtu::RULE,
    loss::RULE,
    latency::RULE,
    jitter::RULE,
    dns_failing::RULE,
    dns_slow::RULE,
];

const PATHS: &[&[Source]] = &[&[Source::Paths]];

/// Targets that are not DNS servers.
fn paths<'a>(input: &Input<'a>) -> impl Iterator<Item = &'a Path> {
    let world = input.world;
    world
        .paths
        .iter()
        .filter(|path| !matches!(path.sample.target.method, Method::Dns(_)))
}

/// DNS servers, and the address of each.
fn resolvers<'a>(input: &Input<'a>) -> impl Iterator<Item = (&'a Path, std::net::SocketAddr)> {
    let world = input.world;
    world
        .paths
        .iter()
        .filter_map(|path| match path.sample.target.method {
            Method::Dns(Some(server)) => Some((path, server)),
            _ => None,
        })
}

/// The other targets that were measured at the same time.
fn others<'a>(input: &Input<'a>, path: &'a Path) -> impl Iterator<Item = &'a Path> {
    paths(input).filter(move |other| other.sample.target != path.sample.target)
}

/// What findings about `path` share.
fn finding(code: &'static str, path: &Path, confidence: Confidence) -> Finding {
    Finding {
        code,
        severity: Severity::Warning,
        confidence,
        title: String::new(),
        subject: subject(path),
        summary: String::new(),
        evidence: Evidence::new(),
        impact: String::new(),
        candidates: Vec::new(),
        fixes: Vec::new(),
        first_seen: path.at,
        last_seen: path.at,
        count: 1,
    }
}

fn subject(path: &Path) -> Subject {
    match path.sample.target.method {
        Method::Dns(Some(address)) => Subject::Resolver { address },
        _ => Subject::Path {
            target: path.sample.target.to_string(),
            address: path.sample.address,
        },
    }
}

/// Against a history: `usual 12 ms (p50 over 24 h), now 90 ms`.
fn against(usual: &str, how: &str, over: Span, now: &str) -> String {
    format!("usual {usual} ({how} over {}), now {now}", told(over))
}

/// A length of time as evidence, in seconds.
fn seconds(span: Span) -> serde_json::Value {
    rounded(span.as_secs_f64())
}

/// A length of time in a sentence.
fn told(span: Span) -> String {
    crate::words::seconds(span.as_secs_f64())
}

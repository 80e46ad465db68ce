//! Measured paths as rows.

use std::net::IpAddr;

use crate::observation::path::{Certificate, Failure, HopSample, PathMtu, Sibling, Stage, Usual};
use crate::time::Span;
use crate::track::World;
use crate::track::paths::{Path, Summary};
use crate::track::stats;

/// A measured target.
#[derive(Debug)]
pub struct PathRow {
    /// As it was named.
    pub target: String,
    /// How it was tried: `icmp`, `udp`, `tcp`, `tls`, `http`, `https` or `dns`.
    pub method: &'static str,
    /// The address that was tried.
    pub address: Option<IpAddr>,
    /// A name server of the system's own.
    pub system_resolver: bool,
    /// Attempts, losses and round trips.
    pub summary: Summary,
    /// The share of attempts lost, and its 95 % interval.
    pub loss: Option<(f64, f64, f64)>,
    /// The median of each stage.
    pub stages: Vec<(Stage, Span)>,
    /// What came of attempts that have no round trip, most frequent first.
    pub failures: Vec<(String, u32)>,
    /// The HTTP status of the last answer.
    pub http_status: Option<u16>,
    /// The certificate of a TLS server.
    pub certificate: Option<Certificate>,
    /// What history says is usual.
    pub usual: Option<Usual>,
    /// What the size search found.
    pub mtu: Option<PathMtu>,
    /// Routers on the way.
    pub hops: Vec<HopSample>,
    /// What could not be measured.
    pub problems: Vec<String>,
    /// The Fly machine that it is.
    pub sibling: Option<Sibling>,
}

/// Every measured target, in the order in which they were named.
pub(super) fn section(world: &World) -> Vec<PathRow> {
    world.paths.iter().map(row).collect()
}

fn row(path: &Path) -> PathRow {
    let sample = &path.sample;
    let mut failures: Vec<(String, u32)> = sample.failures.iter().map(|(f, n)| (words(f), *n)).collect();
    failures.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    PathRow {
        target: sample.target.to_string(),
        method: sample.target.method.name(),
        address: sample.address,
        system_resolver: sample.system_resolver,
        summary: path.now,
        loss: path.now.loss(),
        stages: sample
            .stages
            .iter()
            .filter_map(|(stage, rtts)| Some((*stage, stats::median(&rtts.0)?)))
            .collect(),
        failures,
        http_status: sample.http_status,
        certificate: sample.certificate.clone(),
        usual: path.usual.clone(),
        mtu: sample.mtu,
        hops: sample.hops.clone(),
        problems: sample.problems.clone(),
        sibling: sample.sibling.clone(),
    }
}

/// A failure in words.
fn words(failure: &Failure) -> String {
    match failure {
        Failure::Unreachable {
            from: Some(from),
            says,
        } => format!("{says}, says {from}"),
        Failure::Cut(says) => format!("cut: {says}"),
        Failure::Local(says) => format!("not sent: {says}"),
        other => other.words(),
    }
}

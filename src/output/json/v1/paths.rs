//! Measured paths, frozen.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::report::paths::PathRow;
use crate::time::Span;

/// A measured path.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Path {
    /// The target as it was named.
    pub target: String,
    /// How it was tried: `icmp`, `udp`, `tcp`, `tls`, `http`, `https` or `dns`.
    pub method: String,
    /// The address that was tried; null where the name has none.
    pub address: Option<String>,
    /// Whether it is one of the system's own name servers.
    pub system_resolver: bool,
    /// Attempts made.
    pub sent: u32,
    /// Attempts that the target answered; a refusal is an answer.
    pub answered: u32,
    /// Attempts that nothing, or an ICMP error, came back for.
    pub lost: u32,
    /// The share of attempts lost, with its 95 % interval; null where none was made.
    pub loss: Option<Loss>,
    /// Round trips; null where none was answered.
    pub rtt: Option<Rtt>,
    /// The median time of each part of an attempt in seconds: `name`, `connect`, `TLS`, `first byte`.
    pub stages_seconds: BTreeMap<String, f64>,
    /// What came of the other attempts, in words, and how often.
    pub failures: BTreeMap<String, u32>,
    /// The HTTP status of the last answer.
    pub http_status: Option<u16>,
    /// The certificate that a TLS server showed; null where none was. It is judged, and nothing relies on it.
    pub certificate: Option<Certificate>,
    /// What the agent's history says is usual; null where none was asked, or it knows nothing of this target.
    pub usual: Option<Usual>,
    /// The path's MTU; null where it was not searched for or could not be found.
    pub mtu: Option<Mtu>,
    /// Routers on the way, nearest first; empty where they were not traced.
    pub hops: Vec<Hop>,
    /// What could not be measured, and why.
    pub problems: Vec<String>,
    /// The Fly machine that it is; null where it was not discovered.
    pub fly: Option<super::Fly>,
}

/// A TLS server's certificate.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Certificate {
    /// Whom it names.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Until when it is good (RFC 3339); null where that could not be read.
    pub not_after: Option<String>,
    /// `trusted`, `expired`, `not-yet-valid`, `unknown-issuer`, `other-name`, `refused` or `not-judged`.
    pub verdict: String,
    /// The verdict in words; null for `trusted`.
    pub says: Option<String>,
}

/// What is usual for a target.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Usual {
    /// How far back it reaches, in seconds.
    pub over_seconds: f64,
    /// Points of the history that it is made of.
    pub points: u32,
    /// The median of the round trips, in seconds.
    pub rtt_p50_seconds: Option<f64>,
    /// The value below which 95 % of them lie, in seconds.
    pub rtt_p95_seconds: Option<f64>,
    /// The median of the jitter, in seconds.
    pub jitter_p50_seconds: Option<f64>,
    /// The mean share of attempts lost, 0 to 1.
    pub loss_share: Option<f64>,
}

/// A share with its interval.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Loss {
    /// The share, 0 to 1.
    pub share: f64,
    /// Its lower end with 95 % certainty.
    pub low: f64,
    /// Its upper end with 95 % certainty.
    pub high: f64,
}

/// Round trips in seconds.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Rtt {
    /// The least.
    pub min_seconds: Option<f64>,
    /// The median.
    pub median_seconds: f64,
    /// The value below which 95 % lie.
    pub p95_seconds: Option<f64>,
    /// The greatest.
    pub max_seconds: Option<f64>,
    /// The mean step from one to the next.
    pub jitter_seconds: Option<f64>,
}

/// What a search for the largest packet found; whole IP packets.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Mtu {
    /// The largest that passed, in bytes.
    pub bytes: u32,
    /// The interface's, in bytes.
    pub interface_bytes: u32,
    /// The smallest that did not pass, in bytes.
    pub smallest_lost_bytes: Option<u32>,
    /// The smallest that an ICMP error named, in bytes; null where none came.
    pub icmp_said_bytes: Option<u32>,
}

/// A router on the way.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Hop {
    /// Its distance.
    pub ttl: u8,
    /// Who answered; empty where nobody did.
    pub addresses: Vec<String>,
    /// Probes sent.
    pub sent: u32,
    /// Probes answered.
    pub answered: u32,
    /// The mean round trip in seconds.
    pub rtt_seconds: Option<f64>,
}

pub(super) fn path(row: &PathRow) -> Path {
    let seconds = |span: Span| span.as_secs_f64();
    let summary = &row.summary;
    Path {
        target: row.target.clone(),
        method: row.method.to_owned(),
        address: row.address.map(|a| a.to_string()),
        system_resolver: row.system_resolver,
        sent: summary.sent,
        answered: summary.answered,
        lost: summary.lost,
        loss: row.loss.map(|(share, low, high)| Loss { share, low, high }),
        rtt: summary.median.map(|median| Rtt {
            min_seconds: summary.min.map(seconds),
            median_seconds: seconds(median),
            p95_seconds: summary.p95.map(seconds),
            max_seconds: summary.max.map(seconds),
            jitter_seconds: summary.jitter.map(seconds),
        }),
        stages_seconds: row
            .stages
            .iter()
            .map(|(stage, span)| (stage.name().to_owned(), seconds(*span)))
            .collect(),
        failures: row.failures.iter().cloned().collect(),
        http_status: row.http_status,
        certificate: row.certificate.as_ref().map(|c| Certificate {
            subject: c.subject.clone(),
            issuer: c.issuer.clone(),
            not_after: c.not_after.map(|at| at.to_string()),
            verdict: c.verdict.name().to_owned(),
            says: c.verdict.says(),
        }),
        usual: row.usual.as_ref().map(|usual| Usual {
            over_seconds: seconds(usual.over),
            points: usual.points,
            rtt_p50_seconds: usual.median().map(seconds),
            rtt_p95_seconds: usual.p95().map(seconds),
            jitter_p50_seconds: usual.jitter.0.first().copied().map(seconds),
            loss_share: usual.loss,
        }),
        mtu: row.mtu.map(|mtu| Mtu {
            bytes: mtu.passed,
            interface_bytes: mtu.interface,
            smallest_lost_bytes: mtu.lost,
            icmp_said_bytes: mtu.told,
        }),
        hops: row
            .hops
            .iter()
            .map(|hop| Hop {
                ttl: hop.ttl,
                addresses: hop.addresses.iter().map(ToString::to_string).collect(),
                sent: hop.sent,
                answered: hop.answered,
                rtt_seconds: hop.rtt.map(seconds),
            })
            .collect(),
        problems: row.problems.clone(),
        fly: row.sibling.as_ref().map(|s| super::Fly {
            app: s.app.clone(),
            region: s.region.clone(),
            machine: s.machine.clone(),
        }),
    }
}

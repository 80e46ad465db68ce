//! Reports as the rules would make them, one place for every test of an output.
#![allow(dead_code, unused_imports, clippy::expect_used)] // each test uses some of them; a panic is how a test fails

mod hosts;
mod places;
mod ports;
mod tunnel;

use std::net::SocketAddr;
use std::time::Duration;

pub use hosts::{healthy, hostile_names, without_root};
pub use places::two_places;
pub use ports::{conntrack, destination_row, ports_exhausted};
pub use tunnel::{tunnel_silent, wireguard};

use wgnat::finding::{Confidence, Evidence, Finding, ProcessRef, Severity, Subject};
use wgnat::observation::host::HostFacts;
use wgnat::observation::{Source, SourceStatus};
use wgnat::report::{Report, Sockets, Status, Wireguard};
use wgnat::time::Timestamp;
use wgnat::types::{NetnsId, PublicKey};

/// 2026-03-01T10:00:05Z.
pub const NOW: Timestamp = Timestamp::from_secs(1_772_359_205);

pub fn seconds_ago(n: u64) -> Timestamp {
    NOW.before(Duration::from_secs(n))
}

pub fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

pub fn empty() -> Report {
    Report {
        generated_at: NOW,
        duration: Duration::from_millis(5012),
        version: "0.1.0".to_owned(),
        host: None,
        status: Status::Unknown,
        collectors: Vec::new(),
        findings: Vec::new(),
        suppressed: Vec::new(),
        not_checked: Vec::new(),
        in_part: Vec::new(),
        wireguard: Wireguard::default(),
        sockets: Sockets::default(),
        conntrack: None,
        nat: None,
        captures: Vec::new(),
        confined: None,
        paths: Vec::new(),
        places: None,
        namespaces: Vec::new(),
        changes: None,
        period: None,
        fly_net: None,
        fly_toml: None,
    }
}

pub fn host(hostname: &str) -> HostFacts {
    HostFacts {
        hostname: hostname.to_owned(),
        kernel: "6.12.48".to_owned(),
        boot_at: Some(seconds_ago(86_400)),
        netns: Some(NetnsId(4_026_531_840)),
        netns_name: None,
        cpus: 2,
        memory_bytes: Some(4 << 30),
        fly: None,
        capabilities: vec!["CAP_NET_ADMIN".to_owned(), "CAP_NET_RAW".to_owned()],
    }
}

pub fn all_see() -> Vec<(Source, SourceStatus)> {
    Source::ALL
        .into_iter()
        .filter(|s| !matches!(s, Source::Config | Source::Nat | Source::FlyToml))
        .map(|s| {
            let status = SourceStatus {
                cost_cpu: Duration::from_millis(4),
                ..SourceStatus::ok()
            };
            (s, status)
        })
        .collect()
}

pub fn node() -> ProcessRef {
    ProcessRef {
        pid: 812,
        comm: "node".to_owned(),
        exe: Some("/usr/bin/node".to_owned()),
        runtime: Some("node".to_owned()),
    }
}

pub fn finding(code: &'static str, severity: Severity, confidence: Confidence, title: &str) -> Finding {
    Finding {
        code,
        severity,
        confidence,
        title: title.to_owned(),
        subject: Subject::Host,
        summary: String::new(),
        evidence: Evidence::new(),
        impact: String::new(),
        candidates: Vec::new(),
        fixes: Vec::new(),
        first_seen: seconds_ago(5),
        last_seen: NOW,
        count: 1,
    }
}

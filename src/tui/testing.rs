//! Snapshots for tests.

use super::Snapshot;
use crate::finding::{Confidence, Finding, Severity};
use crate::report::{Report, sample};
use crate::time::Timestamp;

pub fn finding(code: &'static str, severity: Severity, title: &str) -> Finding {
    sample::finding(code, severity, Confidence::Certain, title)
}

/// A report with these findings, `secs` seconds in.
pub fn report(secs: i64, findings: Vec<Finding>) -> Report {
    Report {
        generated_at: Timestamp::from_secs(1000 + secs),
        findings,
        ..sample::empty()
    }
}

pub fn snapshot(report: Report) -> Snapshot {
    Snapshot {
        report,
        advice: Vec::new(),
        looking: false,
    }
}

/// Destinations on ports 1, 2, 3, … that hold so many ports each.
pub fn destinations(held: &[u32]) -> Snapshot {
    let mut report = report(0, Vec::new());
    report.sockets.tcp_total = Some(held.iter().sum());
    report.sockets.destinations = (1..)
        .zip(held)
        .map(|(port, held)| {
            sample::destination_row(&format!("203.0.113.9:{port}"), None, *held, 28_232, "steady")
        })
        .collect();
    snapshot(report)
}

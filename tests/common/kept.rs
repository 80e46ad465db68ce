//! A history as an agent leaves it, with one finding.

use std::path::Path;
use std::time::Duration;
use wgnat::store::{self, FindingRecord, Limits, Record, Store};
use wgnat::sys::clock;
use wgnat::time::Timestamp;

/// A history with one open finding.
pub fn history(path: &Path, severity: &str) {
    let limits = Limits {
        bytes: 64 << 20,
        age: Duration::from_secs(86_400 * 31),
    };
    let (writer, _) = store::start(Store::open(path).unwrap(), limits, || {}).unwrap();
    let now = clock::now();
    writer.write(Record::Finding(Box::new(finding(severity, now))));
    assert!(writer.stop(), "it is written");
}

fn finding(severity: &str, now: Timestamp) -> FindingRecord {
    let began = now.before(Duration::from_secs(600));
    FindingRecord {
        code: "fd-limit".to_owned(),
        subject: "process 7 node".to_owned(),
        severity: severity.to_owned(),
        title: "node nears its limit".to_owned(),
        first_seen: began,
        last_seen: now,
        count: 1,
        cleared_at: None,
        data: serde_json::json!({
            "code": "fd-limit", "severity": severity, "confidence": "certain", "title": "node nears its limit",
            "subject": {"kind": "process", "process": {"pid": 7, "comm": "node", "exe": null, "runtime": null}},
            "summary": "It holds many.", "impact": "Connects fail.", "evidence": {"open": 1000, "limit": 1024},
            "candidates": [], "fixes": [{"title": "Raise it", "why": "There is room.", "command": "ulimit -n 65536",
            "snippet": null, "expect": {}}], "first_seen": began, "last_seen": now, "count": 1,
        })
        .to_string()
        // Names of evidence have an order, which this macro loses.
        .replace("\"limit\":1024,\"open\":1000", "\"open\":1000,\"limit\":1024"),
    }
}

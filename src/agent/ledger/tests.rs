//! Findings that begin, flap, worsen, end and return.

use super::*;
use crate::finding::{Confidence, Evidence};

fn finding(severity: Severity) -> Finding {
    Finding {
        code: "conntrack-full",
        severity,
        confidence: Confidence::Certain,
        title: "a title".to_owned(),
        subject: Subject::Conntrack,
        summary: String::new(),
        evidence: Evidence::new(),
        impact: String::new(),
        candidates: Vec::new(),
        fixes: Vec::new(),
        first_seen: Timestamp::from_secs(1_000_000),
        last_seen: Timestamp::from_secs(1_000_000),
        count: 1,
    }
}

/// Whether it held at each second, and the changes that are expected, by second.
fn changes(ledger: &mut Ledger, seen: &[(i64, Option<Severity>)]) -> Vec<(i64, &'static str)> {
    let mut all = Vec::new();
    for (second, severity) in seen {
        let mut evaluation = Evaluation {
            findings: severity.map(finding).into_iter().collect(),
            ..Evaluation::default()
        };
        let changes = ledger.update(&mut evaluation, Timestamp::from_secs(*second));
        all.extend(changes.into_iter().map(|c| (*second, c.what.name())));
    }
    all
}

#[test]
fn flapping_is_one_finding_and_absence_ends_it() {
    use Severity::{Critical, Warning};
    let mut ledger = Ledger::default();
    let got = changes(
        &mut ledger,
        &[
            (0, None),
            (5, Some(Warning)),
            (10, Some(Warning)),
            (15, None),
            (20, Some(Warning)),
            (25, Some(Critical)),
            (27, Some(Warning)),
            (28, Some(Critical)),
            (30, None),
            (87, None),
            (88, None),
            (90, None),
            (95, Some(Warning)),
        ],
    );
    assert_eq!(
        got,
        [
            (5, "began"),
            (25, "worsened"),
            (27, "eased"),
            (28, "worsened"),
            (88, "cleared"),
            (95, "returned")
        ]
    );
    let (_, entry) = ledger.entries().next().unwrap();
    assert_eq!(entry.count, 3, "at 5, 20 and 95");
    assert_eq!(entry.first_seen, Timestamp::from_secs(5));
    assert_eq!(entry.last_seen, Timestamp::from_secs(95));
    assert_eq!(entry.state(), "active");
    let begun: Vec<_> = ledger.begun().collect();
    assert_eq!(begun, [("conntrack-full", Warning, 2)]);
}

#[test]
fn the_report_tells_the_times_and_what_is_long_over_is_forgotten() {
    let mut ledger = Ledger::default();
    let mut evaluation = Evaluation {
        findings: vec![finding(Severity::Warning)],
        ..Evaluation::default()
    };
    ledger.update(&mut evaluation, Timestamp::from_secs(5));
    let mut again = Evaluation {
        findings: vec![finding(Severity::Warning)],
        ..Evaluation::default()
    };
    ledger.update(&mut again, Timestamp::from_secs(65));
    let told = &again.findings[0];
    assert_eq!(told.first_seen, Timestamp::from_secs(5));
    assert_eq!(told.last_seen, Timestamp::from_secs(65));
    assert_eq!(told.count, 1, "it never went away");
    for second in [125, 125 + 3600] {
        ledger.update(&mut Evaluation::default(), Timestamp::from_secs(second));
    }
    assert_eq!(ledger.entries().count(), 0);
}

#[test]
fn the_bound_holds() {
    let mut ledger = Ledger::default();
    let many = (0..3000).map(|n| Finding {
        subject: Subject::Device {
            name: format!("wg{n}"),
        },
        ..finding(Severity::Warning)
    });
    let mut evaluation = Evaluation {
        findings: many.collect(),
        ..Evaluation::default()
    };
    ledger.update(&mut evaluation, Timestamp::from_secs(5));
    assert_eq!(ledger.entries().count(), KEPT);
    assert_eq!(ledger.not_kept(), 3000 - KEPT as u64);
}

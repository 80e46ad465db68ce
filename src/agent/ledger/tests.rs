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

fn sees() -> Sight {
    Sight {
        sees: [Source::Conntrack, Source::WireguardNetlink, Source::Capture].into(),
        blind: BTreeSet::new(),
    }
}

fn blind() -> Sight {
    let blind = BTreeSet::from([Source::Conntrack]);
    Sight {
        sees: sees().sees.difference(&blind).copied().collect(),
        blind,
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
        let changes = ledger.update(&mut evaluation, &sees(), Timestamp::from_secs(*second));
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
    ledger.update(&mut evaluation, &sees(), Timestamp::from_secs(5));
    let mut again = Evaluation {
        findings: vec![finding(Severity::Warning)],
        ..Evaluation::default()
    };
    ledger.update(&mut again, &sees(), Timestamp::from_secs(65));
    let told = &again.findings[0];
    assert_eq!(told.first_seen, Timestamp::from_secs(5));
    assert_eq!(told.last_seen, Timestamp::from_secs(65));
    assert_eq!(told.count, 1, "it never went away");
    for second in [125, 125 + 3600] {
        ledger.update(&mut Evaluation::default(), &sees(), Timestamp::from_secs(second));
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
    ledger.update(&mut evaluation, &sees(), Timestamp::from_secs(5));
    assert_eq!(ledger.entries().count(), KEPT);
    assert_eq!(ledger.not_kept(), 3000 - KEPT as u64);
}

/// One look at `second`: found or not, and what the ledger says of it.
fn look(ledger: &mut Ledger, second: i64, found: bool, sight: &Sight) -> Vec<&'static str> {
    let mut evaluation = Evaluation {
        findings: found.then(|| finding(Severity::Critical)).into_iter().collect(),
        ..Evaluation::default()
    };
    let changes = ledger.update(&mut evaluation, sight, Timestamp::from_secs(second));
    changes.into_iter().map(|c| c.what.name()).collect()
}

fn state(ledger: &Ledger) -> &'static str {
    ledger.entries().next().unwrap().1.state()
}

#[test]
fn what_nobody_can_look_for_is_not_over_until_somebody_has_looked_for_long_enough() {
    let mut ledger = Ledger::default();
    assert_eq!(look(&mut ledger, 10, true, &sees()), ["began"]);
    assert_eq!(look(&mut ledger, 15, false, &blind()), ["unseen"]);
    for second in [20, 1_000, 100_000] {
        assert_eq!(look(&mut ledger, second, false, &blind()), [] as [&str; 0]);
        assert_eq!(state(&ledger), "unknown");
        let told: Vec<_> = ledger.unseen().collect();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].last_seen, Timestamp::from_secs(10), "as it was");
        assert_eq!(told[0].severity, Severity::Critical);
        assert!(
            told[0].summary.contains("conntrack cannot be observed"),
            "{}",
            told[0].summary
        );
        assert!(crate::report::unseen::is_unseen(&told[0]));
    }
    // It sees again: absence counts from now, not from when it was last seen.
    assert_eq!(look(&mut ledger, 100_005, false, &sees()), [] as [&str; 0]);
    assert_eq!(state(&ledger), "absent");
    assert_eq!(ledger.unseen().count(), 0);
    assert_eq!(look(&mut ledger, 100_059, false, &sees()), [] as [&str; 0]);
    assert_eq!(look(&mut ledger, 100_060, false, &sees()), ["cleared"]);
}

#[test]
fn a_source_that_comes_and_goes_is_said_once_and_what_is_found_again_has_gone_on() {
    let mut ledger = Ledger::default();
    look(&mut ledger, 10, true, &sees());
    let said: Vec<_> = (0..20)
        .flat_map(|n| {
            look(
                &mut ledger,
                15 + n,
                false,
                &if n % 2 == 0 { blind() } else { sees() },
            )
        })
        .collect();
    assert_eq!(said, ["unseen"]);
    assert_eq!(look(&mut ledger, 40, true, &sees()), [] as [&str; 0]);
    let entry = ledger.entries().next().unwrap().1;
    assert_eq!(
        (entry.state(), entry.first_seen),
        ("active", Timestamp::from_secs(10))
    );
    assert_eq!(
        look(&mut ledger, 45, false, &blind()),
        ["unseen"],
        "the next time it is said again"
    );
}

#[test]
fn a_source_that_never_saw_holds_nothing_up() {
    let mut ledger = Ledger::default();
    let mut sight = sees();
    sight.blind.extend([Source::Bpf, Source::WireguardUapi]);
    look(&mut ledger, 10, true, &sight);
    assert_eq!(look(&mut ledger, 70, false, &sight), ["cleared"]);
}

#[test]
fn a_tunnel_is_judged_by_the_wire_too() {
    let tunnel = |sight: &Sight, ledger: &mut Ledger, second, found: bool| {
        let held = Finding {
            code: "wg-handshake-timeout",
            ..finding(Severity::Critical)
        };
        let mut evaluation = Evaluation {
            findings: found.then_some(held).into_iter().collect(),
            ..Evaluation::default()
        };
        ledger.update(&mut evaluation, sight, Timestamp::from_secs(second));
        state(ledger)
    };
    let mut ledger = Ledger::default();
    assert_eq!(tunnel(&sees(), &mut ledger, 10, true), "active");
    let deaf = Sight {
        sees: [Source::WireguardNetlink].into(),
        blind: [Source::Capture].into(),
    };
    assert_eq!(tunnel(&deaf, &mut ledger, 1_000, false), "unknown");
}

#[test]
fn what_a_former_agent_left_is_neither_there_nor_gone_until_somebody_looks() {
    let left = |ledger: &mut Ledger, former| {
        let before = Finding {
            first_seen: Timestamp::from_secs(100),
            last_seen: Timestamp::from_secs(200),
            count: 3,
            ..finding(Severity::Critical)
        };
        ledger.take_up(
            before,
            false,
            [Source::Conntrack].into(),
            former,
            Timestamp::from_secs(1_000),
        );
    };
    // Blind from the start: it is not over, however long.
    let mut ledger = Ledger::default();
    left(&mut ledger, Former::JustNow);
    assert_eq!(
        look(&mut ledger, 1_001, false, &Sight::default()),
        [] as [&str; 0],
        "still starting"
    );
    assert_eq!(look(&mut ledger, 1_010, false, &blind()), ["unseen"]);
    assert_eq!(look(&mut ledger, 9_000, false, &blind()), [] as [&str; 0]);
    assert_eq!(state(&ledger), "unknown");
    assert_eq!(
        ledger.entries().next().unwrap().1.unseen.as_ref().unwrap().since,
        Timestamp::from_secs(200)
    );
    // Looked for and not there.
    let mut ledger = Ledger::default();
    left(&mut ledger, Former::JustNow);
    look(&mut ledger, 1_001, false, &sees());
    assert_eq!(look(&mut ledger, 1_060, false, &sees()), ["cleared"]);
    // Found again: gone on, or anew.
    for (former, first, count) in [(Former::JustNow, 100, 3), (Former::LongAgo, 1_001, 1)] {
        let mut ledger = Ledger::default();
        left(&mut ledger, former);
        let mut evaluation = Evaluation {
            findings: vec![Finding {
                first_seen: Timestamp::from_secs(1_001),
                ..finding(Severity::Critical)
            }],
            ..Evaluation::default()
        };
        let changes = ledger.update(&mut evaluation, &sees(), Timestamp::from_secs(1_001));
        assert_eq!(changes[0].what, What::Began);
        let entry = ledger.entries().next().unwrap().1;
        assert_eq!(
            (entry.first_seen, entry.count),
            (Timestamp::from_secs(first), count)
        );
    }
}

use super::*;
use crate::config::Thresholds;
use crate::finding::{Evidence, Subject};
use crate::observation::{Body, Observation, SourceStatus};
use crate::rules::Area;
use crate::time::{Span, Timestamp};
use crate::track::World;

const T0: Timestamp = Timestamp::EPOCH;

fn finding(code: &'static str, severity: Severity, confidence: Confidence, device: &str) -> Finding {
    Finding {
        code,
        severity,
        confidence,
        title: device.to_owned(),
        subject: match device {
            "" => Subject::Host,
            name => Subject::Device {
                name: name.to_owned(),
            },
        },
        summary: String::new(),
        evidence: Evidence::new(),
        impact: String::new(),
        candidates: Vec::new(),
        fixes: Vec::new(),
        first_seen: T0,
        last_seen: T0,
        count: 1,
    }
}

fn rule(
    code: &'static str,
    explained_by: &'static [&'static str],
    check: fn(&Input<'_>) -> Vec<Finding>,
) -> Rule {
    Rule {
        code,
        area: Area::Wireguard,
        severity: "",
        holds_when: "",
        meaning: "",
        detection: "",
        fix: "",
        needs: &[],
        explained_by,
        check,
    }
}

/// What is found: `(code, severity)`, and what is folded: `(code, code of its cause)`.
type Outcome = (Vec<(&'static str, Severity)>, Vec<(&'static str, &'static str)>);

fn run(rules: &[Rule]) -> Outcome {
    let world = World::new(T0);
    let thresholds = Thresholds::default();
    let rules: Vec<&Rule> = rules.iter().collect();
    let evaluation = evaluate(
        &rules,
        &Input {
            world: &world,
            thresholds: &thresholds,
        },
    );
    let findings = &evaluation.findings;
    (
        findings.iter().map(|f| (f.code, f.severity)).collect(),
        evaluation
            .suppressed
            .iter()
            .map(|s| (s.finding.code, findings[s.explained_by].code))
            .collect(),
    )
}

use Confidence::{Certain, Likely, Possible};
use Severity::{Critical, Info, Warning};

fn root(_: &Input<'_>) -> Vec<Finding> {
    vec![finding("root", Critical, Certain, "wg0")]
}
fn middle(_: &Input<'_>) -> Vec<Finding> {
    vec![finding("middle", Critical, Certain, "wg0")]
}
fn leaf(_: &Input<'_>) -> Vec<Finding> {
    vec![finding("leaf", Critical, Certain, "wg0")]
}
fn leaf_elsewhere(_: &Input<'_>) -> Vec<Finding> {
    vec![finding("leaf", Critical, Certain, "wg1")]
}
fn none(_: &Input<'_>) -> Vec<Finding> {
    Vec::new()
}

#[test]
fn a_symptom_is_folded_beneath_its_root() {
    let found = run(&[
        rule("root", &[], root),
        rule("middle", &["root"], middle),
        rule("leaf", &["middle"], leaf),
    ]);
    assert_eq!(
        found,
        (
            vec![("root", Critical)],
            vec![("middle", "root"), ("leaf", "root")]
        )
    );
}

#[test]
fn folding_reaches_over_a_link_that_does_not_hold() {
    let found = run(&[
        rule("root", &[], root),
        rule("middle", &["root"], none),
        rule("leaf", &["middle"], leaf),
    ]);
    assert_eq!(found, (vec![("root", Critical)], vec![("leaf", "root")]));
}

#[test]
fn another_subject_is_not_explained() {
    let found = run(&[rule("root", &[], root), rule("leaf", &["root"], leaf_elsewhere)]);
    assert_eq!(found, (vec![("root", Critical), ("leaf", Critical)], vec![]));
    fn host(_: &Input<'_>) -> Vec<Finding> {
        vec![finding("host", Critical, Certain, "")]
    }
    let found = run(&[rule("host", &[], host), rule("leaf", &["host"], leaf_elsewhere)]);
    assert_eq!(found, (vec![("host", Critical)], vec![("leaf", "host")]));
}

#[test]
fn a_cause_of_one_address_family_explains_nothing_of_the_other() {
    fn blocked(_: &Input<'_>) -> Vec<Finding> {
        let mut f = finding("blocked", Critical, Likely, "");
        f.evidence = Evidence::new().with("family", "ipv4");
        vec![f]
    }
    fn silent(_: &Input<'_>) -> Vec<Finding> {
        let at = ["192.0.2.1:51820", "[2001:db8::1]:51820"].map(|a| a.parse().ok());
        at.map(|endpoint| Finding {
            subject: Subject::Peer {
                device: None,
                public_key: None,
                endpoint,
                local: None,
            },
            ..finding("silent", Critical, Certain, "")
        })
        .into()
    }
    let found = run(&[
        rule("blocked", &[], blocked),
        rule("silent", &["blocked"], silent),
    ]);
    let (kept, folded) = (
        vec![("blocked", Critical), ("silent", Critical)],
        vec![("silent", "blocked")],
    );
    assert_eq!(found, (kept, folded));
}

#[test]
fn without_its_cause_a_symptom_stands_alone() {
    let found = run(&[rule("root", &[], none), rule("leaf", &["root"], leaf)]);
    assert_eq!(found, (vec![("leaf", Critical)], vec![]));
}

#[test]
fn a_hint_is_capped_and_explains_nothing() {
    fn hint(_: &Input<'_>) -> Vec<Finding> {
        vec![finding("root", Critical, Possible, "wg0")]
    }
    let found = run(&[rule("root", &[], hint), rule("leaf", &["root"], leaf)]);
    assert_eq!(found, (vec![("leaf", Critical), ("root", Warning)], vec![]));
    fn small_hint(_: &Input<'_>) -> Vec<Finding> {
        vec![finding("root", Info, Possible, "wg0")]
    }
    assert_eq!(run(&[rule("root", &[], small_hint)]).0, [("root", Info)]);
}

#[test]
fn a_cause_is_as_bad_as_what_it_explains() {
    fn mild(_: &Input<'_>) -> Vec<Finding> {
        vec![finding("root", Warning, Likely, "wg0")]
    }
    // Through a chain, in whatever order the rules stand.
    let found = run(&[
        rule("leaf", &["middle"], leaf),
        rule("root", &[], mild),
        rule("middle", &["root"], |_| {
            vec![finding("middle", Info, Certain, "wg0")]
        }),
    ]);
    assert_eq!(found.0, [("root", Critical)]);
    assert_eq!(found.1.len(), 2);
}

#[test]
fn a_cycle_hides_nothing() {
    let found = run(&[
        rule("root", &["leaf"], root),
        rule("middle", &["root"], middle),
        rule("leaf", &["root"], leaf),
    ]);
    let (findings, folded) = found;
    assert_eq!(findings.len() + folded.len(), 3);
    let codes: Vec<_> = findings.iter().map(|f| f.0).collect();
    assert!(codes.contains(&"root") && codes.contains(&"leaf"), "{codes:?}");
}

#[test]
fn the_order_is_severity_then_the_registry_then_confidence() {
    fn first(_: &Input<'_>) -> Vec<Finding> {
        vec![
            finding("first", Warning, Likely, "a"),
            finding("first", Warning, Certain, "b"),
            finding("first", Warning, Likely, "c"),
            finding("first", Info, Certain, "d"),
        ]
    }
    fn second(_: &Input<'_>) -> Vec<Finding> {
        vec![
            finding("second", Critical, Likely, "e"),
            finding("second", Warning, Certain, "f"),
        ]
    }
    let world = World::new(T0);
    let thresholds = Thresholds::default();
    let (one, two) = (rule("first", &[], first), rule("second", &[], second));
    let evaluation = evaluate(
        &[&one, &two],
        &Input {
            world: &world,
            thresholds: &thresholds,
        },
    );
    let titles: Vec<_> = evaluation.findings.iter().map(|f| f.title.as_str()).collect();
    assert_eq!(titles, ["e", "b", "a", "c", "f", "d"]);
}

#[test]
fn a_rule_whose_sources_are_blind_is_not_checked() {
    use Source::{Capture, WireguardNetlink, WireguardUapi};
    const NEEDS: &[&[Source]] = &[&[WireguardNetlink, WireguardUapi], &[Capture]];
    let needy = Rule {
        needs: NEEDS,
        ..rule("needy", &[], leaf)
    };
    let thresholds = Thresholds::default();
    let missing = |sources: &[(Source, SourceStatus)]| {
        let mut world = World::new(T0);
        for (source, status) in sources {
            world.apply(&Observation {
                at: T0,
                took: Span::ZERO,
                source: *source,
                body: Body::Status(status.clone()),
            });
        }
        let evaluation = evaluate(
            &[&needy],
            &Input {
                world: &world,
                thresholds: &thresholds,
            },
        );
        assert_eq!(evaluation.findings.is_empty(), !evaluation.not_checked.is_empty());
        evaluation
            .not_checked
            .into_iter()
            .next()
            .map(|n| (n.code, n.missing))
    };
    let ok = SourceStatus::ok;
    let blind = || SourceStatus::unavailable("needs CAP_NET_RAW");
    for (sources, expected) in [
        // One of a group is enough, and a part is enough.
        (vec![(WireguardUapi, ok()), (Capture, ok())], vec![]),
        (
            vec![
                (WireguardUapi, SourceStatus::degraded("one hung")),
                (Capture, ok()),
            ],
            vec![],
        ),
        (vec![(WireguardUapi, ok()), (Capture, blind())], vec![Capture]),
        (vec![(Capture, ok())], vec![WireguardNetlink, WireguardUapi]),
        (vec![], vec![WireguardNetlink, WireguardUapi, Capture]),
    ] {
        let expected = (!expected.is_empty()).then_some(("needy", expected));
        assert_eq!(missing(&sources), expected, "{sources:?}");
    }
}

#[test]
fn a_rule_that_saw_a_part_and_found_nothing_says_what_it_did_not_see() {
    use Source::{WireguardNetlink, WireguardUapi};
    const NEEDS: &[&[Source]] = &[&[WireguardNetlink, WireguardUapi]];
    fn nothing(_: &Input<'_>) -> Vec<Finding> {
        Vec::new()
    }
    let quiet = Rule {
        needs: NEEDS,
        ..rule("quiet", &[], nothing)
    };
    let loud = Rule {
        needs: NEEDS,
        ..rule("loud", &[], leaf)
    };
    let mut world = World::new(T0);
    for (source, status) in [
        (WireguardNetlink, SourceStatus::ok()),
        (WireguardUapi, SourceStatus::unavailable("needs root")),
    ] {
        world.apply(&Observation {
            at: T0,
            took: Span::ZERO,
            source,
            body: Body::Status(status),
        });
    }
    let thresholds = Thresholds::default();
    let input = Input {
        world: &world,
        thresholds: &thresholds,
    };
    let evaluation = evaluate(&[&quiet, &loud], &input);
    assert_eq!(evaluation.findings.len(), 1);
    let blind = |code| NotChecked {
        code,
        missing: vec![WireguardUapi],
    };
    assert_eq!(evaluation.not_checked, [blind("quiet")]);
    // What was found may hold where nobody could look, too.
    assert_eq!(evaluation.in_part, [blind("loud")]);
}

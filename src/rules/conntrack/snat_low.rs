//! `snat-ports-low`: the ports of this host's NAT towards a destination run low.

use super::counters::{failures, nat_table};
use super::snat::{Failing, evidence, fixes, gives_ended, occupancy, range_words, ranges, subject, verdicts};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Severity};
use crate::observation::Source;
use crate::observation::conntrack::SnatTally;
use crate::rules::forecast::Forecast;
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::natpool::NatUse;
use crate::words::{count, number, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "snat-ports-low",
    area: Area::Conntrack,
    severity: "warning",
    holds_when: "the ports of a NAT address towards one destination are mostly in use",
    meaning: "A NAT gives each connection a port of its own address, and towards one destination each can be given once. When it finds \
none, new connections are dropped in silence (`wgnat explain snat-ports-exhausted`). That begins before the last port is \
taken, because the kernel's search for a free one is short.",
    detection: "Source-translated entries of the conntrack table by NAT address and destination (and zone, where rules set zones: each has \
all ports for itself), against the range. A range that a rule \
sets is read from nf_tables (iptables-nft's too), else inferred from the ports in use (the finding says so), else it is 1024 to \
65535. The time to exhaustion, with its \
soonest and latest, is told where at least four tables were read and lie on a line. Where the table could not be read, the counter `found` is a hint: \
with c taken ports met for each new entry, the range is in use by 1 - 1/√(2c + 1), at most 0.03 off for 1,024 ports and up to 0.16 too \
high for 64,512 (measured). That is `possible` at most.",
    fix: "As for `snat-ports-exhausted`: reuse connections, then more ports or addresses.",
    needs: &[&[Source::Conntrack]],
    explained_by: &["snat-ports-exhausted"],
    check,
};

/// A straight line is not trusted further ahead than this.
const HORIZON: Span = Span::from_secs(3600);

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some((at, tally)) = nat_table(input) else {
        return by_collisions(input).into_iter().collect();
    };
    let (failing, _) = verdicts(input);
    let fails = |nat: &NatUse<'_>| {
        failing
            .iter()
            .filter_map(|v| v.nat)
            .any(|f| std::ptr::eq(f.tally, nat.tally))
    };
    let ranges = ranges(input).unwrap_or_default();
    let low = ranges
        .iter()
        .filter(|nat| nat.share() >= input.thresholds.snat_warning && !fails(nat));
    low.map(|nat| {
        let t = nat.tally;
        let trend = input.world.conntrack.ports_trend(t);
        let left = Forecast::of(trend, nat.held().into(), nat.range.size.into(), HORIZON);
        let left_words = left.map_or_else(String::new, |l| {
            format!(" At the present pace none is left {}.", l.words())
        });
        Finding {
            code: RULE.code,
            severity: Severity::Warning,
            confidence: if !nat.exact() && nat.range.inferred() || tally.inexact { Confidence::Likely } else { Confidence::Certain },
            title: format!("{} of the NAT ports towards {} are in use", percent(nat.share()), t.destination),
            subject: subject(Some(nat)),
            summary: format!(
                "{} of {} ports of {} towards {} are in use ({}).{}{left_words}",
                count(nat.held()),
                count(nat.range.size),
                t.nat_address,
                t.destination,
                range_words(nat),
                ended(t, gives_ended(input, t))
            ),
            evidence: match left {
                Some(left) => left.evidence(evidence(nat)),
                None => evidence(nat),
            },
            impact: "When NAT finds none, new connections through it to this destination time out in silence. It may begin any time now: the \
                     search has failed from 78 % on in large ranges (measured)."
                .to_owned(),
            candidates: Vec::new(),
            fixes: fixes(input, Some(nat), Failing::UsedUp),
            first_seen: at,
            last_seen: at,
            count: 1,
        }
    })
    .collect()
}

/// New entries below which collisions tell nothing.
const MIN_NEW: f64 = 100.0;

/// Without the table, by the counter of taken ports that NAT met, for each entry that is new. How many are new is not counted;
/// where the count of entries rises, at least its growth is, so the occupancy is this at most. A hint, then, which the table
/// settles.
fn by_collisions(input: &Input<'_>) -> Option<Finding> {
    let state = &input.world.conntrack;
    if failures(input).is_some() {
        return None;
    }
    let moved = state.moved()?;
    let trend = state.trend().filter(|t| t.rises())?;
    let grown = trend.per_second * state.watched().as_secs_f64();
    if grown < MIN_NEW {
        return None;
    }
    #[allow(clippy::cast_precision_loss)] // a ratio
    let collisions = moved.found as f64 / grown;
    let share = occupancy(collisions);
    if share < input.thresholds.snat_warning {
        return None;
    }
    let at = state.looks().next_back()?.at;
    Some(Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: Confidence::Possible,
        title: format!("A NAT range may be about {} in use", percent(share)),
        subject: subject(None),
        summary: format!(
            "NAT met {} taken ports for each new entry while watched ({} taken ports, about {} new entries). In a range that is \
             {} in use a search from a random port meets as many. The table could not be read, so neither the range nor the \
             destination is known.",
            number(collisions),
            count(moved.found),
            number(grown),
            percent(share)
        ),
        evidence: Evidence::new()
            .with("occupancy_at_most", rounded(share))
            .with("collisions_per_new_entry", rounded(collisions))
            .with("found", moved.found)
            .with("new_entries_at_least", rounded(grown)),
        impact: "When NAT finds no free port, new connections through it to that destination time out in silence.".to_owned(),
        candidates: vec![
            Candidate {
                cause: "The ports towards one destination run low".to_owned(),
                code: Some(RULE.code),
                settle: "run wgnat doctor as root: it reads the table and the rules".to_owned(),
            },
            Candidate {
                cause: "Clients use the same source ports, and NAT gives the second of them another: that meets taken ports at any \
                        occupancy"
                    .to_owned(),
                code: None,
                settle: "the table as root: ports_preserved far below in_use".to_owned(),
            },
            Candidate {
                cause: "More entries are new than the count shows, because others end: the occupancy is lower then".to_owned(),
                code: None,
                settle: "conntrack -E -e NEW for a second counts the new ones".to_owned(),
            },
        ],
        fixes: fixes(input, None, Failing::Unseen),
        first_seen: at,
        last_seen: at,
        count: 1,
    })
}

/// Of these, TCP connections that are over.
fn ended(t: &SnatTally, given: bool) -> String {
    match t.closing {
        0 => String::new(),
        n => format!(
            " {} belong to connections that have ended and hold their port for about two minutes more{}.",
            count(n),
            if given {
                "; the kernel may give such a port to a new connection where it finds no free one"
            } else {
                ""
            }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, moving, row};
    use super::*;

    #[test]
    fn by_share_and_range() {
        use Confidence::{Certain, Likely};
        for (name, rows, expected) in [
            ("room", vec![row(60, 20_000, 20_099, 0)], None),
            (
                "an inferred range",
                vec![row(80, 20_000, 20_099, 0)],
                Some(Likely),
            ),
            (
                "the default range",
                vec![row(46_000, 1024, 65_535, 45_000)],
                Some(Certain),
            ),
            (
                "the default range with room",
                vec![row(40_000, 1024, 65_535, 39_000)],
                None,
            ),
            (
                "full is another finding",
                vec![SnatTally {
                    closing: 0,
                    ..row(100, 20_000, 20_099, 0)
                }],
                None,
            ),
            (
                "full, but half of them have ended: the kernel may take those",
                vec![row(100, 20_000, 20_099, 0)],
                Some(Likely),
            ),
            ("no NAT", vec![], None),
        ] {
            let found = Scene::new().snat(&rows).check(&RULE);
            assert_eq!(found.first().map(|f| f.confidence), expected, "{name}");
            assert!(found.iter().all(|f| f.severity == Severity::Warning));
        }
    }

    #[test]
    fn what_fails_already_is_not_low_as_well() {
        let scene = Scene::new()
            .snat(&[row(96, 20_000, 20_099, 0)])
            .moving(moving(680, 10, 10));
        assert_eq!(scene.check(&RULE), Vec::new());
        assert_eq!(scene.codes().0, vec!["snat-ports-exhausted"]);
    }

    #[test]
    fn without_a_table_collisions_are_a_hint() {
        let rising: Vec<u32> = (0..6).map(|n| 1000 + n * 100).collect();
        let told = |scene: Scene| {
            let found = scene.check(&RULE);
            found
                .first()
                .map(|f| (f.confidence, f.evidence.get("occupancy_at_most").cloned()))
        };
        let scene = || Scene::new().counts(&rising);
        // 8 taken ports for each of 100 new entries a second: 1 - 1/√17.
        let (confidence, share) = told(scene().moving(moving(800, 0, 0))).expect("a hint");
        assert_eq!((confidence, share), (Confidence::Possible, Some(0.757.into())));
        for (name, scene) in [
            ("few collisions", scene().moving(moving(200, 0, 0))),
            (
                "insertions fail, which is another finding",
                scene().moving(moving(6800, 100, 100)),
            ),
            (
                "how many are new is not known",
                Scene::new().moving(moving(800, 0, 0)),
            ),
            ("the table is read", scene().moving(moving(800, 0, 0)).snat(&[])),
        ] {
            assert_eq!(told(scene), None, "{name}");
        }
    }
}

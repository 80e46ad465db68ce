//! `snat-ports-low`: the ports of this host's NAT towards a destination run low.

use super::snat::{Failing, evidence, fixes, range_words, ranges, subject, verdicts};
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::Source;
use crate::observation::conntrack::SnatTally;
use crate::rules::forecast::Forecast;
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::natpool::NatUse;
use crate::words::{count, percent};

/// The rule.
pub const RULE: Rule = Rule {
    code: "snat-ports-low",
    area: Area::Conntrack,
    severity: "warning",
    holds_when: "the ports of a NAT address towards one destination are mostly in use",
    meaning: "A NAT gives each connection a port of its own address, and towards one destination each can be given once. When it finds \
none, new connections are dropped in silence (`wgnat explain snat-ports-exhausted`). That begins before the last port is \
taken, because the kernel's search for a free one is short.",
    detection: "Source-translated entries of the conntrack table by NAT address and destination, against the range. A range that a rule \
sets is inferred from the ports in use (the finding says so), else it is 1024 to 65535. The time to exhaustion, with its \
soonest and latest, is told where at least four tables were read and lie on a line.",
    fix: "As for `snat-ports-exhausted`: reuse connections, then more ports or addresses.",
    needs: &[&[Source::Conntrack]],
    explained_by: &["snat-ports-exhausted"],
    check,
};

/// A straight line is not trusted further ahead than this.
const HORIZON: Span = Span::from_secs(3600);

fn check(input: &Input<'_>) -> Vec<Finding> {
    let Some((at, tally)) = input.world.conntrack.tally() else {
        return Vec::new();
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
            confidence: if nat.range.inferred() || tally.inexact { Confidence::Likely } else { Confidence::Certain },
            title: format!("{} of the NAT ports towards {} are in use", percent(nat.share()), t.destination),
            subject: subject(Some(nat)),
            summary: format!(
                "{} of {} ports of {} towards {} are in use ({}).{}{left_words}",
                count(nat.held()),
                count(nat.range.size),
                t.nat_address,
                t.destination,
                range_words(nat),
                ended(t)
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

/// Of these, TCP connections that are over.
fn ended(t: &SnatTally) -> String {
    match t.closing {
        0 => String::new(),
        n => format!(
            " {} belong to connections that have ended and hold their port for about two minutes more.",
            count(n)
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
            ("full is another finding", vec![row(100, 20_000, 20_099, 0)], None),
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
    fn without_a_table_nothing_is_said() {
        assert_eq!(Scene::new().moving(moving(680, 10, 10)).check(&RULE), Vec::new());
    }
}

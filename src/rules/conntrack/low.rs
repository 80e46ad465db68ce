//! `conntrack-low`: the table nears its limit.

use super::counters::{limit, share, when};
use super::remedies;
use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::observation::Source;
use crate::rules::forecast::Outlook;
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::words::{count, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "conntrack-low",
    area: Area::Conntrack,
    severity: "warning ≥ 75 %, critical ≥ 90 %",
    holds_when: "the connection tracking table holds most of the entries that it may, or evicts some to make room",
    meaning: "A Linux host that does NAT or has a stateful firewall remembers every connection in a table with a limit. When it is \
reached, new connections are dropped in silence (`wgnat explain conntrack-full`). This says that it is near.",
    detection: "The count of entries against `nf_conntrack_max`. `early_drop` that moves shows that the limit was touched and \
the kernel evicted entries which had seen no answer. The time to full is told, with its soonest and latest, only where the \
looks lie on a line.",
    fix: "As for `conntrack-full`: see what fills the table, shorten time-outs or do not track what need not be, and only then raise \
the limit.",
    needs: &[&[Source::Conntrack]],
    explained_by: &["conntrack-full"],
    check,
};

/// A straight line is not trusted further ahead than this.
const HORIZON: Span = Span::from_secs(3600);

/// A limit that was touched longer ago than this, and is not near any more, is worth a warning and no alarm.
const JUST_NOW: Span = Span::from_secs(60);

fn check(input: &Input<'_>) -> Vec<Finding> {
    finding(input).into_iter().collect()
}

fn finding(input: &Input<'_>) -> Option<Finding> {
    let state = &input.world.conntrack;
    let limit = limit(input)?;
    let entries = state.newest()?.count;
    let now = share(entries, limit);
    let evicted = state.moved().map_or(0, |m| m.early_drop);
    if now < input.thresholds.conntrack_warning && evicted == 0 {
        return None;
    }
    // The limit was touched: how near it is shows the count then, and it may be touched again.
    let touched = when(state, |l| l.moved.early_drop > 0).map(|(_, last, _)| last);
    let just_now = touched.is_some_and(|at| input.now().since(at) <= JUST_NOW);
    let critical = now >= input.thresholds.conntrack_critical || just_now;
    let outlook = Outlook::of(state.trend(), entries.into(), limit.into(), None, HORIZON);
    let mut summary = format!(
        "The table in which this host remembers connections holds {} of at most {} entries ({}).",
        count(entries),
        count(limit),
        percent(now)
    );
    if evicted > 0 {
        summary.push_str(&format!(
            " It touched the limit while watched: the kernel evicted {} entries that had seen no answer.",
            count(evicted)
        ));
    }
    if let Some(outlook) = outlook {
        summary.push(' ');
        summary.push_str(&outlook.sentence("it is full"));
    }
    let held = state
        .looks()
        .filter(|l| share(l.count, limit) >= input.thresholds.conntrack_warning);
    let newest = state.looks().next_back()?.at;
    let evidence = Evidence::new()
        .with("count", entries)
        .with("max", limit)
        .with("share", rounded(now))
        .maybe("per_second", state.growth_per_second().map(rounded))
        .maybe(
            "new_per_second",
            state.new_entries().map(|new| rounded(new.per_second)),
        )
        .maybe("early_drop", (evicted > 0).then_some(evicted));
    Some(Finding {
        code: RULE.code,
        severity: if critical {
            Severity::Critical
        } else {
            Severity::Warning
        },
        confidence: Confidence::Certain,
        title: match touched.filter(|_| now < input.thresholds.conntrack_warning) {
            Some(_) => format!(
                "The conntrack table was at its limit, and is {} full now",
                percent(now)
            ),
            None => format!("The conntrack table is {} full", percent(now)),
        },
        subject: Subject::Conntrack,
        summary,
        evidence: match outlook {
            Some(Outlook::Full(left)) => {
                left.evidence(evidence.with("seconds_to_full", rounded(left.seconds)))
            }
            _ => evidence,
        },
        impact:
            "When it is full, new connections through this host and from it are dropped; open ones carry on."
                .to_owned(),
        candidates: Vec::new(),
        fixes: remedies::fixes(input, limit),
        first_seen: held.clone().next().map_or(newest, |l| l.at),
        last_seen: newest,
        count: u32::try_from(held.count()).unwrap_or(u32::MAX).max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, moving};
    use super::*;
    use crate::observation::conntrack::CtCpuStats;

    #[test]
    fn severity_by_share() {
        use Severity::{Critical, Warning};
        for (entries, expected) in [
            (196_000, None),
            (196_608, Some(Warning)),
            (235_000, Some(Warning)),
            (236_000, Some(Critical)),
        ] {
            let found = Scene::new().count(entries).check(&RULE);
            assert_eq!(found.first().map(|f| f.severity), expected, "{entries}");
        }
        assert_eq!(Scene::new().count(250_000).max(None).check(&RULE), Vec::new());
        assert_eq!(Scene::new().count(250_000).max(Some(0)).check(&RULE), Vec::new());
    }

    #[test]
    fn eviction_shows_that_the_limit_was_touched() {
        let early = CtCpuStats {
            early_drop: 7,
            ..moving(0, 0, 0)
        };
        let f = Scene::new().count(100_000).moving(early).check(&RULE).remove(0);
        assert_eq!(
            (f.severity, f.evidence.get("early_drop")),
            (Severity::Critical, Some(&35.into()))
        );
        assert_eq!(
            f.title,
            "The conntrack table was at its limit, and is 38 % full now"
        );
        // Long ago it is no alarm any more.
        let f = Scene::new()
            .count(100_000)
            .moving(early)
            .later(61)
            .check(&RULE)
            .remove(0);
        assert_eq!(f.severity, Severity::Warning);
    }

    #[test]
    fn the_time_left_needs_a_line() {
        let f = Scene::new()
            .counts(&[200_000, 201_000, 202_000, 203_000])
            .check(&RULE)
            .remove(0);
        assert!(f.summary.contains("full in 59 s"), "{}", f.summary);
        for name in [
            "seconds_to_full",
            "exhausted_in_seconds",
            "exhausted_in_seconds_low",
        ] {
            assert_eq!(f.evidence.get(name), Some(&59.144.into()), "{name}");
        }
        for counts in [
            &[200_000, 210_000, 199_000, 207_000][..],
            &[203_000, 202_000, 201_000],
            &[200_000],
        ] {
            let f = Scene::new().counts(counts).check(&RULE).remove(0);
            assert_eq!(f.evidence.get("seconds_to_full"), None, "{counts:?}");
            assert_eq!(f.evidence.get("exhausted_in_seconds"), None, "{counts:?}");
        }
    }

    #[test]
    fn without_conntrack_it_is_not_checked() {
        let all = Scene::new().count(262_144).unavailable().evaluate();
        assert_eq!(all.not_checked.len(), super::super::RULES.len());
        assert!(all.findings.is_empty());
    }
}

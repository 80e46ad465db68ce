//! `conntrack-stale`: connections that are over, or nearly, hold much of the table.

use super::counters::limit;
use super::remedies;
use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::observation::Source;
use crate::rules::{Area, Input, Rule};
use crate::words::{count, percent, rounded, seconds};

/// The rule.
pub const RULE: Rule = Rule {
    code: "conntrack-stale",
    area: Area::Conntrack,
    severity: "warning",
    holds_when: "established connections that have been idle for over an hour hold much of the connection tracking table",
    meaning: "An established TCP connection stays in the conntrack table until it closes, or until it has been idle for \
`nf_conntrack_tcp_timeout_established`: five days, unless it is set. Connections whose ends went away without a word (a laptop \
that was shut, a host that crashed, a mapping that a NAT forgot) stay that long. They take the place of live ones: the table is \
full long before its load says so.",
    detection: "The remaining time-out of each established entry: an entry whose time-out has run down by more than an hour has been \
idle that long, for each packet sets it anew. Told where such entries hold a quarter of the limit (`conntrack_stale_share`). `likely`, \
because a time-out that was raised meanwhile looks the same.",
    fix: "A shorter time-out for established connections; 2 h 4 min is the least that RFC 5382 allows a NAT. Programs that must keep a \
connection idle for longer send keepalives.",
    needs: &[&[Source::Conntrack]],
    // Where the table is near its end that is what hurts, and it names the idle entries as what fills it.
    explained_by: &["conntrack-full", "conntrack-low"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    finding(input).into_iter().collect()
}

fn finding(input: &Input<'_>) -> Option<Finding> {
    let (at, tally) = input.world.conntrack.tally()?;
    let limit = limit(input)?;
    let idle = tally.tcp_established_idle?;
    #[allow(clippy::cast_precision_loss)] // shares
    let (of_limit, of_entries) = (
        idle as f64 / f64::from(limit),
        idle as f64 / tally.entries.max(1) as f64,
    );
    if of_limit < input.thresholds.conntrack_stale_share {
        return None;
    }
    let timeout = remedies::established_timeout(input);
    Some(Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: Confidence::Likely,
        title: format!("Idle connections hold {} of the conntrack table", percent(of_limit)),
        subject: Subject::Conntrack,
        summary: format!(
            "{} of {} entries are established connections that have been idle for over an hour; the table takes {}. They are kept for {} of \
             idleness.",
            count(idle),
            count(tally.entries),
            count(limit),
            seconds(timeout)
        ),
        evidence: Evidence::new()
            .with("idle", idle)
            .with("entries", tally.entries)
            .with("max", limit)
            .with("share_of_limit", rounded(of_limit))
            .with("share_of_entries", rounded(of_entries))
            .with("established", tally.tcp_established)
            .with("timeout_seconds", rounded(timeout)),
        impact: "The table reaches its limit with so many fewer live connections, and every full read or flush of it takes longer."
            .to_owned(),
        candidates: Vec::new(),
        fixes: vec![remedies::idle_fix(input, of_entries)],
        first_seen: at,
        last_seen: at,
        count: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;
    use crate::observation::conntrack::CtTally;

    fn scene(entries: u64, idle: Option<u64>) -> Scene {
        Scene::new().tally(CtTally {
            entries,
            tcp_established: entries,
            tcp_established_idle: idle,
            ..CtTally::default()
        })
    }

    #[test]
    fn by_share_of_the_limit() {
        for (name, scene, fires) in [
            ("a quarter", scene(70_000, Some(65_536)), true),
            ("just less", scene(70_000, Some(65_535)), false),
            ("all of a small table", scene(2000, Some(2000)), false),
            ("the time-out is not known", scene(200_000, None), false),
            ("no limit", scene(70_000, Some(70_000)).max(Some(0)), false),
            ("no table", Scene::new(), false),
        ] {
            assert_eq!(scene.check(&RULE).len(), usize::from(fires), "{name}");
        }
    }

    #[test]
    fn numbers_and_fix() {
        let f = scene(80_000, Some(70_000)).check(&RULE).remove(0);
        assert_eq!(
            (f.severity, f.confidence),
            (Severity::Warning, Confidence::Likely)
        );
        assert_eq!(f.title, "Idle connections hold 26 % of the conntrack table");
        assert!(f.summary.contains("kept for 5 days"), "{}", f.summary);
        assert!(
            f.fixes[0]
                .command
                .as_deref()
                .is_some_and(|c| c.contains("timeout_established=7440"))
        );
    }

    #[test]
    fn folded_where_the_table_is_low_anyway() {
        let scene = scene(250_000, Some(200_000)).count(250_000);
        assert_eq!(scene.codes(), (vec!["conntrack-low"], vec!["conntrack-stale"]));
    }
}

//! `conntrack-full`: the table is full; packets of new connections are dropped, or old entries evicted for them.

use super::counters::{limit, share, when};
use super::remedies;
use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::observation::Source;
use crate::rules::{Area, Input, Rule};
use crate::track::conntrack::Look;
use crate::words::{count, number, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "conntrack-full",
    area: Area::Conntrack,
    severity: "critical",
    holds_when: "the connection tracking table is at its limit: packets were dropped because of it, or entries evicted",
    meaning: "A Linux host that does NAT or has a stateful firewall remembers every connection that passes in a table, conntrack. \
The table has a limit (`nf_conntrack_max`). When it is reached, the first packet of each new connection is dropped, in silence: \
programs see time-outs, on the host itself also “Operation not permitted” for UDP; open connections carry on. Where \
entries can be given up (those that never saw an answer), the kernel evicts them instead, and nothing is lost as yet.",
    detection: "From the kernel's counters while watched: `drop` moves beyond `insert_failed`, which leaves a full table (or, rarely, \
a helper or short memory) as the cause; `certain` with the count of entries seen at the limit, `likely` with it near. \
Or the count is at the limit while `early_drop` moves: eviction happens only there. The kernel log then says “nf_conntrack: \
table full, dropping packet”. What the counters read before the watch is not taken for news.",
    fix: "Find what fills the table (the finding says where it can be told): idle connections kept for days, DNS, scans, \
connections per request. A higher limit is room: about 400 bytes of kernel memory an entry.",
    needs: &[&[Source::Conntrack]],
    explained_by: &[],
    check,
};

/// The count stands at the limit but for what comes and goes between two reads.
const AT_LIMIT: f64 = 0.99;

/// Near enough that a look between may have been at it.
const NEAR_LIMIT: f64 = 0.90;

fn check(input: &Input<'_>) -> Vec<Finding> {
    finding(input).into_iter().collect()
}

fn finding(input: &Input<'_>) -> Option<Finding> {
    let state = &input.world.conntrack;
    let limit = limit(input)?;
    let moved = state.moved()?;
    let dropped = moved.dropped_uninserted();
    // What was lost while the table had room was lost for another reason, however full it was at another time.
    let peak = share(
        state.peak_where(|l| l.moved.dropped_uninserted() > 0 || l.moved.early_drop > 0),
        limit,
    );
    let confidence = match (dropped > 0, moved.early_drop > 0) {
        (true, _) if peak >= AT_LIMIT => Confidence::Certain,
        // Eviction happens only at the limit, so together they leave no doubt.
        (true, true) => Confidence::Certain,
        (true, false) if peak >= NEAR_LIMIT => Confidence::Likely,
        (false, true) if peak >= AT_LIMIT => Confidence::Certain,
        _ => return None,
    };
    let entries = state.newest()?.count;
    let rate = |n| state.per_second(n).map(rounded);
    let (what, impact, hit): (String, &str, fn(&Look) -> bool) = if dropped > 0 {
        (
            format!(
                "{} packets of new connections were dropped for it while watched ({} a second).",
                count(dropped),
                state.per_second(dropped).map_or_else(String::new, number)
            ),
            "New connections through this host and from it time out, or fail with EPERM; open ones carry on.",
            |l| l.moved.dropped_uninserted() > 0,
        )
    } else {
        (
            format!(
                "No packet was dropped for it while watched, because the kernel evicted {} entries to make room.",
                count(moved.early_drop)
            ),
            "Connections that have seen no answer yet lose their entry, and a NAT mapping with it; when no such entry is left, new \
             connections are dropped.",
            |l| l.moved.early_drop > 0,
        )
    };
    let (first_seen, last_seen, looks) = when(state, hit)?;
    Some(Finding {
        code: RULE.code,
        severity: Severity::Critical,
        confidence,
        title: format!(
            "The conntrack table is full: {} of {} entries",
            count(state.peak()),
            count(limit)
        ),
        subject: Subject::Conntrack,
        summary: format!(
            "The table in which this host remembers connections holds {} of at most {} entries. {what}",
            count(state.peak()),
            count(limit)
        ),
        evidence: Evidence::new()
            .with("count", entries)
            .with("peak", state.peak())
            .with("max", limit)
            .with("dropped", dropped)
            .maybe("dropped_per_second", rate(dropped).filter(|_| dropped > 0))
            .with("early_drop", moved.early_drop)
            .with("insert_failed", moved.insert_failed),
        impact: impact.to_owned(),
        candidates: Vec::new(),
        fixes: remedies::fixes(input, limit),
        first_seen,
        last_seen,
        count: looks,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, moving};
    use super::*;
    use crate::observation::conntrack::CtCpuStats;

    fn early(early_drop: u32, drop: u32) -> CtCpuStats {
        CtCpuStats {
            early_drop,
            ..moving(0, 0, drop)
        }
    }

    #[test]
    fn the_counters_decide() {
        use Confidence::{Certain, Likely};
        for (name, scene, expected) in [
            (
                "full and dropping",
                Scene::new().count(262_144).moving(moving(0, 0, 50)),
                Some(Certain),
            ),
            (
                "nearly full at the looks",
                Scene::new().count(250_000).moving(moving(0, 0, 50)),
                Some(Likely),
            ),
            (
                "dropping, evicting",
                Scene::new().count(250_000).moving(early(10, 50)),
                Some(Certain),
            ),
            (
                "full and evicting",
                Scene::new().count(262_144).moving(early(10, 0)),
                Some(Certain),
            ),
            (
                "drops far from the limit",
                Scene::new().count(1000).moving(moving(0, 0, 50)),
                None,
            ),
            (
                "evicting, now below",
                Scene::new().count(250_000).moving(early(10, 0)),
                None,
            ),
            (
                "drops far from the limit, and full at another time",
                Scene::new()
                    .counts(&[1000, 1000, 1000, 1000, 262_144, 262_144])
                    .moving_once(moving(0, 0, 50)),
                None,
            ),
            ("full and still", Scene::new().count(262_144), None),
            (
                "drops of failed insertions",
                Scene::new().count(262_000).moving(moving(5000, 50, 50)),
                None,
            ),
            (
                "both at once",
                Scene::new().count(262_144).moving(moving(5000, 50, 90)),
                Some(Certain),
            ),
            (
                "no limit",
                Scene::new().count(262_144).max(Some(0)).moving(moving(0, 0, 50)),
                None,
            ),
            (
                "limit unknown",
                Scene::new().count(262_144).max(None).moving(moving(0, 0, 50)),
                None,
            ),
            (
                "one look only",
                Scene::new().counts(&[262_144]).moving(moving(0, 0, 50)),
                None,
            ),
        ] {
            let found = scene.check(&RULE);
            assert_eq!(found.first().map(|f| f.confidence), expected, "{name}");
            assert!(found.iter().all(|f| f.severity == Severity::Critical));
        }
    }

    #[test]
    fn numbers_and_words() {
        let f = Scene::new()
            .count(262_144)
            .moving(moving(0, 0, 50))
            .check(&RULE)
            .remove(0);
        assert_eq!(f.title, "The conntrack table is full: 262,144 of 262,144 entries");
        assert_eq!(f.evidence.get("dropped"), Some(&250.into()));
        assert_eq!(f.evidence.get("dropped_per_second"), Some(&50.0.into()));
        assert_eq!((f.count, f.last_seen.since(f.first_seen).as_secs()), (5, 4));
        let f = Scene::new()
            .count(262_144)
            .moving(early(10, 0))
            .check(&RULE)
            .remove(0);
        assert!(f.summary.contains("No packet was dropped"), "{}", f.summary);
    }

    #[test]
    fn the_fill_is_folded_beneath() {
        let scene = Scene::new().count(262_144).moving(moving(0, 0, 50));
        assert_eq!(scene.codes(), (vec!["conntrack-full"], vec!["conntrack-low"]));
    }
}

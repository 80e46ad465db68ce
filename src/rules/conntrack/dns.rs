//! `conntrack-dns`: DNS exchanges are a large part of the table.

use super::remedies;
use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::observation::Source;
use crate::rules::{Area, Input, Rule};
use crate::words::{count, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "conntrack-dns",
    area: Area::Conntrack,
    severity: "info",
    holds_when: "DNS exchanges are a large part of the connection tracking table",
    meaning: "A DNS question and its answer are over in milliseconds, but their entry stays in the conntrack table for half a minute, \
or for two where a socket is used again. A host that asks a thousand questions a second has thirty thousand entries of it, and two \
questions sent at the same moment from one socket may clash (`wgnat explain conntrack-insert-failed`).",
    detection: "Entries whose destination is port 53, from a share (`conntrack_dns_share`) and a number (`conntrack_dns_min`) on: in a \
small table they hurt nobody.",
    fix: "A caching resolver near the programs ends most of them. Where DNS is not translated, it need not be tracked.",
    needs: &[&[Source::Conntrack]],
    explained_by: &["conntrack-full", "conntrack-low"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    finding(input).into_iter().collect()
}

fn finding(input: &Input<'_>) -> Option<Finding> {
    let (at, tally) = input.world.conntrack.tally()?;
    #[allow(clippy::cast_precision_loss)] // a share
    let share = tally.dns as f64 / tally.entries.max(1) as f64;
    if tally.dns < input.thresholds.conntrack_dns_min || share < input.thresholds.conntrack_dns_share {
        return None;
    }
    // Towards a translated resolver the question passes NAT, and not to track it would break it.
    let translated: u64 = tally
        .snat
        .iter()
        .filter(|row| row.destination.port() == 53)
        .map(|row| u64::from(row.ports))
        .sum();
    Some(Finding {
        code: RULE.code,
        severity: Severity::Info,
        confidence: Confidence::Certain,
        title: format!("{} of the conntrack entries are DNS exchanges", percent(share)),
        subject: Subject::Conntrack,
        summary: format!(
            "{} of {} entries are exchanges with port 53, each kept for 30 s or more after it is over.{}",
            count(tally.dns),
            count(tally.entries),
            if translated > 0 {
                format!(
                    " At least {} of them pass this host's NAT and hold a port each.",
                    count(translated)
                )
            } else {
                String::new()
            }
        ),
        evidence: Evidence::new()
            .with("dns", tally.dns)
            .with("entries", tally.entries)
            .with("share", rounded(share))
            .with("translated_at_least", translated),
        impact: "They take room in the table and processor time; by themselves they lose nothing.".to_owned(),
        candidates: Vec::new(),
        fixes: vec![remedies::dns_fix(share, translated > 0)],
        first_seen: at,
        last_seen: at,
        count: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, row};
    use super::*;
    use crate::observation::conntrack::CtTally;

    fn scene(entries: u64, dns: u64) -> Scene {
        Scene::new().tally(CtTally {
            entries,
            dns,
            ..CtTally::default()
        })
    }

    #[test]
    fn by_share_and_number() {
        for (name, scene, fires) in [
            ("a third", scene(3000, 1000), true),
            ("less", scene(4000, 1000), false),
            ("few", scene(999, 999), false),
            ("none", scene(0, 0), false),
            ("no table", Scene::new(), false),
        ] {
            assert_eq!(scene.check(&RULE).len(), usize::from(fires), "{name}");
        }
    }

    #[test]
    fn what_is_translated_must_stay_tracked() {
        let f = scene(3000, 2000).check(&RULE).remove(0);
        assert_eq!(f.severity, Severity::Info);
        assert!(
            f.fixes[0]
                .snippet
                .as_deref()
                .is_some_and(|s| s.contains("notrack"))
        );
        let mut towards = row(1500, 1024, 65_000, 1400);
        towards.destination = ([9, 9, 9, 9], 53).into();
        let f = Scene::new()
            .tally(CtTally {
                entries: 3000,
                dns: 2000,
                snat: vec![towards],
                ..CtTally::default()
            })
            .check(&RULE)
            .remove(0);
        assert!(f.summary.contains("At least 1,500"), "{}", f.summary);
        assert_eq!(f.fixes[0].snippet, None);
    }
}

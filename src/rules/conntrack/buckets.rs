//! `conntrack-buckets`: far more entries than hash buckets.

use super::remedies;
use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::observation::Source;
use crate::rules::{Area, Input, Rule};
use crate::words::{count, number, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "conntrack-buckets",
    area: Area::Conntrack,
    severity: "info",
    holds_when: "the connection tracking table has far more entries than hash buckets, so that look-ups walk chains",
    meaning: "Every packet is looked up in the conntrack table, a hash table whose number of buckets is set apart from its limit \
(`nf_conntrack_buckets`). An entry stands in it twice, once for each direction. With many entries in a bucket each look-up walks \
them one by one, and from some fifty on (by kernel, 50 to 80) new entries are refused: `chain_toolong` and `insert_failed` move.",
    detection: "The count of entries against `nf_conntrack_buckets`: two entries a bucket (`conntrack_entries_per_bucket`), thus four a \
chain on average. All network namespaces share the buckets, so chains are at least that long.",
    fix: "As many buckets as entries: 8 bytes each. It can be set at any time, on the host; the table is rehashed at once.",
    needs: &[&[Source::Conntrack], &[Source::Host]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    finding(input).into_iter().collect()
}

fn finding(input: &Input<'_>) -> Option<Finding> {
    let state = &input.world.conntrack;
    let newest = state.looks().next_back()?;
    let buckets = input
        .world
        .sysctls
        .as_ref()
        .and_then(|s| s.conntrack_buckets)
        .filter(|b| *b > 0)?;
    let ratio = f64::from(newest.count) / f64::from(buckets);
    if ratio < input.thresholds.conntrack_entries_per_bucket {
        return None;
    }
    Some(Finding {
        code: RULE.code,
        severity: Severity::Info,
        confidence: Confidence::Certain,
        title: format!(
            "{} conntrack entries share {} buckets",
            count(newest.count),
            count(buckets)
        ),
        subject: Subject::Conntrack,
        summary: format!(
            "Each bucket holds {} entries on average, in both directions: a look-up, one or more for every packet, walks half of them.",
            number(ratio * 2.0)
        ),
        evidence: Evidence::new()
            .with("count", newest.count)
            .with("buckets", buckets)
            .with("entries_per_bucket", rounded(ratio))
            .with("chain_length", rounded(ratio * 2.0))
            .maybe("chain_toolong", state.moved().map(|m| m.chain_toolong)),
        impact:
            "Every packet costs more processor time; nothing is lost before chains reach some fifty entries."
                .to_owned(),
        candidates: Vec::new(),
        fixes: vec![remedies::buckets(input)],
        first_seen: newest.at,
        last_seen: newest.at,
        count: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;

    #[test]
    fn by_entries_a_bucket() {
        for (name, scene, fires) in [
            ("two a bucket", Scene::new().count(131_072).buckets(65_536), true),
            ("just less", Scene::new().count(131_071).buckets(65_536), false),
            (
                "as many as entries",
                Scene::new().count(200_000).buckets(262_144),
                false,
            ),
            ("buckets unknown", Scene::new().count(200_000), false),
            (
                "none, which cannot be",
                Scene::new().count(200_000).buckets(0),
                false,
            ),
        ] {
            assert_eq!(scene.check(&RULE).len(), usize::from(fires), "{name}");
        }
    }

    #[test]
    fn numbers_and_fix() {
        let f = Scene::new().count(150_000).buckets(65_536).check(&RULE).remove(0);
        assert_eq!((f.severity, f.confidence), (Severity::Info, Confidence::Certain));
        assert_eq!(f.title, "150,000 conntrack entries share 65,536 buckets");
        assert!(f.summary.contains("4.6 entries"), "{}", f.summary);
        assert_eq!(f.fixes[0].title, "Give the hash table 262,144 buckets");
    }
}

//! `path-jitter`: round trips to a target differ much from one to the next.

use super::{PATHS, against, finding, others, paths, seconds, told};
use crate::finding::{Confidence, Evidence, Finding, Fix};
use crate::rules::{Area, Input, Rule};
use crate::track::paths::{Path, Summary};

/// The rule.
pub const RULE: Rule = Rule {
    code: "path-jitter",
    area: Area::Paths,
    severity: "warning",
    holds_when: "round trips to a target differ from one to the next by more than voice bears, and by a good part of the round trip \
                 itself",
    meaning: "The time of a packet over this path cannot be foretold. Voice and video stutter, and TCP retransmits what was only late. \
              The usual causes are a queue that fills and empties (a busy uplink) and radio.",
    detection: "The mean difference between successive round trips (the difference that RFC 3550 smooths), over at least eight. It is \
                compared with that of the other targets: what all show is the common link's.",
    fix: "Measure again with the link idle: what then is calm was a queue of your own, and `fq_codel` or `cake` with the link's rate \
          shortens it. Where it stays, it is the path's.",
    needs: PATHS,
    explained_by: &["path-loss", "path-latency"],
    check,
};

/// Round trips that make a mean.
const LEAST: u32 = 8;

fn check(input: &Input<'_>) -> Vec<Finding> {
    paths(input).filter_map(|path| judge(input, path)).collect()
}

fn shakes(input: &Input<'_>, summary: &Summary) -> bool {
    let (Some(jitter), Some(median)) = (summary.jitter, summary.median) else {
        return false;
    };
    summary.answered >= LEAST
        && jitter >= input.thresholds.path_jitter_least
        && jitter.as_secs_f64() >= median.as_secs_f64() * input.thresholds.path_jitter_share
}

fn judge(input: &Input<'_>, path: &Path) -> Option<Finding> {
    if !shakes(input, &path.now) {
        return None;
    }
    let (jitter, median) = (path.now.jitter?, path.now.median?);
    let name = path.sample.target.to_string();
    let (mut calm, mut shaking) = (0, 0);
    for other in others(input, path).filter(|other| other.now.answered >= LEAST) {
        if shakes(input, &other.now) {
            shaking += 1;
        } else {
            calm += 1;
        }
    }
    let mut f = finding(RULE.code, path, Confidence::Certain);
    f.title = format!(
        "Round trips to {name} vary by {} from one to the next",
        told(jitter)
    );
    f.summary = format!(
        "Round trips to {name} differ by {} on average, with a median of {}{}.{}",
        told(jitter),
        told(median),
        path.now
            .min
            .zip(path.now.max)
            .map_or_else(String::new, |(min, max)| {
                format!(" (between {} and {})", told(min), told(max))
            }),
        match (calm, shaking) {
            (0, 0) => "",
            (0, _) => " All targets measured at the same time vary so: the link that they share does it.",
            (_, 0) => " The other targets are steady: it is the way to this one, or the target itself.",
            _ => " Some of the other targets vary too.",
        }
    );
    let history = path.usual.as_ref();
    let usual = history.and_then(|h| h.jitter.0.first()).copied();
    if let (Some(history), Some(usual)) = (history, usual) {
        let compared = against(&told(usual), "p50", history.over, &told(jitter));
        // Half as much again is more than a path's jitter differs from one look to the next.
        let worse = jitter > usual + usual / 2;
        let verdict = if worse {
            "That is worse than usual"
        } else {
            "That is as usual here"
        };
        f.summary = format!("{} {verdict}: {compared}.", f.summary);
    }
    f.evidence = Evidence::new()
        .with("jitter_seconds", seconds(jitter))
        .with("rtt_median_seconds", seconds(median))
        .maybe("rtt_p95_seconds", path.now.p95.map(seconds))
        .maybe("rtt_max_seconds", path.now.max.map(seconds))
        .maybe("usual_jitter_seconds", usual.map(seconds));
    f.impact = "Voice and video stutter; TCP takes late packets for lost ones.".to_owned();
    f.fixes = vec![Fix {
        title: "Measure again while the link is idle".to_owned(),
        why: "If it is calm then, a queue of this host's own link is the cause, and a fair queue at the link's rate the cure."
            .to_owned(),
        command: Some(format!("wgnat path --count 50 '{name}'")),
        ..Fix::default()
    }];
    Some(f)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Paths;
    use super::*;

    const SHAKY: [u64; 10] = [20, 90, 15, 80, 30, 95, 20, 70, 10, 90];

    #[test]
    fn shaking_is_named_and_a_long_steady_way_is_not() {
        assert_eq!(Paths::new().rtts("192.0.2.1", &SHAKY).check(&RULE).len(), 1);
        assert!(
            Paths::new()
                .rtts("192.0.2.1", &SHAKY[..6])
                .check(&RULE)
                .is_empty()
        );
        let far: Vec<u64> = (0..10).map(|n| 300 + n % 2 * 25).collect();
        assert!(Paths::new().rtts("192.0.2.1", &far).check(&RULE).is_empty());
        assert!(
            Paths::new()
                .rtts("192.0.2.1", &[2, 9, 2, 9, 2, 9, 2, 9, 2, 9])
                .check(&RULE)
                .is_empty()
        );
    }

    #[test]
    fn its_history_tells_whether_it_is_news() {
        for (usual, verdict) in [
            (5, "worse than usual: usual 5 ms (p50 over 24 h), now"),
            (70, "as usual here: usual 70 ms"),
        ] {
            let found = Paths::new()
                .usual("192.0.2.1", None, Some(usual), None)
                .rtts("192.0.2.1", &SHAKY)
                .check(&RULE);
            assert!(found[0].summary.contains(verdict), "{}", found[0].summary);
        }
    }

    #[test]
    fn the_others_tell_whose_it_is() {
        let steady = Paths::new()
            .rtts("192.0.2.1", &SHAKY)
            .rtts("192.0.2.2", &[10; 10]);
        let found = steady.check(&RULE);
        assert!(
            found[0].summary.contains("the way to this one"),
            "{}",
            found[0].summary
        );
        let all = Paths::new().rtts("192.0.2.1", &SHAKY).rtts("192.0.2.2", &SHAKY);
        assert!(all.check(&RULE)[0].summary.contains("the link that they share"));
    }
}

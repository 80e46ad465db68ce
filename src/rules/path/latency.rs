//! `path-latency`: a target answers much more slowly than it did, or than the others.

use super::{PATHS, against, finding, others, paths, seconds, told};
use crate::finding::{Confidence, Evidence, Finding, Fix};
use crate::observation::path::{Stage, Usual};
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::paths::Path;
use crate::track::stats::quantile;

/// The rule.
pub const RULE: Rule = Rule {
    code: "path-latency",
    area: Area::Paths,
    severity: "warning",
    holds_when: "a target's median round trip is far above its own past, or far above that of the other targets measured at the same \
                 time",
    meaning: "Every request over this path waits this much longer. Nothing is lost; the way is longer than it was, a queue on it \
              stands full, or the far end takes its time.",
    detection: "The median of the round trips, against what is usual for the same target (likely: a path has a usual time): by the \
                agent's history (`wgnat path --store`), where it must be above what 95 % of the past shows too, or by an earlier \
                run (`--baseline`). Only where nothing is known of its past it is compared with the other targets (possible: they \
                may simply be nearer). Where a connection has stages, they tell the network from the server: the TCP connect is \
                the path's time, the first byte the server's.",
    fix: "See which hop adds the time (`wgnat path --hops TARGET`); where all targets are slow, a full queue on this host's own \
          link is the usual cause, and `fq_codel` or `cake` with the link's rate its cure.",
    needs: PATHS,
    explained_by: &["path-loss"],
    check,
};

/// Earlier measurements that make a past.
const PAST: usize = 1;
/// Other targets that make a comparison.
const OTHERS: usize = 3;
/// Times the others' median: distances differ more than a path's own time does.
const FARTHER: u32 = 5;
/// And at least this much more.
const FARTHER_LEAST: Span = Span::from_millis(150);

fn check(input: &Input<'_>) -> Vec<Finding> {
    paths(input).filter_map(|path| judge(input, path)).collect()
}

fn judge(input: &Input<'_>, path: &Path) -> Option<Finding> {
    let now = path.now.median?;
    let thresholds = input.thresholds;
    let slower = |usual: &Span| {
        now.as_secs_f64() > usual.as_secs_f64() * thresholds.path_latency_factor
            && now > *usual + thresholds.path_latency_least
    };
    let name = path.sample.target.to_string();
    let history = path.usual.as_ref();
    let earlier = history
        .and_then(Usual::median)
        .or_else(|| median(path.past.iter().filter_map(|s| s.median), PAST));
    let mut theirs = None;
    let mut f = if let Some(usual) = earlier {
        // What it does now and then is no news, however far above the median.
        let seldom = history.and_then(Usual::p95).unwrap_or(usual);
        if !slower(&usual) || now <= seldom {
            return None;
        }
        let mut f = finding(RULE.code, path, Confidence::Likely);
        f.title = format!("{name} answers in {}, usual is {}", told(now), told(usual));
        f.summary = match history {
            Some(history) => format!(
                "{name} is slower than usual: {}.",
                against(&told(usual), "p50", history.over, &told(now))
            ),
            None => format!(
                "The median round trip to {name} is {}; earlier measurements had {}.",
                told(now),
                told(usual)
            ),
        };
        f
    } else {
        let others = median(others(input, path).filter_map(|o| o.now.median), OTHERS)
            .filter(|theirs| now > *theirs * FARTHER && now > *theirs + FARTHER_LEAST)?;
        theirs = Some(others);
        let mut f = finding(RULE.code, path, Confidence::Possible);
        f.title = format!(
            "{name} answers in {}, the other targets in {}",
            told(now),
            told(others)
        );
        f.summary = format!(
            "The median round trip to {name} is {}, that of the other targets {}. It may simply be farther away: its own past \
             would tell (`--store`, `--baseline`).",
            told(now),
            told(others)
        );
        f
    };
    let longest = longest_stage(path);
    if let Some((stage, span)) = longest {
        f.summary = format!("{} {}", f.summary, whose(path, stage, span));
    }
    f.evidence = Evidence::new()
        .with("rtt_median_seconds", seconds(now))
        .maybe("rtt_min_seconds", path.now.min.map(seconds))
        .maybe("usual_rtt_seconds", earlier.map(seconds))
        .maybe("usual_rtt_p95_seconds", history.and_then(Usual::p95).map(seconds))
        .maybe("usual_over_seconds", history.map(|h| seconds(h.over)))
        .maybe("other_targets_rtt_seconds", theirs.map(seconds))
        .maybe("longest_stage", longest.map(|(stage, _)| stage.name()));
    f.impact = "Each request over this path waits that much longer.".to_owned();
    f.fixes = vec![Fix {
        title: "Find where the time goes".to_owned(),
        why: "The hop from which on all round trips are long is where the queue stands or the way turns."
            .to_owned(),
        command: Some(format!("wgnat path --hops '{name}'")),
        ..Fix::default()
    }];
    Some(f)
}

fn median(spans: impl Iterator<Item = Span>, least: usize) -> Option<Span> {
    let mut sorted: Vec<Span> = spans.collect();
    sorted.sort_unstable();
    (sorted.len() >= least).then(|| quantile(&sorted, 0.5)).flatten()
}

/// The stage that takes more than half of the round trip.
fn longest_stage(path: &Path) -> Option<(Stage, Span)> {
    let half = path.now.median? / 2;
    let medians = path
        .sample
        .stages
        .iter()
        .filter_map(|(stage, rtts)| Some((*stage, median(rtts.0.iter().copied(), 1)?)));
    medians
        .filter(|(_, span)| *span > half)
        .max_by_key(|(_, span)| *span)
}

fn whose(path: &Path, stage: Stage, span: Span) -> String {
    // A full TLS handshake takes one or two round trips more than the TCP handshake's one (RFC 8446, RFC 5246).
    let trip = median(path.stage(Stage::Connect).unwrap_or_default().iter().copied(), 1);
    let what = match stage {
        Stage::NameLookup => "the name look-up: the resolver is slow, not the path",
        Stage::Connect => "the TCP handshake: that is the path",
        Stage::TlsHandshake if trip.is_some_and(|trip| span > trip * 4) => {
            "the TLS handshake, far more than its round trips: the server is slow, not the path"
        }
        Stage::TlsHandshake => "the TLS handshake: its round trips, so the path",
        Stage::FirstByte => "the wait for the first byte: the server is slow, not the path",
    };
    format!("{} of it is {what}.", told(span))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Paths;
    use super::*;

    #[test]
    fn slower_than_its_own_past_is_likely_and_a_little_is_nothing() {
        for (before, now, fires) in [
            (10, 50, true),
            (10, 25, false),
            (100, 150, false),
            (100, 250, true),
        ] {
            let found = Paths::new()
                .add("192.0.2.1", 10, before, &[])
                .add("192.0.2.1", 10, now, &[])
                .check(&RULE);
            assert_eq!(!found.is_empty(), fires, "{before} then {now}");
            assert!(found.iter().all(|f| f.confidence == Confidence::Likely));
        }
    }

    #[test]
    fn slower_than_a_day_s_usual_says_so_and_what_happens_now_and_then_is_nothing() {
        for (p50, p95, now, fires) in [
            (12, 15, 90, true),
            (12, 120, 90, false),
            (12, 15, 20, false),
            (80, 95, 90, false),
        ] {
            let found = Paths::new()
                .usual("192.0.2.1", Some((p50, p95)), None, Some(0.0))
                .add("192.0.2.1", 10, now, &[])
                .check(&RULE);
            assert_eq!(!found.is_empty(), fires, "{p50} {p95} {now}");
            for f in found {
                assert_eq!(f.confidence, Confidence::Likely);
                let expected = "usual 12 ms (p50 over 24 h), now 90 ms";
                assert!(f.summary.contains(expected), "{}", f.summary);
            }
        }
    }

    #[test]
    fn a_path_that_is_as_it_always_was_is_not_compared_with_nearer_ones() {
        let near = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
        let others = || {
            near.iter()
                .fold(Paths::new(), |paths, ip| paths.add(ip, 10, 10, &[]))
        };
        let far = others().add("192.0.2.9", 10, 300, &[]);
        assert_eq!(far.check(&RULE).len(), 1);
        assert!(far.add("192.0.2.9", 10, 300, &[]).check(&RULE).is_empty());
        let known = others()
            .usual("192.0.2.9", Some((290, 310)), None, None)
            .add("192.0.2.9", 10, 300, &[]);
        assert!(known.check(&RULE).is_empty());
    }

    #[test]
    fn a_slow_tls_handshake_is_the_server_s_where_it_takes_more_than_its_round_trips() {
        for (connect, tls, whose) in [(1, 390, "the server is slow"), (150, 240, "so the path")] {
            let found = Paths::new()
                .add("tls:192.0.2.1:443", 10, 10, &[])
                .stages(
                    "tls:192.0.2.1:443",
                    connect + tls,
                    &[(Stage::Connect, connect), (Stage::TlsHandshake, tls)],
                )
                .check(&RULE);
            assert!(found[0].summary.contains(whose), "{}", found[0].summary);
        }
    }

    #[test]
    fn farther_than_the_others_is_only_possible() {
        let near = Paths::new()
            .add("192.0.2.1", 10, 10, &[])
            .add("192.0.2.2", 10, 12, &[]);
        let two = near.add("192.0.2.9", 10, 300, &[]);
        assert!(two.check(&RULE).is_empty(), "two others are no comparison");
        let found = two.add("192.0.2.3", 10, 11, &[]).check(&RULE);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].confidence, Confidence::Possible);
    }

    #[test]
    fn a_slow_server_is_told_from_a_slow_path() {
        let found = Paths::new()
            .stage("http://192.0.2.1/", 20, Stage::FirstByte, 5)
            .stage("http://192.0.2.1/", 400, Stage::FirstByte, 390)
            .check(&RULE);
        assert!(
            found[0].summary.contains("the server is slow, not the path"),
            "{}",
            found[0].summary
        );
    }
}

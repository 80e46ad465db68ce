//! `ports-low`: the local ports towards a destination run low, with the time that is left where the trend tells.

use super::exhausted::full;
use super::tuple::{Tuple, tuples};
use crate::config::Thresholds;
use crate::finding::{Candidate, Confidence, Finding, Severity};
use crate::observation::Source;
use crate::pooling::sizing::Sizing;
use crate::rules::forecast::Outlook;
use crate::rules::{Area, Input, Rule};
use crate::time::Span;
use crate::track::sockets::usable::{TIME_WAIT, on_loopback};
use crate::types::Proto;
use crate::words::{count, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "ports-low",
    area: Area::Ports,
    severity: "warning ≥ 70 %, critical ≥ 90 %",
    holds_when: "connections from one source address to one destination address and port hold most of the local ports that they \
can have",
    meaning: "Every outgoing connection needs a local port, and towards one destination address and port each can be used once. \
When the last one is taken, new connections fail at once with EADDRNOTAVAIL (`wgnat explain ports-exhausted`). Already \
before that every new connection costs more: from half the range on, `connect` finds no port at the first try and \
searches.",
    detection: "Sockets are counted by source address, destination and state, TIME_WAIT included, against the range less reserved \
ports and listeners. TIME_WAIT sockets that the kernel would reuse do not count. The time to exhaustion is told, with its soonest and \
latest, only where the looks lie on a line; where TIME_WAIT makes the growth, it is told only if λ · (W + 60 s), where the count \
levels off, lies beyond the range.",
    fix: "As for `ports-exhausted`: reuse connections; the finding names the pool's size.",
    needs: &[&[Source::Sockets], &[Source::Host]],
    explained_by: &["ports-exhausted"],
    check,
};

/// A straight line is not trusted further ahead than this.
const HORIZON: Span = Span::from_secs(600);

fn check(input: &Input<'_>) -> Vec<Finding> {
    let all = tuples(input);
    let concerned = all
        .iter()
        // UDP ports are another rule's.
        .filter(|t| t.key.proto == Proto::Tcp && t.no_port().is_none() && !t.fresh().any(|s| full(t, s)));
    concerned
        .filter_map(|t| low(t, input.thresholds).or_else(|| in_doubt(t, input.thresholds)))
        .collect()
}

/// Where the count of held ports is going.
fn outlook(tuple: &Tuple<'_>, sizing: Option<Sizing>) -> Option<Outlook> {
    if tuple.reuse.is_some() || !tuple.history.rising(tuple.usable.ports) {
        return None;
    }
    // What TIME_WAIT makes grow stops growing once as many expire as are added.
    let by_time_wait = tuple.sample.time_wait * 2 > tuple.sample.held;
    let (level, horizon) = if by_time_wait {
        (sizing.map(|s| f64::from(s.ports_unpooled)), TIME_WAIT)
    } else {
        (None, HORIZON)
    };
    if by_time_wait && level.is_none() {
        return None;
    }
    Outlook::of(
        tuple.history.trend(),
        tuple.sample.held.into(),
        tuple.usable.ports.into(),
        level,
        horizon,
    )
}

fn low(tuple: &Tuple<'_>, thresholds: &Thresholds) -> Option<Finding> {
    let share = |blocked| tuple.usable.share(blocked);
    let now = share(tuple.blocked(&tuple.sample));
    if now < thresholds.ports_warning {
        return None;
    }
    let critical = now >= thresholds.ports_critical;
    let advice = tuple.advice();
    let outlook = outlook(tuple, advice.sizing);
    let to = tuple.key.destination;
    let mut summary = tuple.held_words(advice.remedy);
    if let Some(outlook) = outlook {
        summary.push(' ');
        summary.push_str(&outlook.sentence("none is left"));
    }
    let held = tuple
        .fresh()
        .filter(|s| share(tuple.blocked(s)) >= thresholds.ports_warning);
    let evidence = tuple
        .evidence()
        .with("share", rounded(now))
        .maybe("pool_size", advice.sizing.map(|s| s.pool));
    let evidence = match outlook {
        Some(outlook @ Outlook::Full(left)) => {
            outlook.evidence(evidence.with("seconds_to_exhaustion", rounded(left.seconds)))
        }
        Some(outlook @ Outlook::LevelsOff(_)) => outlook.evidence(evidence),
        None => evidence,
    };
    Some(Finding {
        code: RULE.code,
        severity: if critical {
            Severity::Critical
        } else {
            Severity::Warning
        },
        confidence: if tuple.inexact {
            Confidence::Likely
        } else {
            Confidence::Certain
        },
        title: format!("{} of the local ports to {to} are held", percent(now)),
        subject: tuple.subject(),
        summary,
        evidence,
        impact: format!(
            "When none is left, new connections to {to} fail with {}. Beyond half the range each new connection already costs \
             more processor time: `connect` has to search (about ten times as long, measured with 8,192 ports).",
            tuple.errno()
        ),
        candidates: Vec::new(),
        fixes: advice.fixes,
        first_seen: held.clone().next().map_or(tuple.sample.at, |s| s.at),
        last_seen: tuple.sample.at,
        count: u32::try_from(held.count()).unwrap_or(u32::MAX),
    })
}

/// Nearly all ports are held, by TIME_WAITs that the kernel should reuse, and opens keep to the pace that they would have
/// without reuse. Reuse needs TCP timestamps on the old connections, which cannot be seen here: if the destination does not
/// use them, ports are in truth used up. More opens than a sixtieth of the ports per second prove reuse; none at all means
/// that nobody wants a port.
fn in_doubt(tuple: &Tuple<'_>, thresholds: &Thresholds) -> Option<Finding> {
    tuple.reuse?;
    // Both ends are this host, and its timestamps are on.
    if on_loopback(&tuple.key) {
        return None;
    }
    let share = tuple.usable.share(tuple.sample.held);
    let ceiling = f64::from(tuple.usable.ports) / TIME_WAIT.as_secs_f64();
    let opens = tuple.opens?.per_second;
    if share < thresholds.ports_critical || opens > ceiling * 1.1 || opens < ceiling * 0.5 {
        return None;
    }
    let advice = tuple.advice();
    let to = tuple.key.destination;
    Some(Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: Confidence::Possible,
        title: format!(
            "{} of the local ports to {to} are held, most in TIME_WAIT",
            percent(share)
        ),
        subject: tuple.subject(),
        summary: format!(
            "{} of {} local ports towards {to} are held, {} of them in TIME_WAIT. The kernel may reuse these after a moment \
             (tcp_tw_reuse), but only where the destination uses TCP timestamps.",
            count(tuple.sample.held),
            count(tuple.usable.ports),
            count(tuple.sample.time_wait),
        ),
        evidence: tuple.evidence().with("share", rounded(share)),
        impact: format!(
            "If the ports are not reused, new connections to {to} fail with {}.",
            tuple.errno()
        ),
        candidates: vec![
            Candidate {
                cause: "Ports are reused, and nothing fails".to_owned(),
                code: None,
                settle: "nstat -az TcpExtTWRecycled: it grows by about the opens per second".to_owned(),
            },
            Candidate {
                cause: "The destination does not use TCP timestamps, so ports are used up".to_owned(),
                code: Some("ports-exhausted"),
                settle: format!("ss -tnio state established dst {to}: no “ts” in the second line"),
            },
        ],
        fixes: advice.fixes,
        first_seen: tuple.sample.at,
        last_seen: tuple.sample.at,
        count: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, look};
    use super::*;

    #[test]
    fn severity_by_share() {
        for (time_wait, expected) in [
            (19_700, None),
            (19_800, Some(Severity::Warning)),
            (25_300, Some(Severity::Warning)),
            (25_500, Some(Severity::Critical)),
            (28_180, Some(Severity::Critical)),
            (28_232, None),
        ] {
            let found = Scene::new().look(0, look().time_wait(time_wait)).check(&RULE);
            assert_eq!(found.first().map(|f| f.severity), expected, "{time_wait}");
            assert!(found.iter().all(|f| f.confidence == Confidence::Certain));
        }
    }

    #[test]
    fn the_time_left_needs_a_trend_that_leads_there() {
        let growing = |each: u32, class: u32| {
            (0..5).fold(Scene::new(), |scene, i| {
                let held = 20_000 + i * each;
                scene.look(i, look().time_wait(held).rate_class(class + i * each))
            })
        };
        // 600 a second and as many closed in the last 10 s: it levels off at 36,000, beyond the range.
        let f = growing(500, 6000).check(&RULE).remove(0);
        let left = f.evidence.get("seconds_to_exhaustion").and_then(|v| v.as_f64());
        assert!(left.is_some_and(|l| (10.0..15.0).contains(&l)), "{left:?}");
        assert!(f.summary.contains("none is left in 12 s"), "{}", f.summary);
        for name in [
            "exhausted_in_seconds",
            "exhausted_in_seconds_low",
            "exhausted_in_seconds_high",
        ] {
            assert_eq!(f.evidence.get(name).and_then(|v| v.as_f64()), left, "{name}");
        }
        // Held by open connections: a straight line.
        let open = (0..5).fold(Scene::new(), |s, i| {
            s.look(i, look().established(20_000 + i * 100))
        });
        let f = open.check(&RULE).remove(0);
        assert!(
            f.evidence.get("seconds_to_exhaustion").is_some(),
            "{:?}",
            f.evidence
        );
        // 400 a second level off below the range.
        let f = growing(40, 3900).check(&RULE).remove(0);
        assert!(f.evidence.get("seconds_to_exhaustion").is_none());
        assert!(f.evidence.get("levels_off_at").is_some(), "{:?}", f.evidence);
        // One look tells no trend.
        let f = Scene::new()
            .look(0, look().time_wait(20_000))
            .check(&RULE)
            .remove(0);
        assert_eq!(
            (
                f.evidence.get("seconds_to_exhaustion"),
                f.evidence.get("levels_off_at")
            ),
            (None, None)
        );
    }

    #[test]
    fn reuse_that_is_not_proven_is_a_hint_only() {
        let scene = |class| {
            Scene::new()
                .reuse(1)
                .look(0, look().time_wait(28_232).rate_class(class))
        };
        // 470 a second is exactly what 28,232 ports give without reuse.
        let f = scene(4705).check(&RULE).remove(0);
        assert_eq!(
            (f.severity, f.confidence),
            (Severity::Warning, Confidence::Possible)
        );
        assert_eq!(f.candidates.len(), 2);
        // More than that proves reuse, and next to nothing wants no port.
        assert_eq!(scene(9000).check(&RULE), Vec::new());
        assert_eq!(scene(10).check(&RULE), Vec::new());
    }

    #[test]
    fn silent_near_misses() {
        for (name, scene) in [
            (
                "loopback",
                Scene::new().look_from(0, "127.0.0.1", look().time_wait(25_000).rate_class(9000)),
            ),
            (
                "loopback, at just the pace that there would be without reuse",
                Scene::new().look_from(0, "127.0.0.1", look().time_wait(28_232).rate_class(4705)),
            ),
            (
                "two sources",
                Scene::new().look(0, look().time_wait(15_000)).look_from(
                    0,
                    "10.0.0.3",
                    look().time_wait(15_000),
                ),
            ),
            (
                "range unknown",
                Scene::new().without_range().look(0, look().time_wait(25_000)),
            ),
        ] {
            assert_eq!(scene.check(&RULE), Vec::new(), "{name}");
        }
    }

    #[test]
    fn the_owner_is_named() {
        let scene = Scene::new()
            .look(0, look().established(20_000).inodes(&[1, 2, 3]))
            .process(812, "node", &[1, 2, 3]);
        let f = scene.check(&RULE).remove(0);
        assert!(f.summary.ends_with("node (pid 812) holds them."), "{}", f.summary);
    }
}

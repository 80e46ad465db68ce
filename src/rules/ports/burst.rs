//! `connect-burst`: connections to one destination are opened many at a time, again and again.

use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::rules::{Area, Input, Rule, process_ref};
use crate::track::sockets::Key;
use crate::words::{count, number, rounded, seconds};

/// The rule.
pub const RULE: Rule = Rule {
    code: "connect-burst",
    area: Area::Ports,
    severity: "warning",
    holds_when: "many connections to one destination are opened within the same fraction of a second, repeatedly, with little between",
    meaning: "Connections that are opened all at once meet a server that must answer all at once: its queue of new connections \
overflows, packets are dropped, and who is dropped waits for a second and comes again with the others. The mean load may be low all \
the while. Typical are timers that all clients share, retries without a random part, pools that all expire together, and jobs that \
start on the minute.",
    detection: "Counted in the kernel by eBPF: 16 or more attempts of one process to one destination within a quarter of a second are a \
burst. The finding stands where there were at least three, they hold most of all attempts, and they take up little of the time; a load \
that is always high is none.",
    fix: "Spread them: a random pause before each, as long as the period at most; a pool that keeps connections; life times of pooled \
connections that differ.",
    needs: &[&[Source::Bpf]],
    // Where each connection is a short one, that is the trouble, and its advice helps here too.
    explained_by: &["ports-exhausted"],
    check,
};

/// The window of a burst, in seconds (bpf/connects.h).
const WINDOW: f64 = 0.25;

/// So many periods without a burst end it.
const SILENT_PERIODS: f64 = 3.0;

fn check(input: &Input<'_>) -> Vec<Finding> {
    let connects = &input.world.connects;
    connects.keys().filter_map(|key| finding(input, &key)).collect()
}

fn finding(input: &Input<'_>, key: &Key) -> Option<Finding> {
    let thresholds = input.thresholds;
    let (bursts, attempts, watched, process) = input.world.connects.bursts(key)?;
    let (first, last) = (bursts.first?, bursts.last?);
    #[allow(clippy::cast_precision_loss)] // counts of one watch
    let [n, inside, all] = [bursts.count, bursts.attempts, attempts].map(|n| n as f64);
    if bursts.count < thresholds.bursts_least
        || inside < all * thresholds.bursts_share
        || n * WINDOW > watched.as_secs_f64() * thresholds.bursts_time
    {
        return None;
    }
    let period = last.since(first).as_secs_f64() / (n - 1.0);
    // Ended long ago, as seen by its own rhythm.
    if input.now().since(last).as_secs_f64() > period * SILENT_PERIODS + 1.0 {
        return None;
    }
    let each = inside / n;
    let to = key.destination;
    let even = all / watched.as_secs_f64().max(WINDOW);
    Some(Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: Confidence::Certain,
        title: format!("{} opens its connections to {to} in bursts of about {}", process.comm, number(each)),
        subject: Subject::Destination {
            proto: key.proto,
            source: Some(key.source),
            address: to.ip(),
            port: to.port(),
            process: Some(process_ref(&process)),
        },
        summary: format!(
            "{} (pid {}) opened {} of {} connections to {to} in {} bursts of a quarter of a second each, about {} apart. Spread \
             evenly it would be {} a second.",
            process.comm,
            process.pid,
            count(bursts.attempts),
            count(attempts),
            count(bursts.count),
            seconds(period),
            number(even)
        ),
        evidence: Evidence::new()
            .with("bursts", bursts.count)
            .with("attempts_in_bursts", bursts.attempts)
            .with("attempts", attempts)
            .with("attempts_per_burst", rounded(each))
            .with("period_seconds", rounded(period))
            .with("evenly_per_second", rounded(even))
            .with("seconds", rounded(watched.as_secs_f64())),
        impact: format!(
            "{to} must take about {} connections within a quarter of a second; what its queue does not hold is dropped and comes \
             again a second later.",
            number(each)
        ),
        candidates: Vec::new(),
        fixes: vec![
            Fix {
                title: "Begin each at a moment of its own".to_owned(),
                why: format!(
                    "A random pause of up to {} before each connection spreads them evenly. Retries want a random pause too.",
                    seconds(period)
                ),
                snippet: Some(format!(
                    "sleep(random between 0 and {} s)    # before each connect, not once for all",
                    number(period)
                )),
                expect: Evidence::new().with("evenly_per_second", rounded(even)),
                ..Fix::default()
            },
            Fix {
                title: "Keep connections, and let them not all end together".to_owned(),
                why: "A pool whose connections live for a fixed time opens them all anew at once. Add a random part to the life time \
                      (HikariCP does by itself; SQLAlchemy's pool_recycle and Go's SetConnMaxLifetime do not)."
                    .to_owned(),
                ..Fix::default()
            },
        ],
        first_seen: first,
        last_seen: last,
        count: u32::try_from(bursts.count).unwrap_or(u32::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, opened, start};
    use super::*;
    use crate::observation::connect::{Bursts, ConnectRow};
    use crate::time::Span;

    /// Bursts of 40 each `period` seconds, the last at second `last`, and so many attempts beside.
    fn bursts(n: u64, period: f64, last: f64, beside: u64) -> ConnectRow {
        let mut row = opened(n * 40 + beside, 0);
        let at = |s: f64| Some(start() + Span::from_secs_f64(s));
        #[allow(clippy::cast_precision_loss)]
        let first = last - period * (n as f64 - 1.0);
        row.bursts = Bursts {
            count: n,
            attempts: n * 40,
            first: at(first),
            last: at(last),
        };
        row
    }

    #[test]
    fn fires_on_bursts_with_little_between() {
        for (name, row, fires) in [
            ("each second", bursts(5, 1.0, 4.5, 0), true),
            ("two only", bursts(2, 1.0, 4.5, 0), false),
            ("a steady load beside", bursts(5, 1.0, 4.5, 100), false),
            ("always", bursts(19, 0.25, 4.9, 0), false),
            ("none", opened(200, 0), false),
        ] {
            let found = Scene::new().connects(5, row).check(&RULE);
            assert_eq!(found.len(), usize::from(fires), "{name}");
        }
        let f = Scene::new()
            .connects(5, bursts(5, 1.0, 4.5, 0))
            .check(&RULE)
            .remove(0);
        assert_eq!(f.evidence.get("attempts_per_burst"), Some(&40.0.into()));
        assert!(
            f.summary.contains("1 s apart") && f.summary.contains("40 a second"),
            "{}",
            f.summary
        );
    }

    #[test]
    fn what_ended_is_over() {
        let row = bursts(5, 1.0, 4.5, 0);
        let scene = |at| Scene::new().connects(at, row.clone());
        assert_eq!(scene(8).check(&RULE).len(), 1);
        assert_eq!(scene(20).check(&RULE), Vec::new());
    }
}

//! `timewait-pileup`: most of a destination's ports are held by connections that this side has closed.

use super::tuple::{Tuple, tuples};
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::Source;
use crate::rules::{Area, Input, Rule};
use crate::types::Proto;
use crate::words::{count, percent, rounded, seconds};

/// The rule.
pub const RULE: Rule = Rule {
    code: "timewait-pileup",
    area: Area::Ports,
    severity: "warning; info where the kernel reuses the ports",
    holds_when: "TIME_WAIT holds most of a destination's ports and at least a tenth of the range, and the closes are ours",
    meaning: "Each TCP connection has a local port, a number that tells it from the others to the same destination; there are some \
28,000. Whoever closes a connection first keeps its port for another 60 seconds, in a state that is called TIME_WAIT, so that late \
packets of the old connection do not disturb a new one. That is right and harmless, until a program closes many connections to \
one destination: then the ports of connections that ended long ago are missing for new ones. More than 470 closes a second are \
more than the ports can bear.",
    detection: "TIME_WAIT sockets of outgoing connections are counted by destination. Only the side that closes first keeps \
TIME_WAIT, so the closes are certainly this side's. Who closed is not known: such a socket has no owner.",
    fix: "Keep connections open and reuse them, or let the server close first. Do not look for a setting that shortens TIME_WAIT: \
Linux has none (`tcp_fin_timeout` is another state).",
    needs: &[&[Source::Sockets], &[Source::Host]],
    // The churn is the habit that piles them up; the other two tell the pile in their own words.
    explained_by: &["ports-exhausted", "ports-low", "connection-churn"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let thresholds = input.thresholds;
    let piled = |t: &&Tuple<'_>| {
        let s = &t.sample;
        t.key.proto == Proto::Tcp
            && s.held > 0
            && f64::from(s.time_wait.min(s.held)) >= f64::from(s.held) * thresholds.time_wait_share
            && t.usable.share(s.time_wait.min(s.held)) >= thresholds.time_wait_range_share
    };
    tuples(input).iter().filter(piled).map(finding).collect()
}

fn finding(tuple: &Tuple<'_>) -> Finding {
    let s = &tuple.sample;
    let to = tuple.key.destination;
    let advice = tuple.advice();
    let mut summary = format!(
        "{} of the {} ports held towards {to} are in TIME_WAIT: this side closed the connections. They hold {} of the range for \
         60 s each.",
        count(s.time_wait),
        count(s.held),
        percent(tuple.usable.share(s.time_wait)),
    );
    if let Some(delay) = tuple.reuse {
        summary.push_str(&format!(
            " The kernel reuses these ports after {} (tcp_tw_reuse) where both ends use TCP timestamps, so they hardly stand in \
             the way.",
            seconds(delay.as_secs_f64())
        ));
    }
    Finding {
        code: RULE.code,
        severity: if tuple.reuse.is_some() {
            Severity::Info
        } else {
            Severity::Warning
        },
        confidence: if tuple.inexact {
            Confidence::Likely
        } else {
            Confidence::Certain
        },
        title: format!(
            "Closed connections to {to} hold {} local ports",
            count(s.time_wait)
        ),
        subject: tuple.subject(),
        summary,
        evidence: tuple.evidence().with(
            "time_wait_share",
            rounded(f64::from(s.time_wait) / f64::from(s.held.max(1))),
        ),
        impact: match tuple.reuse {
            Some(_) => "Hardly any: new connections take these ports over.".to_owned(),
            None => format!(
                "These ports are missing for new connections from {} to {to}.",
                tuple.key.source
            ),
        },
        candidates: Vec::new(),
        fixes: advice.fixes,
        first_seen: tuple.fresh().find(|s| s.time_wait > 0).map_or(s.at, |s| s.at),
        last_seen: s.at,
        count: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, look};
    use super::*;

    #[test]
    fn share_of_the_ports_and_of_the_range() {
        for (name, look, fires) in [
            ("a pile", look().time_wait(3000), true),
            ("under a tenth of the range", look().time_wait(2800), false),
            (
                "half of what is held",
                look().time_wait(3000).established(3000),
                true,
            ),
            ("less than half", look().time_wait(3000).established(3100), false),
            ("open ones only", look().established(9000), false),
            ("nothing", look(), false),
        ] {
            let found = Scene::new().look(0, look).check(&RULE);
            assert_eq!(!found.is_empty(), fires, "{name}");
            for f in found {
                assert_eq!(
                    (f.severity, f.confidence),
                    (Severity::Warning, Confidence::Certain),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn reused_ports_are_no_more_than_an_info() {
        let scene = Scene::new().look_from(0, "127.0.0.1", look().time_wait(20_000));
        let f = scene.check(&RULE).remove(0);
        assert_eq!(f.severity, Severity::Info);
        assert!(
            f.summary.contains("reuses these ports after 1 s"),
            "{}",
            f.summary
        );
        assert!(
            f.fixes
                .iter()
                .all(|f| f.command.as_deref() != Some("sysctl -w net.ipv4.tcp_tw_reuse=1"))
        );
    }
}

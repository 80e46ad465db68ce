//! `connection-churn`: many short connections a second to one destination, and the pool that would carry them.

use super::tuple::{Tuple, tuples};
use crate::config::Thresholds;
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::Source;
use crate::pooling::Advice;
use crate::rules::{Area, Input, Rule};
use crate::track::sockets::usable::on_loopback;
use crate::track::sockets::{Basis, OpenRate};
use crate::types::Proto;
use crate::words::{count, counted, number, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "connection-churn",
    area: Area::Ports,
    severity: "warning; info on the loopback where the kernel reuses the ports",
    holds_when: "many short connections a second are opened to one destination, for longer than a moment",
    meaning: "For each request the program opens a new TCP connection to the same place and closes it again. Each opening costs a \
round trip or more before the first byte, with TLS several, and processor time at both ends. Each close leaves something \
behind: the connection's local port cannot be used towards this destination for another 60 seconds, and every NAT and firewall \
on the way keeps an entry in its table of connections (conntrack, on Linux) for about 120.\n\nNothing fails as long as ports are \
left; there are some 28,000. When they run out, new connections to this destination fail all at once, with EADDRNOTAVAIL \
(“Cannot assign requested address”), while everything else works. Nearly every client library can keep connections open; often \
it does so only when told, and never where the client, agent or session itself is made anew for each request.",
    detection: "Where eBPF is available every connect and close is counted in the kernel, with the process, the life of each connection \
and who closed first; the rate is then exact and the finding `certain` (`opens_measured_by` = `counted`).\n\nElsewhere, from looks \
at the socket table: TIME_WAIT sockets of the last 10 s, sockets that come and go between looks, and \
growth. Closes must keep on over several looks, so neither a pool that fills nor a program that ends is taken for a churn. \
Connections that live and die between two looks and are closed by the other side are not seen: the rate is a lower bound then. \
The life of a connection is derived by Little's law (open at a time ÷ opens per second), and the pool is sized by \
the mean of open connections plus 3.5 standard deviations, at least the peak seen. Where they were counted the most that were open at \
a time is known, and the pool is that and a tenth. `likely`, because looks are samples.",
    fix: "Reuse connections as the finding's snippet shows, with the number in it. If the server closes first, raise its \
keep-alive time-out above the client's idle time-out.",
    needs: &[&[Source::Sockets], &[Source::Host]],
    // Where ports run out, that finding tells the churn and carries this advice.
    explained_by: &["ports-exhausted", "ports-low"],
    check,
};

/// Destinations that are told one by one; the rest are counted.
const MAX_FINDINGS: usize = 10;

fn check(input: &Input<'_>) -> Vec<Finding> {
    let mut churning: Vec<(OpenRate, Tuple<'_>)> = tuples(input)
        .into_iter()
        .filter_map(|t| churns(&t, input.thresholds).map(|opens| (opens, t)))
        .collect();
    churning.sort_by(|(a, _), (b, _)| b.per_second.total_cmp(&a.per_second));
    let further = churning.len().saturating_sub(MAX_FINDINGS);
    let told = churning.iter().take(MAX_FINDINGS);
    told.map(|(opens, t)| finding(t, *opens, further)).collect()
}

fn churns(tuple: &Tuple<'_>, thresholds: &Thresholds) -> Option<OpenRate> {
    let opens = tuple.opens.filter(|_| tuple.key.proto == Proto::Tcp)?;
    let lifetime = tuple.mean_concurrency()? / opens.per_second;
    (opens.per_second >= thresholds.churn_per_second
        && lifetime <= thresholds.churn_max_lifetime.as_secs_f64()
        && tuple.turns_over(thresholds.churn_per_second))
    .then_some(opens)
}

fn finding(tuple: &Tuple<'_>, opens: OpenRate, further: usize) -> Finding {
    let s = &tuple.sample;
    let to = tuple.key.destination;
    let advice = tuple.advice();
    let at_least = if opens.lower_bound { "at least " } else { "" };
    let harmless = tuple.reuse.is_some() && on_loopback(&tuple.key);
    let who = tuple.owner.as_ref().map(|o| o.process.comm.as_str());
    let mut summary = format!(
        "{} opens {at_least}{} connections a second to {to} and does not keep them.",
        tuple
            .holder()
            .unwrap_or_else(|| "A program (which one is not known)".to_owned()),
        number(opens.per_second)
    );
    if s.time_wait > 0 {
        summary.push_str(&format!(
            " {} closed ones hold a local port each in TIME_WAIT ({} of the ports that there are).",
            count(s.time_wait),
            percent(tuple.usable.share(s.time_wait))
        ));
    } else if tuple.closes_here() == Some(true) {
        summary.push_str(
            " This side closes them and no TIME_WAIT is left: it resets them (SO_LINGER 0), or tcp_max_tw_buckets keeps no more.",
        );
    } else {
        summary.push_str(" The other side closes them, so no TIME_WAIT is left here.");
    }
    if let Some(sizing) = advice.sizing {
        summary.push_str(&format!(
            " A pool of {} would carry them.",
            counted(sizing.pool, "connection", "connections")
        ));
    }
    Finding {
        code: RULE.code,
        // A proxy before a program on the same host does this all day and is none the worse for it.
        severity: if harmless {
            Severity::Info
        } else {
            Severity::Warning
        },
        confidence: if opens.basis == Basis::Counted {
            Confidence::Certain
        } else {
            Confidence::Likely
        },
        title: match who {
            Some(comm) => format!(
                "{comm} opens {at_least}{} connections a second to {to}",
                number(opens.per_second)
            ),
            None => format!(
                "{}{} connections a second are opened to {to}",
                capital(at_least),
                number(opens.per_second)
            ),
        },
        subject: tuple.subject(),
        summary,
        evidence: tuple
            .evidence()
            .with("opens_are_a_lower_bound", opens.lower_bound)
            .maybe("concurrency_mean", tuple.mean_concurrency().map(rounded))
            .with("concurrency_peak", tuple.peak_concurrency())
            .maybe(
                "lifetime_seconds",
                advice.sizing.map(|s| rounded(s.lifetime_seconds)),
            )
            .with(
                "closed_first_by",
                if tuple.closes_here() == Some(true) {
                    "this side"
                } else {
                    "the other side"
                },
            )
            .maybe("closed_here", tuple.seen.as_ref().map(|s| s.closed_here))
            .maybe("closed_there", tuple.seen.as_ref().map(|s| s.closed_there))
            .maybe("ports_without_pool", advice.sizing.map(|s| s.ports_unpooled))
            .maybe("nat_ports_without_pool", advice.sizing.map(|s| s.nat_unpooled))
            .maybe("pool_size", advice.sizing.map(|s| s.pool))
            .maybe("ports_with_pool", advice.sizing.map(|s| s.ports_pooled))
            .maybe("further_destinations", (further > 0).then_some(further)),
        impact: if harmless {
            "Some processor time for each request. On the loopback the kernel gives the ports to new connections, and no NAT or \
             firewall is on the way."
                .to_owned()
        } else {
            burden(tuple, &advice)
        },
        candidates: Vec::new(),
        fixes: advice.fixes,
        first_seen: tuple.fresh().next().map_or(s.at, |s| s.at),
        last_seen: s.at,
        count: u32::try_from(tuple.fresh().count()).unwrap_or(u32::MAX),
    }
}

fn burden(tuple: &Tuple<'_>, advice: &Advice) -> String {
    format!(
        "Each request waits for a new connection first{}. The load holds up to {} local ports here and as many entries in \
         the NATs and firewalls on the way.",
        if tuple.key.destination.port() == 443 {
            ", a round trip for TCP and one or two for TLS"
        } else {
            ""
        },
        advice
            .sizing
            .map_or_else(|| count(tuple.sample.held), |s| count(s.ports_unpooled)),
    )
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Look, Scene, look, opened};
    use super::*;

    /// A look each second.
    fn looks(each: impl Fn(u32) -> Look) -> Scene {
        (0..5).fold(Scene::new(), |scene, i| scene.look(i, each(i)))
    }

    #[test]
    fn a_minute_of_churn() {
        let scene = looks(|_| look().time_wait(2400).established(2)).process(812, "node", &[]);
        let f = scene.check(&RULE).remove(0);
        assert_eq!(
            (f.severity, f.confidence),
            (Severity::Warning, Confidence::Likely)
        );
        assert_eq!(f.title, "40 connections a second are opened to 203.0.113.9:443");
        for (name, expected) in [
            ("opens_per_second", 40.0),
            ("lifetime_seconds", 0.05),
            ("ports_without_pool", 2402.0),
            ("pool_size", 7.0),
        ] {
            assert_eq!(
                f.evidence.get(name).and_then(|v| v.as_f64()),
                Some(expected),
                "{name}"
            );
        }
        assert_eq!(f.fixes[0].expect.get("ports_in_use"), Some(&7.into()));
    }

    #[test]
    fn the_owner_is_named_and_its_runtime_advised() {
        let scene = looks(|i| look().time_wait(2400).established(2).inodes(&[i, i + 1])).process(
            812,
            "node",
            &[1, 2],
        );
        let f = scene.check(&RULE).remove(0);
        assert_eq!(f.title, "node opens 40 connections a second to 203.0.113.9:443");
        assert!(
            f.fixes[0]
                .snippet
                .as_deref()
                .unwrap_or_default()
                .contains("maxSockets: 7")
        );
    }

    #[test]
    fn counted_connections_need_no_trace_in_the_table() {
        let counted = |scene: Scene| {
            (1..5).fold(scene, |s, i| {
                s.connects(i, opened(u64::from(i) * 40, u64::from(i) * 40))
            })
        };
        for (name, scene, closer) in [
            ("nothing left", counted(looks(|_| look())), "this side"),
            (
                "TIME_WAIT",
                counted(looks(|i| look().time_wait(40 * i))),
                "this side",
            ),
        ] {
            let f = scene.check(&RULE).remove(0);
            assert_eq!(f.confidence, Confidence::Certain, "{name}");
            assert_eq!(
                f.title, "node opens 40 connections a second to 203.0.113.9:443",
                "{name}"
            );
            assert_eq!(
                f.evidence.get("opens_measured_by"),
                Some(&"counted".into()),
                "{name}"
            );
            assert_eq!(f.evidence.get("lifetime_seconds"), Some(&0.02.into()), "{name}");
            assert_eq!(f.evidence.get("closed_first_by"), Some(&closer.into()), "{name}");
            assert!(
                f.fixes[0].why.contains("measured at each connect"),
                "{:?}",
                f.fixes[0]
            );
        }
    }

    #[test]
    fn closed_by_the_other_side() {
        let scene = looks(|i| {
            look()
                .established(6)
                .inodes(&(i * 6..i * 6 + 6).collect::<Vec<_>>())
        });
        let f = scene.check(&RULE).remove(0);
        assert!(
            f.title.starts_with("At least 6 connections a second"),
            "{}",
            f.title
        );
        assert_eq!(f.evidence.get("closed_first_by"), Some(&"the other side".into()));
    }

    #[test]
    fn silent_near_misses() {
        for (name, scene) in [
            ("four a second", looks(|_| look().time_wait(240))),
            ("a pool that fills", looks(|i| look().established(100 * i))),
            (
                "a program that ended",
                looks(|_| look().time_wait(600).rate_class(600)),
            ),
            ("long ones", looks(|_| look().time_wait(600).established(900))),
            (
                "a steady pool",
                looks(|_| look().established(40).inodes(&(0..40).collect::<Vec<_>>())),
            ),
            ("UDP", looks(|i| look().udp(6, 6).inodes(&[i * 6]))),
        ] {
            assert_eq!(scene.check(&RULE), Vec::new(), "{name}");
        }
    }

    #[test]
    fn one_trouble_is_one_finding() {
        for (time_wait, code, folded) in [
            (
                28_232,
                "ports-exhausted",
                vec!["connection-churn", "timewait-pileup"],
            ),
            (27_000, "ports-low", vec!["connection-churn", "timewait-pileup"]),
            (9_000, "connection-churn", vec!["timewait-pileup"]),
            (2_400, "connection-churn", vec![]),
        ] {
            let all = looks(|_| look().time_wait(time_wait)).evaluate();
            let codes: Vec<_> = all.findings.iter().map(|f| f.code).collect();
            let under: Vec<_> = all.suppressed.iter().map(|s| s.finding.code).collect();
            assert_eq!((codes, under), (vec![code], folded), "{time_wait}");
        }
    }

    #[test]
    fn what_the_kernel_reuses_leaves_the_churn_to_be_told() {
        let scene = (0..5).fold(Scene::new(), |s, i| {
            s.look_from(i, "127.0.0.1", look().time_wait(28_232).rate_class(9000))
        });
        let all = scene.evaluate();
        assert_eq!(
            all.findings
                .iter()
                .map(|f| (f.code, f.severity))
                .collect::<Vec<_>>(),
            vec![("connection-churn", Severity::Info)],
            "a reverse proxy and what is behind it"
        );
        assert!(!all.findings[0].impact.contains("local ports here"));
    }
}

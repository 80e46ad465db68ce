//! `ports-exhausted`: no local port is left for a (source, destination). By the failed connects themselves where eBPF counts them,
//! and by occupancy: a failed `connect` leaves no trace in any counter (measured on Linux 6.18: 500 failures, no field of
//! /proc/net moved).

use super::denied;
use super::tuple::{Tuple, tuples};
use crate::finding::{Confidence, Finding, Severity};
use crate::observation::Source;
use crate::pooling::Remedy;
use crate::rules::{Area, Input, Rule};
use crate::track::connects::NoPort;
use crate::track::sockets::Sample;
use crate::types::Proto;
use crate::words::{count, counted};

/// The rule.
pub const RULE: Rule = Rule {
    code: "ports-exhausted",
    area: Area::Ports,
    severity: "critical",
    holds_when: "no free local port is left for connections from one source address to one destination address and port",
    meaning: "Every outgoing connection needs a local port, and the kernel takes it from a range (28,232 ports unless it was \
changed). A port can serve many destinations at a time, but towards one and the same address and port only once. When \
all of them are held, each new connection to that destination fails at once with EADDRNOTAVAIL, “Cannot assign requested \
address”, while connections elsewhere work. Mostly the ports are not in use at all: a connection that this side \
closes leaves its port in TIME_WAIT for 60 seconds, so a program that opens a connection per request can open \
470 a second and no more.",
    detection: "Where eBPF is available, each `connect` that fails for want of a port is counted in the kernel, with its process and \
destination (`errno_eaddrnotavail`), and told from refused, timed-out and unreachable ones: one such failure is proof, and the finding \
`certain`. So is each `connect` or `sendto` of a UDP socket that fails with EAGAIN because it was given no port (`errno_eagain`), and \
each `bind` to any port that fails with EADDRINUSE (`errno_eaddrinuse`): a program that binds before it connects holds a port for \
one connection, whatever its destination.\n\nBesides, sockets are counted by source address, destination and state (`sock_diag`), TIME_WAIT included, against \
the range (`ip_local_port_range`) less reserved ports and less the ports of listeners. It is `certain` where every \
port was held at a look, `likely` where the last few may be held in a way that a table of sockets does not show, or \
where the table changed while it was read. TIME_WAIT sockets that the kernel would reuse (`tcp_tw_reuse`; by default on \
loopback only) do not count as held.\n\nNot seen in the table: sockets that are bound but not connected, \
and ranges that a program sets for itself (IP_LOCAL_PORT_RANGE). Both make ports run out earlier than occupancy can tell.",
    fix: "Reuse connections: the finding names the pool's size. Where CLOSE_WAIT holds the ports, the program leaks \
connections; where SYN_SENT does, the destination is dead. A wider range, `tcp_tw_reuse` and more addresses give room, \
not a cure.",
    needs: &[&[Source::Sockets], &[Source::Host]],
    explained_by: &[],
    check,
};

/// Short of full by this share, the rest is taken to be held where the table does not show it: 28 ports of the default
/// range, none of a range under 1,000.
pub const NEARLY_ALL: f64 = 0.999;

/// Whether the tuple had no port left at `sample`.
pub fn full(tuple: &Tuple<'_>, sample: &Sample) -> bool {
    let blocked = tuple.blocked(sample);
    blocked > 0 && tuple.usable.share(blocked) >= NEARLY_ALL
}

fn check(input: &Input<'_>) -> Vec<Finding> {
    let holds = |t: &&Tuple<'_>| {
        t.no_port().is_some() || t.usable.share(t.blocked(&t.sample)) >= input.thresholds.ports_warning
    };
    let all = tuples(input);
    let mut found = all
        .iter()
        .filter(|t| t.concerned())
        .filter(holds)
        .filter_map(finding)
        .collect();
    denied::add(input, &mut found);
    found
}

fn finding(tuple: &Tuple<'_>) -> Option<Finding> {
    let looks: Vec<&Sample> = tuple.fresh().filter(|s| full(tuple, s)).collect();
    let refused = tuple.no_port();
    // With a failure as proof, the fullest look tells what holds the ports even where it was not quite full.
    let candidates = if looks.is_empty() {
        refused?;
        tuple.fresh().collect()
    } else {
        looks.clone()
    };
    let fullest = candidates.into_iter().max_by_key(|s| tuple.blocked(s));
    let tuple = &fullest.map_or_else(|| tuple.clone(), |s| tuple.at(s));
    let fullest = &tuple.sample;
    let times = looks.iter().map(|s| s.at);
    let first_seen = times.clone().chain(refused.map(|r| r.first)).min()?;
    let last_seen = times.chain(refused.map(|r| r.last)).max()?;
    let every_one = tuple.blocked(fullest) >= tuple.usable.ports;
    let advice = tuple.advice();
    let to = tuple.key.destination;
    let fails = match tuple.key.proto {
        Proto::Tcp => "A new connection to it",
        Proto::Udp => "A new UDP socket, whatever its destination,",
    };
    let left = tuple.usable.ports.saturating_sub(fullest.held);
    let mut summary = match refused {
        Some(refused) => refused_words(tuple, refused, advice.remedy),
        None => format!(
            "{} {fails} fails at once with {}.",
            tuple.held_words(advice.remedy),
            tuple.errno()
        ),
    };
    if left > 0 && refused.is_none() {
        summary.push_str(&format!(
            " The last {} may be held by sockets that are bound without being connected.",
            counted(left, "port", "ports")
        ));
    }
    Some(Finding {
        code: RULE.code,
        severity: Severity::Critical,
        confidence: if refused.is_some() || (every_one && !tuple.inexact) {
            Confidence::Certain
        } else {
            Confidence::Likely
        },
        title: format!(
            "{} to {to} are used up",
            if tuple.key.proto == Proto::Tcp {
                "Ports"
            } else {
                "UDP ports"
            }
        ),
        subject: tuple.subject(),
        summary,
        evidence: tuple
            .evidence()
            .maybe("pool_size", advice.sizing.map(|s| s.pool))
            .with("looks_without_a_free_port", looks.len()),
        impact: format!(
            "New connections from {} to {to} fail; those that are open carry on, and other destinations are not concerned.",
            tuple.key.source
        ),
        candidates: Vec::new(),
        fixes: advice.fixes,
        first_seen,
        last_seen,
        count: u32::try_from(looks.len())
            .unwrap_or(u32::MAX)
            .max(refused.map_or(0, |r| u32::try_from(r.count).unwrap_or(u32::MAX))),
    })
}

/// Short of full by this share although connects failed, the table does not show what holds the ports.
const NOT_SHOWN: f64 = 0.9;

/// Who was turned away how often, and what holds the ports as far as that is seen.
fn refused_words(tuple: &Tuple<'_>, refused: &NoPort, remedy: Remedy) -> String {
    let to = tuple.key.destination;
    let who = format!(
        "{} (pid {}){} found no free local port for {} to {to}: connect failed at once with {}.",
        refused.process.comm,
        refused.process.pid,
        match refused.processes.saturating_sub(1) {
            0 => String::new(),
            n => format!(" with {}", counted(n, "other process", "other processes")),
        },
        counted(
            u32::try_from(refused.count).unwrap_or(u32::MAX),
            "connection",
            "connections"
        ),
        tuple.errno()
    );
    if tuple.usable.share(tuple.sample.held) >= NOT_SHOWN {
        return format!("{who} {}", tuple.held_words(remedy));
    }
    format!(
        "{who} Only {} of {} ports are held by connections to it when looked at, so the program keeps to fewer ports \
         (IP_LOCAL_PORT_RANGE), other sockets are bound to the rest, or it was full for a moment between two looks.",
        count(tuple.sample.held),
        count(tuple.usable.ports)
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, look, opened, start};
    use super::*;
    use crate::observation::connect::ConnectRow;
    use crate::time::Span;

    /// node was turned away so often, last at this second.
    fn refused(count: u64, last: u64) -> ConnectRow {
        let mut row = opened(40, 40);
        row.attempts += count;
        row.failed.no_port = count;
        row.failed.no_port_first = Some(start());
        row.failed.no_port_last = Some(start() + Span::from_secs(last));
        row
    }

    #[test]
    fn a_failed_connect_is_proof_whatever_the_table_shows() {
        for (name, look, words) in [
            ("full", look().time_wait(28_232), "28,232 of 28,232"),
            ("nearly full", look().time_wait(27_500), "27,500 of 28,232"),
            ("not full at all", look().time_wait(300), "Only 300 of 28,232"),
            ("nothing there", look(), "Only 0 of 28,232"),
        ] {
            let scene = Scene::new().look(4, look).connects(4, refused(37, 3));
            let found = scene.evaluate().findings;
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            let f = &found[0];
            assert_eq!((f.code, f.confidence), (RULE.code, Confidence::Certain), "{name}");
            assert_eq!(f.evidence.get("errno_eaddrnotavail"), Some(&37.into()), "{name}");
            assert!(f.summary.starts_with("node (pid 812)"), "{name}: {}", f.summary);
            assert!(f.summary.contains(words), "{name}: {}", f.summary);
        }
    }

    #[test]
    fn what_several_processes_met_is_not_put_on_one() {
        let mut other = refused(5, 3);
        other.process.pid = 813;
        let scene = Scene::new()
            .look(4, look())
            .connects(4, refused(37, 3))
            .connects(4, other);
        let f = scene.check(&RULE).remove(0);
        assert!(
            f.summary.starts_with(
                "node (pid 812) with 1 other process found no free local port for 42 connections"
            ),
            "{}",
            f.summary
        );
        assert_eq!(f.evidence.get("errno_eaddrnotavail"), Some(&42.into()));
    }

    #[test]
    fn a_passer_by_is_not_blamed_for_the_pile() {
        let pile = |row| Scene::new().look(4, look().time_wait(28_232)).connects(4, row);
        // What 28,232 TIME_WAITs take is 470 a second.
        for (opens, blamed) in [(1, false), (800, false), (1000, true)] {
            let f = pile(opened(opens, opens)).check(&RULE).remove(0);
            assert_eq!(f.summary.contains("node"), blamed, "{opens}: {}", f.summary);
        }
    }

    #[test]
    fn failures_of_long_ago_and_other_failures_are_no_proof() {
        let old = Scene::new().look(100, look()).connects(100, refused(37, 3));
        let mut others = refused(0, 3);
        others.failed.refused = 9;
        others.failed.tuple_taken = 9;
        others.failed.given_up = 9;
        let others = Scene::new().look(4, look()).connects(4, others);
        for (name, scene) in [("long ago", old), ("others", others)] {
            assert_eq!(scene.check(&RULE), Vec::new(), "{name}");
        }
    }

    #[test]
    fn fires_when_every_port_is_held() {
        let scene = Scene::new().look(0, look().time_wait(27_904).established(328).rate_class(4650));
        let found = scene.check(&RULE);
        assert_eq!(found.len(), 1);
        let f = &found[0];
        assert_eq!(
            (f.severity, f.confidence),
            (Severity::Critical, Confidence::Certain)
        );
        assert_eq!(f.title, "Ports to 203.0.113.9:443 are used up");
        assert_eq!(f.evidence.get("in_use"), Some(&28_232.into()));
        assert_eq!(f.evidence.get("available"), Some(&28_232.into()));
        assert!(
            f.summary.contains("28,232 of 28,232") && f.summary.contains("EADDRNOTAVAIL"),
            "{}",
            f.summary
        );
        assert!(
            f.fixes[0].title.starts_with("Reuse connections"),
            "{:?}",
            f.fixes[0]
        );
    }

    #[test]
    fn silent_near_misses() {
        for (name, scene) in [
            ("99.8 %", Scene::new().look(0, look().time_wait(28_180))),
            (
                "another source's ports",
                Scene::new().look(0, look().time_wait(20_000)).look_from(
                    0,
                    "10.0.0.3",
                    look().time_wait(20_000),
                ),
            ),
            (
                "range unknown",
                Scene::new().without_range().look(0, look().time_wait(28_232)),
            ),
            (
                "TIME_WAIT that is reused",
                Scene::new().reuse(1).look(0, look().time_wait(28_232)),
            ),
            (
                "an hour ago",
                Scene::new()
                    .look(0, look().time_wait(28_232))
                    .look(3600, look().time_wait(10)),
            ),
            (
                "gone",
                Scene::new().look(0, look().time_wait(28_232)).empty_look(2),
            ),
        ] {
            assert_eq!(scene.check(&RULE), Vec::new(), "{name}");
        }
    }

    #[test]
    fn a_full_look_among_others_counts() {
        // TIME_WAITs expire in batches, so a table that is full most of the time has ports left at some looks.
        let scene = Scene::new()
            .look(0, look().time_wait(28_232))
            .look(1, look().time_wait(28_232))
            .look(2, look().time_wait(27_500));
        let f = scene.check(&RULE).remove(0);
        assert_eq!((f.count, f.last_seen.since(f.first_seen).as_secs()), (2, 1));
        assert_eq!(f.evidence.get("in_use"), Some(&28_232.into()));
    }

    #[test]
    fn certain_only_where_nothing_is_in_doubt() {
        for (name, scene, expected) in [
            (
                "the last few",
                Scene::new().look(0, look().time_wait(28_220)),
                Confidence::Likely,
            ),
            (
                "an inexact table",
                Scene::new().look(0, look().time_wait(28_232).inexact()),
                Confidence::Likely,
            ),
            (
                "listeners and reserved ports",
                Scene::new()
                    .reserve(40_000, 40_004)
                    .look(0, look().time_wait(28_224).listening(3)),
                Confidence::Certain,
            ),
        ] {
            let found = scene.check(&RULE);
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!(found[0].confidence, expected, "{name}");
        }
    }

    #[test]
    fn young_time_waits_block_even_where_old_ones_are_reused() {
        let scene = Scene::new()
            .reuse(1)
            .look(0, look().established(28_000).time_wait(232).rate_class(232));
        // 23 of the newest class are younger than a second.
        assert_eq!(scene.check(&RULE), Vec::new());
        let scene = Scene::new().reuse(1).look(0, look().established(28_232));
        assert_eq!(scene.check(&RULE).len(), 1);
    }

    #[test]
    fn the_cause_follows_the_states() {
        for (look, words) in [
            (look().established(28_232), "all in use at once"),
            (look().close_wait(28_232), "CLOSE_WAIT"),
            (look().syn_sent(28_232), "SYN_SENT"),
        ] {
            let f = Scene::new().look(0, look).check(&RULE).remove(0);
            assert!(f.summary.contains(words), "{}", f.summary);
        }
    }

    #[test]
    fn a_rate_is_told_only_of_what_keeps_on() {
        for (name, look, words) in [
            (
                "a minute of it",
                look().time_wait(28_232),
                "closes about 471 connections a second",
            ),
            (
                "a burst just now",
                look().time_wait(28_232).rate_class(28_232),
                "closed 28,232 connections to it within the last 10 s",
            ),
            (
                "all of it a while ago",
                look().time_wait(28_232).rate_class(0),
                "become free by themselves",
            ),
        ] {
            let f = Scene::new().look(0, look).check(&RULE).remove(0);
            assert!(f.summary.contains(words), "{name}: {}", f.summary);
        }
    }

    #[test]
    fn udp_is_shared_by_all_destinations() {
        let f = Scene::new()
            .look(0, look().udp(28_000, 28_232))
            .check(&RULE)
            .remove(0);
        assert!(
            f.title.starts_with("UDP ports") && f.summary.contains("EAGAIN"),
            "{}",
            f.summary
        );
        // This one holds little: whoever holds the rest is to blame.
        assert_eq!(
            Scene::new().look(0, look().udp(10, 28_232)).check(&RULE),
            Vec::new()
        );
    }

    #[test]
    fn missing_sources_are_not_a_clear() {
        let scene = Scene::new()
            .unavailable(Source::Sockets)
            .look(0, look().time_wait(28_232));
        assert_eq!(scene.not_checked(&RULE), vec![Source::Sockets]);
    }

    #[test]
    fn commands_are_for_the_namespace_that_was_observed() {
        let f = Scene::new()
            .netns("blue")
            .look(0, look().time_wait(28_232))
            .check(&RULE)
            .remove(0);
        let commands: Vec<&str> = f.fixes.iter().filter_map(|x| x.command.as_deref()).collect();
        assert!(commands.len() > 1, "{commands:?}");
        for line in commands.iter().flat_map(|c| c.lines()) {
            assert!(line.starts_with("ip netns exec blue "), "{line}");
        }
    }
}

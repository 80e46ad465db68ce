//! `udp-ports-low`: UDP sockets hold most of the local ports, and with UDP a port serves one socket only.

use super::exhausted::NEARLY_ALL;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::rules::forecast::Outlook;
use crate::rules::shell::here;
use crate::rules::{Area, Input, Rule, process_ref};
use crate::time::Span;
use crate::track::sockets::usable::Usable;
use crate::types::Proto;
use crate::words::{count, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "udp-ports-low",
    area: Area::Ports,
    severity: "warning",
    holds_when: "UDP sockets hold most of the local ports",
    meaning: "A UDP socket that is not bound by its program gets a port from the same range as TCP connections (28,232 of them unless \
it was changed), but holds it alone: a TCP port serves many destinations at a time, a UDP port one socket, whatever its destination. \
When the last is taken, connect and sendto of a new socket fail with EAGAIN, “Resource temporarily unavailable”, which programs \
take for a full buffer. Name resolution fails first, for every query wants a socket of its own.",
    detection: "Distinct local UDP ports inside the range, less reserved ones, at each look at the socket table (`sock_diag` or an eBPF \
iterator), connected or not. The time to exhaustion is told where the looks lie on a line.",
    fix: "Use one socket for many destinations (sendto instead of connect), close sockets when an answer has come, and put a caching \
resolver before programs that ask for names often.",
    needs: &[&[Source::Sockets], &[Source::Host]],
    explained_by: &["ports-exhausted"],
    check,
};

/// A straight line is not trusted further ahead than this.
const HORIZON: Span = Span::from_secs(600);

fn check(input: &Input<'_>) -> Vec<Finding> {
    finding(input).into_iter().collect()
}

fn finding(input: &Input<'_>) -> Option<Finding> {
    let world = input.world;
    let (at, tally) = world.sockets.newest()?;
    let taken = tally.udp_ports_in_range;
    let usable = Usable::of(world.sysctls.as_ref()?, tally, Proto::Udp, taken)?;
    let share = usable.share(taken);
    let denied = world
        .connects
        .denied()
        .any(|d| d.proto == Proto::Udp && d.port.is_none());
    // Used up is another finding.
    if share < input.thresholds.ports_warning || share >= NEARLY_ALL || denied {
        return None;
    }
    let outlook = Outlook::of(
        world.sockets.udp_trend(),
        taken.into(),
        usable.ports.into(),
        None,
        HORIZON,
    );
    let mine = world.sockets.destinations().filter_map(|(key, history)| {
        let sample = history
            .newest()
            .filter(|s| s.at == at && key.proto == Proto::Udp)?;
        Some((sample.held, key, history))
    });
    // Named where one destination has most of them: else there is no one to blame.
    let most = mine
        .max_by_key(|(held, key, _)| (*held, *key))
        .filter(|(held, ..)| u64::from(*held) * 2 > u64::from(taken));
    let owner = most.and_then(|(_, key, history)| world.owner(key, history));
    let mut summary = format!(
        "{} of {} local UDP ports are taken, each by one socket.",
        count(taken),
        count(usable.ports)
    );
    if let Some((held, key, _)) = most {
        let who = owner.as_ref().map_or_else(
            || "sockets".to_owned(),
            |o| format!("sockets of {} (pid {})", o.process.comm, o.process.pid),
        );
        summary.push_str(&format!(
            " {} of them are held by {who} connected to {}.",
            count(held),
            key.destination
        ));
    }
    if let Some(outlook) = outlook {
        summary.push(' ');
        summary.push_str(&outlook.sentence("none is left"));
    }
    let evidence = Evidence::new()
        .with("in_use", taken)
        .with("available", usable.ports)
        .with("share", rounded(share))
        .maybe("held_by_destination", most.map(|(held, ..)| held))
        .maybe("reserved_ports", (usable.reserved > 0).then_some(usable.reserved));
    Some(Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: if tally.inexact { Confidence::Likely } else { Confidence::Certain },
        title: format!("{} of the local UDP ports are taken", percent(share)),
        subject: most.map_or(Subject::Host, |(_, key, _)| Subject::Destination {
            proto: Proto::Udp,
            source: Some(key.source),
            address: key.destination.ip(),
            port: key.destination.port(),
            process: owner.as_ref().map(|o| process_ref(&o.process)),
        }),
        summary,
        evidence: match outlook {
            Some(outlook) => outlook.evidence(evidence),
            None => evidence,
        },
        impact: "When none is left, connect and sendto of new UDP sockets fail with EAGAIN, whatever their destination; name \
                 resolution is what fails first."
            .to_owned(),
        candidates: Vec::new(),
        fixes: fixes(input),
        first_seen: at,
        last_seen: at,
        count: 1,
    })
}

/// What to change where UDP ports are short; `ports-exhausted` says the same.
pub fn fixes(input: &Input<'_>) -> Vec<Fix> {
    let host = input.world.host.as_ref();
    vec![
        Fix {
            title: "See whose sockets these are".to_owned(),
            why: "Sockets that stay after their answer are a leak in the program; a socket per query wants a cache before it.".to_owned(),
            command: Some(here(host, "ss -Hunap | grep -o 'users:((\"[^\"]*' | sort | uniq -c | sort -rn | head")),
            ..Fix::default()
        },
        Fix {
            title: "Use one socket for many destinations".to_owned(),
            why: "A socket that is not connected sends to any destination by sendto and holds one port for all of them.".to_owned(),
            snippet: Some(
                "s = socket(AF_INET, SOCK_DGRAM); s.sendto(query, server_a); s.sendto(query, server_b)    # one port".to_owned(),
            ),
            ..Fix::default()
        },
        Fix {
            title: "For name resolution: a cache on this host".to_owned(),
            why: "A resolver library opens a socket for each query. With a cache (systemd-resolved, dnsmasq, nscd) most queries need \
                  none that lives for longer than a moment."
                .to_owned(),
            ..Fix::default()
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, look};
    use super::*;

    #[test]
    fn by_share_of_all_udp_ports() {
        for (taken, fires) in [(19_000, false), (19_800, true), (28_100, true), (28_232, false)] {
            let found = Scene::new().look(0, look().udp(10, taken)).check(&RULE);
            assert_eq!(found.len(), usize::from(fires), "{taken}");
        }
    }

    #[test]
    fn one_destination_is_named_where_it_has_most() {
        let found = |held| {
            Scene::new()
                .look(0, look().udp(held, 20_000))
                .check(&RULE)
                .remove(0)
        };
        assert_eq!(found(10).subject, Subject::Host);
        let f = found(15_000);
        assert_eq!(f.subject.kind(), "destination");
        assert!(f.summary.contains("15,000 of them"), "{}", f.summary);
        // And `ports-low` does not tell the same once more.
        let all = Scene::new()
            .look(0, look().udp(20_000, 20_000))
            .evaluate()
            .findings;
        assert_eq!(all.iter().map(|f| f.code).collect::<Vec<_>>(), [RULE.code]);
    }

    #[test]
    fn the_time_left_is_told_where_it_grows() {
        let scene = (0..6).fold(Scene::new(), |s, i| s.look(i, look().udp(10, 20_000 + i * 500)));
        let f = scene.check(&RULE).remove(0);
        assert!(
            f.evidence.get("exhausted_in_seconds").is_some(),
            "{:?}",
            f.evidence
        );
        assert!(f.summary.contains("none is left in"), "{}", f.summary);
    }
}

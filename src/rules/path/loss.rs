//! `path-loss`: attempts towards a target are lost.

use std::net::IpAddr;

use super::{PATHS, against, finding, mtu, others, paths, told};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix};
use crate::observation::path::{Failure, Stage};
use crate::observation::target::Method;
use crate::rules::fly::mesh_unreachable;
use crate::rules::{Area, Input, Rule};
use crate::track::paths::Path;
use crate::track::stats;
use crate::words::{count, counted, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "path-loss",
    area: Area::Paths,
    severity: "warning",
    holds_when: "a share of the attempts towards a named target is lost, or all are, and that is more than chance",
    meaning: "Packets to this target, or their answers, do not arrive. Connections that cross the path stall for the time of \
              each retransmission, and TCP halves its rate at each loss; when all is lost, nothing works.",
    detection: "Attempts without an answer in time, or answered by an ICMP unreachable, as a share with its 95 % confidence \
                interval (Wilson's): one lost packet of ten is no finding. A refusal (a reset, a closed port) is an answer, and hosts \
                limit those of closed UDP ports: silence beside them alone is not counted. \
                Targets that are measured at the same time tell where: what all lose is lost near this host, what one loses \
                is lost near it. Many hosts answer no ICMP echo at all; where TCP or UDP to the same host is answered, the silence \
                is a filter's and no finding. Where the TCP handshake is answered and then nothing, that is said: the path \
                is not dead then. With the agent's history (`wgnat path --store`) the share is compared with what is usual.",
    fix: "Trace it with `wgnat path --hops TARGET`: loss that begins at a hop and stays on all later ones begins there. What \
          only one hop loses is that router's own limit on answers.\n\nWhere all targets lose, look at this host's link first: \
          `ip -s link` counts errors and drops.",
    needs: PATHS,
    explained_by: &[],
    check,
};

/// Losses below which a share says nothing, whatever its interval.
pub(super) const LEAST: u32 = 2;

fn check(input: &Input<'_>) -> Vec<Finding> {
    // Where nobody answers over Fly's private network, that is one finding and not one for each machine.
    let together = !mesh_unreachable::silent(input).is_empty();
    paths(input)
        .filter(|path| !(together && path.sample.sibling.is_some()))
        .filter_map(|path| judge(input, path))
        .collect()
}

fn judge(input: &Input<'_>, path: &Path) -> Option<Finding> {
    let (share, low, high) = path.now.loss()?;
    if path.now.lost < LEAST || low <= input.thresholds.path_loss_share {
        return None;
    }
    let all = path.now.answered == 0;
    let name = path.sample.target.to_string();
    if all && matches!(path.sample.target.method, Method::Icmp) && answers_otherwise(input, path) {
        return None;
    }
    let refuser = unreachable(path);
    let silent = silent(path);
    if mtu::swallows(path) {
        // One cause, one finding: `path-mtu` tells it.
        return None;
    }
    let mut f = finding(RULE.code, path, Confidence::Certain);
    f.count = path.now.lost;
    f.title = match (&refuser, all) {
        _ if silent.is_some() && all => format!("{name} takes connections and says nothing"),
        (Some((_, says)), true) => format!("{name} is not reachable: {says}"),
        (_, true) => format!("Nothing comes back from {name}"),
        (_, false) => format!("{} of the attempts to {name} are lost", percent(share)),
    };
    f.summary = format!(
        "{} of {} to {name} got no answer{}. {}",
        count(path.now.lost),
        counted(path.now.lost + path.now.answered, "attempt", "attempts"),
        if all {
            String::new()
        } else {
            format!(" (95 % sure: {} to {} of all)", percent(low), percent(high))
        },
        compared(input, path),
    );
    if let Some((from, says)) = &refuser {
        let who = from.map_or_else(|| "This host's kernel".to_owned(), |from| from.to_string());
        f.summary = format!("{} {who} says “{says}”.", f.summary.trim_end());
    }
    if let Some((stage, n)) = silent {
        let connect = stats::median(path.stage(Stage::Connect).unwrap_or_default());
        f.summary = format!(
            "{} In {} the connection was made{} and then {} did not come: small packets pass in both directions, so this is no \
             dead path.",
            f.summary.trim_end(),
            counted(n, "attempt", "attempts"),
            connect.map_or_else(String::new, |took| format!(" (in {})", told(took))),
            awaited(stage),
        );
    }
    let history = path.usual.as_ref().and_then(|usual| Some((usual, usual.loss?)));
    if let Some((usual, before)) = history {
        let compared = against(&percent(before), "mean", usual.over, &percent(share));
        let verdict = if low > before {
            "That is worse than usual"
        } else {
            "That is as usual here"
        };
        f.summary = format!("{} {verdict}: {compared}.", f.summary.trim_end());
    }
    f.evidence = Evidence::new()
        .with("attempts", path.now.sent)
        .with("lost", path.now.lost)
        .with("loss_share", rounded(share))
        .with("loss_share_low", rounded(low))
        .with("loss_share_high", rounded(high))
        .maybe(
            "icmp_from",
            refuser.as_ref().and_then(|(from, _)| from.map(|a| a.to_string())),
        )
        .maybe("icmp", refuser.as_ref().map(|(_, says)| says.clone()))
        .maybe("connected_then_silent", silent.map(|(_, n)| n))
        .maybe("usual_loss_share", history.map(|(_, share)| rounded(share)));
    f.impact = if all {
        "Whatever needs this target does not work from here.".to_owned()
    } else {
        "Connections over this path stall at each loss and run slower than the link.".to_owned()
    };
    if silent.is_some() {
        f.candidates = after_the_connection(path);
    } else if all && refuser.is_none() {
        f.candidates = candidates(path);
    }
    f.fixes = vec![Fix {
        title: "Find where it is lost".to_owned(),
        why: "Loss that begins at one hop and stays on all later ones begins there.".to_owned(),
        command: Some(format!("wgnat path --hops --count 50 '{name}'")),
        ..Fix::default()
    }];
    Some(f)
}

/// Whether another target at the same address answered.
fn answers_otherwise(input: &Input<'_>, path: &Path) -> bool {
    let Some(address) = path.sample.address else {
        return false;
    };
    let dns = super::resolvers(input).map(|(other, _)| other);
    others(input, path)
        .chain(dns)
        .any(|other| other.sample.address == Some(address) && other.reached())
}

/// The ICMP error that came back most.
fn unreachable(path: &Path) -> Option<(Option<IpAddr>, String)> {
    let errors = path
        .sample
        .failures
        .iter()
        .filter_map(|(failure, n)| match failure {
            Failure::Unreachable { from, says } => Some((*n, *from, says)),
            _ => None,
        });
    errors
        .max_by_key(|(n, _, _)| *n)
        .map(|(_, from, says)| (from, says.clone()))
}

/// What connected attempts waited for in vain, and how many; `None` where they are fewer than half of those lost.
pub(super) fn silent(path: &Path) -> Option<(Stage, u32)> {
    let failures = path.sample.failures.iter();
    let (stage, n) = failures
        .filter_map(|(failure, n)| match failure {
            Failure::Silent(stage) => Some((*stage, *n)),
            _ => None,
        })
        .max_by_key(|(_, n)| *n)?;
    (n * 2 >= path.now.lost).then_some((stage, n))
}

/// What a connected attempt that ended in `stage` waited for.
pub(super) fn awaited(stage: Stage) -> &'static str {
    match stage {
        Stage::TlsHandshake => "the TLS handshake's answer",
        _ => "the answer's first byte",
    }
}

/// What may be wrong where the connection is made and nothing follows.
fn after_the_connection(path: &Path) -> Vec<Candidate> {
    let host = &path.sample.target.host;
    let port = path.sample.target.method.port().unwrap_or_default();
    vec![
        Candidate {
            cause: "the server hangs, or takes connections into its queue and serves none".to_owned(),
            code: None,
            settle: format!(
                "on the server, `ss -tln 'sport = :{port}'`: Recv-Q is the queue that nobody accepts from"
            ),
        },
        Candidate {
            cause: "large packets are lost on the way: the handshake's are small, a certificate's are not"
                .to_owned(),
            code: Some("path-mtu"),
            settle: format!("`wgnat path --mtu {host}`"),
        },
        Candidate {
            cause: "something on the way takes connections in the server's place, or drops what it inspects"
                .to_owned(),
            code: None,
            settle: "on the server, see whether the request arrives: `tcpdump -ni any port PORT`"
                .replace("PORT", &port.to_string()),
        },
    ]
}

fn compared(input: &Input<'_>, path: &Path) -> String {
    let (mut clean, mut lossy) = (0_u64, 0_u64);
    for other in others(input, path) {
        match other.now.loss() {
            Some((_, low, _)) if other.now.lost >= LEAST && low > input.thresholds.path_loss_share => {
                lossy += 1
            }
            Some(_) => clean += 1,
            None => {}
        }
    }
    match (clean, lossy) {
        (0, 0) => String::new(),
        (0, _) => "All targets measured at the same time lose packets: what they share is to blame, first of all this host's own \
                   link."
            .to_owned(),
        (n, 0) => format!(
            "{} measured at the same time {} none: it is lost on the way to this one, or at it.",
            counted(n, "other target", "other targets"),
            if n == 1 { "loses" } else { "lose" },
        ),
        (n, m) => format!(
            "Of the other targets measured at the same time {m} {} packets too and {n} {} not.",
            if m == 1 { "loses" } else { "lose" },
            if n == 1 { "does" } else { "do" },
        ),
    }
}

fn candidates(path: &Path) -> Vec<Candidate> {
    let host = &path.sample.target.host;
    let mut candidates = vec![
        Candidate {
            cause: "a firewall on the way or at the target drops the packets or their answers".to_owned(),
            code: None,
            settle: "on the target, see whether they arrive: `tcpdump -ni any host THIS_HOST`".to_owned(),
        },
        Candidate {
            cause: "the target is down, or its address is not in use".to_owned(),
            code: None,
            settle: format!(
                "ask another host on its network, or `wgnat path --hops {host}`: the last hop that answers"
            ),
        },
    ];
    match path.sample.target.method {
        Method::Icmp => candidates.push(Candidate {
            cause: "it does not answer ICMP echo, and works otherwise".to_owned(),
            code: None,
            settle: format!("`wgnat path {host} tcp:{host}:PORT` with a port that it serves"),
        }),
        Method::Udp(port) => candidates.push(Candidate {
            cause: format!(
                "what listens on UDP port {port} answers no STUN request, and the port is not closed"
            ),
            code: None,
            settle: "name a port that nobody listens on: it is refused, which is an answer".to_owned(),
        }),
        _ => {}
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Paths, failures};
    use super::*;
    use crate::observation::path::Failure::{Refused, Timeout};
    use crate::observation::path::PathMtu;

    #[test]
    fn loss_beyond_chance_is_named_and_chance_is_not() {
        for (lost, answered, fires) in [
            (1, 9, false),
            (2, 8, true),
            (1, 99, false),
            (3, 97, false),
            (10, 90, true),
            (0, 10, false),
        ] {
            let found = Paths::new()
                .add("192.0.2.1", answered, 10, &failures(Timeout, lost))
                .check(&RULE);
            assert_eq!(!found.is_empty(), fires, "{lost} of {}", lost + answered);
        }
    }

    #[test]
    fn silence_after_the_connection_is_told_from_a_dead_path() {
        let found = Paths::new()
            .silent("tls:192.0.2.1:443", Stage::TlsHandshake, 10)
            .check(&RULE);
        assert!(
            found[0].title.contains("takes connections and says nothing"),
            "{}",
            found[0].title
        );
        assert!(found[0].summary.contains("no dead path"), "{}", found[0].summary);
        let codes: Vec<_> = found[0].candidates.iter().filter_map(|c| c.code).collect();
        assert_eq!(codes, ["path-mtu"]);
        // An echo that is not answered beside it is a filter's.
        let echo = Paths::new()
            .silent("tls:192.0.2.1:443", Stage::TlsHandshake, 10)
            .add("192.0.2.1", 0, 0, &failures(Timeout, 10));
        assert_eq!(echo.check(&RULE).len(), 1);
    }

    #[test]
    fn silence_that_a_black_hole_explains_is_the_black_hole_s() {
        let large = |lost, told| PathMtu {
            interface: 1500,
            passed: if lost { 1200 } else { 1500 },
            lost: lost.then_some(1201),
            told,
        };
        for (mtu, losses, mtus) in [
            (large(true, None), 0, 1),
            (large(true, Some(1200)), 1, 0),
            (large(false, None), 1, 0),
        ] {
            let world = Paths::new().silent_and_sized("tls:192.0.2.1:443", 10, mtu);
            let found = world.check(&RULE).len();
            let holes = world.check(&mtu::RULE);
            assert_eq!((found, holes.len()), (losses, mtus), "{mtu:?}");
            for hole in holes {
                assert_eq!(hole.evidence.get("connected_then_silent"), Some(&10.into()));
                assert!(hole.summary.contains("explains 10 attempts"), "{}", hole.summary);
            }
        }
    }

    #[test]
    fn its_history_tells_whether_loss_is_news() {
        for (before, verdict) in [
            (0.0, "worse than usual: usual 0 % (mean over 24 h), now 50 %"),
            (0.5, "as usual here"),
        ] {
            let found = Paths::new()
                .usual("192.0.2.1", Some((10, 12)), None, Some(before))
                .add("192.0.2.1", 5, 10, &failures(Timeout, 5))
                .check(&RULE);
            assert!(found[0].summary.contains(verdict), "{}", found[0].summary);
        }
    }

    #[test]
    fn a_refusal_is_an_answer() {
        assert!(
            Paths::new()
                .add("tcp:192.0.2.1:9", 0, 0, &failures(Refused, 10))
                .check(&RULE)
                .is_empty()
        );
    }

    #[test]
    fn silence_names_what_is_possible_and_a_router_that_speaks_ends_it() {
        let silent = Paths::new()
            .add("192.0.2.1", 0, 0, &failures(Timeout, 10))
            .check(&RULE);
        assert_eq!(silent[0].candidates.len(), 3);
        let says = Failure::Unreachable {
            from: Some("192.0.2.254".parse().unwrap()),
            says: "host unreachable".to_owned(),
        };
        let told = Paths::new()
            .add("192.0.2.1", 0, 0, &failures(says, 10))
            .check(&RULE);
        assert!(told[0].candidates.is_empty());
        assert!(
            told[0].summary.contains("192.0.2.254 says “host unreachable”"),
            "{}",
            told[0].summary
        );
    }

    #[test]
    fn echo_that_a_filter_drops_is_no_loss() {
        let found = Paths::new()
            .add("192.0.2.1", 0, 0, &failures(Timeout, 10))
            .add("tcp:192.0.2.1:443", 10, 10, &[])
            .check(&RULE);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn the_others_tell_where() {
        let one = Paths::new()
            .add("192.0.2.1", 5, 10, &failures(Timeout, 5))
            .add("192.0.2.2", 10, 10, &[])
            .check(&RULE);
        assert!(
            one[0].summary.contains("on the way to this one"),
            "{}",
            one[0].summary
        );
        let both = Paths::new()
            .add("192.0.2.1", 5, 10, &failures(Timeout, 5))
            .add("192.0.2.2", 5, 10, &failures(Timeout, 5))
            .check(&RULE);
        assert_eq!(both.len(), 2);
        assert!(
            both[0].summary.contains("this host's own link"),
            "{}",
            both[0].summary
        );
    }
}

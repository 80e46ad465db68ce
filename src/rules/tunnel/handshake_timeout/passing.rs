//! Handshakes that only pass this host and are not answered: on which side the silence is.
//!
//! In: [`Passing`] handshakes. Out: findings. A router sees neither device nor key, but it sees whether an initiation
//! went on, whether a response came, and whether that went back: so it can say on which side to look, and whether it is
//! itself what swallows them. Never above a warning: it is somebody else's tunnel.

use super::super::parties::{Passing, Try, passing};
use super::super::words::{count, here};
use super::CODE;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity};
use crate::rules::Input;
use crate::rules::captured::view::finding;
use crate::rules::tunnel::endpoint_unreachable::forward;

/// Findings that are made of it at most: a router may forward for thousands.
const MOST: usize = 20;

/// Where an attempt is last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The initiation came in and did not go on.
    HereOnTheWayThere,
    /// It went on, and nothing came back.
    Responder,
    /// The response came and did not go on.
    HereOnTheWayBack,
}

impl Side {
    fn of(attempt: &Try) -> Self {
        match attempt {
            Try { answer_in: true, .. } => Self::HereOnTheWayBack,
            Try { went_out: true, .. } => Self::Responder,
            _ => Self::HereOnTheWayThere,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::HereOnTheWayThere => "this-host-forward",
            Self::Responder => "responder",
            Self::HereOnTheWayBack => "this-host-back",
        }
    }
}

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    let needed = usize::try_from(input.thresholds.unanswered_attempts).unwrap_or(usize::MAX);
    let passing = passing(input);
    let failing = passing.iter().filter_map(|p| {
        let run = p.failed_run(input.now());
        let first = run.first()?;
        // The other side's handshake will do as well.
        let holds = run.len() >= needed && !p.initiator.came_up_since(first.at);
        holds.then(|| report(input, p, run))
    });
    failing.take(MOST).collect()
}

fn report(input: &Input<'_>, p: &Passing<'_>, run: &[Try]) -> Finding {
    let (from, to) = (p.initiator.end.address, p.initiator.responder);
    let (first, last) = (run.first().map(|t| t.at), run.last().map(|t| t.at));
    let seen = (
        first.unwrap_or(input.world.started),
        last.unwrap_or(input.world.now),
    );
    let sides: Vec<Side> = run.iter().map(Side::of).collect();
    let one = sides
        .first()
        .copied()
        .filter(|first| sides.iter().all(|s| s == first));
    let levels = (Severity::Warning, Confidence::Certain);
    let mut f = finding(CODE, levels, p.initiator.subject(), seen);
    let n = run.len() as u64;
    f.count = u32::try_from(n).unwrap_or(u32::MAX);
    f.title = format!("{from} gets no handshake answer from {to}");
    let forwards = run.iter().any(|t| t.came_in);
    f.summary = format!(
        "{} to {to}, seen here{}. {}",
        count(n, "handshake attempt"),
        match (p.translated, forwards) {
            (Some(other), _) => format!(" and translated to {other}"),
            (None, true) => " on the way".to_owned(),
            (None, false) => " as they left".to_owned(),
        },
        match one {
            Some(Side::HereOnTheWayThere) if p.ends_here() => format!(
                "{} is this host's own address: no device here has UDP port {}, and nothing forwards it.",
                to.ip(),
                to.port()
            ),
            Some(Side::HereOnTheWayThere) =>
                "This host did not pass them on: they came in by one interface and left by none.".to_owned(),
            Some(Side::Responder) => format!(
                "They left here and nothing came back, so the silence is on {to}'s side: there, or on the way to it or \
                 from it."
            ),
            Some(Side::HereOnTheWayBack) =>
                "Responses came, and this host did not pass them on to the initiator.".to_owned(),
            None => "Some were lost on one side and some on the other.".to_owned(),
        }
    );
    f.impact = "The two have no session, or none any more when the old one is 180 s old.".to_owned();
    let of = |side: Side| sides.iter().filter(|s| **s == side).count() as u64;
    f.evidence = Evidence::new()
        .with("unanswered_attempts", n)
        .maybe("silent_side", one.map(Side::name))
        .with("addressed_to_this_host", p.ends_here())
        .with("not_passed_on", of(Side::HereOnTheWayThere))
        .with("passed_on_without_answer", of(Side::Responder))
        .with("answers_not_passed_on", of(Side::HereOnTheWayBack))
        .maybe("translated_to", p.translated.map(|a| a.to_string()));
    f.candidates = match one {
        Some(Side::Responder) => beyond(to),
        _ => Vec::new(),
    };
    let host = input.world.host.as_ref();
    f.fixes = vec![match one {
        Some(Side::HereOnTheWayThere) if p.ends_here() => forward(input, to),
        Some(Side::HereOnTheWayThere | Side::HereOnTheWayBack) => Fix {
            title: "Look at this host's own forwarding: firewall, routes, reverse path filtering".to_owned(),
            why: "What comes in and does not leave is dropped here. A rule's counter that grows with each attempt is it."
                .to_owned(),
            command: Some(here(host, "nft list ruleset")),
            ..Fix::default()
        },
        _ => Fix {
            title: format!("On {}, look whether the initiations arrive", to.ip()),
            why: "Nothing there: the way. 148-byte packets and no 92-byte answer: keys or clock. Answers leave: the way \
                  back."
                .to_owned(),
            command: Some(format!("tcpdump -ni any udp port {}", to.port())),
            ..Fix::default()
        },
    }];
    f
}

fn beyond(to: std::net::SocketAddr) -> Vec<Candidate> {
    let candidate = |cause: &str, code, settle: String| Candidate {
        cause: cause.to_owned(),
        code,
        settle,
    };
    vec![
        candidate(
            "UDP is dropped beyond this host, or the responder is off or drops it",
            None,
            format!("On {}: `tcpdump -ni any udp port {}`", to.ip(), to.port()),
        ),
        candidate(
            "The initiator has another public key for the responder",
            Some("wg-wrong-peer-key"),
            "wgnat doctor on the responder's host says it".to_owned(),
        ),
        candidate(
            "The responder does not know the initiator's key",
            Some("wg-unknown-initiator"),
            "wgnat doctor on the responder's host says it".to_owned(),
        ),
        candidate(
            "The initiator's clock went back",
            Some("wg-clock-replay"),
            "wgnat doctor on the responder's host says it".to_owned(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::*;
    use super::*;
    use crate::observation::device::Implementation::Kernel;

    const CLIENT: &str = "10.1.0.9:40000";
    const OUTSIDE: &str = "192.0.2.2:6000";
    const SERVER: &str = "203.0.113.5:51820";
    const THERE: Option<(&str, &str)> = Some((CLIENT, SERVER));
    const BACK: Option<(&str, &str)> = Some((SERVER, CLIENT));

    fn side(way: impl Fn(&mut Host, f64, u32)) -> Option<serde_json::Value> {
        let mut host = Host::new(Kernel);
        host.peers(0.0, Vec::new()).routed(0.1);
        for (index, secs) in [(1, 0.5), (2, 5.7), (3, 10.9)] {
            way(&mut host, secs, index);
        }
        host.until(17.0);
        let found = host.find(CODE)?;
        assert_eq!(found.severity, Severity::Warning);
        assert_eq!(
            found.subject,
            crate::rules::captured::view::peer(sock(SERVER), sock(CLIENT))
        );
        found.evidence.get("silent_side").cloned()
    }

    fn initiation(index: u32) -> Vec<u8> {
        let mut m = message(1, 148, &[index]);
        m[116..120].copy_from_slice(&index.to_le_bytes());
        m
    }

    #[test]
    fn the_side_of_the_silence_is_named() {
        let dropped_here = side(|host, at, n| {
            host.forwarded(at, THERE, None, &initiation(n));
        });
        assert_eq!(dropped_here, Some("this-host-forward".into()));
        let beyond = side(|host, at, n| {
            host.forwarded(at, THERE, THERE, &initiation(n));
        });
        assert_eq!(beyond, Some("responder".into()));
        let translated = side(|host, at, n| {
            host.forwarded(at, THERE, Some((OUTSIDE, SERVER)), &initiation(n));
        });
        assert_eq!(translated, Some("responder".into()));
        let dropped_back = side(|host, at, n| {
            host.forwarded(at, THERE, Some((OUTSIDE, SERVER)), &initiation(n));
            host.forwarded(
                at + 0.02,
                Some((SERVER, OUTSIDE)),
                None,
                &message(2, 92, &[n + 100, n]),
            );
        });
        assert_eq!(dropped_back, Some("this-host-back".into()));
    }

    #[test]
    fn what_is_answered_is_none() {
        let answered = side(|host, at, n| {
            host.forwarded(at, THERE, Some((OUTSIDE, SERVER)), &initiation(n));
            let back = message(2, 92, &[n + 100, n]);
            host.forwarded(at + 0.02, Some((SERVER, OUTSIDE)), BACK, &back);
        });
        assert_eq!(answered, None);
    }
}

//! `connect-timeout`: a share of new connections to a destination gets no answer at all.

use super::failing::{Failing, failing};
use crate::finding::{Candidate, Confidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::observation::nat::Family;
use crate::rules::own_drops::OwnDrops;
use crate::rules::shell::here;
use crate::rules::{Area, Input, Rule};
use crate::track::connects::Counts;
use crate::words::{count, counted};

/// The rule.
pub const RULE: Rule = Rule {
    code: "connect-timeout",
    area: Area::Ports,
    severity: "warning",
    holds_when: "a share of the new connections to one destination gets no answer",
    meaning: "The first packet of a connection (SYN) leaves, and nothing comes back: neither an answer nor a refusal. The kernel \
sends it again after 1, 3, 7 … seconds and gives up after about two minutes (ETIMEDOUT); most programs give up earlier. Until then \
each attempt holds a local port. Who answers nothing is switched off, is behind a firewall that drops (this host's own may be it), has \
its queue of new connections full, or the answer is lost on the way back.",
    detection: "Counted in the kernel by eBPF, with process and destination: connects that end in ETIMEDOUT, EHOSTUNREACH or \
ENETUNREACH; those that the process gives up after the first packet had to be sent again; and those that wait now and have been sent \
again. An attempt that is given up before its first retransmission (a second) says nothing and is not counted. The finding stands \
where at least three of a minute's connects and at least a tenth of them are among these; `certain` where enough of them have \
ended, `likely` while they wait. Where the kernel counts as many retransmissions that never left this host (TcpExt.TCPRetransFail), it is \
this host that drops them.",
    fix: "Find out how far the packets come. A lower connect time-out in the client sets ports free earlier.",
    needs: &[&[Source::Bpf]],
    // On the NAT's own host, and on one whose table is full, the first packets of its own connections vanish too.
    explained_by: &["upstream-nat-exhausted", "snat-ports-exhausted", "conntrack-full"],
    check,
};

/// Connects that ended without an answer.
fn ended(counts: &Counts) -> u64 {
    counts.timed_out + counts.unreachable + counts.unanswered
}

fn check(input: &Input<'_>) -> Vec<Finding> {
    let failures = |counts: &Counts, waiting: u64| {
        // Each that waits and was sent again; no more of them than were sent again and have not ended so.
        let sent_again = counts.syn_retransmits.saturating_sub(ended(counts));
        ended(counts) + waiting.min(sent_again)
    };
    failing(input, failures)
        .into_iter()
        .map(|f| finding(input, &f))
        .collect()
}

fn finding(input: &Input<'_>, f: &Failing) -> Finding {
    let to = f.key.destination;
    let counts = &f.recent.counts;
    let waiting = f.failed.saturating_sub(ended(counts));
    let known = ended(counts) >= input.thresholds.connect_failed_least;
    let host = input.world.host.as_ref();
    let waits = match waiting {
        0 => String::new(),
        n => format!(
            " {} still for an answer.",
            counted(n, "of them waits", "of them wait")
        ),
    };
    let unreachable = match counts.unreachable {
        0 => String::new(),
        n => format!(
            " For {} the network said that there is no way (EHOSTUNREACH or ENETUNREACH): nobody there answers to the address, or a \
             router has no route.",
            counted(n, "connection", "connections")
        ),
    };
    let own = OwnDrops::of(input, Family::of(to.ip()));
    let here_words = if own.outbound() {
        " Of the first packets that were sent again, as many never left this host: its own firewall refuses them."
    } else {
        ""
    };
    Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: if known {
            Confidence::Certain
        } else {
            Confidence::Likely
        },
        title: format!("{} connections to {to} get no answer", f.share_words()),
        subject: f.subject(),
        summary: format!(
            "{} got no answer to {} of {} connections to {to} within {}.{waits}{unreachable}{here_words}",
            f.who(),
            count(f.failed),
            count(counts.attempts),
            f.over_words()
        ),
        evidence: f
            .evidence()
            .with("errno_etimedout", counts.timed_out)
            .with("errno_unreachable", counts.unreachable)
            .with("given_up_unanswered", counts.unanswered)
            .with("waiting", waiting)
            .with("syn_retransmits", counts.syn_retransmits)
            .maybe("not_sent_here", own.outbound().then_some(own.not_sent)),
        impact: format!(
            "{} waits for each of these connections, a second at least, and each holds a local port meanwhile.",
            f.process.comm
        ),
        candidates: candidates(to, &own),
        fixes: vec![
            Fix {
                title: "See which way the packets leave, and how far they come".to_owned(),
                why:
                    "The first line shows the route that they take; the second who on the way still answers."
                        .to_owned(),
                command: Some(format!(
                    "{}\n{}",
                    here(host, &format!("ip route get {}", to.ip())),
                    here(host, &format!("traceroute -n -T -p {} {}", to.port(), to.ip()))
                )),
                ..Fix::default()
            },
            f.back_off(),
        ],
        first_seen: f.first_seen(input),
        last_seen: input.now(),
        count: f.count(),
    }
}

/// What may be the cause, and what settles each. Where all that was sent again stayed here, nothing beyond this host can be.
fn candidates(to: std::net::SocketAddr, own: &OwnDrops) -> Vec<Candidate> {
    let mut all = Vec::new();
    if own.outbound() {
        all.push(Candidate {
            cause: "This host's own firewall drops the packets on their way out".to_owned(),
            code: None,
            settle: "nft list ruleset; iptables-save: the hooks output and postrouting; and network policies of a container's host"
                .to_owned(),
        });
        if own.not_sent * 10 >= own.syns_again * 9 {
            return all;
        }
    }
    if own.inbound() {
        all.push(Candidate {
            cause: "This host drops the answers: its firewall on the way in, or rp_filter".to_owned(),
            code: None,
            settle: format!(
                "tcpdump -ni any 'tcp and src host {} and tcp[13] == 18': answers that are seen here arrived",
                to.ip()
            ),
        });
    }
    all.extend([
        Candidate {
            cause: "The destination is down, or nobody has that address".to_owned(),
            code: None,
            settle: format!("ping {}, and connections to other ports there", to.ip()),
        },
        Candidate {
            cause: "A firewall on the way drops the packets".to_owned(),
            code: None,
            settle: format!("a capture at {}: the SYN does not arrive", to.ip()),
        },
        Candidate {
            cause: "The service's queue of new connections is full".to_owned(),
            code: None,
            settle: format!(
                "at the destination: ss -Htln 'sport = :{}' (Recv-Q reaches Send-Q), nstat -az TcpExtListenOverflows",
                to.port()
            ),
        },
        Candidate {
            cause: "Answers are lost on the way back: another route, or a NAT that has no room"
                .to_owned(),
            code: None,
            settle: "a capture at both ends: the SYN arrives and its answer leaves".to_owned(),
        },
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, opened};
    use super::*;
    use crate::observation::connect::ConnectRow;

    fn row(attempts: u64, change: impl FnOnce(&mut ConnectRow)) -> ConnectRow {
        let mut row = opened(0, 0);
        row.attempts = attempts;
        change(&mut row);
        row
    }

    #[test]
    fn what_counts_as_no_answer() {
        for (name, row, expected) in [
            (
                "ETIMEDOUT",
                row(3, |r| r.failed.timed_out = 3),
                Some(Confidence::Certain),
            ),
            (
                "unreachable",
                row(3, |r| r.failed.unreachable = 3),
                Some(Confidence::Certain),
            ),
            (
                "given up late",
                row(5, |r| {
                    (r.failed.given_up, r.failed.unanswered, r.syn_retransmits) = (5, 5, 8)
                }),
                Some(Confidence::Certain),
            ),
            (
                "waits and was sent again",
                row(5, |r| (r.open, r.syn_retransmits) = (5, 9)),
                Some(Confidence::Likely),
            ),
            ("given up at once", row(9, |r| r.failed.given_up = 9), None),
            ("waits for a moment", row(9, |r| r.open = 9), None),
            ("two", row(2, |r| r.failed.timed_out = 2), None),
            ("refused", row(9, |r| r.failed.refused = 9), None),
            ("no port", row(9, |r| r.failed.no_port = 9), None),
        ] {
            let found = Scene::new().connects(5, row).check(&RULE);
            assert_eq!(found.first().map(|f| f.confidence), expected, "{name}");
        }
    }

    #[test]
    fn a_lost_packet_now_and_then_is_no_time_out() {
        // Sent again and established after all.
        let mut row = opened(100, 100);
        row.syn_retransmits = 30;
        assert_eq!(Scene::new().connects(5, row).check(&RULE), Vec::new());
    }

    #[test]
    fn it_names_the_process_and_what_would_settle_the_cause() {
        let f = Scene::new()
            .connects(5, row(4, |r| r.failed.timed_out = 4))
            .check(&RULE)
            .remove(0);
        assert_eq!(f.title, "All connections to 203.0.113.9:443 get no answer");
        assert!(
            f.summary.starts_with("node (pid 812) got no answer to 4 of 4"),
            "{}",
            f.summary
        );
        assert_eq!((f.candidates.len(), f.severity), (4, Severity::Warning));
        assert!(f.candidates.iter().all(|c| !c.settle.is_empty()));
    }
}

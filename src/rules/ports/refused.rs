//! `connect-refused`: a share of new connections to a destination is answered with a reset.

use super::failing::{Failing, failing};
use crate::finding::{Candidate, Confidence, Finding, Fix, Severity};
use crate::observation::Source;
use crate::rules::shell::here;
use crate::rules::{Area, Input, Rule};
use crate::track::connects::Counts;
use crate::track::sockets::usable::on_loopback;
use crate::words::count;

/// The rule.
pub const RULE: Rule = Rule {
    code: "connect-refused",
    area: Area::Ports,
    severity: "warning",
    holds_when: "a share of the new connections to one destination is refused",
    meaning: "Something said no: a reset or an ICMP “port unreachable” came back instead of an answer, and `connect` failed \
with ECONNREFUSED. Mostly the destination was reached and nothing listens on that port: the service is down, restarts, listens on \
another port or at another address (on 127.0.0.1 only, say). A firewall that rejects looks the same, and so does a load balancer \
without a live server behind it; in Kubernetes the rules of this very host reject what goes to a service without ready endpoints. It is \
no want of ports.",
    detection: "Each connect that fails with ECONNREFUSED is counted in the kernel by eBPF, with its process and destination: proof. \
The finding stands where at least three of a minute's connects and at least a tenth of them were refused.",
    fix: "Find out at the destination what listens on the port. In the client, wait longer from one attempt to the next.",
    needs: &[&[Source::Bpf]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    failing(input, |c: &Counts, _| c.refused)
        .into_iter()
        .map(|f| finding(input, &f))
        .collect()
}

fn finding(input: &Input<'_>, f: &Failing) -> Finding {
    let to = f.key.destination;
    let host = input.world.host.as_ref();
    let here_too = on_loopback(&f.key) || f.key.source == to.ip();
    let listeners = format!("ss -Htlnp 'sport = :{}'", to.port());
    let look = Fix {
        title: if here_too {
            format!("See what listens on port {} of this host", to.port())
        } else {
            format!("See, at {}, what listens on port {}", to.ip(), to.port())
        },
        why: "No line: the service does not run, or it listens on another port. A line with 127.0.0.1 or another address than \
              the one called: it listens there only. A line that fits: a firewall before it answers in its place."
            .to_owned(),
        command: Some(if here_too { here(host, &listeners) } else { listeners }),
        ..Fix::default()
    };
    Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence: Confidence::Certain,
        title: format!("{} connections to {to} are refused", f.share_words()),
        subject: f.subject(),
        summary: format!(
            "{} was refused {} of {} connections to {to} within {} (ECONNREFUSED): the answer was that nothing takes connections on \
             port {} of {}.",
            f.who(),
            count(f.failed),
            count(f.recent.counts.attempts),
            f.over_words(),
            to.port(),
            to.ip()
        ),
        evidence: f.evidence().with("errno_econnrefused", f.failed),
        impact: format!("What {} wants from {to} does not happen, or happens later.", f.process.comm),
        candidates: vec![
            Candidate {
                cause: "Nothing listens there: the service is down, restarts, or listens on another port or address".to_owned(),
                code: None,
                settle: format!("ss -Htln 'sport = :{}' at the destination", to.port()),
            },
            Candidate {
                cause: "A firewall or load balancer answers in its place: on the way, or this host's own rules (kube-proxy's, for a \
                        service without ready endpoints)"
                    .to_owned(),
                code: None,
                settle: format!(
                    "{} shows own rules; a capture at the destination, whether the SYN arrives there",
                    here(host, "nft list ruleset | grep -w reject")
                ),
            },
        ],
        fixes: vec![look, f.back_off()],
        first_seen: f.first_seen(input),
        last_seen: input.now(),
        count: f.count(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, opened};
    use super::*;

    fn refused(attempts: u64, refused: u64) -> Scene {
        let mut row = opened(attempts - refused, 0);
        row.attempts = attempts;
        row.failed.refused = refused;
        Scene::new().connects(5, row)
    }

    #[test]
    fn fires_on_a_share_that_is_no_accident() {
        for (attempts, failed, fires) in [
            (3, 3, true),
            (2, 2, false),
            (100, 9, false),
            (100, 10, true),
            (1000, 3, false),
        ] {
            let found = refused(attempts, failed).check(&RULE);
            assert_eq!(found.len(), usize::from(fires), "{failed} of {attempts}");
        }
        let f = refused(30, 30).check(&RULE).remove(0);
        assert_eq!(
            (f.severity, f.confidence),
            (Severity::Warning, Confidence::Certain)
        );
        assert_eq!(f.title, "All connections to 203.0.113.9:443 are refused");
        assert!(
            f.summary.starts_with("node (pid 812) was refused 30 of 30"),
            "{}",
            f.summary
        );
        assert_eq!(f.evidence.get("errno_econnrefused"), Some(&30.into()));
    }

    #[test]
    fn who_is_refused_is_named_and_not_who_connects_most() {
        let mut mostly = opened(100, 100);
        mostly.process.pid = 4000;
        mostly.process.comm = "curl".to_owned();
        let mut row = opened(0, 0);
        (row.attempts, row.failed.refused) = (30, 30);
        let f = Scene::new().connects(5, mostly.clone()).connects(5, row.clone());
        let f = f.check(&RULE).remove(0);
        assert!(
            f.summary.starts_with("node (pid 812) was refused 30 of 130"),
            "{}",
            f.summary
        );
        // Both are: the other is not left out.
        mostly.attempts += 10;
        mostly.failed.refused = 10;
        let f = Scene::new().connects(5, mostly).connects(5, row);
        let f = f.check(&RULE).remove(0);
        assert!(
            f.summary
                .starts_with("node (pid 812) with 1 other process was refused 40 of 140"),
            "{}",
            f.summary
        );
    }

    #[test]
    fn other_failures_and_old_ones_are_not_it() {
        let mut row = opened(0, 0);
        row.attempts = 50;
        (row.failed.timed_out, row.failed.no_port, row.failed.given_up) = (10, 20, 20);
        assert_eq!(Scene::new().connects(5, row).check(&RULE), Vec::new());
        // All of them before the last minute.
        let mut row = opened(0, 0);
        row.attempts = 50;
        row.failed.refused = 50;
        let scene = (0..3).fold(Scene::new(), |s, i| s.connects(5 + i * 50, row.clone()));
        assert_eq!(scene.check(&RULE), Vec::new());
    }

    #[test]
    fn where_causes_are_not_told_it_is_silent() {
        let mut row = opened(0, 0);
        (row.attempts, row.failed.other) = (50, 50);
        assert_eq!(
            Scene::new().connects(5, row).causes_unknown().check(&RULE),
            Vec::new()
        );
        let scene = refused(30, 30).unavailable(Source::Bpf);
        assert_eq!(scene.not_checked(&RULE), vec![Source::Bpf]);
    }
}

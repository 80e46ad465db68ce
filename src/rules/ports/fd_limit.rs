//! `fd-limit`: a process nears its limit of open files with sockets. It looks like port exhaustion and is not.

use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::socket::ProcessFacts;
use crate::rules::shell::here;
use crate::rules::{Area, Input, Rule, process_ref};
use crate::time::{Span, Timestamp};
use crate::words::{count, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "fd-limit",
    area: Area::Ports,
    severity: "warning ≥ 80 %, critical ≥ 95 %",
    holds_when: "a process nears its own limit of open files, and most of what it has open are sockets",
    meaning: "Every socket is an open file, and each process may have only so many (often 1,024). At the limit it can neither connect \
nor accept: both fail with EMFILE, “Too many open files”. Seen from outside this looks like used-up ports, but it concerns one \
process and every destination, and no port is short.",
    detection: "Open descriptors in /proc/PID/fd, and how many of them are sockets, against the soft limit in /proc/PID/limits. \
Both are exact at the time of the look. The error tells the two troubles apart: EMFILE here, EADDRNOTAVAIL for ports.",
    fix: "See first whether the sockets are wanted: many in CLOSE_WAIT are a leak that fills any limit. Then raise the limit: \
`LimitNOFILE=` in the systemd unit, `ulimits` in Docker Compose, `prlimit` for a process that runs.",
    needs: &[&[Source::Processes]],
    explained_by: &[],
    check,
};

/// Facts older than this say nothing about a process now; it may have ended.
const FRESH: Span = Span::from_secs(60);

fn check(input: &Input<'_>) -> Vec<Finding> {
    let fresh = |at: &Timestamp| input.now().since(*at) <= FRESH;
    let all = input.world.processes.all();
    all.filter(|(at, _)| fresh(at))
        .filter_map(|(at, p)| finding(input, at, p))
        .collect()
}

fn finding(input: &Input<'_>, at: Timestamp, p: &ProcessFacts) -> Option<Finding> {
    let thresholds = input.thresholds;
    // "unlimited" comes as the greatest number or as none.
    let limit = u32::try_from(p.fd_limit?).ok().filter(|l| *l > 0)?;
    let share = f64::from(p.fds) / f64::from(limit);
    let sockets = f64::from(p.sockets) / f64::from(p.fds.max(1));
    if share < thresholds.fd_warning || sockets < thresholds.fd_socket_share {
        return None;
    }
    let critical = share >= thresholds.fd_critical;
    let sysctls = input.world.sysctls.as_ref();
    let most = sysctls.and_then(|s| s.others.get("fs.nr_open"));
    let most = most.and_then(|n| u64::try_from(*n).ok());
    let (wanted, first) = room(limit.into(), most);
    let full = p.fds >= limit;
    Some(Finding {
        code: RULE.code,
        severity: if critical { Severity::Critical } else { Severity::Warning },
        confidence: Confidence::Certain,
        title: format!(
            "{} (pid {}) has {} of {} files open, most of them sockets",
            p.comm,
            p.pid,
            count(p.fds),
            count(limit)
        ),
        subject: Subject::Process(process_ref(&p.into())),
        summary: format!(
            "{} (pid {}) has {} of the {} descriptors that it may have open ({}); {} are sockets. {} with EMFILE (“Too many open \
             files”). That is not a lack of ports, which shows as EADDRNOTAVAIL.",
            p.comm,
            p.pid,
            count(p.fds),
            count(limit),
            percent(share),
            count(p.sockets),
            if full { "connect and accept fail now" } else { "At the limit connect and accept fail" },
        ),
        evidence: Evidence::new()
            .with("open_files", p.fds)
            .with("limit", limit)
            .with("sockets", p.sockets)
            .with("share", rounded(share)),
        impact: "At the limit the process can neither open nor accept connections, nor open files, until it closes some.".to_owned(),
        candidates: Vec::new(),
        fixes: vec![
            Fix {
                title: "See which sockets these are".to_owned(),
                why: "Many in CLOSE_WAIT are a leak in the program, which fills any limit; many to one destination want a pool with \
                      an upper bound."
                    .to_owned(),
                command: Some(here(
                    input.world.host.as_ref(),
                    &format!(
                        "ss -Htanp | grep 'pid={},' | awk '{{print $1, $5}}' | sort | uniq -c | sort -rn | head",
                        p.pid
                    ),
                )),
                ..Fix::default()
            },
            Fix {
                title: format!("Raise the limit to {}", count(wanted)),
                why: "The command is for the process that runs; as root it lifts the hard limit too where that is lower. The setting \
                      is for the next start (Docker Compose: `ulimits: {nofile: …}`). A program that uses select() must stay at 1,024."
                    .to_owned(),
                // Both limits at once would lower a hard limit that is higher, for good.
                command: Some(format!(
                    "{first}prlimit --pid {0} --nofile={wanted}: || prlimit --pid {0} --nofile={wanted}:{wanted}",
                    p.pid
                )),
                snippet: Some(format!("# systemctl edit UNIT\n[Service]\nLimitNOFILE={wanted}")),
                expect: Evidence::new().with("limit", wanted),
            },
        ],
        first_seen: at,
        last_seen: at,
        count: 1,
    })
}

/// The limit to set instead of `limit`, and what must come before it: no process may have more than `fs.nr_open`.
fn room(limit: u64, most: Option<u64>) -> (u64, String) {
    let wanted = limit.saturating_mul(4).max(65_536);
    match most {
        Some(most) if most > limit => (wanted.min(most), String::new()),
        Some(_) => (wanted, format!("sysctl -w fs.nr_open={wanted} && ")),
        None => (wanted, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scene;
    use super::*;

    fn process(fds: u32, sockets: u32, fd_limit: Option<u64>) -> ProcessFacts {
        ProcessFacts {
            pid: 812,
            start_ticks: 1,
            comm: "node".to_owned(),
            exe: None,
            runtime: None,
            fds,
            sockets,
            fd_limit,
        }
    }

    #[test]
    fn by_share_and_kind() {
        use Severity::{Critical, Warning};
        for (name, facts, expected) in [
            ("room", process(818, 800, Some(1024)), None),
            ("near", process(820, 800, Some(1024)), Some(Warning)),
            ("nearer", process(980, 900, Some(1024)), Some(Critical)),
            ("full", process(1024, 900, Some(1024)), Some(Critical)),
            ("files, not sockets", process(1000, 400, Some(1024)), None),
            ("unlimited", process(1_000_000, 1_000_000, Some(u64::MAX)), None),
            ("limit unreadable", process(1024, 900, None), None),
            ("no limit at all", process(0, 0, Some(0)), None),
        ] {
            let found = Scene::new().facts(facts).check(&RULE);
            assert_eq!(found.first().map(|f| f.severity), expected, "{name}");
        }
    }

    #[test]
    fn it_is_told_apart_from_ports() {
        let f = Scene::new()
            .facts(process(1024, 900, Some(1024)))
            .check(&RULE)
            .remove(0);
        assert!(
            f.summary.contains("EMFILE") && f.summary.contains("fail now"),
            "{}",
            f.summary
        );
        assert!(
            f.fixes[1]
                .command
                .as_deref()
                .unwrap_or_default()
                .contains("--pid 812")
        );
    }

    #[test]
    fn the_new_limit_is_one_that_can_be_set() {
        assert_eq!(room(1024, Some(1_048_576)), (65_536, String::new()));
        assert_eq!(room(524_288, Some(1_048_576)), (1_048_576, String::new()));
        assert_eq!(
            room(1_048_576, Some(1_048_576)),
            (4_194_304, "sysctl -w fs.nr_open=4194304 && ".to_owned())
        );
        // The soft limit first: the hard one of a systemd service is 524,288 already.
        let f = Scene::new()
            .facts(process(1024, 900, Some(1024)))
            .check(&RULE)
            .remove(0);
        let command = f.fixes[1].command.as_deref().unwrap_or_default();
        assert!(
            command.starts_with("prlimit --pid 812 --nofile=65536: ||"),
            "{command}"
        );
    }

    #[test]
    fn without_processes_it_is_not_checked() {
        let scene = Scene::new()
            .unavailable(Source::Processes)
            .facts(process(1024, 900, Some(1024)));
        assert_eq!(scene.not_checked(&RULE), vec![Source::Processes]);
    }
}

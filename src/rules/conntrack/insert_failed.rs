//! `conntrack-insert-failed`: entries cannot be put into the table, and no NAT range explains it.

use super::counters::{Failures, failures, when};
use super::remedies;
use super::snat;
use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::rules::shell::here;
use crate::rules::{Area, Input, Rule};
use crate::track::natpool::{DEFAULT_RANGE, NatUse};
use crate::words::{count, counted, number, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "conntrack-insert-failed",
    area: Area::Conntrack,
    severity: "warning, critical when sustained",
    holds_when: "entries cannot be inserted into the connection tracking table, and the packet is lost with them",
    meaning: "The first packet of a connection makes an entry in the conntrack table once it has passed all rules. If \
another entry with the same addresses and ports got there first, or NAT found no free port, the packet is dropped in silence. \
Well known is the pair of DNS questions (A and AAAA) that a program sends from one socket at the same moment: one of \
them is lost, and the look-up takes five seconds.",
    detection: "The counter `insert_failed` moved while watched, so the failures are certain. The cause is told by its neighbours: \
`found` soaring is NAT without free ports (`snat-ports-exhausted`), `chain_toolong` a hash table too small, neither a race of \
two packets.",
    fix: "For DNS: a caching resolver on the host, or `options single-request-reopen` in resolv.conf (glibc). For long hash chains: \
more buckets. For NAT: see `snat-ports-exhausted`.",
    needs: &[&[Source::Conntrack]],
    explained_by: &["snat-ports-exhausted"],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    failures(input)
        .and_then(|f| finding(input, &f))
        .into_iter()
        .collect()
}

fn finding(input: &Input<'_>, f: &Failures) -> Option<Finding> {
    let state = &input.world.conntrack;
    let (first_seen, last_seen, looks) = when(state, |l| l.moved.insert_failed > 0)?;
    // One burst is not sustained, however large.
    let all = state.looks().count().saturating_sub(1);
    let sustained = f.per_second >= input.thresholds.insert_failed_critical_per_second
        && looks >= 2
        && usize::try_from(looks).is_ok_and(|n| n * 2 >= all);
    let chains = f.moved.chain_toolong * 2 >= f.failed;
    // Each failure but those of ctnetlink and of dying entries drops its packet.
    let lost = f.moved.drop * 10 >= f.failed * 9 || chains;
    let nat = Nat::of(input);
    let why = if chains {
        "Most were refused because a hash chain was too long: the table has too few buckets for its entries, or somebody picks \
         colliding addresses."
    } else if !lost {
        "Not all of them dropped a packet, as a clash does: entries died while they were inserted (connections are flushed, \
         helpers loaded), or a program such as conntrackd inserted them."
    } else {
        "Another entry with the same addresses and ports was there first."
    };
    Some(Finding {
        code: RULE.code,
        severity: if sustained { Severity::Critical } else { Severity::Warning },
        confidence: Confidence::Certain,
        title: format!(
            "{} could not be tracked{}",
            counted(f.failed, "connection", "connections"),
            if lost { " and lost a packet" } else { "" }
        ),
        subject: Subject::Conntrack,
        summary: format!(
            "{} failed while watched ({} a second){}. {why}",
            counted(f.failed, "insertion into the conntrack table", "insertions into the conntrack table"),
            number(f.per_second),
            if lost { ", and the packet was lost each time" } else { "" },
        ),
        evidence: Evidence::new()
            .with("insert_failed", f.failed)
            .with("insert_failed_per_second", rounded(f.per_second))
            .with("drop", f.moved.drop)
            .with("found", f.moved.found)
            .with("clash_resolve", f.moved.clash_resolve)
            .with("chain_toolong", f.moved.chain_toolong),
        impact: "The first packet of these connections is lost. TCP tries again after a second; DNS look-ups take five seconds or \
                 fail."
            .to_owned(),
        candidates: if chains { Vec::new() } else { candidates(f, nat) },
        fixes: if chains { vec![remedies::buckets(input)] } else { races(input, nat) },
        first_seen,
        last_seen,
        count: looks,
    })
}

/// What the table says of NAT on this host.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Nat {
    /// The table could not be read.
    Unseen,
    /// It translates nothing.
    None,
    /// It translates; the fullest range holds this share of its ports.
    Fullest(f64),
    /// It translates flows from ports below 1024, among others: for these NAT chooses below 1024 too.
    LowPorts(f64),
}

impl Nat {
    fn of(input: &Input<'_>) -> Self {
        let Some(ranges) = snat::ranges(input) else {
            return Self::Unseen;
        };
        let fullest = ranges.iter().map(|range| range.share()).reduce(f64::max);
        let low =
            |range: &NatUse<'_>| range.range.bounds().is_none() && range.tally.min_port < DEFAULT_RANGE.low;
        match fullest {
            None => Self::None,
            Some(share) if ranges.iter().any(low) => Self::LowPorts(share),
            Some(share) => Self::Fullest(share),
        }
    }
}

fn candidates(f: &Failures, nat: Nat) -> Vec<Candidate> {
    let mut list = Vec::new();
    if let Nat::LowPorts(_) = nat {
        list.push(Candidate {
            cause: "Flows from source ports below 1024 (NFS, rsh) find none: NAT gives these 424 ports (600 to 1023) or, from ports \
                    below 512, 511"
                .to_owned(),
            code: None,
            settle: "conntrack -L: entries whose last dport= (the NAT port) is below 1024".to_owned(),
        });
    }
    if let Nat::Fullest(share) | Nat::LowPorts(share) = nat {
        list.push(Candidate {
            cause: format!(
                "NAT gave two new flows one port at the same moment: it looks for a free one before it enters the flow. Ports are not \
                 short (the fullest destination has {} of its range in use)",
                percent(share)
            ),
            code: None,
            settle: "Let NAT choose ports at random (below): the failures become rare".to_owned(),
        });
    }
    if nat != Nat::Unseen && f.found_per_failure() >= snat::FOUND_LEAST {
        list.push(Candidate {
            cause: format!(
                "A NAT range was full when they failed and has emptied before the table was read: NAT met {} taken ports for each",
                number(f.found_per_failure())
            ),
            code: Some("snat-ports-exhausted"),
            settle: "run wgnat doctor again while it fails".to_owned(),
        });
    }
    list.push(Candidate {
        cause: "Two packets of one new UDP flow at the same moment, as with DNS questions for A and AAAA"
            .to_owned(),
        code: None,
        settle: "conntrack -S before and after `getent ahosts NAME`: insert_failed or clash_resolve moves"
            .to_owned(),
    });
    list.push(Candidate {
        cause: "The first packet of a flow came twice: doubled on the way, or sent again while a queue (NFQUEUE) held the first"
            .to_owned(),
        code: None,
        settle: "a capture here: the same SYN or datagram twice before any answer".to_owned(),
    });
    if nat == Nat::Unseen {
        list.push(Candidate {
            cause: format!(
                "NAT has few free ports towards some destination (it met {} taken ones)",
                count(f.moved.found)
            ),
            code: Some("snat-ports-exhausted"),
            settle: "run wgnat doctor as root while it fails, so that the table can be read: it shows the fullest destination"
                .to_owned(),
        });
    }
    list
}

fn races(input: &Input<'_>, nat: Nat) -> Vec<Fix> {
    let random = Fix {
        title: "Let NAT choose ports at random".to_owned(),
        why: "Plain masquerade keeps each client's source port, and so do two clients that use the same one at the same moment; of \
              random ports two are hardly ever the same. Entries that are there keep theirs."
            .to_owned(),
        command: Some(here(input.world.host.as_ref(), snat::RULES)),
        snippet: Some(snat::RANDOM.to_owned()),
        expect: Evidence::new().with("insert_failed", 0),
    };
    let mut fixes = if matches!(nat, Nat::Fullest(_) | Nat::LowPorts(_)) {
        vec![random]
    } else {
        Vec::new()
    };
    fixes.extend([
        Fix {
            title: "Watch the counters while it happens".to_owned(),
            why: "insert_failed together with clash_resolve points at UDP races; together with found at NAT.".to_owned(),
            command: Some(here(input.world.host.as_ref(), "watch -d conntrack -S")),
            ..Fix::default()
        },
        Fix {
            title: "If it is DNS: ask a caching resolver on this host".to_owned(),
            why: "Questions to 127.0.0.1 pass no NAT, so they cannot clash there. Without one, glibc can be told to use a socket for \
                  each question."
                .to_owned(),
            snippet: Some("# /etc/resolv.conf\noptions single-request-reopen".to_owned()),
            expect: Evidence::new().with("insert_failed", 0),
            ..Fix::default()
        },
    ]);
    fixes
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, moving, row};
    use super::*;
    use crate::observation::conntrack::CtCpuStats;

    #[test]
    fn fires_on_movement_only() {
        assert_eq!(Scene::new().check(&RULE), Vec::new());
        assert_eq!(Scene::new().moving(moving(9000, 0, 50)).check(&RULE), Vec::new());
        let f = Scene::new().moving(moving(0, 3, 3)).check(&RULE).remove(0);
        assert_eq!(
            (f.severity, f.confidence),
            (Severity::Critical, Confidence::Certain)
        );
        assert_eq!(f.evidence.get("insert_failed"), Some(&15.into()));
        assert!(
            f.summary.contains("15 insertions") && f.summary.contains("3 a second"),
            "{}",
            f.summary
        );
    }

    #[test]
    fn a_burst_is_not_sustained() {
        let burst = Scene::new().counts(&[1, 1]).moving(moving(0, 40, 40));
        assert_eq!(burst.check(&RULE)[0].severity, Severity::Warning);
    }

    #[test]
    fn nat_with_ports_to_spare_is_a_race() {
        let f = Scene::new()
            .snat(&[row(400, 1_024, 60_000, 390)])
            .moving(moving(1, 3, 3))
            .check(&RULE)
            .remove(0);
        assert!(f.candidates[0].cause.contains("same moment") && f.candidates[0].code.is_none());
        assert!(
            f.fixes[0]
                .snippet
                .as_deref()
                .is_some_and(|s| s.contains("fully-random"))
        );
        // A host that translates nothing has no such race; one whose table is not seen might.
        let none = Scene::new()
            .snat(&[])
            .moving(moving(1, 3, 3))
            .check(&RULE)
            .remove(0);
        assert_eq!((none.candidates.len(), none.fixes.len()), (2, 2));
        let unseen = Scene::new().moving(moving(1, 3, 3)).check(&RULE).remove(0);
        assert_eq!(unseen.candidates[2].code, Some("snat-ports-exhausted"));
    }

    #[test]
    fn low_source_ports_have_few_to_choose_from() {
        let causes = |min| {
            let scene = Scene::new()
                .snat(&[row(400, min, 60_000, 390)])
                .moving(moving(1, 3, 3));
            scene.check(&RULE).remove(0).candidates
        };
        assert!(causes(700)[0].cause.contains("below 1024"));
        assert!(causes(1024).iter().all(|c| !c.cause.contains("below 1024")));
    }

    #[test]
    fn long_chains_want_buckets() {
        let long = CtCpuStats {
            chain_toolong: 5,
            ..moving(0, 5, 0)
        };
        let f = Scene::new().count(100_000).moving(long).check(&RULE).remove(0);
        assert!(f.summary.contains("hash chain"), "{}", f.summary);
        assert_eq!(f.fixes[0].title, "Give the hash table 131,072 buckets");
    }
}

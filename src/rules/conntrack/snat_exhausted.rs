//! `snat-ports-exhausted`: the NAT of this host finds no free port towards a destination.

use super::counters::{Failures, when};
use super::snat::{Failing, Verdict, evidence, fixes, range_words, subject, verdicts};
use crate::finding::{Candidate, Confidence, Evidence, Finding, Severity};
use crate::observation::Source;
use crate::rules::{Area, Input, Rule};
use crate::words::{count, number, percent, rounded};

/// The rule.
pub const RULE: Rule = Rule {
    code: "snat-ports-exhausted",
    area: Area::Conntrack,
    severity: "critical",
    holds_when: "source NAT finds no free port towards one destination: the range is used up, or the search gives up in it",
    meaning: "A NAT (masquerade, SNAT) gives each connection a port of its own address, and towards one destination address and port \
each can be given once: 64,512 of them, or as many as the rule's range has. When none is found, the first packet is dropped without \
a word: TCP tries again until it times out, UDP is silent, and only a UDP sender on the NAT host itself gets EPERM. Open connections \
carry on, and so do new ones to other destinations. A closed TCP connection keeps its NAT port for two more minutes.",
    detection: "The counters: `insert_failed` and `drop` move in step, and `found`, which counts the taken ports that NAT meets, by 68 to \
248 for each. The table: entries by NAT address and destination against the range, which is read from the rules of nf_tables \
(iptables-nft's too; legacy iptables is not read), or inferred from the ports in use. How the ports in use lie tells whether the \
search fails by their number or by their place: each of its five rows must begin where all of it is in use. Both agreeing on one destination at 95 % or more is `certain`. Below that it is `likely`, for the kernel gives up \
before the last port is taken (measured: from 78 % of 40,000 ports, 95 % of 1,000), and so are the counters alone where the table \
could not be read. Where every port is in use and nothing failed, TCP connections that have ended make it `snat-ports-low`: from Linux \
6.5 on a new connection may have the port of one of these.",
    fix: "Reuse connections in the programs behind the NAT. Then more ports: take the range out of the rule, or translate to several \
addresses. Where ports are free and yet not found, `fully-random` (nftables) or `--random-fully` (iptables).",
    needs: &[&[Source::Conntrack]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let (verdicts, failures) = verdicts(input);
    verdicts
        .iter()
        .filter_map(|v| finding(input, v, failures.as_ref()))
        .collect()
}

fn finding(input: &Input<'_>, verdict: &Verdict<'_>, failures: Option<&Failures>) -> Option<Finding> {
    let state = &input.world.conntrack;
    let nat = verdict.nat.as_ref();
    let failed = failures.map_or(0, |f| f.failed);
    // What the table alone tells was so when it was read.
    let read = state.tally().map(|(at, _)| at);
    let newest = read.or_else(|| state.looks().next_back().map(|l| l.at))?;
    let (first_seen, last_seen, looks) = when(state, |l| l.moved.insert_failed > 0)
        .filter(|_| failed > 0)
        .unwrap_or((newest, newest, 1));
    let to = nat.map_or_else(
        || "some destination".to_owned(),
        |n| n.tally.destination.to_string(),
    );
    let lost = failures.map_or_else(String::new, |f| {
        format!(
            " {} packets of new connections were lost for it while watched ({} a second; NAT met {} taken ports for each).",
            count(f.failed),
            number(f.per_second),
            number(f.found_per_failure())
        )
    });
    let use_words = nat.map(|n| {
        format!(
            "{} of {} ports of {} towards {to} are in use ({}; {}).",
            count(n.held()),
            count(n.range.size),
            n.tally.nat_address,
            percent(n.share()),
            range_words(n)
        )
    });
    let (title, summary) = match (verdict.how, use_words) {
        (Failing::UsedUp, Some(used)) => (
            format!("NAT ports towards {to} are used up"),
            format!("{used}{lost}"),
        ),
        (Failing::FullAndQuiet, Some(used)) => (
            format!("NAT ports towards {to} are used up"),
            format!("{used} Nothing failed while watched; the next new connection will."),
        ),
        (Failing::Clustered, Some(used)) => (
            format!("NAT finds no free port towards {to}, although some are free"),
            format!(
                "{used} Most connections keep their own port, so the ports in use lie side by side, and the kernel's search gives up among \
                 them.{lost}"
            ),
        ),
        (Failing::Unseen, _) | (_, None) => (
            "NAT finds no free port towards some destination".to_owned(),
            format!(
                "The table could not be read, so which destination it is is not known, but the counters say it.{lost}"
            ),
        ),
    };
    let numbers = nat.map_or_else(Evidence::new, evidence);
    Some(Finding {
        code: RULE.code,
        severity: Severity::Critical,
        confidence: verdict.confidence,
        title,
        subject: subject(nat),
        summary: summary.trim().to_owned(),
        evidence: match failures {
            Some(f) => numbers
                .with("insert_failed", f.failed)
                .with("insert_failed_per_second", rounded(f.per_second))
                .with("drop", f.moved.drop)
                .with("found", f.moved.found)
                .with("found_per_failure", rounded(f.found_per_failure())),
            None => numbers,
        },
        impact: "New connections through the NAT to it time out in silence (SYNs are dropped, UDP is not answered); open ones carry on, and \
                 other destinations are not concerned."
            .to_owned(),
        candidates: candidates(verdict, nat.map(|n| n.free())),
        fixes: fixes(input, nat, verdict.how),
        first_seen,
        last_seen,
        count: looks,
    })
}

/// Below a full range the search may have failed among clustered ports: another fix helps then.
fn candidates(verdict: &Verdict<'_>, free: Option<u32>) -> Vec<Candidate> {
    let (Some(free), Failing::UsedUp) = (free, verdict.how) else {
        return Vec::new();
    };
    if verdict.confidence == Confidence::Certain || free == 0 {
        return Vec::new();
    }
    vec![
        Candidate {
            cause: "The range is as good as used up: the search fails by chance".to_owned(),
            code: None,
            settle: "more ports or fewer connections end it".to_owned(),
        },
        Candidate {
            cause: format!(
                "{} ports are free, but those in use lie side by side, where the search gives up",
                count(free)
            ),
            code: None,
            settle: "fully-random (nftables) or --random-fully (iptables) ends it".to_owned(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, moving, row};
    use super::*;
    use crate::finding::Subject;
    use crate::observation::conntrack::{CtCpuStats, SnatTally};
    use crate::types::Proto;

    fn told(scene: &Scene) -> Option<Confidence> {
        scene.check(&RULE).first().map(|f| f.confidence)
    }

    /// So many ports from 20,000 on, all of open connections.
    fn open(ports: u16) -> SnatTally {
        SnatTally {
            closing: 0,
            ..row(ports.into(), 20_000, 20_000 + ports - 1, 0)
        }
    }

    #[test]
    fn counters_and_table_together() {
        use Confidence::{Certain, Likely};
        for (name, scene, expected) in [
            (
                "a full range of 100, TCP",
                Scene::new()
                    .snat(&[row(100, 20_000, 20_099, 0)])
                    .moving(moving(680, 10, 10)),
                Some(Certain),
            ),
            (
                "a tiny range, whose collisions TCP does not count: races look the same",
                Scene::new()
                    .snat(&[row(20, 20_000, 20_019, 0)])
                    .moving(moving(0, 10, 10)),
                Some(Likely),
            ),
            (
                "the same, and a rule sets it",
                Scene::new()
                    .snat(&[row(20, 20_000, 20_019, 0)])
                    .rule(crate::observation::nat_rules::RulePorts::Range(
                        crate::types::PortRange {
                            low: 20_000,
                            high: 20_019,
                        },
                    ))
                    .moving(moving(0, 10, 10)),
                Some(Certain),
            ),
            (
                "87 % of 10,000: the search fails by chance",
                Scene::new()
                    .snat(&[row(8700, 20_000, 29_999, 0)])
                    .moving(moving(4000, 10, 10)),
                Some(Likely),
            ),
            (
                "the whole default range, ports kept",
                Scene::new()
                    .snat(&[row(62_000, 1024, 65_535, 61_000)])
                    .moving(moving(4000, 10, 10)),
                Some(Certain),
            ),
            (
                "a block of kept ports",
                Scene::new()
                    .snat(&[row(28_200, 1100, 65_400, 27_000)])
                    .moving(moving(90_000, 10, 10)),
                Some(Likely),
            ),
            (
                "full, and nothing wants a port",
                Scene::new().snat(&[open(100)]),
                Some(Likely),
            ),
            (
                "the table unread",
                Scene::new().moving(moving(1000, 10, 10)),
                Some(Likely),
            ),
        ] {
            assert_eq!(told(&scene), expected, "{name}");
            assert!(
                scene
                    .check(&RULE)
                    .iter()
                    .all(|f| f.severity == Severity::Critical),
                "{name}"
            );
        }
    }

    #[test]
    fn silent_near_misses() {
        let chains = CtCpuStats {
            chain_toolong: 10,
            ..moving(1000, 10, 0)
        };
        let races = CtCpuStats {
            clash_resolve: 9,
            ..moving(1000, 10, 10)
        };
        for (name, scene) in [
            (
                "a range with room",
                Scene::new()
                    .snat(&[row(60, 20_000, 20_099, 0)])
                    .moving(moving(680, 10, 10)),
            ),
            (
                "full, but the counters show no collisions",
                Scene::new()
                    .snat(&[row(8700, 20_000, 29_999, 0)])
                    .moving(moving(5, 10, 10)),
            ),
            (
                "UDP races on a host without NAT",
                Scene::new().snat(&[]).moving(moving(0, 10, 10)),
            ),
            (
                "UDP races on a busy NAT, table unread",
                Scene::new().moving(moving(90_000, 1, 1)),
            ),
            (
                "one race on a NAT that meets a few collisions, table unread",
                Scene::new().counts(&[1, 1]).moving(moving(100, 1, 1)),
            ),
            (
                "races that are merged too, table unread",
                Scene::new().moving(races),
            ),
            ("long chains", Scene::new().moving(chains)),
            (
                "a full table",
                Scene::new().count(262_144).moving(moving(0, 0, 50)),
            ),
            (
                "full a quarter of an hour ago",
                Scene::new().snat(&[open(100)]).later(901),
            ),
            (
                "full and quiet, and some have ended: a new connection may have their ports",
                Scene::new().snat(&[row(100, 20_000, 20_099, 0)]),
            ),
            (
                "two zones, each with half of the range",
                Scene::new().snat(&[
                    row(50, 20_000, 20_099, 0),
                    SnatTally {
                        zone: 7,
                        ..row(50, 20_000, 20_099, 0)
                    },
                ]),
            ),
            (
                "history only",
                Scene::new().snat(&[row(60_000, 1024, 65_535, 60_000)]),
            ),
        ] {
            assert_eq!(told(&scene), None, "{name}");
        }
    }

    #[test]
    fn by_number_or_by_place() {
        use crate::observation::nat_rules::RulePorts;
        use crate::types::PortRange;
        // 60,000 of 64,512 kept ports in one block, or spread.
        let block = Some([128, 64, 32, 16, 8].map(|row| 60_000 - row + 1));
        let kept = |runs| SnatTally {
            runs,
            ..row(60_000, 1024, 65_500, 59_000)
        };
        let ten_thousand = RulePorts::Range(PortRange {
            low: 20_000,
            high: 29_999,
        });
        for (name, scene, expected) in [
            (
                "a block",
                Scene::new().snat(&[kept(block)]).moving(moving(2120, 10, 10)),
                Some("although some are free"),
            ),
            (
                "as many, spread: full for the search",
                Scene::new()
                    .snat(&[kept(Some([40, 600, 6000, 20_000, 36_000]))])
                    .moving(moving(2120, 10, 10)),
                Some("are used up"),
            ),
            (
                "a rule's range at 87 %, in a block",
                Scene::new()
                    .snat(&[SnatTally {
                        runs: Some([8500, 8600, 8650, 8680, 8690]),
                        ..row(8700, 20_000, 29_000, 0)
                    }])
                    .rule(ten_thousand)
                    .moving(moving(2120, 10, 10)),
                Some("although some are free"),
            ),
            (
                "counters as of a full NAT, and no range is full: it has emptied since",
                Scene::new()
                    .snat(&[row(400, 20_000, 29_900, 0)])
                    .rule(ten_thousand)
                    .moving(moving(2120, 10, 10)),
                None,
            ),
        ] {
            let found = scene.check(&RULE);
            let title = found.first().map(|f| f.title.clone());
            match expected {
                Some(words) => assert!(
                    title.as_deref().is_some_and(|t| t.contains(words)),
                    "{name}: {title:?}"
                ),
                None => assert_eq!(title, None, "{name}"),
            }
        }
    }

    #[test]
    fn a_rule_that_was_read_makes_it_exact() {
        use crate::observation::nat_rules::RulePorts;
        use crate::types::PortRange;
        let range = RulePorts::Range(PortRange {
            low: 20_000,
            high: 20_099,
        });
        let f = Scene::new().snat(&[open(100)]).rule(range).check(&RULE).remove(0);
        assert_eq!(
            f.confidence,
            Confidence::Certain,
            "full and quiet, by the rule's own range"
        );
        assert_eq!(
            f.evidence.get("rule"),
            Some(&"ip nat postrouting handle 4".into())
        );
        assert_eq!(f.evidence.get("range_inferred"), Some(&false.into()));
        let widen = f
            .fixes
            .iter()
            .find(|f| f.title.starts_with("Give the NAT rule"))
            .expect("a fix");
        assert_eq!(
            widen.command.as_deref(),
            Some("nft -a list chain ip nat postrouting")
        );
        // A hundred ports that lie together by chance under a rule without a range are not a full range.
        let plain = Scene::new()
            .snat(&[row(100, 20_000, 20_099, 0)])
            .rule(RulePorts::Any)
            .moving(moving(680, 10, 10));
        assert_eq!(plain.check(&RULE), Vec::new());
    }

    #[test]
    fn several_suspects_are_not_certain() {
        let mut other = row(100, 20_000, 20_099, 0);
        other.destination = ([203, 0, 113, 10], 443).into();
        let scene = Scene::new()
            .snat(&[row(100, 20_000, 20_099, 0), other])
            .moving(moving(680, 10, 10));
        let found = scene.check(&RULE);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|f| f.confidence == Confidence::Likely));
    }

    #[test]
    fn the_finding_tells_range_loss_and_fix() {
        let scene = Scene::new()
            .snat(&[row(100, 20_000, 20_099, 0)])
            .moving(moving(680, 10, 10));
        let f = scene.check(&RULE).remove(0);
        assert_eq!(f.title, "NAT ports towards 203.0.113.9:443 are used up");
        assert!(
            f.summary
                .starts_with("100 of 100 ports of 198.51.100.1 towards 203.0.113.9:443 are in use"),
            "{}",
            f.summary
        );
        assert!(
            f.summary.contains("50 packets") && f.summary.contains("68 taken ports"),
            "{}",
            f.summary
        );
        let expected = Subject::Nat {
            address: Some([198, 51, 100, 1].into()),
            proto: Some(Proto::Tcp),
            destination: Some(([203, 0, 113, 9], 443).into()),
        };
        assert_eq!(f.subject, expected);
        for (name, value) in [
            ("in_use", 100.into()),
            ("available", 100.into()),
            ("range_inferred", true.into()),
        ] {
            assert_eq!(f.evidence.get(name), Some(&value), "{name}");
        }
        let titles: Vec<_> = f.fixes.iter().map(|f| f.title.as_str()).collect();
        assert_eq!(titles[1], "Give the NAT rule more than 100 ports");
        assert!(!titles.contains(&"Pick NAT ports at random"));
    }

    #[test]
    fn open_connections_want_ports_before_reuse() {
        let open = SnatTally {
            closing: 3,
            ..row(100, 20_000, 20_099, 0)
        };
        let f = Scene::new()
            .snat(&[open])
            .moving(moving(680, 10, 10))
            .check(&RULE)
            .remove(0);
        assert_eq!(f.fixes[0].title, "Give the NAT rule more than 100 ports");
        assert!(
            f.fixes[2]
                .why
                .starts_with("97 of these connections are open now."),
            "{}",
            f.fixes[2].why
        );
    }

    #[test]
    fn clusters_want_random_ports_first() {
        let scene = Scene::new()
            .snat(&[row(28_200, 1100, 65_400, 27_000)])
            .moving(moving(90_000, 10, 10));
        let f = scene.check(&RULE).remove(0);
        assert!(f.title.ends_with("although some are free"), "{}", f.title);
        assert_eq!(f.fixes[0].title, "Pick NAT ports at random");
    }

    #[test]
    fn failed_insertions_are_folded_beneath() {
        let scene = Scene::new()
            .snat(&[row(100, 20_000, 20_099, 0)])
            .moving(moving(680, 10, 10));
        assert_eq!(
            scene.codes(),
            (vec!["snat-ports-exhausted"], vec!["conntrack-insert-failed"])
        );
        let scene = Scene::new()
            .snat(&[row(60, 20_000, 20_099, 0)])
            .moving(moving(0, 10, 10));
        assert_eq!(scene.codes(), (vec!["conntrack-insert-failed"], vec![]));
    }
}

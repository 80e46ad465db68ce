use super::*;
use crate::config::Thresholds;
use crate::finding::{Confidence, Severity};
use crate::observation::connect::{ConnectRow, ConnectTally};
use crate::observation::conntrack::{CtCpuStats, CtStats};
use crate::observation::host::{Address, Counters, Link, LinkStats, RouteTables};
use crate::observation::nat::NatFacts;
use crate::observation::socket::{DestinationTally, SocketTally, StateCounts, TcpState, WaitingTally};
use crate::observation::{Body, Observation, SourceStatus};
use crate::rules::ports::testing::opened;
use crate::rules::upstream::testing::{facts, server};
use crate::track::World;
use crate::types::{IfIndex, Proto};

/// What one destination shows, at every look alike but for what `Case` says of its course.
#[derive(Clone)]
struct To {
    at: &'static str,
    /// In SYN_SENT, and of these with a SYN sent again.
    syn_sent: u32,
    sent_again: u32,
    established: u32,
    heard: u32,
    unacknowledged: u32,
    /// Connects, each second, as the kernel counts them: tried, established, closed again.
    pace: [u64; 3],
    /// By how much ESTABLISHED grows each second.
    growth: u32,
}

impl To {
    /// New ones wait; one a second gets through and stays, for another ends.
    fn full(at: &'static str) -> Self {
        Self {
            at,
            syn_sent: 4,
            sent_again: 3,
            established: 10,
            heard: 2,
            unacknowledged: 0,
            pace: [5, 1, 0],
            growth: 0,
        }
    }

    /// Takes what comes.
    fn well(at: &'static str) -> Self {
        Self {
            syn_sent: 0,
            sent_again: 0,
            pace: [3, 3, 3],
            ..Self::full(at)
        }
    }

    fn address(&self) -> SocketAddr {
        self.at.parse().unwrap()
    }
}

#[derive(Clone)]
struct Case {
    to: Vec<To>,
    source: &'static str,
    /// Seconds at which was looked.
    looks: Vec<u64>,
    /// Connects are counted in the kernel, from this second on.
    counted: bool,
    counting_from: u64,
    /// SYNs sent again, and other counters that moved.
    counters: Vec<(&'static str, u64)>,
    drops: u32,
    conntrack: bool,
    /// A discovery that ended at this second.
    nat: Option<(u64, NatFacts)>,
    budget: &'static str,
    link_kind: Option<&'static str>,
}

impl Case {
    /// New connections to three networks wait, and are given what comes free.
    fn full() -> Self {
        Self {
            to: ["198.51.100.1:443", "192.0.2.2:443", "203.0.113.3:443"]
                .map(To::full)
                .to_vec(),
            source: "10.0.0.2",
            looks: (0..9).collect(),
            counted: true,
            counting_from: 0,
            counters: vec![
                ("TcpExt.TCPSynRetrans", 40),
                ("Tcp.RetransSegs", 41),
                ("Tcp.OutSegs", 900),
                ("Ip.InReceives", 900),
                ("Ip.InDelivers", 900),
            ],
            drops: 0,
            conntrack: true,
            nat: None,
            budget: "",
            link_kind: None,
        }
    }

    /// The same where nothing new gets through.
    fn wall() -> Self {
        let mut case = Self::full();
        case.to.iter_mut().for_each(|to| to.pace = [4, 0, 0]);
        case
    }

    fn tally(&self, second: u64) -> SocketTally {
        let source: IpAddr = self.source.parse().unwrap();
        let established = |to: &To| to.established + to.growth * u32::try_from(second).unwrap();
        let destination = |to: &To| {
            let mut states = StateCounts::default();
            states.0[TcpState::SynSent as usize] = to.syn_sent;
            states.0[TcpState::Established as usize] = established(to);
            DestinationTally {
                proto: Proto::Tcp,
                source,
                destination: to.address(),
                states,
                ports_in_range: to.syn_sent + established(to),
                time_wait_left: [0; 6],
                inodes: Vec::new(),
                uids: Vec::new(),
            }
        };
        let waits = self.to.iter().filter(|to| to.syn_sent > 0);
        let waiting = waits.map(|to| WaitingTally {
            source,
            destination: to.address(),
            syn_sent: to.syn_sent,
            sent_again: to.sent_again,
            established: established(to),
            heard: to.heard,
            unacknowledged: to.unacknowledged,
        });
        SocketTally {
            destinations: self.to.iter().map(destination).collect(),
            // The first look has none before it.
            waiting: (second > 0).then(|| waiting.collect()),
            ..SocketTally::default()
        }
    }

    fn connects(&self, start: Timestamp, second: u64) -> ConnectTally {
        let row = |to: &To| {
            let counted = second.saturating_sub(self.counting_from);
            let [attempts, established, closed] = to.pace.map(|n| n * counted);
            ConnectRow {
                source: self.source.parse().unwrap(),
                destination: to.address(),
                attempts,
                established,
                closed_here: closed,
                ..opened(0, 0)
            }
        };
        ConnectTally {
            since: start + Span::from_secs(self.counting_from),
            rows: self.to.iter().map(row).collect(),
            ..ConnectTally::default()
        }
    }

    fn routes(&self) -> Option<RouteTables> {
        let index = IfIndex(3);
        Some(RouteTables {
            links: vec![Link {
                index,
                name: "x0".to_owned(),
                kind: Some(self.link_kind?.to_owned()),
                admin_up: true,
                carrier: true,
                loopback: false,
                mtu: 1420,
                stats: LinkStats::default(),
            }],
            addresses: vec![Address {
                index,
                address: self.source.parse().unwrap(),
                prefix: 24,
            }],
            ..RouteTables::default()
        })
    }

    fn found(&self) -> Vec<Finding> {
        let start = Timestamp::from_secs(1_000_000);
        let mut world = World::new(start);
        let mut see = |at: u64, source, body| {
            world.apply(&Observation {
                at: start + Span::from_secs(at),
                took: Span::ZERO,
                source,
                body,
            });
        };
        for source in [Source::Sockets, Source::Counters] {
            see(0, source, Body::Status(SourceStatus::ok()));
        }
        let counters = |factor: u64| {
            let all = self
                .counters
                .iter()
                .map(|(name, n)| ((*name).to_owned(), n * factor));
            Body::Counters(Counters(all.collect()))
        };
        see(0, Source::Counters, counters(0));
        let stats = |drop: u32| CtStats {
            count: 100,
            max: Some(1000),
            cpus: vec![CtCpuStats {
                drop,
                ..CtCpuStats::default()
            }],
        };
        if self.conntrack {
            see(0, Source::Conntrack, Body::Status(SourceStatus::ok()));
            see(0, Source::Conntrack, Body::ConntrackStats(stats(0)));
        }
        if let Some(tables) = self.routes() {
            see(0, Source::Routes, Body::Routes(tables));
        }
        if !self.budget.is_empty() {
            let budget = crate::budgets::parse(self.budget).unwrap();
            see(0, Source::Config, Body::NatBudget(budget));
        }
        for at in &self.looks {
            see(*at, Source::Sockets, Body::Sockets(self.tally(*at)));
            if self.counted && *at >= self.counting_from {
                see(*at, Source::Bpf, Body::Connects(self.connects(start, *at)));
            }
            if let Some((_, facts)) = self.nat.as_ref().filter(|(when, _)| when == at) {
                see(*at, Source::Nat, Body::Nat(facts.clone()));
            }
        }
        let last = *self.looks.last().unwrap();
        see(last, Source::Counters, counters(1));
        if self.conntrack {
            see(last, Source::Conntrack, Body::ConntrackStats(stats(self.drops)));
        }
        (RULE.check)(&Input {
            world: &world,
            thresholds: &Thresholds::default(),
        })
    }

    fn check(&self) -> Option<(Severity, Confidence)> {
        let found = self.found();
        assert!(found.len() <= 1, "{found:?}");
        found.first().map(|f| (f.severity, f.confidence))
    }

    /// Words of its candidates.
    fn candidates(&self) -> String {
        let found = self.found();
        let causes = found.iter().flat_map(|f| &f.candidates).map(|c| c.cause.as_str());
        causes.collect::<Vec<_>>().join("; ")
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn each(self, change: impl Fn(&mut To)) -> Self {
        self.with(|case| case.to.iter_mut().for_each(change))
    }

    fn counter(self, name: &'static str, moved: u64) -> Self {
        self.with(|case| {
            case.counters.retain(|(n, _)| *n != name);
            case.counters.push((name, moved));
        })
    }
}

const LIKELY: Option<(Severity, Confidence)> = Some((Severity::Critical, Confidence::Likely));
const HINT: Option<(Severity, Confidence)> = Some((Severity::Warning, Confidence::Possible));

#[test]
fn a_full_nat_is_likely_at_most() {
    let found = Case::full().found();
    assert_eq!(Case::full().check(), LIKELY);
    let f = &found[0];
    assert_eq!(f.evidence.get("addresses"), Some(&3.into()));
    assert_eq!(f.evidence.get("networks"), Some(&3.into()));
    assert!(f.summary.contains("given out again"), "{}", f.summary);
    let all = Case::full().candidates();
    assert!(
        all.contains("no port left") && all.contains("table of connections"),
        "{all}"
    );
    assert!(!all.contains("rate") && !all.contains("lets no new"), "{all}");
}

/// What holds no more than the evidence is a hint, and names what else looks alike.
#[test]
fn what_could_be_something_else_is_a_hint_that_names_it() {
    for (name, case, words) in [
        ("nothing new gets through", Case::wall(), "egress policy"),
        (
            "ever more get through and stay",
            Case::full().each(|to| to.growth = 1),
            "limits the rate",
        ),
        (
            "what gets through is closed again, and makes its own room",
            Case::full().each(|to| to.pace = [5, 2, 2]),
            "limits the rate",
        ),
        (
            "some source ports die and others do not",
            Case::full().each(|to| to.pace = [5, 2, 2]),
            "several links",
        ),
        (
            "every second one gets through: one of two links may be dead",
            Case::full().each(|to| to.pace = [2, 1, 0]),
            "several links",
        ),
        (
            "few were tried",
            Case::full()
                .with(|c| c.looks.truncate(3))
                .each(|to| (to.sent_again, to.pace) = (2, [3, 1, 0])),
            "several links",
        ),
        (
            "all in one network, which may have a firewall of its own",
            Case::full().with(|c| {
                let one = ["203.0.113.1:443", "203.0.113.2:443", "203.0.113.3:443"];
                c.to.iter_mut().zip(one).for_each(|(to, at)| to.at = at);
            }),
            "one network",
        ),
        (
            "this host's own table was not seen",
            Case::full().with(|c| c.conntrack = false),
            "own table",
        ),
    ] {
        assert_eq!(case.check(), HINT, "{name}");
        assert!(case.candidates().contains(words), "{name}: {}", case.candidates());
    }
    // Without counting in the kernel, growth between looks is all that is seen.
    let uncounted = |growth| {
        Case::full()
            .with(|c| c.counted = false)
            .each(|to| to.growth = growth)
            .check()
    };
    assert_eq!((uncounted(0), uncounted(1)), (HINT, HINT));
}

#[test]
fn near_misses_are_silent() {
    for (name, case) in [
        ("two addresses only", Case::full().with(|c| c.to.truncate(2))),
        (
            "SYN_SENT of a moment, as on any busy host: none was sent again",
            Case::full().each(|to| to.sent_again = 0),
        ),
        (
            "none was sent again since watching began",
            Case::full().counter("TcpExt.TCPSynRetrans", 0),
        ),
        (
            "a few among very many that get through",
            Case::full().each(|to| (to.sent_again, to.pace) = (1, [101, 100, 100])),
        ),
        (
            "hosts that are gone: nothing is open there",
            Case::wall().each(|to| (to.established, to.heard) = (0, 0)),
        ),
        (
            "what is open there is idle: the path may be down",
            Case::wall().each(|to| to.heard = 0),
        ),
        (
            "what is open there is dead as well: the path is down",
            Case::wall().each(|to| (to.heard, to.unacknowledged) = (0, 1)),
        ),
        (
            "one region's path is down, and what is open elsewhere lives",
            Case::wall().with(|c| {
                for at in ["198.18.0.1:443", "198.18.0.2:443", "198.18.0.3:443"] {
                    c.to.push(To {
                        heard: 0,
                        unacknowledged: 2,
                        pace: [3, 0, 0],
                        ..To::full(at)
                    });
                }
            }),
        ),
        (
            "nothing new to these, all to others: not a NAT that both pass",
            Case::wall().with(|c| c.to.push(To::well("198.18.0.1:443"))),
        ),
        (
            "one port is let out nowhere and another is",
            Case::wall().with(|c| c.to.push(To::well("198.51.100.1:80"))),
        ),
        (
            "most destinations take new ones",
            Case::full().with(|c| {
                c.to.extend(["198.18.0.1:1", "198.18.0.1:2", "198.18.0.1:3"].map(To::well));
            }),
        ),
        ("this host's table drops", Case::full().with(|c| c.drops = 9)),
        ("its queues discard", Case::full().counter("Ip.OutDiscards", 30)),
        (
            "its firewall drops the SYNs",
            Case::wall().counter("TcpExt.TCPRetransFail", 40),
        ),
        (
            "its firewall drops the answers",
            Case::wall().counter("Ip.InReceives", 960),
        ),
        (
            "answers come by another way than rp_filter allows",
            Case::wall().counter("TcpExt.IPReversePathFilter", 60),
        ),
        (
            "data is lost as SYNs are",
            Case::full().counter("Tcp.RetransSegs", 140),
        ),
        (
            "inside addresses need no NAT",
            Case::full().with(|c| {
                let inside = ["10.1.1.1:443", "10.1.1.2:443", "10.1.1.3:443"];
                c.to.iter_mut().zip(inside).for_each(|(to, at)| to.at = at);
            }),
        ),
        (
            "a public address needs no NAT",
            Case::full().with(|c| c.source = "198.18.5.5"),
        ),
        (
            "a tunnel leads to another NAT",
            Case::full().with(|c| c.link_kind = Some("wireguard")),
        ),
        (
            "IPv6 that is not translated",
            Case::full().with(|c| {
                c.source = "2001:db8::5";
                let six = [
                    "[2001:db8:1::1]:443",
                    "[2001:db9:1::1]:443",
                    "[2001:dba:1::1]:443",
                ];
                c.to.iter_mut().zip(six).for_each(|(to, at)| to.at = at);
            }),
        ),
    ] {
        assert_eq!(case.check(), None, "{name}");
    }
    // Counting that began later than looking did counts from there.
    assert_eq!(Case::full().with(|c| c.counting_from = 4).check(), LIKELY);
    // A datagram or two that were discarded are not the SYNs.
    assert_eq!(Case::full().counter("Ip.OutDiscards", 2).check(), LIKELY);
    // The same with IPv6 behind a NAT, or over an ordinary link, is one.
    let six = Case::full().with(|c| {
        c.source = "fdaa::5";
        let six = [
            "[2001:db8:1::1]:443",
            "[2001:db9:1::1]:443",
            "[2001:dba:1::1]:443",
        ];
        c.to.iter_mut().zip(six).for_each(|(to, at)| to.at = at);
    });
    assert_eq!(six.check(), LIKELY);
    assert_eq!(Case::full().with(|c| c.link_kind = Some("veth")).check(), LIKELY);
}

/// What got through before the trouble began tells nothing of it.
#[test]
fn churn_before_an_outage_is_no_port_given_out_again() {
    let start = Timestamp::from_secs(1_000_000);
    let mut world = World::new(start);
    let mut case = Case::wall().with(|c| c.counted = false);
    let mut see = |at: u64, source, body| {
        world.apply(&Observation {
            at: start + Span::from_secs(at),
            took: Span::ZERO,
            source,
            body,
        });
    };
    for source in [Source::Sockets, Source::Counters, Source::Conntrack] {
        see(0, source, Body::Status(SourceStatus::ok()));
    }
    for (at, moved) in [(0, 0), (20, 30)] {
        let counters = [("TcpExt.TCPSynRetrans".to_owned(), moved)];
        see(at, Source::Counters, Body::Counters(Counters(counters.into())));
    }
    // Churn: ESTABLISHED goes up and down. Then the path goes down with all that is open.
    for second in 0..20 {
        let up = second < 10;
        for to in &mut case.to {
            to.syn_sent = u32::from(!up) * 4;
            to.sent_again = u32::from(second > 11) * 3;
            to.established = if up { 5 + 3 * u32::from(second % 2 == 0) } else { 5 };
            to.heard = u32::from(up);
            to.unacknowledged = u32::from(!up);
        }
        see(second, Source::Sockets, Body::Sockets(case.tally(second)));
    }
    let input = Input {
        world: &world,
        thresholds: &Thresholds::default(),
    };
    assert!((RULE.check)(&input).is_empty());
}

#[test]
fn a_new_flow_to_a_stun_server_settles_it_where_no_other_gets_through() {
    let passes = |case: Case| case.with(|c| c.nat = Some((5, facts())));
    assert_eq!(passes(Case::wall()).check(), None);
    // A NAT that counts by destination has ports for that server and none for these.
    let found = passes(Case::full()).found();
    assert_eq!(found[0].confidence, Confidence::Likely);
    assert!(
        found[0].summary.contains("by destination"),
        "{}",
        found[0].summary
    );
    let mut dead = facts();
    dead.servers = vec![server("192.0.2.1:3478", false, false)];
    dead.servers[0].problems = vec!["over TCP: no answer within 3.2 s".to_owned()];
    let fails = Case::full().with(|c| c.nat = Some((5, dead.clone())));
    assert_eq!(fails.check(), LIKELY);
    assert!(fails.found()[0].summary.contains("died in the same way"));
    // That alone does not tell it from a firewall.
    assert_eq!(Case::wall().with(|c| c.nat = Some((5, dead))).check(), HINT);
    // A discovery that found no NAT at all.
    let none = Case::full().with(|c| {
        let mut f = facts();
        f.servers.clear();
        f.families[0].translated = Some(false);
        c.nat = Some((5, f));
    });
    assert_eq!(none.check(), None);
}

#[test]
fn a_discovery_of_before_tells_nothing() {
    let start = Timestamp::from_secs(1_000_000);
    let mut world = World::new(start);
    world.apply(&Observation {
        at: start,
        took: Span::ZERO,
        source: Source::Nat,
        body: Body::Nat(facts()),
    });
    let thresholds = Thresholds::default();
    let input = Input {
        world: &world,
        thresholds: &thresholds,
    };
    let second = |n| start + Span::from_secs(n);
    assert_eq!(probe(&input, Family::Ipv4, second(2)), Probe::Passes);
    assert_eq!(probe(&input, Family::Ipv4, second(3)), Probe::None);
    assert_eq!(probe(&input, Family::Ipv6, second(2)), Probe::None);
}

#[test]
fn a_limit_that_is_known_and_reached_makes_it_likely_even_for_one_destination() {
    let one = |budget: &'static str, established: u32| {
        Case::wall()
            .with(|c| {
                c.budget = budget;
                c.to.truncate(1);
            })
            .each(|to| to.established = established)
    };
    let reached = one("fly-static-egress", 1024).found();
    assert_eq!(reached[0].confidence, Confidence::Likely);
    assert!(reached[0].title.contains("198.51.100.1"), "{}", reached[0].title);
    assert_eq!(reached[0].evidence.get("available"), Some(&1024.into()));
    for (name, case) in [
        (
            "below it, and one destination is down",
            one("fly-static-egress", 1000),
        ),
        (
            "attempts are no flows that it holds",
            one("fly-static-egress", 1020),
        ),
        (
            "more are open than it allows: it is not the limit",
            one("fly-static-egress", 1030),
        ),
        ("a guess is no limit", one("cgn", 1000)),
        (
            "it is dead as well",
            one("fly-static-egress", 1024).each(|to| (to.heard, to.unacknowledged) = (0, 1)),
        ),
        (
            "of the host, and others get through",
            one("50/host", 46).with(|c| {
                c.to.push(To {
                    established: 4,
                    ..To::well("192.0.2.2:443")
                });
            }),
        ),
    ] {
        assert_eq!(case.check(), None, "{name}");
    }
    assert_eq!(one("50/host", 50).check(), LIKELY);
    assert_eq!(one("50/destination", 50).check(), LIKELY);
}

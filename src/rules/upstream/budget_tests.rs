use super::*;
use crate::config::Thresholds;
use crate::observation::socket::{DestinationTally, SocketTally, StateCounts, TcpState};
use crate::observation::{Body, Observation};
use crate::rules::ports::testing::{Scene, look, start};
use crate::track::World;
use crate::types::Proto;

/// What the rule says of one destination with these sockets at some looks, under a budget.
fn said(budget: &str, looks: &[(u32, u32, u32)]) -> Vec<Finding> {
    let mut scene = Scene::new();
    for (at, established, time_wait) in looks {
        scene = scene.look(*at, look().established(*established).time_wait(*time_wait));
    }
    let mut world = scene.world();
    if !budget.is_empty() {
        world.apply(&Observation {
            at: start(),
            took: Span::ZERO,
            source: Source::Config,
            body: Body::NatBudget(crate::budgets::parse(budget).unwrap()),
        });
    }
    (RULE.check)(&Input {
        world: &world,
        thresholds: &Thresholds::default(),
    })
}

#[test]
fn near_the_limit_fires_and_below_it_does_not() {
    let near = said("100/address", &[(1, 75, 0)]);
    assert_eq!(near.len(), 1);
    assert_eq!(near[0].evidence.get("in_use"), Some(&75.into()));
    assert_eq!(near[0].severity, Severity::Warning);
    for (budget, established) in [
        ("100/address", 69),
        ("1024/address", 75),
        ("", 75),
        ("aws-nat-gateway", 1000),
    ] {
        assert!(
            said(budget, &[(1, established, 0)]).is_empty(),
            "{budget} {established}"
        );
    }
    // A guess is no more than a hint.
    assert_eq!(said("cgn", &[(1, 900, 0)])[0].confidence, Confidence::Possible);
}

#[test]
fn ended_flows_count_for_as_long_as_the_nat_holds_them() {
    // 60 TIME_WAITs beside 20 live ones.
    assert_eq!(said("100/destination/60s", &[(1, 20, 60)]).len(), 1);
    let at_once = said("100/destination/0s", &[(1, 20, 60)]);
    assert!(at_once.is_empty(), "{at_once:?}");
    // Twice TIME_WAIT's length: twice as many at the same pace.
    let long = said("200/destination/120s", &[(1, 20, 66)]);
    assert!(long.len() <= 1);
}

#[test]
fn growth_is_told_with_a_time() {
    let looks: Vec<_> = (0..8).map(|s| (s, 60 + 4 * s, 0)).collect();
    let found = said("100/host", &looks);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].evidence.get("exhausted_in_seconds").is_some(),
        "{:?}",
        found[0].evidence
    );
    assert!(found[0].fixes.len() >= 2, "{:?}", found[0].fixes);
}

/// What a host shows of its connections to some destinations, in the course of a minute.
#[derive(Clone, Copy)]
struct Course {
    to: &'static str,
    /// ESTABLISHED at the newest look.
    established: u32,
    syn_sent: u32,
    /// TIME_WAIT by age: closed within the last 10 s first.
    closed: [u32; 6],
}

const fn live(to: &'static str, established: u32) -> Course {
    Course {
        to,
        established,
        syn_sent: 0,
        closed: [0; 6],
    }
}

impl Course {
    const fn closed(mut self, closed: [u32; 6]) -> Self {
        self.closed = closed;
        self
    }

    fn tally(&self, source: &str) -> DestinationTally {
        let mut states = StateCounts::default();
        states.0[TcpState::Established as usize] = self.established;
        states.0[TcpState::SynSent as usize] = self.syn_sent;
        states.0[TcpState::TimeWait as usize] = self.closed.iter().sum();
        let mut left = self.closed;
        left.reverse();
        DestinationTally {
            proto: Proto::Tcp,
            source: source.parse().unwrap(),
            destination: self.to.parse().unwrap(),
            ports_in_range: states.total(),
            states,
            time_wait_left: left,
            inodes: Vec::new(),
            uids: Vec::new(),
        }
    }
}

/// How much of `profile` is told to be in use: by subject, the flows held and how sure.
fn low(profile: &str, source: &str, courses: &[Course]) -> Vec<(String, u64, Confidence)> {
    let mut world = World::new(start());
    let mut apply = |at: u64, source, body| {
        world.apply(&Observation {
            at: start() + Span::from_secs(at),
            took: Span::ZERO,
            source,
            body,
        });
    };
    apply(
        0,
        Source::Config,
        Body::NatBudget(crate::budgets::parse(profile).unwrap()),
    );
    for at in 0..5 {
        let tally = SocketTally {
            destinations: courses.iter().map(|c| c.tally(source)).collect(),
            ..SocketTally::default()
        };
        apply(at, Source::Sockets, Body::Sockets(tally));
    }
    let found = (RULE.check)(&Input {
        world: &world,
        thresholds: &Thresholds::default(),
    });
    found
        .iter()
        .map(|f| {
            let to = match &f.subject {
                Subject::Destination { address, .. } => address.to_string(),
                Subject::Nat {
                    destination: Some(to),
                    ..
                } => to.to_string(),
                _ => "host".to_owned(),
            };
            assert_eq!(f.severity, Severity::Warning);
            (
                to,
                f.evidence
                    .get("in_use")
                    .and_then(serde_json::Value::as_u64)
                    .unwrap(),
                f.confidence,
            )
        })
        .collect()
}

/// Every NAT of the data file, by the flows that it holds: its scope, its limit, how long it holds what has ended; and near
/// misses of each.
#[test]
fn each_nat_counts_in_its_own_way() {
    use Confidence::{Likely, Possible};
    const A: &str = "203.0.113.9:443";
    const A2: &str = "203.0.113.9:80";
    const B: &str = "198.51.100.7:443";
    // So many in each ten seconds of the last minute.
    let steady = |n| [n; 6];
    type Told<'a> = &'a [(&'a str, u64, Confidence)];
    let table: &[(&str, &str, &[Course], Told<'_>)] = &[
        // Fly: 1,024 for each address, whatever the port; ended ones for a minute. 70 % is 716.8.
        (
            "fly-static-egress",
            "at 70 %",
            &[live(A, 717)],
            &[("203.0.113.9", 717, Likely)],
        ),
        ("fly-static-egress", "below", &[live(A, 716)], &[]),
        (
            "fly-static-egress",
            "two ports are one address",
            &[live(A, 400), live(A2, 400)],
            &[("203.0.113.9", 800, Likely)],
        ),
        (
            "fly-static-egress",
            "two addresses are two",
            &[live(A, 400), live(B, 400)],
            &[],
        ),
        (
            "fly-static-egress",
            "TIME_WAIT counts for its minute",
            &[live(A, 117).closed(steady(100))],
            &[("203.0.113.9", 717, Likely)],
        ),
        // AWS: 55,000 for each address and port. 70 % is 38,500.
        (
            "aws-nat-gateway",
            "at 70 %",
            &[live(A, 38_500)],
            &[(A, 38_500, Likely)],
        ),
        ("aws-nat-gateway", "below", &[live(A, 38_499)], &[]),
        (
            "aws-nat-gateway",
            "two ports are two",
            &[live(A, 30_000), live(A2, 30_000)],
            &[],
        ),
        // GCP: 64 for each address and port; ended ones for two minutes. 70 % is 44.8.
        ("gcp-cloud-nat", "at 70 %", &[live(A, 45)], &[(A, 45, Likely)]),
        ("gcp-cloud-nat", "below", &[live(A, 44)], &[]),
        // Half of what it holds has left TIME_WAIT here, so it follows from the pace.
        (
            "gcp-cloud-nat",
            "a pace of a minute is taken to be that of two",
            &[live(A, 5).closed(steady(4))],
            &[(A, 53, Possible)],
        ),
        (
            "gcp-cloud-nat",
            "what was seen is enough",
            &[live(A, 25).closed(steady(4))],
            &[(A, 73, Likely)],
        ),
        (
            "gcp-cloud-nat",
            "a burst of the last ten seconds is no pace",
            &[live(A, 5).closed([30, 0, 0, 0, 0, 0])],
            &[],
        ),
        (
            "gcp-cloud-nat",
            "what ended a while ago and no longer does",
            &[live(A, 5).closed([0, 0, 0, 0, 0, 9])],
            &[],
        ),
        // The same made from mid-2026 on: half a minute.
        (
            "gcp-cloud-nat-2026",
            "three classes of six",
            &[live(A, 30).closed(steady(5))],
            &[(A, 45, Likely)],
        ),
        (
            "gcp-cloud-nat-2026",
            "older ones are not held",
            &[live(A, 5).closed([0, 0, 0, 40, 40, 40])],
            &[],
        ),
        (
            "gcp-cloud-nat-2026",
            "at its pace of two minutes it would be low",
            &[live(A, 5).closed(steady(4))],
            &[],
        ),
        // Dynamic: up to 65,536. 70 % is 45,875.2.
        (
            "gcp-cloud-nat-dynamic",
            "at 70 %",
            &[live(A, 45_876)],
            &[(A, 45_876, Likely)],
        ),
        ("gcp-cloud-nat-dynamic", "below", &[live(A, 45_875)], &[]),
        (
            "gcp-cloud-nat-dynamic",
            "64 are none of its limit",
            &[live(A, 64)],
            &[],
        ),
        // Azure's load balancer: 1,024 for each address and port; ended ones for four minutes.
        ("azure-lb", "at 70 %", &[live(A, 717)], &[(A, 717, Likely)]),
        ("azure-lb", "below", &[live(A, 716)], &[]),
        (
            "azure-lb",
            "three minutes of four were not seen",
            &[live(A, 100).closed(steady(30))],
            &[(A, 820, Possible)],
        ),
        (
            "azure-lb",
            "two ports are two",
            &[live(A, 500), live(A2, 500)],
            &[],
        ),
        // Its NAT gateway: 64,512; 65 s, of which TIME_WAIT shows 60. 70 % is 45,158.4.
        (
            "azure-nat-gateway",
            "at 70 %",
            &[live(A, 45_159)],
            &[(A, 45_159, Likely)],
        ),
        ("azure-nat-gateway", "below", &[live(A, 45_158)], &[]),
        (
            "azure-nat-gateway",
            "five seconds more than TIME_WAIT",
            &[live(A, 159).closed(steady(6924))],
            &[(A, 45_165, Possible)],
        ),
        // A carrier's: some thousand of all flows together, a guess; two minutes.
        (
            "cgn",
            "at 70 %, a guess",
            &[live(A, 400), live(B, 300)],
            &[("host", 700, Possible)],
        ),
        ("cgn", "below", &[live(A, 400), live(B, 299)], &[]),
        (
            "cgn",
            "two minutes of ended ones",
            &[live(A, 100).closed(steady(50))],
            &[("host", 700, Possible)],
        ),
        // Numbers given, at their word.
        (
            "100/host/0s",
            "ended ones are gone at once",
            &[live(A, 69).closed(steady(50))],
            &[],
        ),
        (
            "100/host/15s",
            "a part of a class",
            &[live(A, 40).closed([20, 20, 20, 20, 20, 20])],
            &[("host", 70, Likely)],
        ),
        (
            "100/address/60s",
            "each address by itself",
            &[live(A, 70), live(B, 69)],
            &[("203.0.113.9", 70, Likely)],
        ),
        (
            "100/destination/60s",
            "more are open than it says: it is not that NAT's limit",
            &[live(A, 101)],
            &[(A, 101, Possible)],
        ),
        // What passes no NAT.
        (
            "100/host",
            "inside",
            &[live("10.0.0.9:443", 90), live("[fdaa::9]:443", 90)],
            &[],
        ),
    ];
    for (profile, name, courses, told) in table {
        let told: Vec<_> = told.iter().map(|(to, n, c)| ((*to).to_owned(), *n, *c)).collect();
        assert_eq!(low(profile, "10.0.0.2", courses), told, "{profile}: {name}");
    }
    // A profile that is added is told here, too.
    for profile in crate::budgets::profiles() {
        let rows = table.iter().filter(|(p, ..)| *p == profile.name);
        assert!(
            rows.clone().any(|(.., told)| told.is_empty()),
            "{} has no near miss",
            profile.name
        );
        assert!(
            rows.into_iter().any(|(.., told)| !told.is_empty()),
            "{} never fires",
            profile.name
        );
    }
    // IPv6 with an address of the internet is translated nowhere; with one of the inside it is.
    let six = [live("[2001:db8::9]:443", 90)];
    assert!(low("100/host", "2001:db8::2", &six).is_empty());
    assert_eq!(low("100/host", "fdaa::2", &six).len(), 1);
    // A public IPv4 address is no reason: who names a profile knows what is in front.
    assert_eq!(low("100/host", "198.51.100.2", &[live(A, 90)]).len(), 1);
}

/// Connections that the other side closes leave nothing here; sockets that are no longer there tell of them.
#[test]
fn what_the_other_side_closes_counts_by_a_pace_that_is_steady() {
    let looks = |gone: &[u32]| {
        let mut scene = Scene::new();
        let mut first = 1;
        for (at, n) in (0..).zip(gone) {
            first += n;
            let inodes: Vec<u32> = (first..first + 10).collect();
            scene = scene.look(at, look().established(10).inodes(&inodes));
        }
        let mut world = scene.world();
        world.apply(&Observation {
            at: start(),
            took: Span::ZERO,
            source: Source::Config,
            body: Body::NatBudget(crate::budgets::parse("100/host/60s").unwrap()),
        });
        let input = Input {
            world: &world,
            thresholds: &Thresholds::default(),
        };
        (RULE.check)(&input)
    };
    // Two a second for ten seconds: a hundred and twenty in a minute.
    let steady = looks(&[2; 11]);
    assert_eq!(steady[0].confidence, Confidence::Possible);
    assert_eq!(steady[0].evidence.get("in_use"), Some(&130.into()));
    // Ten that end at once are ten.
    assert!(looks(&[0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0]).is_empty());
}

use super::*;
use crate::config::Thresholds;
use crate::observation::conntrack::{CtCpuStats, CtStats};
use crate::observation::host::Counters;
use crate::observation::nat::NatFacts;
use crate::observation::socket::{DestinationTally, SocketTally, StateCounts, TcpState};
use crate::observation::{Body, Observation, SourceStatus};
use crate::rules::upstream::testing::{facts, server};
use crate::track::World;

/// One destination at one look: address, SYN_SENT, ESTABLISHED.
type Row = (&'static str, u32, u32);

struct Case {
    looks: Vec<(i64, Vec<Row>)>,
    retransmits: u64,
    segments: u64,
    discards: u64,
    drops: u32,
    nat: Option<NatFacts>,
}

fn tally(rows: &[Row]) -> SocketTally {
    let destination = |(address, syn_sent, established): &Row| {
        let mut states = StateCounts::default();
        states.0[TcpState::SynSent as usize] = *syn_sent;
        states.0[TcpState::Established as usize] = *established;
        DestinationTally {
            proto: Proto::Tcp,
            source: "10.0.0.2".parse().unwrap(),
            destination: format!("{address}:443").parse().unwrap(),
            states,
            ports_in_range: syn_sent + established,
            time_wait_left: [0; 6],
            inodes: Vec::new(),
            uids: Vec::new(),
        }
    };
    SocketTally {
        destinations: rows.iter().map(destination).collect(),
        ..SocketTally::default()
    }
}

impl Case {
    /// New connections to three addresses hang, each of which has established ones; one more got through.
    fn full() -> Self {
        let rows = |ended: u32, new: u32| {
            vec![
                ("198.51.100.1", 3, 5 - ended),
                ("198.51.100.2", 2, 4 + new),
                ("203.0.113.3", 4, 6),
            ]
        };
        Self {
            looks: vec![(1, rows(0, 0)), (3, rows(1, 0)), (5, rows(1, 1))],
            retransmits: 20,
            segments: 100,
            discards: 0,
            drops: 0,
            nat: None,
        }
    }

    fn check(&self) -> Option<(Severity, Confidence)> {
        let start = Timestamp::from_secs(1_000_000);
        let mut world = World::new(start);
        let mut see = |at: i64, source, body| {
            world.apply(&Observation {
                at: start + Span::from_secs(at.unsigned_abs()),
                took: Span::ZERO,
                source,
                body,
            });
        };
        for source in [Source::Sockets, Source::Counters, Source::Conntrack] {
            see(0, source, Body::Status(SourceStatus::ok()));
        }
        let counters = |factor: u64| {
            Counters(
                [
                    ("TcpExt.TCPSynRetrans".to_owned(), self.retransmits * factor),
                    ("Tcp.InSegs".to_owned(), self.segments * factor),
                    ("Ip.OutDiscards".to_owned(), self.discards * factor),
                ]
                .into(),
            )
        };
        see(0, Source::Counters, Body::Counters(counters(0)));
        let stats = |drop: u32| CtStats {
            count: 100,
            max: Some(1000),
            cpus: vec![CtCpuStats {
                drop,
                ..CtCpuStats::default()
            }],
        };
        see(0, Source::Conntrack, Body::ConntrackStats(stats(0)));
        for (at, rows) in &self.looks {
            see(*at, Source::Sockets, Body::Sockets(tally(rows)));
        }
        see(5, Source::Counters, Body::Counters(counters(1)));
        see(5, Source::Conntrack, Body::ConntrackStats(stats(self.drops)));
        if let Some(facts) = &self.nat {
            see(5, Source::Nat, Body::Nat(facts.clone()));
        }
        let found = (RULE.check)(&Input {
            world: &world,
            thresholds: &Thresholds::default(),
        });
        assert!(found.len() <= 1);
        found.first().map(|f| (f.severity, f.confidence))
    }
}

const LIKELY: Option<(Severity, Confidence)> = Some((Severity::Critical, Confidence::Likely));
const HINT: Option<(Severity, Confidence)> = Some((Severity::Warning, Confidence::Possible));

#[test]
fn a_full_nat_is_likely_at_most() {
    assert_eq!(Case::full().check(), LIKELY);
}

#[test]
fn without_any_that_gets_through_it_may_be_a_firewall() {
    let mut case = Case::full();
    let before = case.looks[1].1.clone();
    case.looks[2].1 = before;
    assert_eq!(case.check(), HINT);
}

#[test]
fn ever_more_that_get_through_may_be_a_limit_of_their_rate() {
    let mut case = Case::full();
    for (n, (_, rows)) in (0..).zip(&mut case.looks) {
        rows.iter_mut().for_each(|row| row.2 = 5 + 3 * n);
    }
    assert_eq!(case.check(), HINT);
}

#[test]
fn near_misses_are_silent() {
    type Change = fn(&mut Case);
    let misses: [(&str, Change); 9] = [
        ("two addresses only", |c| {
            c.looks.iter_mut().for_each(|l| l.1.truncate(2))
        }),
        ("nothing is repeated", |c| c.retransmits = 0),
        ("nothing arrives", |c| c.segments = 0),
        ("no address has an established connection", |c| {
            c.looks.iter_mut().flat_map(|l| &mut l.1).for_each(|r| r.2 = 0);
        }),
        ("this host's firewall drops", |c| c.discards = 9),
        ("this host's own table drops", |c| c.drops = 9),
        ("they have only just begun", |c| {
            let last = c.looks.pop().unwrap();
            c.looks = vec![(4, last.1.clone()), last];
        }),
        ("inside addresses need no NAT", |c| {
            let inside = ["10.1.1.1", "10.1.1.2", "10.1.1.3"];
            for (_, rows) in &mut c.looks {
                rows.iter_mut().zip(inside).for_each(|(row, ip)| row.0 = ip);
            }
        }),
        ("most addresses take new ones: a path is down", |c| {
            let others = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
            for (n, (_, rows)) in (1..).zip(&mut c.looks) {
                rows.extend(others.map(|ip| (ip, 0, n)));
            }
        }),
    ];
    for (name, change) in misses {
        let mut case = Case::full();
        change(&mut case);
        assert_eq!(case.check(), None, "{name}");
    }
}

#[test]
fn a_new_flow_to_a_stun_server_settles_it() {
    let mut case = Case::full();
    case.nat = Some(facts());
    assert_eq!(case.check(), None, "it got through");
    let mut dead = facts();
    dead.servers = vec![server("192.0.2.1:3478", false, false)];
    dead.servers[0].problems = vec!["over TCP: no answer within 3.2 s".to_owned()];
    case.nat = Some(dead);
    assert_eq!(case.check(), LIKELY);
}

//! Outbound destinations and the processes behind them as tables.

use super::build::Verdict;
use super::{DestinationRow, ProcessRow, Sockets};
use crate::finding::Subject;
use crate::observation::socket::SocketTally;
use crate::rules::process_ref;
use crate::time::Span;
use crate::track::World;
use crate::track::sockets::{History, Key, Usable};
use crate::types::Proto;

/// Destinations in a report; the rest holds fewer ports.
const DESTINATIONS: usize = 200;
/// Processes in a report; the rest holds fewer sockets.
const PROCESSES: usize = 50;
/// Use that would fill the range within this time at its present growth is called rising: long enough to act, and
/// beyond the minute in which TIME_WAIT levels off by itself.
const RISING: Span = Span::from_secs(600);

/// The section; nothing is known where sockets were not read.
pub(super) fn section(world: &World, verdict: Verdict<'_>) -> Sockets {
    let mut processes: Vec<ProcessRow> = world
        .processes
        .all()
        .map(|(_, facts)| ProcessRow {
            process: process_ref(&facts.into()),
            sockets: facts.sockets,
            fds: facts.fds,
            fd_limit: facts.fd_limit,
        })
        .collect();
    processes.sort_by_key(|p| std::cmp::Reverse(p.sockets));
    let processes_left_out = processes.len().saturating_sub(PROCESSES) as u64;
    processes.truncate(PROCESSES);
    let Some((_, tally)) = world.sockets.newest() else {
        return Sockets {
            processes,
            processes_left_out,
            ..Sockets::default()
        };
    };
    let mut destinations: Vec<DestinationRow> = world
        .sockets
        .busiest(DESTINATIONS)
        .into_iter()
        .filter_map(|(key, history)| row(world, verdict, tally, key, history))
        .collect();
    destinations.sort_by_key(|d| std::cmp::Reverse(d.held));
    let in_use = world
        .sockets
        .destinations()
        .filter(|(_, history)| history.newest().is_some_and(|s| s.held > 0))
        .count();
    Sockets {
        ports_available: usable(world, tally, Proto::Tcp, 0)
            .map(|usable| usable.range.len().saturating_sub(usable.reserved)),
        destinations_left_out: tally.left_out.items + in_use.saturating_sub(destinations.len()) as u64,
        destinations,
        processes,
        processes_left_out,
        inexact: tally.inexact,
        tcp_total: Some(tally.tcp.total()),
        time_wait_total: Some(tally.tcp.get(crate::observation::socket::TcpState::TimeWait)),
    }
}

fn usable(world: &World, tally: &SocketTally, proto: Proto, held: u32) -> Option<Usable> {
    Usable::of(world.sysctls.as_ref()?, tally, proto, held)
}

fn row(
    world: &World,
    verdict: Verdict<'_>,
    tally: &SocketTally,
    key: &Key,
    history: &History,
) -> Option<DestinationRow> {
    let now = history.newest()?;
    let available = usable(world, tally, key.proto, now.held).map(|usable| usable.ports);
    Some(DestinationRow {
        proto: key.proto,
        source: key.source,
        destination: key.destination,
        process: world.owner(key, history).map(|owner| process_ref(&owner.process)),
        held: now.held,
        available,
        established: now.established,
        time_wait: now.time_wait,
        syn_sent: now.syn_sent,
        close_wait: now.close_wait,
        opens_per_second: world.opens(key, history).map(|opens| opens.per_second),
        state: state(verdict, key, history, now.held, available),
    })
}

/// What the rules say of it, and else whether it grows.
fn state(
    verdict: Verdict<'_>,
    key: &Key,
    history: &History,
    held: u32,
    available: Option<u32>,
) -> &'static str {
    let found = |code: &str| {
        verdict
            .findings()
            .any(|f| f.code == code && is_about(&f.subject, key))
    };
    if found("ports-exhausted") {
        return "exhausted";
    }
    if found("ports-low") {
        return "low";
    }
    let left = available.map(|all| f64::from(all.saturating_sub(held)));
    match (left, history.held_per_second()) {
        (Some(left), Some(growth)) if growth > 0.0 && left / growth <= RISING.as_secs_f64() => "rising",
        _ => "steady",
    }
}

fn is_about(subject: &Subject, key: &Key) -> bool {
    match subject {
        Subject::Destination {
            proto,
            source,
            address,
            port,
            ..
        } => {
            *proto == key.proto
                && source.is_none_or(|s| s == key.source)
                && *address == key.destination.ip()
                && *port == key.destination.port()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Confidence, Finding, Severity};
    use crate::observation::host::Sysctls;
    use crate::observation::socket::{DestinationTally, StateCounts, TcpState};
    use crate::observation::{Body, Observation, Source};
    use crate::report::build::build;
    use crate::report::sample;
    use crate::rules::Evaluation;
    use crate::time::Timestamp;
    use crate::types::PortRange;

    /// A world in which ports towards 203.0.113.9:443 are held as listed, a look every second.
    fn world(held: &[u32], range: Option<PortRange>) -> World {
        let mut world = World::new(Timestamp::from_secs(100));
        let mut apply = |secs: i64, source, body| {
            world.apply(&Observation {
                at: Timestamp::from_secs(secs),
                took: Span::ZERO,
                source,
                body,
            });
        };
        let sysctls = Sysctls {
            local_port_range: range,
            ..Sysctls::default()
        };
        apply(100, Source::Host, Body::Sysctls(sysctls));
        for (secs, held) in (100..).zip(held) {
            let mut states = StateCounts::default();
            states.0[TcpState::Established as usize] = *held;
            let tally = SocketTally {
                tcp: states,
                destinations: vec![DestinationTally {
                    proto: Proto::Tcp,
                    source: [10, 0, 0, 2].into(),
                    destination: ([203, 0, 113, 9], 443).into(),
                    states,
                    ports_in_range: *held,
                    time_wait_left: Default::default(),
                    inodes: Vec::new(),
                    uids: Vec::new(),
                }],
                ..SocketTally::default()
            };
            apply(secs, Source::Sockets, Body::Sockets(tally));
        }
        world
    }

    fn states(held: &[u32]) -> Vec<&'static str> {
        let report = build(
            &world(held, Some(PortRange::LINUX_DEFAULT)),
            Evaluation::default(),
            "",
        );
        report.sockets.destinations.iter().map(|d| d.state).collect()
    }

    #[test]
    fn growth_is_told_from_standing_still() {
        assert_eq!(states(&[40, 40, 40, 40]), ["steady"]);
        assert_eq!(states(&[1000, 2000, 3000, 4000]), ["rising"]);
        assert_eq!(states(&[4000, 3000, 2000, 1000]), ["steady"]);
    }

    #[test]
    fn a_finding_names_the_state() {
        let about = |port, code| Evaluation {
            findings: vec![Finding {
                subject: Subject::Destination {
                    proto: Proto::Tcp,
                    source: None,
                    address: [203, 0, 113, 9].into(),
                    port,
                    process: None,
                },
                ..sample::finding(code, Severity::Critical, Confidence::Certain, "")
            }],
            ..Evaluation::default()
        };
        for (port, code, expected) in [
            (443, "ports-exhausted", "exhausted"),
            (443, "ports-low", "low"),
            (80, "ports-low", "steady"),
        ] {
            let world = world(&[40, 40, 40], Some(PortRange::LINUX_DEFAULT));
            let report = build(&world, about(port, code), "");
            assert_eq!(report.sockets.destinations[0].state, expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut world = world(&[], Some(PortRange::LINUX_DEFAULT));
        let destination = |port: u16| {
            let mut states = StateCounts::default();
            states.0[TcpState::Established as usize] = 3;
            DestinationTally {
                proto: Proto::Tcp,
                source: [10, 0, 0, 2].into(),
                destination: ([203, 0, 113, 9], port).into(),
                states,
                ports_in_range: 3,
                time_wait_left: Default::default(),
                inodes: Vec::new(),
                uids: Vec::new(),
            }
        };
        let tally = SocketTally {
            destinations: (1..=210).map(destination).collect(),
            left_out: crate::observation::socket::LeftOut {
                items: 7,
                members: 70,
            },
            inexact: true,
            ..SocketTally::default()
        };
        world.apply(&Observation {
            at: Timestamp::from_secs(100),
            took: Span::ZERO,
            source: Source::Sockets,
            body: Body::Sockets(tally),
        });
        let sockets = build(&world, Evaluation::default(), "").sockets;
        assert_eq!(sockets.destinations.len(), DESTINATIONS);
        assert_eq!(sockets.destinations_left_out, 10 + 7);
        assert!(sockets.inexact);
    }

    #[test]
    fn without_the_range_nothing_is_said_to_be_available() {
        let report = build(&world(&[40], None), Evaluation::default(), "");
        assert_eq!(report.sockets.ports_available, None);
        assert_eq!(report.sockets.destinations[0].available, None);
        assert_eq!(report.sockets.destinations[0].held, 40);
        assert_eq!(report.sockets.tcp_total, Some(40));
        assert_eq!(report.sockets.time_wait_total, Some(0));
    }
}

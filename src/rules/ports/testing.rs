//! Scenes for the tests of these rules: a host with one destination, observed through [`World::apply`].

use std::net::IpAddr;

use crate::config::Thresholds;
use crate::finding::Finding;
use crate::observation::connect::{Bursts, ConnectRow, ConnectTally, Denial, Failures, PortCall};
use crate::observation::host::{HostFacts, Sysctls};
use crate::observation::socket::{
    DestinationTally, ProcessFacts, ProcessIdentity, ProcessTable, SocketTally, StateCounts, TcpState,
};
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::rules::{Evaluation, Input, Rule, evaluate};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::types::{PortRange, Proto};

/// What one look shows of the destination.
#[derive(Clone, Default)]
pub struct Look {
    states: StateCounts,
    class: Option<u32>,
    listening: u32,
    udp: Option<(u32, u32)>,
    inodes: Vec<u32>,
    inexact: bool,
}

/// A look that shows nothing yet.
pub fn look() -> Look {
    Look::default()
}

impl Look {
    fn state(mut self, state: TcpState, n: u32) -> Self {
        self.states.0[state as usize] = n;
        self
    }
    pub fn time_wait(self, n: u32) -> Self {
        self.state(TcpState::TimeWait, n)
    }
    pub fn established(self, n: u32) -> Self {
        self.state(TcpState::Established, n)
    }
    pub fn syn_sent(self, n: u32) -> Self {
        self.state(TcpState::SynSent, n)
    }
    pub fn close_wait(self, n: u32) -> Self {
        self.state(TcpState::CloseWait, n)
    }
    /// TIME_WAITs of the newest class; the others share the rest. Without it all six are alike.
    pub fn rate_class(mut self, n: u32) -> Self {
        self.class = Some(n);
        self
    }
    pub fn listening(mut self, n: u32) -> Self {
        self.listening = n;
        self
    }
    /// UDP sockets of the destination, and UDP ports in the range in all.
    pub fn udp(mut self, held: u32, all: u32) -> Self {
        self.udp = Some((held, all));
        self.state(TcpState::Established, held)
    }
    pub fn inodes(mut self, inodes: &[u32]) -> Self {
        self.inodes = inodes.to_vec();
        self
    }
    pub fn inexact(mut self) -> Self {
        self.inexact = true;
        self
    }

    fn tally(&self, source: &str) -> SocketTally {
        let time_wait = self.states.get(TcpState::TimeWait);
        let newest = self.class.unwrap_or(time_wait / 6);
        let each = (time_wait - newest) / 5;
        let mut left = [each; 6];
        left[5] = newest;
        left[0] += time_wait - newest - each * 5;
        let source: IpAddr = source.parse().unwrap();
        SocketTally {
            udp_ports_in_range: self.udp.map_or(0, |(_, all)| all),
            listen_ports_in_range: self.listening,
            destinations: vec![DestinationTally {
                proto: if self.udp.is_some() {
                    Proto::Udp
                } else {
                    Proto::Tcp
                },
                source,
                destination: ([203, 0, 113, 9], 443).into(),
                states: self.states,
                ports_in_range: self.states.total(),
                time_wait_left: left,
                inodes: self.inodes.clone(),
                uids: Vec::new(),
            }],
            inexact: self.inexact,
            ..SocketTally::default()
        }
    }
}

/// A host as it is observed.
pub struct Scene {
    sysctls: Sysctls,
    unavailable: Vec<Source>,
    netns: Option<&'static str>,
    tallies: Vec<(f64, SocketTally)>,
    processes: Vec<ProcessFacts>,
    owners: Vec<(u32, u32)>,
    connects: Vec<(u32, ConnectTally)>,
    causes_unknown: bool,
}

impl Scene {
    pub fn new() -> Self {
        Self {
            sysctls: Sysctls {
                local_port_range: Some(PortRange::LINUX_DEFAULT),
                tcp_tw_reuse: Some(2),
                ..Sysctls::default()
            },
            unavailable: Vec::new(),
            netns: None,
            tallies: Vec::new(),
            processes: Vec::new(),
            owners: Vec::new(),
            connects: Vec::new(),
            causes_unknown: false,
        }
    }
    /// What was counted in the kernel since second 0, of one process towards the destination; it joins what was counted then.
    pub fn connects(mut self, at: u32, row: ConnectRow) -> Self {
        if let Some((_, tally)) = self.connects.iter_mut().find(|(t, _)| *t == at) {
            tally.rows.push(row);
            return self;
        }
        let tally = ConnectTally {
            since: start(),
            rows: vec![row],
            ..ConnectTally::default()
        };
        self.connects.push((at, tally));
        self
    }
    /// A call that was denied a port, as counted at second `at`; it joins what was counted then.
    pub fn denied(mut self, at: u32, denial: Denial) -> Self {
        let there = self.connects.iter_mut().find(|(t, _)| *t == at);
        match there {
            Some((_, tally)) => tally.denied.get_or_insert_default().push(denial),
            None => self.connects.push((
                at,
                ConnectTally {
                    since: start(),
                    denied: Some(vec![denial]),
                    ..ConnectTally::default()
                },
            )),
        }
        self
    }
    /// Why connects fail is not told.
    pub fn causes_unknown(mut self) -> Self {
        self.causes_unknown = true;
        self
    }
    pub fn look(self, at: u32, look: Look) -> Self {
        self.look_from(at, "10.0.0.2", look)
    }
    /// A further source address; at the same time as another it joins that look.
    pub fn look_from(mut self, at: u32, source: &str, look: Look) -> Self {
        let tally = look.tally(source);
        match self.tallies.iter_mut().find(|(t, _)| *t == f64::from(at)) {
            Some((_, there)) => there.destinations.extend(tally.destinations),
            None => self.tallies.push((at.into(), tally)),
        }
        self
    }
    pub fn empty_look(mut self, at: u32) -> Self {
        self.tallies.push((at.into(), SocketTally::default()));
        self
    }
    pub fn without_range(mut self) -> Self {
        self.sysctls.local_port_range = None;
        self
    }
    pub fn reuse(mut self, value: u32) -> Self {
        self.sysctls.tcp_tw_reuse = Some(value);
        self
    }
    pub fn reserve(mut self, low: u16, high: u16) -> Self {
        self.sysctls.reserved_ports.push(PortRange { low, high });
        self
    }
    pub fn netns(mut self, name: &'static str) -> Self {
        self.netns = Some(name);
        self
    }
    pub fn unavailable(mut self, source: Source) -> Self {
        self.unavailable.push(source);
        self
    }
    /// A process that owns `inodes`.
    pub fn process(mut self, pid: u32, comm: &str, inodes: &[u32]) -> Self {
        self.owners.extend(inodes.iter().map(|i| (*i, pid)));
        self.facts(ProcessFacts {
            pid,
            start_ticks: 1,
            comm: comm.to_owned(),
            exe: None,
            runtime: Some(comm.to_owned()),
            fds: 10,
            sockets: 5,
            fd_limit: Some(1024),
        })
    }
    pub fn facts(mut self, facts: ProcessFacts) -> Self {
        self.processes.push(facts);
        self
    }

    pub fn world(&self) -> World {
        let start = start();
        let mut world = World::new(start);
        let mut apply = |after: f64, source, body| {
            // What sees nothing tells nothing.
            if self.unavailable.contains(&source) && !matches!(body, Body::Status(_)) {
                return;
            }
            world.apply(&Observation {
                at: start + Span::from_secs_f64(after),
                took: Span::ZERO,
                source,
                body,
            });
        };
        for source in Source::ALL {
            let status = match self.unavailable.contains(&source) {
                true => SourceStatus::unavailable("a test"),
                false => SourceStatus::ok(),
            };
            apply(0.0, source, Body::Status(status));
        }
        apply(0.0, Source::Host, Body::Host(host(self.netns)));
        apply(0.0, Source::Host, Body::Sysctls(self.sysctls.clone()));
        for (at, tally) in &self.tallies {
            apply(*at, Source::Sockets, Body::Sockets(tally.clone()));
        }
        for (at, tally) in &self.connects {
            let mut tally = tally.clone();
            tally.causes_unknown = self.causes_unknown;
            apply((*at).into(), Source::Bpf, Body::Connects(tally));
        }
        let table = ProcessTable {
            processes: self.processes.clone(),
            owners: self.owners.clone(),
            unreadable: 0,
        };
        let last = self.tallies.last().map_or(0.0, |(at, _)| *at);
        apply(last, Source::Processes, Body::Processes(table));
        world
    }

    pub fn check(&self, rule: &Rule) -> Vec<Finding> {
        let thresholds = Thresholds::default();
        let world = self.world();
        (rule.check)(&Input {
            world: &world,
            thresholds: &thresholds,
        })
    }

    pub fn evaluate(&self) -> Evaluation {
        let rules: Vec<&Rule> = super::RULES.iter().collect();
        let thresholds = Thresholds::default();
        let world = self.world();
        evaluate(
            &rules,
            &Input {
                world: &world,
                thresholds: &thresholds,
            },
        )
    }

    pub fn not_checked(&self, rule: &Rule) -> Vec<Source> {
        let all = self.evaluate().not_checked;
        let one = all.into_iter().find(|n| n.code == rule.code);
        one.map(|n| n.missing).unwrap_or_default()
    }
}

/// When every scene begins.
pub fn start() -> Timestamp {
    Timestamp::from_secs(1_000_000)
}

/// Connections of node (pid 812) to the destination: so many opened, and those closed by this side, after 20 ms each.
pub fn opened(established: u64, closed_here: u64) -> ConnectRow {
    ConnectRow {
        process: ProcessIdentity {
            pid: 812,
            start_ticks: 1,
            comm: "node".to_owned(),
            exe: None,
            runtime: Some("node".to_owned()),
        },
        source: [10, 0, 0, 2].into(),
        destination: ([203, 0, 113, 9], 443).into(),
        attempts: established,
        established,
        failed: Failures::default(),
        closed_here,
        closed_there: 0,
        reset_there: 0,
        open: established - closed_here,
        peak: 4,
        lifetime_total: Span::from_millis(20) * u32::try_from(closed_here).unwrap(),
        syn_retransmits: 0,
        bytes_sent: 0,
        bytes_received: 0,
        bursts: Bursts::default(),
        lifetimes: Vec::new(),
    }
}

/// node was denied a UDP port three times, last at second `last`.
pub fn denial(last: u32) -> Denial {
    Denial {
        process: opened(0, 0).process,
        proto: Proto::Udp,
        call: PortCall::Connect,
        errno: 11,
        source: [10, 0, 0, 2].into(),
        port: None,
        destination: Some(([203, 0, 113, 9], 443).into()),
        holder: None,
        count: 3,
        first: start(),
        last: start() + Span::from_secs(last.into()),
    }
}

fn host(netns: Option<&str>) -> HostFacts {
    HostFacts {
        hostname: "test".to_owned(),
        kernel: "6.12.0".to_owned(),
        boot_at: None,
        netns: None,
        netns_name: netns.map(str::to_owned),
        cpus: 2,
        memory_bytes: None,
        fly: None,
        capabilities: Vec::new(),
    }
}

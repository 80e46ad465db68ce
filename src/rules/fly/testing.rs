//! Worlds of a Fly machine.

use crate::config::Thresholds;
use crate::finding::Finding;
use crate::observation::connect::{ConnectRow, ConnectTally, Failures};
use crate::observation::fly::{FlyNet, Internal, ResolverAnswer};
use crate::observation::host::{Counters, FlyMachine, HostFacts};
use crate::observation::path::{Failure, PathSample, Rtts, Sibling};
use crate::observation::socket::{DestinationTally, SocketTally, StateCounts, TcpState, WaitingTally};
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::rules::ports::testing::opened;
use crate::rules::{Input, Rule};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::types::Proto;
use std::net::SocketAddr;

/// A world in the making.
pub struct Scene {
    world: World,
    at: i64,
}

impl Scene {
    /// A machine of Fly's with these name servers.
    pub fn fly(name_servers: &[&str]) -> Self {
        Self::new(Some(FlyMachine {
            app: "web".to_owned(),
            region: "ams".to_owned(),
            machine: "148e".to_owned(),
            group: None,
            private: "fdaa::1:2".parse().ok(),
            public: None,
            name_servers: name_servers.iter().map(|s| s.parse().unwrap()).collect(),
        }))
    }

    /// Any other host.
    pub fn elsewhere() -> Self {
        Self::new(None)
    }

    fn new(fly: Option<FlyMachine>) -> Self {
        let host = HostFacts {
            hostname: "test".to_owned(),
            kernel: "6.12.0".to_owned(),
            boot_at: None,
            netns: None,
            netns_name: None,
            cpus: 1,
            memory_bytes: None,
            fly,
            capabilities: Vec::new(),
        };
        let scene = Self {
            world: World::new(Timestamp::from_secs(1000)),
            at: 1001,
        };
        scene
            .apply(Source::Host, Body::Host(host))
            .apply(Source::Paths, Body::Status(SourceStatus::ok()))
    }

    fn apply(mut self, source: Source, body: Body) -> Self {
        self.world.apply(&Observation {
            at: Timestamp::from_secs(self.at),
            took: Span::ZERO,
            source,
            body,
        });
        self
    }

    pub fn answers(self, answers: &[(&str, &Internal)]) -> Self {
        let answer = |(server, says): &(&str, &Internal)| ResolverAnswer {
            server: SocketAddr::new(server.parse().unwrap(), 53),
            says: (*says).clone(),
        };
        let net = FlyNet {
            answers: answers.iter().map(answer).collect(),
            ..FlyNet::default()
        };
        self.apply(Source::Paths, Body::FlyNet(net))
    }

    fn sample(self, target: &str, answered: u32, lost: u32, sibling: Option<Sibling>) -> Self {
        let mut sample = PathSample::unmeasured(target.parse().unwrap());
        sample.address = sample.target.host.parse().ok();
        sample.sent = answered + lost;
        sample.rtts = Rtts(vec![Span::from_millis(5); usize::try_from(answered).unwrap()]);
        if lost > 0 {
            sample.failures = vec![(Failure::Timeout, lost)];
        }
        sample.sibling = sibling;
        self.apply(Source::Paths, Body::Path(Box::new(sample)))
    }

    pub fn sibling(self, address: &str, answered: u32, lost: u32) -> Self {
        let sibling = Sibling {
            app: "web".to_owned(),
            region: "gru".to_owned(),
            machine: address.to_owned(),
        };
        self.sample(address, answered, lost, Some(sibling))
    }

    pub fn tcp(self, ip: &str, port: u16, answered: u32) -> Self {
        self.sample(&format!("tcp:{ip}:{port}"), answered, 5 - answered, None)
    }

    /// Sockets that wait for `seconds`, looked at each second; their SYNs are sent again where `again`.
    pub fn syn_sent(mut self, addresses: &[&str], port: u16, seconds: i64, again: bool) -> Self {
        for second in 0..=seconds {
            self.at += 1;
            let mut states = StateCounts::default();
            states.0[TcpState::SynSent as usize] = 1;
            let destinations = addresses.iter().map(|ip| DestinationTally {
                proto: Proto::Tcp,
                source: [10, 0, 0, 2].into(),
                destination: SocketAddr::new(ip.parse().unwrap(), port),
                states,
                ports_in_range: 1,
                time_wait_left: [0; 6],
                inodes: Vec::new(),
                uids: Vec::new(),
            });
            let waiting = addresses.iter().map(|ip| WaitingTally {
                source: [10, 0, 0, 2].into(),
                destination: SocketAddr::new(ip.parse().unwrap(), port),
                syn_sent: 2,
                sent_again: 2 * u32::from(again),
                established: 0,
                heard: 0,
                unacknowledged: 0,
            });
            let tally = SocketTally {
                waiting: (second > 0).then(|| waiting.collect()),
                destinations: destinations.collect(),
                ..SocketTally::default()
            };
            self = self.apply(Source::Sockets, Body::Sockets(tally));
        }
        self
    }

    /// Connects as the kernel counted them in ten seconds: tried, established, given up unanswered, refused.
    pub fn connects(mut self, rows: &[(&str, [u64; 4])]) -> Self {
        let since = Timestamp::from_secs(self.at);
        self.at += 10;
        let row = |(to, [attempts, established, unanswered, refused]): &(&str, [u64; 4])| ConnectRow {
            destination: to.parse().unwrap(),
            attempts: *attempts,
            established: *established,
            failed: Failures {
                unanswered: *unanswered,
                given_up: *unanswered,
                refused: *refused,
                ..Failures::default()
            },
            closed_here: *established,
            open: attempts - established - unanswered - refused,
            peak: 1,
            lifetime_total: Span::ZERO,
            syn_retransmits: attempts - established - refused,
            ..opened(*established, *established)
        };
        let tally = ConnectTally {
            since,
            rows: rows.iter().map(row).collect(),
            ..ConnectTally::default()
        };
        self.apply(Source::Bpf, Body::Connects(tally))
    }

    /// SYNs that were sent again, and of these those that did not leave.
    pub fn syns(self, again: u64, kept: u64) -> Self {
        let counters = |factor: u64| {
            let all = [("TcpExt.TCPSynRetrans", again), ("TcpExt.TCPRetransFail", kept)];
            Body::Counters(Counters(
                all.map(|(name, n)| (name.to_owned(), n * factor)).into(),
            ))
        };
        let mut scene = self.apply(Source::Counters, counters(0));
        scene.at += 1;
        scene.apply(Source::Counters, counters(1))
    }

    pub fn check(&self, rule: &Rule) -> Vec<Finding> {
        (rule.check)(&Input {
            world: &self.world,
            thresholds: &Thresholds::default(),
        })
    }
}

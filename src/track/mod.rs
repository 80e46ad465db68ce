//! The state that observations build up: pure, bounded, replayable.
//!
//! In: [`Observation`]s, in the order in which they came. Out: plain state that rules read, look-ups that the core
//! would like ([`World::requests`]) and the next event worth waiting for ([`World::due`]). No I/O, no clock.

pub mod connects;
pub mod conntrack;
pub mod counters;
pub mod handshake;
pub mod kernel_log;
pub mod natclass;
pub mod natpool;
pub mod natrules;
pub mod opened;
pub mod paths;
pub mod places;
pub mod probes;
pub mod processes;
pub mod routes;
pub mod sessions;
pub mod sockets;
pub mod sources;
pub mod stats;
pub mod trend;
pub mod tunnels;

use crate::observation::fly::FlyNet;
use crate::observation::fly_toml::FlyTomlFacts;
use crate::observation::packet::Sampling;
use crate::observation::{Body, Observation, Request, Source, host::HostFacts, host::Sysctls};
use crate::time::{Span, Timestamp};

/// Looks that repeat are no further apart than this (a large socket table is read once a minute), unless the clock was set or the
/// machine slept.
const LONGEST_GAP: Span = Span::from_secs(150);

/// Whether the clock was set between two looks, or none was taken for long: what happened a second cannot be told across.
fn stepped(before: Timestamp, at: Timestamp) -> bool {
    at < before || at.since(before) > LONGEST_GAP
}

/// Everything known about the host.
#[derive(Debug)]
pub struct World {
    /// When watching began.
    pub started: Timestamp,
    /// The time of the newest observation or of the last [`World::handle_timeout`].
    pub now: Timestamp,
    /// How each source fares.
    pub sources: sources::Sources,
    /// Facts of the host.
    pub host: Option<HostFacts>,
    /// Settings, as last read.
    pub sysctls: Option<Sysctls>,
    /// WireGuard devices and peers over time.
    pub tunnels: tunnels::Tunnels,
    /// Handshakes on the wire.
    pub handshakes: handshake::Handshakes,
    /// Sessions on the wire.
    pub sessions: sessions::Sessions,
    /// What this place and a second one have in common; `None` where there is no second.
    pub places: Option<places::Comparison>,
    /// How their data is sampled; `None` where none is looked for.
    pub sampling: Option<Sampling>,
    /// What keys opened of handshakes.
    pub opened: opened::OpenedState,
    /// Reasons in the kernel's log.
    pub kernel_log: kernel_log::KernelLog,
    /// Links, routes and look-ups.
    pub routes: routes::RouteState,
    /// Protocol counters over time.
    pub counters: counters::CounterState,
    /// Sockets over time.
    pub sockets: sockets::SocketState,
    /// Processes behind sockets.
    pub processes: processes::ProcessState,
    /// Connections counted by the kernel, over time.
    pub connects: connects::ConnectState,
    /// Conntrack over time.
    pub conntrack: conntrack::ConntrackState,
    /// The NAT in front, as discovered.
    pub nat: natclass::NatState,
    /// Measured paths.
    pub paths: paths::PathState,
    /// What was probed, and what came of it.
    pub probes: probes::Probes,
    /// What was found of a Fly machine's private network, where that was asked for; and when.
    pub fly_net: Option<(Timestamp, FlyNet)>,
    /// What a fly.toml says, where one was read.
    pub fly_toml: Option<FlyTomlFacts>,
}

impl World {
    /// An empty world whose watching begins at `started`.
    pub fn new(started: Timestamp) -> Self {
        Self {
            started,
            now: started,
            sources: sources::Sources::default(),
            host: None,
            sysctls: None,
            tunnels: tunnels::Tunnels::default(),
            handshakes: handshake::Handshakes::default(),
            sessions: sessions::Sessions::default(),
            places: None,
            sampling: None,
            opened: opened::OpenedState::default(),
            kernel_log: kernel_log::KernelLog::default(),
            routes: routes::RouteState::default(),
            counters: counters::CounterState::default(),
            sockets: sockets::SocketState::default(),
            processes: processes::ProcessState::default(),
            connects: connects::ConnectState::default(),
            conntrack: conntrack::ConntrackState::default(),
            nat: natclass::NatState::default(),
            paths: paths::PathState::default(),
            probes: probes::Probes::default(),
            fly_net: None,
            fly_toml: None,
        }
    }

    /// How long the world has been watched.
    pub fn watched(&self) -> Span {
        self.now - self.started
    }

    /// Takes one observation in.
    pub fn apply(&mut self, observation: &Observation) {
        let at = observation.at;
        self.now = self.now.max(at);
        if !matches!(observation.body, Body::Status(_)) {
            self.sources.told(observation.source);
        }
        match &observation.body {
            Body::Status(status) => self.sources.apply(observation.source, at, status),
            Body::Host(facts) => self.host = Some(facts.clone()),
            Body::Sysctls(sysctls) => self.sysctls = Some(sysctls.clone()),
            Body::Devices(devices) => self.tunnels.apply_devices(observation.source, at, devices),
            Body::ConfiguredPeers(peers) => self.tunnels.apply_configured(at, peers),
            Body::Packet(packet) => {
                // A sample of data says nothing about how many there were.
                if !packet.is_data() {
                    self.handshakes.apply_packet(at, packet);
                }
                self.sessions.apply_packet(at, packet);
            }
            Body::Sampling(sampling) => self.sampling = Some(*sampling),
            Body::IcmpError(error) => self.handshakes.apply_icmp(at, error),
            Body::Checked(checked) => self.opened.apply(at, checked),
            Body::KernelLine(line) => self.kernel_log.apply(line),
            Body::Initiations(tally) => self.handshakes.apply_tally(at, tally),
            Body::Routes(tables) => {
                if self.routes.apply_tables(at, tables) {
                    self.tunnels.ask_again();
                }
            }
            Body::RouteAnswer(answer) => self.routes.apply_answer(at, answer),
            Body::Counters(counters) => self.counters.apply(at, counters),
            Body::Sockets(tally) => self.sockets.apply(at, tally),
            Body::Processes(table) => self.processes.apply(at, table),
            Body::Connects(tally) => self.connects.apply(at, tally),
            Body::ConntrackStats(stats) => self.conntrack.apply_stats(at, stats),
            Body::ConntrackTally(tally) => self.conntrack.apply_tally(at, tally),
            Body::Nat(facts) => self.nat.apply(at, facts),
            Body::NatBudget(budget) => self.nat.apply_budget(budget),
            Body::ConntrackEvents(events) => self.conntrack.apply_events(*events),
            Body::Path(sample) => self.paths.apply(at, sample),
            Body::PathPast(past) => self.paths.apply_past(at, past),
            Body::Probe(fact) => self.probes.apply(at, fact),
            Body::NatRules(rules) => self.conntrack.apply_rules(rules),
            Body::FlyNet(facts) => self.fly_net = Some((at, facts.clone())),
            Body::FlyToml(facts) => self.fly_toml = Some((**facts).clone()),
        }
    }

    /// Forgets what `source` told of what lies beyond this host, and that it was asked.
    pub fn forget(&mut self, source: Source) {
        match source {
            Source::Paths => (self.paths, self.fly_net) = (paths::PathState::default(), None),
            Source::Nat => self.nat.forget_discoveries(),
            Source::Config => {
                self.nat.forget_budget();
                self.tunnels.apply_configured(self.now, &[]);
            }
            _ => {}
        }
        self.sources.forget(source);
    }

    /// Whose the connections of a destination are, where known. Most of the live sockets tell it where live ones are the
    /// most; else who opened them does, for a TIME_WAIT has no owner.
    pub fn owner(&self, key: &sockets::Key, history: &sockets::History) -> Option<processes::Owner> {
        let sample = history.newest().copied().unwrap_or_default();
        let holder = self.processes.owner(history);
        if holder.is_some() && sample.live > sample.time_wait {
            return holder;
        }
        let seen = self.connects.seen(key);
        seen.filter(|seen| seen.accounts_for(sample.time_wait))
            .and_then(|seen| seen.owner)
            .or(holder)
    }

    /// Opens per second of a destination: counted where that can be, else estimated from the socket table.
    pub fn opens(&self, key: &sockets::Key, history: &sockets::History) -> Option<sockets::OpenRate> {
        let counted = self.connects.seen(key).filter(|seen| seen.established > 0);
        counted.and_then(|seen| seen.opens).or_else(|| history.opens())
    }

    /// Lets time pass without an observation.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Look-ups that would tell something not yet known. Each is returned once.
    pub fn requests(&mut self) -> Vec<Request> {
        let mut requests = self.tunnels.route_requests();
        requests.extend(self.processes.owner_requests(&self.sockets));
        requests
    }

    /// [`World::requests`] after `observation` was taken in. Single packets and answers change nothing that could be
    /// asked for, and there are many of them: each would cost a walk over every peer.
    pub fn requests_after(&mut self, observation: &Observation) -> Vec<Request> {
        match observation.body {
            Body::Packet(_)
            | Body::IcmpError(_)
            | Body::Sampling(_)
            | Body::Checked(_)
            | Body::Initiations(_)
            | Body::KernelLine(_)
            | Body::RouteAnswer(_)
            | Body::Status(_)
            | Body::Probe(_) => Vec::new(),
            _ => self.requests(),
        }
    }

    /// The next event on which a verdict hangs, if one is due soon: worth waiting for.
    pub fn due(&self) -> Option<Due> {
        let contest = self.sessions.contest_due(self.now).map(|at| Due {
            at,
            what: "whether two hosts use one key".to_owned(),
        });
        let tap = self.sources.watched(Source::Capture);
        let tapped = tap
            .filter(|_| self.sources.sees(Source::Capture))
            .map(|(since, _)| since);
        let tunnels = self.tunnels.due(&self.handshakes, &self.routes, tapped, self.now);
        [tunnels, contest].into_iter().flatten().min_by_key(|due| due.at)
    }
}

/// An event that is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// When it should have happened at the latest.
    pub at: Timestamp,
    /// What is waited for, in words that fit "waiting for …".
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::device::{DeviceSnapshot, Implementation, PeerSnapshot};
    use crate::observation::host::{Route, RouteTables};
    use crate::observation::{SourceState, SourceStatus};
    use crate::types::{IfIndex, PublicKey};

    fn world() -> World {
        World::new(Timestamp::EPOCH)
    }

    fn observe(world: &mut World, source: Source, body: Body) -> Vec<Request> {
        let observation = Observation {
            at: Timestamp::from_secs(1),
            took: Span::ZERO,
            source,
            body,
        };
        world.apply(&observation);
        world.requests_after(&observation)
    }

    #[test]
    fn ways_are_asked_for_again_when_they_change() {
        let mut world = world();
        let route = |out| Route {
            destination: "0.0.0.0/0".parse().unwrap(),
            table: 254,
            kind: "unicast".to_owned(),
            out: Some(IfIndex(out)),
            gateway: None,
            priority: 0,
            mtu: None,
        };
        let tables = |routes| {
            Body::Routes(RouteTables {
                routes,
                ..RouteTables::default()
            })
        };
        let device = DeviceSnapshot {
            name: "wg0".to_owned(),
            if_index: Some(IfIndex(7)),
            implementation: Implementation::Kernel,
            public_key: None,
            listen_port: None,
            fwmark: 0,
            peers: vec![PeerSnapshot {
                public_key: PublicKey([1; 32]),
                has_preshared_key: false,
                endpoint: Some("198.51.100.7:51820".parse().unwrap()),
                last_handshake: None,
                rx_bytes: 0,
                tx_bytes: 0,
                keepalive: None,
                allowed_ips: vec!["10.0.0.0/24".parse().unwrap()],
            }],
            problems: Vec::new(),
        };
        // wg-quick makes the device first and its routes a moment later.
        observe(&mut world, Source::Routes, tables(vec![route(2)]));
        let asked = observe(&mut world, Source::WireguardNetlink, Body::Devices(vec![device]));
        assert_eq!(asked.len(), 2);
        assert_eq!(observe(&mut world, Source::Routes, tables(vec![route(2)])), []);
        let again = observe(&mut world, Source::Routes, tables(vec![route(2), route(7)]));
        assert_eq!(again, asked);
    }

    #[test]
    fn a_source_that_told_something_sees_at_least_a_part() {
        for told_first in [true, false] {
            let mut world = world();
            let status = Body::Status(SourceStatus::unavailable("no answer within 2 s"));
            let fact = Body::Devices(Vec::new());
            let order = if told_first {
                [fact, status]
            } else {
                [status, fact]
            };
            for body in order {
                observe(&mut world, Source::WireguardNetlink, body);
            }
            let status = world.sources.get(Source::WireguardNetlink).unwrap();
            assert_eq!(status.state, SourceState::Degraded);
            assert_eq!(status.reason.as_deref(), Some("no answer within 2 s"));
        }
    }
}

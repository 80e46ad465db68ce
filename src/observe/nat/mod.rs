//! Discovers what NAT is in front of this host, by asking STUN servers that the user named.
//!
//! Needs no privilege. It sends some dozens of datagrams of about 100 bytes to those servers and opens a TCP connection to
//! each; nobody is asked who was not named. The tests themselves are `probe::natdisc`; here are their sockets.

mod driver;
mod gateway;
mod hops;
pub mod quota;
pub mod resolve;
mod stop;
mod tcp;

use super::jitter::jittered;
use super::{Emit, ObserveError, Observer};
use crate::observation::nat::NatFacts;
use crate::observation::{Body, Source, SourceState, SourceStatus};
use crate::probe::natdisc::Plan;
use crate::sys::{clock, random};
use crate::time::Span;
pub use resolve::Server;
pub use stop::Stop;

/// What to find out.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The servers.
    pub servers: Vec<Server>,
    /// Measure the mapping's lifetime, up to so long.
    pub lifetime: Option<Span>,
    /// Open so many flows to the first server, which has to be our own.
    pub flows: Option<u32>,
    /// Wait so long for room after a quota.
    pub hold: Option<Span>,
    /// What ends the measurement of a lifetime before its time.
    pub stop: Option<Stop>,
}

/// How often the NAT is asked again: it seldom changes, and the servers are somebody's.
const INTERVAL: Span = Span::from_secs(600);

/// A lifetime is measured this long after the first discovery, which is not to wait for it.
const LIFETIME_AFTER: Span = Span::from_secs(1);

/// The observer.
pub struct NatObserver {
    names: Vec<String>,
    wanted: Wanted,
    interval: Span,
    /// Measure the mapping's lifetime, from the second look on.
    lifetime: Option<Span>,
    /// Why some of the named servers are not asked.
    failed: Vec<String>,
    looked: Option<std::time::Instant>,
    status: SourceStatus,
}

impl NatObserver {
    /// With servers to ask, by their names. One that cannot be resolved is left out; none that can is an error.
    pub fn named(names: &[String]) -> Result<Self, ObserveError> {
        let mut observer = Self::steady(names, INTERVAL, None);
        observer.resolve()?;
        Ok(observer)
    }

    /// Measuring the mapping's lifetime, up to so long, with the first look, unless that is to stop.
    pub fn measuring(mut self, lifetime: Span, stop: Stop) -> Self {
        self.lifetime = Some(lifetime);
        (self.wanted.lifetime, self.wanted.stop) = (self.lifetime, Some(stop));
        self
    }

    /// For who asks for good: every `interval` or so, the servers' names resolved anew each time.
    pub fn steady(names: &[String], interval: Span, lifetime: Option<Span>) -> Self {
        Self {
            names: names.to_vec(),
            wanted: Wanted::default(),
            interval,
            lifetime,
            failed: Vec::new(),
            looked: None,
            status: SourceStatus::ok(),
        }
    }

    /// Where no name can be resolved, the addresses known before stay.
    fn resolve(&mut self) -> Result<(), ObserveError> {
        let mut servers = Vec::new();
        self.failed.clear();
        for name in &self.names {
            match resolve::resolve(name) {
                Ok(found) => servers.extend(found),
                Err(error) => self.failed.push(error.to_string()),
            }
        }
        if !servers.is_empty() {
            self.wanted.servers = servers;
        }
        if self.wanted.servers.is_empty() {
            return Err(ObserveError::Absent {
                what: self.failed.join("; "),
            });
        }
        Ok(())
    }

    /// Whether a lifetime is wanted and the next look is the first to measure it.
    fn owes_lifetime(&self) -> bool {
        self.lifetime.is_some() && self.wanted.lifetime.is_none()
    }
}

impl Observer for NatObserver {
    fn source(&self) -> Source {
        Source::Nat
    }

    fn interval(&self) -> Span {
        if self.looked.is_some() && self.owes_lifetime() {
            return LIFETIME_AFTER;
        }
        jittered(self.interval)
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        // The last look of a short watch must not ask everything a second time.
        let fresh = self
            .looked
            .is_some_and(|at| clock::instant() - at < self.interval / 2);
        if fresh && !self.owes_lifetime() {
            return Ok(self.status.clone());
        }
        if self.looked.is_some() {
            self.wanted.lifetime = self.lifetime;
        }
        if self.looked.is_some() || self.wanted.servers.is_empty() {
            self.resolve()?;
        }
        let started = clock::instant();
        let facts = discover(&self.wanted).map_err(|source| ObserveError::System {
            doing: "discovering the NAT in front".to_owned(),
            source,
        })?;
        self.looked = Some(clock::instant());
        self.status = status(&facts);
        if self.status.state == SourceState::Ok && !self.failed.is_empty() {
            self.status = SourceStatus::degraded(self.failed.join("; "));
        }
        emit.emit(clock::now(), clock::instant() - started, Body::Nat(facts));
        Ok(self.status.clone())
    }
}

/// How long a discovery may take that measures a lifetime up to `longest`: three rounds, and the other tests.
pub fn longest(lifetime: Span) -> Span {
    lifetime * 3 + driver::LIMIT
}

/// Runs a discovery to its end.
pub fn discover(wanted: &Wanted) -> std::io::Result<NatFacts> {
    let plan = Plan {
        servers: wanted
            .servers
            .iter()
            .map(|s| (s.name.clone(), s.address))
            .collect(),
        key: random::key()?,
        lifetime: wanted.lifetime,
    };
    // Beside the tests: both take a second or so, and neither waits for the other.
    let first = wanted.servers.first().map(|s| s.address);
    let first_of_ipv4 = wanted
        .servers
        .iter()
        .map(|s| s.address)
        .find(std::net::SocketAddr::is_ipv4);
    let beside = |name: &str| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(512 * 1024)
    };
    let hops = beside("nat-hops").spawn(move || first.map(hops::find).unwrap_or_default())?;
    let gateways = beside("nat-gateway").spawn(move || {
        let on_the_way = |gateway: &_| first_of_ipv4.is_some_and(|to| gateway::on_the_way(*gateway, to));
        let gateway = gateway::default_gateway().filter(on_the_way);
        gateway.map(gateway::ask).unwrap_or_default()
    })?;
    let facts = driver::run(plan, wanted.stop.as_ref());
    let (hops, gateways) = (hops.join(), gateways.join());
    let mut facts = facts?;
    (facts.hops, facts.gateways) = (hops.unwrap_or_default(), gateways.unwrap_or_default());
    if let Some(flows) = wanted.flows {
        let answering = facts.servers.iter().find(|s| s.udp_rtt.is_some());
        if let Some(server) = answering {
            facts.quota = Some(quota::measure(server, flows, wanted.hold)?);
        }
    }
    Ok(facts)
}

/// How well a discovery could see: not at all where no server answered.
pub fn status(facts: &NatFacts) -> SourceStatus {
    let over_udp = facts.servers.iter().filter(|s| s.udp_rtt.is_some()).count();
    let over_tcp = facts.servers.iter().filter(|s| s.tcp_rtt.is_some()).count();
    if over_udp + over_tcp == 0 {
        let problems: Vec<String> = facts
            .servers
            .iter()
            .map(|s| format!("{}: {}", s.name, s.problems.join(", ")))
            .collect();
        return SourceStatus::unavailable(format!("no STUN server answered ({})", problems.join("; ")));
    }
    let silent: Vec<&str> = facts
        .servers
        .iter()
        .filter(|s| s.udp_rtt.is_none() && s.tcp_rtt.is_none())
        .map(|s| s.name.as_str())
        .collect();
    if silent.is_empty() {
        SourceStatus::ok()
    } else {
        SourceStatus::degraded(format!("no answer from {}", silent.join(", ")))
    }
}

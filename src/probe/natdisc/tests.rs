//! Discovery against simulated NATs (by RFC 4787's terms) and the reflector's own answers, with a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::observation::nat::{Behaviour, FamilyFacts};
use crate::probe::reflector::{self, Grid, Reply, Transport};
use crate::wire::stun::Message;
use Behaviour::{AddressAndPortDependent as Apd, AddressDependent as Ad, EndpointIndependent as Ei, Unknown};

mod behaviours;
mod families;
mod liars;

const ONE_WAY: Span = Span::from_millis(25);

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[derive(Clone, Copy)]
struct Sim {
    mapping: Behaviour,
    filtering: Behaviour,
    hairpin: bool,
    keeps_ports: bool,
    /// External addresses, used in turn.
    pool: u8,
    lifetime: Option<Span>,
    /// Of the server.
    second_ip: bool,
    second_port: bool,
    honours_change: bool,
    udp: bool,
    tcp: bool,
    /// An ALG rewrites what it recognises.
    alg: bool,
    /// The link goes down after so long.
    dies: Option<Span>,
    /// This host has another address outside after so long.
    moves: Option<Span>,
    /// The NAT restarts after so long: it has no mapping any more.
    forgets: Option<Span>,
    /// The link is down from here to there, and the NAT keeps its mappings.
    away: Option<(Span, Span)>,
    /// Whoever asked waits no longer than this.
    stop: Option<Span>,
    /// The server's second address is not there.
    other_dead: bool,
    /// So many sockets' flows are let through.
    flows: Option<usize>,
    /// The server takes so long, and twice as long where it answers from elsewhere.
    slow: Span,
}

const HOME: Sim = Sim {
    mapping: Ei,
    filtering: Apd,
    hairpin: false,
    keeps_ports: true,
    pool: 1,
    lifetime: None,
    second_ip: true,
    second_port: true,
    honours_change: true,
    udp: true,
    tcp: true,
    alg: false,
    dies: None,
    moves: None,
    forgets: None,
    away: None,
    stop: None,
    other_dead: false,
    flows: None,
    slow: Span::ZERO,
};

struct Mapped {
    inside: (SocketId, SocketAddr),
    outside: SocketAddr,
    called: BTreeSet<SocketAddr>,
    used: Timestamp,
}

struct Net {
    sim: Sim,
    grid: Grid,
    mappings: Vec<(Option<String>, Mapped)>,
    sockets: BTreeMap<SocketId, SocketAddr>,
    next: u16,
    now: Timestamp,
    /// Datagrams under way to a socket of ours.
    inbound: Vec<(Timestamp, SocketId, SocketAddr, Vec<u8>)>,
    sent: usize,
    /// Sockets that have sent; the main one is the first by order.
    began: BTreeSet<SocketId>,
}

impl Net {
    fn key(&self, socket: SocketId, to: SocketAddr) -> Option<String> {
        match self.sim.mapping {
            Behaviour::None | Unknown => None,
            Ei => Some(format!("{socket:?}")),
            Ad => Some(format!("{socket:?} {}", to.ip())),
            Apd => Some(format!("{socket:?} {to}")),
        }
    }

    /// The external side of a flow.
    fn outside(&mut self, socket: SocketId, local: SocketAddr, to: SocketAddr) -> SocketAddr {
        let key = self.key(socket, to);
        let (life, now) = (self.sim.lifetime, self.now);
        self.mappings
            .retain(|(_, m)| life.is_none_or(|l| m.used + l > now));
        let place = self.mappings.iter().position(|(k, _)| *k == key && key.is_some());
        let place = place.unwrap_or_else(|| {
            self.next += 7;
            let ip: IpAddr = [
                198,
                51,
                100,
                100 + u8::try_from(self.next / 7 % 256).unwrap() % self.sim.pool,
            ]
            .into();
            let port = if self.sim.keeps_ports && self.sim.mapping == Ei {
                local.port()
            } else {
                20_000 + self.next
            };
            let outside = if self.sim.mapping == Behaviour::None {
                local
            } else {
                SocketAddr::new(ip, port)
            };
            let mapped = Mapped {
                inside: (socket, local),
                outside,
                called: BTreeSet::new(),
                used: now,
            };
            self.mappings
                .push((key.or_else(|| Some(format!("none {socket:?}"))), mapped));
            self.mappings.len() - 1
        });
        let (_, mapped) = &mut self.mappings[place];
        mapped.called.insert(to);
        mapped.used = now;
        mapped.outside
    }

    /// A datagram from outside; whether a socket of ours gets it.
    fn inward(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let (life, now, filtering) = (self.sim.lifetime, self.now, self.sim.filtering);
        let passes = |m: &Mapped| match filtering {
            Behaviour::None | Unknown | Ei => true,
            Ad => m.called.iter().any(|a| a.ip() == from.ip()),
            Apd => m.called.contains(&from),
        };
        let alive = |m: &Mapped| life.is_none_or(|l| m.used + l > now);
        let found = self
            .mappings
            .iter_mut()
            .find(|(_, m)| m.outside == to && alive(m) && passes(m));
        if let Some((_, mapped)) = found {
            mapped.used = now;
            let elsewhere = !mapped.called.contains(&from);
            let takes = self.sim.slow * if elsewhere { 2 } else { 1 };
            self.inbound
                .push((now + ONE_WAY + takes, mapped.inside.0, from, bytes));
        }
    }

    fn send(&mut self, socket: SocketId, to: SocketAddr, bytes: &[u8]) {
        self.sent += 1;
        let local = self.sockets[&socket];
        let after = self.now - Timestamp::from_secs(1000);
        if !self.sim.udp || self.sim.dies.is_some_and(|dies| after >= dies) {
            return;
        }
        if self
            .sim
            .away
            .is_some_and(|(from, to)| (from..to).contains(&after))
        {
            return;
        }
        let others = [addr("192.0.2.2:3478"), addr("192.0.2.2:3479")];
        if self.sim.other_dead && others.contains(&to) {
            return;
        }
        self.began.insert(socket);
        let place = self.began.iter().position(|s| *s == socket);
        if self
            .sim
            .flows
            .is_some_and(|n| place.is_none_or(|place| place >= n))
        {
            return;
        }
        if self.sim.forgets.take_if(|at| after >= *at).is_some() {
            self.mappings.clear();
        }
        if self.sim.moves.take_if(|moves| after >= *moves).is_some() {
            // The mappings of the network that was left are no more; new ones have another address.
            self.mappings.clear();
            self.sim.pool = 9;
        }
        let from = self.outside(socket, local, to);
        let ours = self.mappings.iter().any(|(_, m)| m.outside == to);
        if ours {
            if self.sim.hairpin || self.sim.mapping == Behaviour::None {
                self.inward(from, to, bytes.to_vec());
            }
            return;
        }
        let slot = self.grid.slots().find(|s| self.grid.at(*s) == Some(to));
        let Some(slot) = slot else {
            return;
        };
        let mut out = [0; 400];
        let mut answer = reflector::answer(&self.grid, slot, from, Transport::Udp, bytes, &mut out);
        let asks_change = Message::parse(bytes).is_ok_and(|m| m.change_request().is_some());
        if let Reply::Send { via, error, .. } = &mut answer
            && asks_change
            && !self.sim.honours_change
        {
            (*via, *error) = (slot, false);
        }
        let Reply::Send { via, to, length, .. } = answer else {
            return;
        };
        let mut answer = out[..length].to_vec();
        if self.sim.alg {
            // The ALG finds the external address in plain bytes and puts the inside one there.
            let plain = [198, 51, 100, 100];
            if let Some(at) = answer.windows(4).position(|w| w == plain) {
                answer[at..at + 4].copy_from_slice(&[10, 0, 0, 2]);
            }
        }
        let via = self.grid.at(via).unwrap();
        if self.sim.other_dead && others.contains(&via) {
            return;
        }
        self.now = self.now + ONE_WAY;
        self.inward(via, to, answer);
        self.now = Timestamp::from_nanos(self.now.as_nanos() - i64::try_from(ONE_WAY.as_nanos()).unwrap());
    }
}

fn run(sim: Sim, lifetime: Option<Span>) -> (NatFacts, Net) {
    run_with(sim, lifetime, &["192.0.2.1:3478"])
}

fn run_with(sim: Sim, lifetime: Option<Span>, servers: &[&str]) -> (NatFacts, Net) {
    let start = Timestamp::from_secs(1000);
    let plan = Plan {
        servers: servers.iter().map(|s| ((*s).to_owned(), addr(s))).collect(),
        key: [3; 32],
        lifetime,
    };
    let mut net = Net {
        sim,
        grid: Grid {
            ips: (
                "192.0.2.1".parse().unwrap(),
                sim.second_ip.then(|| "192.0.2.2".parse().unwrap()),
            ),
            ports: (3478, sim.second_port.then_some(3479)),
        },
        mappings: Vec::new(),
        sockets: BTreeMap::new(),
        next: 0,
        now: start,
        inbound: Vec::new(),
        sent: 0,
        began: BTreeSet::new(),
    };
    let mut discovery = Discovery::new(plan, start);
    for place in 0..servers.len() {
        let outcome = if sim.tcp {
            Ok(ONE_WAY * 4)
        } else {
            Err("refused".to_owned())
        };
        discovery.handle_tcp(place, outcome);
    }
    for _ in 0..100_000 {
        while let Some(effect) = discovery.poll_transmit() {
            match effect {
                Effect::Open(id, _) => {
                    let port = 40_000 + u16::try_from(net.sockets.len()).unwrap();
                    let local = SocketAddr::from(([10, 0, 0, 2], port));
                    net.sockets.insert(id, local);
                    discovery.handle_opened(net.now, id, Ok(local));
                }
                Effect::Send(id, to, bytes) => net.send(id, to, &bytes),
                Effect::Close(_) => {}
            }
        }
        if let Some(facts) = discovery.poll_event() {
            return (facts, net);
        }
        let after = net.now - Timestamp::from_secs(1000);
        if net.sim.stop.take_if(|stop| after >= *stop).is_some() {
            discovery.handle_stop();
            continue;
        }
        net.inbound.sort_by_key(|(at, ..)| *at);
        let arrives = net.inbound.first().map(|(at, ..)| *at);
        match (arrives, discovery.poll_timeout()) {
            (Some(at), due) if due.is_none_or(|due| at <= due) => {
                let (at, id, from, bytes) = net.inbound.remove(0);
                net.now = net.now.max(at);
                discovery.handle_input(net.now, id, from, &bytes);
            }
            (_, Some(due)) => {
                net.now = net.now.max(due);
                discovery.handle_timeout(net.now);
            }
            (_, None) => panic!("it waits for nothing and has not ended"),
        }
    }
    panic!("it does not end");
}

fn family(facts: &NatFacts) -> &FamilyFacts {
    &facts.families[0]
}

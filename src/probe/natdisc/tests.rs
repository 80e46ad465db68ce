//! Discovery against simulated NATs (by RFC 4787's terms) and the reflector's own answers, with a clock that the test moves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::observation::nat::{Behaviour, FamilyFacts, Pooling};
use crate::probe::reflector::{self, Grid, Reply, Transport};
use crate::wire::stun::{BINDING, Class, Message, TransactionId, Writer, attribute};
use Behaviour::{AddressAndPortDependent as Apd, AddressDependent as Ad, EndpointIndependent as Ei, Unknown};

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
            self.inbound.push((now + ONE_WAY, mapped.inside.0, from, bytes));
        }
    }

    fn send(&mut self, socket: SocketId, to: SocketAddr, bytes: &[u8]) {
        self.sent += 1;
        let local = self.sockets[&socket];
        if !self.sim.udp {
            return;
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

#[test]
fn every_mapping_and_filtering_is_told() {
    for mapping in [Ei, Ad, Apd] {
        for filtering in [Ei, Ad, Apd] {
            let (facts, net) = run(
                Sim {
                    mapping,
                    filtering,
                    ..HOME
                },
                None,
            );
            let f = family(&facts);
            assert_eq!((f.mapping, f.filtering), (mapping, filtering), "{f:?}");
            assert_eq!(f.translated, Some(true));
            assert_eq!(f.port_preservation, Some(mapping == Ei), "{f:?}");
            assert_eq!(
                (f.hairpinning, f.udp_blocked, f.alg),
                (Some(false), Some(false), Some(false))
            );
            assert_eq!(f.left_out, []);
            assert!(net.now - Timestamp::from_secs(1000) < Span::from_secs(6));
        }
    }
}

#[test]
fn no_nat_is_none() {
    let (facts, _) = run(
        Sim {
            mapping: Behaviour::None,
            filtering: Ei,
            ..HOME
        },
        None,
    );
    let f = family(&facts);
    assert_eq!(
        (f.mapping, f.filtering, f.translated),
        (Behaviour::None, Behaviour::None, Some(false))
    );
    assert_eq!(
        (f.hairpinning, f.port_preservation, f.pooling),
        (None, None, None)
    );
    // A stateful firewall without NAT.
    let (facts, _) = run(
        Sim {
            mapping: Behaviour::None,
            filtering: Apd,
            ..HOME
        },
        None,
    );
    assert_eq!(family(&facts).filtering, Apd);
}

#[test]
fn hairpinning_pooling_and_rewriting_are_told() {
    let (facts, _) = run(
        Sim {
            hairpin: true,
            filtering: Ei,
            ..HOME
        },
        None,
    );
    assert_eq!(family(&facts).hairpinning, Some(true));
    let (facts, _) = run(Sim { pool: 3, ..HOME }, None);
    assert_eq!(family(&facts).pooling, Some(Pooling::Arbitrary));
    assert!(family(&facts).external_addresses.len() > 1);
    let (facts, _) = run(Sim { alg: true, ..HOME }, None);
    assert_eq!(family(&facts).alg, Some(true));
    assert_eq!(family(&facts).mapping, Ei);
}

#[test]
fn a_server_of_one_address_leaves_out_what_it_cannot_tell() {
    let one = Sim {
        second_ip: false,
        ..HOME
    };
    let (facts, _) = run(
        Sim {
            filtering: Apd,
            ..one
        },
        None,
    );
    assert_eq!((family(&facts).mapping, family(&facts).filtering), (Unknown, Apd));
    let (facts, _) = run(Sim { filtering: Ei, ..one }, None);
    assert_eq!(family(&facts).filtering, Unknown);
    assert_eq!(family(&facts).left_out.len(), 2, "{facts:?}");
    let (facts, _) = run(Sim { mapping: Apd, ..one }, None);
    assert_eq!(family(&facts).mapping, Apd);
    let (facts, _) = run(
        Sim {
            second_port: false,
            ..one
        },
        None,
    );
    let f = family(&facts);
    assert_eq!(
        (f.mapping, f.filtering, f.translated),
        (Unknown, Unknown, Some(true))
    );
    assert_eq!((f.hairpinning, f.port_preservation), (Some(false), Some(true)));
}

#[test]
fn two_servers_of_one_address_tell_the_mapping() {
    let sim = Sim {
        second_port: false,
        ..HOME
    };
    let both = ["192.0.2.1:3478", "192.0.2.2:3478"];
    for (mapping, expected) in [(Ei, Ei), (Ad, Ad)] {
        let (facts, _) = run_with(Sim { mapping, ..sim }, None, &both);
        assert_eq!(family(&facts).mapping, expected);
    }
}

#[test]
fn a_server_that_answers_from_where_it_was_asked_tells_nothing_of_filters() {
    let (facts, _) = run(
        Sim {
            honours_change: false,
            ..HOME
        },
        None,
    );
    let f = family(&facts);
    assert_eq!((f.mapping, f.filtering), (Ei, Unknown));
    assert!(
        f.left_out
            .iter()
            .any(|l| l.test == "filtering" && l.why.contains("CHANGE-REQUEST")),
        "{f:?}"
    );
}

#[test]
fn udp_is_blocked_only_where_tcp_works() {
    let (facts, _) = run(Sim { udp: false, ..HOME }, None);
    assert_eq!(family(&facts).udp_blocked, Some(true));
    assert_eq!(family(&facts).mapping, Unknown);
    let (facts, _) = run(
        Sim {
            udp: false,
            tcp: false,
            ..HOME
        },
        None,
    );
    assert_eq!(family(&facts).udp_blocked, None);
    let (facts, _) = run(Sim { tcp: false, ..HOME }, None);
    assert_eq!(family(&facts).udp_blocked, Some(false));
}

#[test]
fn the_lifetime_is_bracketed() {
    let life = Some(Span::from_secs(30));
    let (facts, _) = run(
        Sim {
            lifetime: life,
            ..HOME
        },
        Some(Span::from_secs(120)),
    );
    let l = family(&facts).lifetime.unwrap();
    let gone = l.gone_after.unwrap();
    assert!(l.alive_after.as_secs_f64() <= 30.0 && gone >= 30.0, "{l:?}");
    assert!(gone - l.alive_after.as_secs_f64() < 3.0, "{l:?}");
    let (facts, net) = run(HOME, Some(Span::from_secs(20)));
    let l = family(&facts).lifetime.unwrap();
    assert_eq!((l.alive_after, l.gone_after), (Span::from_secs(20), None));
    // Polite: a few packets a mapping.
    assert!(net.sent < 80, "{}", net.sent);
}

/// A discovery whose first request is under way.
fn begun() -> (Discovery, SocketId, TransactionId) {
    let plan = Plan {
        servers: vec![("s".to_owned(), addr("192.0.2.1:3478"))],
        key: [3; 32],
        lifetime: None,
    };
    let now = Timestamp::from_secs(1000);
    let mut discovery = Discovery::new(plan, now);
    discovery.handle_tcp(0, Err("refused".to_owned()));
    let mut asked = None;
    while let Some(effect) = discovery.poll_transmit() {
        match effect {
            Effect::Open(id, _) => discovery.handle_opened(now, id, Ok(addr("10.0.0.2:40000"))),
            Effect::Send(id, _, bytes) => asked = Some((id, Message::parse(&bytes).unwrap().id)),
            Effect::Close(_) => {}
        }
    }
    let (id, transaction) = asked.unwrap();
    (discovery, id, transaction)
}

fn response(id: TransactionId, mapped: &str, other: Option<&str>) -> Vec<u8> {
    let mut bytes = vec![0; 400];
    let mut writer = Writer::new(&mut bytes, Class::Success, BINDING, id).unwrap();
    writer.xor_address(attribute::XOR_MAPPED_ADDRESS, addr(mapped));
    if let Some(other) = other {
        writer.address(attribute::OTHER_ADDRESS, addr(other));
    }
    let length = writer.finish();
    bytes.truncate(length);
    bytes
}

#[test]
fn what_a_liar_says_is_not_believed() {
    let good = "198.51.100.7:40000";
    let stranger = TransactionId::new([1; 12]);
    for (from, make, why) in [
        ("192.0.2.1:3478", (stranger, good), "another transaction"),
        (
            "203.0.113.5:3478",
            (TransactionId([0; 16]), good),
            "another server",
        ),
        (
            "192.0.2.1:3478",
            (TransactionId([0; 16]), "[2001:db8::1]:40000"),
            "another family",
        ),
        (
            "192.0.2.1:3478",
            (TransactionId([0; 16]), "0.0.0.0:40000"),
            "no address",
        ),
        (
            "192.0.2.1:3478",
            (TransactionId([0; 16]), "198.51.100.7:0"),
            "no port",
        ),
    ] {
        let (mut discovery, socket, asked) = begun();
        let id = if make.0 == TransactionId([0; 16]) {
            asked
        } else {
            make.0
        };
        let now = Timestamp::from_secs(1000);
        discovery.handle_input(now, socket, addr(from), &response(id, make.1, None));
        assert!(discovery.families[&Family::Ipv4].seen.is_empty(), "{why}");
        assert!(discovery.poll_event().is_none(), "{why}: it goes on waiting");
        // The true answer still counts, once, however often it comes.
        for _ in 0..3 {
            discovery.handle_input(now, socket, addr("192.0.2.1:3478"), &response(asked, good, None));
        }
        assert_eq!(discovery.families[&Family::Ipv4].seen.len(), 1, "{why}");
    }
}

#[test]
fn nobody_is_called_on_a_liars_word() {
    for other in [
        "127.0.0.1:3479",
        "224.0.0.1:3479",
        "0.0.0.0:1",
        "192.0.2.9:0",
        "[2001:db8::1]:1",
        "192.0.2.1:3478",
    ] {
        let (mut discovery, socket, asked) = begun();
        let bytes = response(asked, "198.51.100.7:40000", Some(other));
        discovery.handle_input(Timestamp::from_secs(1000), socket, addr("192.0.2.1:3478"), &bytes);
        assert_eq!(discovery.servers[0].other, None, "{other}");
        assert_eq!(
            discovery.servers[0].problems.len(),
            2,
            "{other}: {:?}",
            discovery.servers[0].problems
        );
        while let Some(effect) = discovery.poll_transmit() {
            assert!(
                !matches!(effect, Effect::Send(_, to, _) if to == addr(other) && other != "192.0.2.1:3478")
            );
        }
    }
}

#[test]
fn an_answer_from_a_third_address_opens_no_filter() {
    let (mut discovery, socket, asked) = begun();
    let now = Timestamp::from_secs(1000);
    let server = addr("192.0.2.1:3478");
    discovery.handle_input(
        now,
        socket,
        server,
        &response(asked, "198.51.100.7:40000", Some("192.0.2.2:3479")),
    );
    let mut filter = None;
    while let Some(effect) = discovery.poll_transmit() {
        if let Effect::Send(id, _, bytes) = effect {
            let message = Message::parse(&bytes).unwrap();
            if id.role == Role::Filter(Change { ip: true, port: true }) && message.change_request().is_some()
            {
                filter = Some((id, message.id));
            }
        }
    }
    let (socket, asked) = filter.unwrap();
    discovery.handle_input(
        now,
        socket,
        addr("203.0.113.5:53"),
        &response(asked, "198.51.100.7:40001", None),
    );
    let passed = discovery.families[&Family::Ipv4]
        .filter
        .values()
        .collect::<Vec<_>>();
    assert_eq!(passed, [&Passed::NotTried]);
}

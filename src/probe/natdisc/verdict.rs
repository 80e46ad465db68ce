//! From what was seen to RFC 4787's terms.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::lifetime::Lifetime;
use super::{Discovery, Passed, Role, Since, State};
use crate::observation::nat::{Behaviour, Family, FamilyFacts, LeftOutTest, NatFacts, Pooling};
use crate::wire::stun::Change;

/// Sockets that must be seen before parity is told: by chance it would hold once in 2^6.
const PARITY_SOCKETS: usize = 6;

impl Discovery {
    pub(super) fn facts(&self) -> NatFacts {
        NatFacts {
            servers: self.servers.clone(),
            families: self
                .families
                .iter()
                .map(|(family, state)| self.family(*family, state))
                .collect(),
            ..NatFacts::default()
        }
    }

    fn family(&self, family: Family, state: &State) -> FamilyFacts {
        let mut facts = FamilyFacts::new(family);
        let mut left_out = |test: &str, why: String| {
            facts.left_out.push(LeftOutTest {
                test: test.to_owned(),
                why,
            });
        };
        if let Some(why) = &state.refused {
            left_out("all", why.clone());
            return facts;
        }
        let servers: Vec<_> = self
            .servers
            .iter()
            .filter(|s| Family::of(s.address.ip()) == family)
            .collect();
        let answered = servers.iter().filter(|s| s.udp_rtt.is_some()).count();
        let only_tcp = servers.iter().filter(|s| s.silent_over_udp()).count();
        if answered == 0 {
            let why = if only_tcp > 0 {
                "no server answered over UDP"
            } else {
                "no server answered, neither over UDP nor over TCP"
            };
            left_out("all", why.to_owned());
        }
        if answered > 0 {
            let changed = state.changed();
            let (mapping, why) = match (mapping(state), &changed) {
                // What looks different now and then may be the change's.
                ((Behaviour::AddressDependent | Behaviour::AddressAndPortDependent, _), Some(why)) => {
                    (Behaviour::Unknown, Some(why.clone()))
                }
                ((Behaviour::Unknown, Some(_)), Some(why)) => (Behaviour::Unknown, Some(why.clone())),
                ((Behaviour::Unknown, why), None) => (Behaviour::Unknown, self.other_silent(state).or(why)),
                (found, _) => found,
            };
            if let Some(why) = why {
                left_out("mapping", why);
            }
            let (filtering, why) = self.filtering(state);
            if let Some(why) = why {
                left_out("filtering", why);
            }
            match &changed {
                _ if translated(state) == Some(false) => {
                    left_out("hairpinning", "there is no NAT to call back through".to_owned());
                }
                Some(why) if state.hairpin == Some(false) => left_out("hairpinning", why.clone()),
                _ => {}
            }
            facts.mapping = mapping;
            facts.filtering = filtering;
        }
        if let Some(lifetime) = &state.lifetime {
            let (measured, why) = lifetime.facts();
            facts.lifetime = measured;
            facts.left_out.extend(why.map(|why| LeftOutTest {
                test: "lifetime".to_owned(),
                why,
            }));
        }
        facts.udp_blocked = match (answered, only_tcp) {
            (0, 0) => None,
            (0, _) => Some(true),
            _ => Some(false),
        };
        facts.silent_over_udp = u32::try_from(only_tcp).unwrap_or(u32::MAX);
        facts.local = state.local.get(&Role::Main).copied();
        facts.external = state
            .seen
            .iter()
            .find(|(role, ..)| *role == Role::Main)
            .map(|(.., seen)| *seen);
        let addresses: BTreeSet<IpAddr> = seen_anywhere(state).map(|(_, seen)| seen.ip()).collect();
        facts.translated = translated(state);
        facts.hairpinning = state.hairpin.filter(|came| *came || state.changed().is_none());
        facts.alg = match state.alg {
            (_, 1..) => Some(true),
            (1.., 0) => Some(false),
            (0, 0) => None,
        };
        let ports = ports(state);
        facts.ports_seen = u32::try_from(ports.len()).unwrap_or(u32::MAX);
        if facts.translated == Some(true) {
            let kept = ports.iter().filter(|(local, seen)| local == seen).count();
            facts.ports_kept = u32::try_from(kept).unwrap_or(u32::MAX);
            facts.port_preservation = (ports.len() >= 2).then_some(kept * 2 > ports.len());
            facts.parity_preservation = parity(&ports);
            facts.pooling = match addresses.len() {
                0 => None,
                _ if matches!(state.since, Some(Since::Moved(_))) => None,
                // Sockets that all began with the same address would look paired in any pool.
                1 => began_elsewhere(state).then_some(Pooling::Paired),
                _ => Some(Pooling::Arbitrary),
            };
        }
        facts.external_addresses = addresses.into_iter().collect();
        facts
    }

    /// RFC 5780, section 4.4.
    fn filtering(&self, state: &State) -> (Behaviour, Option<String>) {
        let none = |why: &str| (Behaviour::Unknown, Some(why.to_owned()));
        let Some(server) = state.primary.and_then(|place| self.servers.get(place)) else {
            return none("no server has a second address or port (OTHER-ADDRESS)");
        };
        let Some(other) = server.other else {
            return none("no server has a second address or port (OTHER-ADDRESS)");
        };
        let heard_from = |to: SocketAddr| state.seen.iter().any(|(_, asked, _)| *asked == to);
        let result = |ip: bool, port: bool| {
            let change = Change { ip, port };
            let from = SocketAddr::new(
                if ip { other.ip() } else { server.address.ip() },
                if port { other.port() } else { server.address.port() },
            );
            match state.filter.get(&change) {
                // Silence tells of a filter only where that socket is answered at all, and the other address lives.
                Some(Passed::No) if state.control.get(&change) != Some(&true) || !heard_from(from) => None,
                Some(Passed::No) if state.changed().is_some() || server.slow() => None,
                Some(Passed::NotTried) | None => None,
                Some(passed) => Some(*passed),
            }
        };
        let (both, port, ip) = (result(true, true), result(false, true), result(true, false));
        let two_addresses = other.ip() != server.address.ip();
        let open = |behaviour: Behaviour| match translated(state) {
            // Without a NAT and without a filter there is nothing to name.
            Some(false) if behaviour == Behaviour::EndpointIndependent => Behaviour::None,
            _ => behaviour,
        };
        match (both, port, ip) {
            (Some(Passed::Yes), ..) => (open(Behaviour::EndpointIndependent), None),
            (Some(Passed::No), Some(Passed::Yes), _) => (Behaviour::AddressDependent, None),
            (Some(Passed::No), Some(Passed::No), Some(Passed::Yes)) => none(
                "answers from another address came in and those from another port did not: contradictory",
            ),
            (Some(Passed::No), Some(Passed::No), _) => (Behaviour::AddressAndPortDependent, None),
            (None, Some(Passed::No), _) if !two_addresses => (Behaviour::AddressAndPortDependent, None),
            (None, Some(Passed::Yes), _) if !two_addresses => none(
                "another port of the same address is let in; whether another address is takes a server with two",
            ),
            _ => {
                let why = state.changed().or_else(|| alone(state)).or_else(|| {
                    server
                        .slow()
                        .then(|| "the server answers too slowly for its silence to tell anything".to_owned())
                });
                match why.or_else(|| self.other_silent(state)) {
                    Some(why) => none(&why),
                    None => {
                        none("the server does not answer from elsewhere when it is asked to (CHANGE-REQUEST)")
                    }
                }
            }
        }
    }

    /// Why a server with another address is as good as one without: that one was asked, and never answered.
    fn other_silent(&self, state: &State) -> Option<String> {
        let server = self.servers.get(state.primary?)?;
        let other = server.other.filter(|_| state.mapping_begun)?.ip();
        let heard = state.seen.iter().any(|(_, asked, _)| asked.ip() == other);
        (other != server.address.ip() && !heard)
            .then(|| format!("the server's other address {other} does not answer"))
    }
}

/// Why silence tells nothing of a filter: to the same socket's plain question nothing came either.
fn alone(state: &State) -> Option<String> {
    let silent = state.control.values().any(|answered| !answered);
    silent.then(|| {
        "a test's socket got no answer to a plain question either: datagrams are lost, or few new flows may begin".to_owned()
    })
}

/// Whether the main socket looks different from outside.
pub(super) fn translated(state: &State) -> Option<bool> {
    let local = state.local.get(&Role::Main)?;
    let mut seen = state
        .seen
        .iter()
        .filter(|(role, ..)| *role == Role::Main)
        .peekable();
    seen.peek()?;
    Some(seen.any(|(.., seen)| seen != local))
}

/// RFC 5780, section 4.3: the same socket, as seen by several addresses.
fn mapping(state: &State) -> (Behaviour, Option<String>) {
    let seen: Vec<(SocketAddr, SocketAddr)> = state
        .seen
        .iter()
        .filter(|(role, ..)| *role == Role::Main)
        .map(|(_, asked, seen)| (*asked, *seen))
        .collect();
    let pairs = || {
        seen.iter()
            .enumerate()
            .flat_map(|(i, a)| seen.iter().skip(i + 1).map(move |b| (a, b)))
    };
    let same_ip = |a: &SocketAddr, b: &SocketAddr| a.ip() == b.ip();
    let differs = |a: &SocketAddr, b: &SocketAddr| a != b;
    if translated(state) == Some(false) {
        return (Behaviour::None, None);
    }
    if pairs().any(|(a, b)| same_ip(&a.0, &b.0) && differs(&a.1, &b.1)) {
        return (Behaviour::AddressAndPortDependent, None);
    }
    let ports_compared = pairs().any(|(a, b)| same_ip(&a.0, &b.0));
    let addresses_compared = pairs().any(|(a, b)| !same_ip(&a.0, &b.0));
    if pairs().any(|(a, b)| !same_ip(&a.0, &b.0) && differs(&a.1, &b.1)) {
        let why = (!ports_compared).then(|| {
            "it depends on the address at least; whether on the port too takes a server with two ports"
                .to_owned()
        });
        return (Behaviour::AddressDependent, why);
    }
    if addresses_compared {
        return (Behaviour::EndpointIndependent, None);
    }
    let why = if ports_compared {
        "it is the same for two ports of one address; whether for two addresses takes a server with two, or a second server"
    } else {
        "it takes a server with two addresses (OTHER-ADDRESS), or a second server"
    };
    (Behaviour::Unknown, Some(why.to_owned()))
}

/// Whether a socket was answered that had called nobody but another address than the main one's first.
fn began_elsewhere(state: &State) -> bool {
    let mut seen = state.seen.iter();
    seen.any(|(role, ..)| matches!(role, Role::Fresh(_)))
}

fn seen_anywhere(state: &State) -> impl Iterator<Item = (Role, SocketAddr)> {
    let ageing = state.lifetime.iter().flat_map(Lifetime::seen);
    state
        .seen
        .iter()
        .map(|(role, _, seen)| (*role, *seen))
        .chain(ageing)
}

/// Local and external port of each socket, as first seen.
fn ports(state: &State) -> Vec<(u16, u16)> {
    let mut known = BTreeSet::new();
    seen_anywhere(state)
        .filter(|(role, _)| known.insert(*role))
        .filter_map(|(role, seen)| Some((state.local.get(&role)?.port(), seen.port())))
        .collect()
}

/// Told only where both parities were tried.
fn parity(ports: &[(u16, u16)]) -> Option<bool> {
    if ports.iter().any(|(local, seen)| local % 2 != seen % 2) {
        return Some(false);
    }
    let odd = ports.iter().filter(|(local, _)| local % 2 == 1).count();
    (ports.len() >= PARITY_SOCKETS && odd > 0 && odd < ports.len()).then_some(true)
}

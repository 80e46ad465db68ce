//! What follows from what: sockets opened, answers come, silence.

use std::net::{IpAddr, SocketAddr};

use super::transaction::{Ask, Transaction};
use super::{Discovery, Effect, Passed, Purpose, Role, Since, SocketId, State, problem};
use crate::observation::nat::{Family, ServerFacts};
use crate::time::Timestamp;
use crate::wire::stun::{BINDING, Change, Class, Message, attribute};

/// Filtering tests II and III (RFC 5780, section 4.4), and the one that tells whether the port alone matters.
pub(super) const CHANGES: [Change; 3] = [
    Change { ip: true, port: true },
    Change {
        ip: false,
        port: true,
    },
    Change {
        ip: true,
        port: false,
    },
];

/// Sockets that begin with another address than the first server's.
const FRESH: u8 = 3;

impl Discovery {
    pub(super) fn begin(&mut self) {
        let servers = self.servers.clone();
        for server in &servers {
            let family = Family::of(server.address.ip());
            if self.families.contains_key(&family) {
                continue;
            }
            self.families.insert(family, State::default());
            let filters = CHANGES.map(Role::Filter);
            let fresh = (0..FRESH).map(Role::Fresh);
            for role in [Role::Main, Role::Called, Role::Caller]
                .into_iter()
                .chain(filters)
                .chain(fresh)
            {
                let socket = SocketId { family, role };
                self.effects.push_back(Effect::Open(socket, server.address));
            }
        }
    }

    /// A socket was opened at this address, or why not.
    pub fn handle_opened(&mut self, now: Timestamp, socket: SocketId, opened: Result<SocketAddr, String>) {
        self.now = self.now.max(now);
        let Some(state) = self.families.get_mut(&socket.family) else {
            return;
        };
        match opened {
            Err(why) => match socket.role {
                Role::Main => state.refused = Some(why),
                Role::Ageing(n) | Role::Asking(n) => self.unasked(socket.family, n),
                _ => {}
            },
            Ok(local) => {
                state.local.insert(socket.role, local);
                match socket.role {
                    Role::Main => self.first_contact(socket.family),
                    Role::Ageing(n) => self.begin_ageing(socket.family, n),
                    Role::Asking(n) => self.ask_ageing(socket.family, n),
                    _ => {}
                }
            }
        }
    }

    fn first_contact(&mut self, family: Family) {
        let servers: Vec<_> = self
            .servers()
            .filter(|(_, a)| Family::of(a.ip()) == family)
            .collect();
        for (place, address) in servers {
            self.ask(family, Role::Main, address, Ask::default(), Purpose::First(place));
        }
    }

    pub(super) fn ask(&mut self, family: Family, role: Role, to: SocketAddr, ask: Ask, purpose: Purpose) {
        let known = self
            .families
            .get(&family)
            .is_some_and(|s| s.local.contains_key(&role));
        if !known {
            return;
        }
        let socket = SocketId { family, role };
        let bytes = self.transactions.begin(self.now, socket, to, ask, purpose);
        self.effects.push_back(Effect::Send(socket, to, bytes));
    }

    /// A datagram could not be sent.
    pub fn handle_refused(&mut self, now: Timestamp, to: SocketAddr, why: &str) {
        self.now = self.now.max(now);
        for server in self.servers.iter_mut().filter(|s| s.address == to) {
            problem(server, format!("over UDP: {why}"));
        }
    }

    /// A datagram has arrived. What answers no question of ours is passed over.
    pub fn handle_input(&mut self, now: Timestamp, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        self.now = self.now.max(now);
        let Ok(message) = Message::parse(bytes) else {
            self.complain(from, "answers with what is no STUN message");
            return;
        };
        let Some(transaction) = self.transactions.get(&message.id).cloned() else {
            // Late and repeated answers end here, and those that carry an identity of somebody else's making.
            return;
        };
        if message.method != BINDING {
            return;
        }
        match (message.class, transaction.purpose) {
            (Class::Request, Purpose::Hairpin) if socket.role == Role::Called => {
                self.transactions.end(&message.id);
                if let Some(state) = self.families.get_mut(&socket.family) {
                    state.hairpin = Some(true);
                }
            }
            (Class::Success, _) => self.success(socket, from, &message, &transaction),
            (Class::Error, _) => self.error(from, &message, &transaction),
            _ => {}
        }
    }

    fn success(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        message: &Message<'_>,
        asked: &Transaction<Purpose>,
    ) {
        if let Purpose::StillThere(n) = asked.purpose {
            if from == asked.to {
                self.transactions.end(&message.id);
                self.answered_ageing(socket, n);
            }
            return;
        }
        if socket != asked.socket {
            return;
        }
        let elsewhere = from != asked.to;
        if elsewhere && !matches!(asked.purpose, Purpose::Filter(_)) {
            self.complain(
                asked.to,
                &format!("answers come from {from} instead: not counted"),
            );
            return;
        }
        let Some(seen) = message.mapped() else {
            self.complain(asked.to, "its answer names no mapped address");
            return;
        };
        if Family::of(seen.ip()) != socket.family || !plausible(seen) {
            self.complain(
                asked.to,
                &format!("its answer names {seen} as our address, which cannot be: not counted"),
            );
            return;
        }
        let as_asked = elsewhere && self.expected(asked) == Some(from);
        if elsewhere && !as_asked {
            self.complain(
                asked.to,
                &format!("answers from {from}, which is not the other address that it names"),
            );
        }
        self.transactions.end(&message.id);
        self.note_time(asked);
        self.note_alg(socket.family, message);
        let Some(state) = self.families.get_mut(&socket.family) else {
            return;
        };
        match asked.purpose {
            Purpose::First(place) => {
                state.seen.push((socket.role, asked.to, seen));
                self.met(socket.family, place, message, asked);
            }
            Purpose::Mapping => state.seen.push((socket.role, asked.to, seen)),
            Purpose::Again => {
                let before = state.main_at(asked.to);
                state.since = Some(match before {
                    Some(before) if before != seen => Since::Moved(seen),
                    _ => Since::Same,
                });
            }
            Purpose::Control(change) => {
                state.seen.push((socket.role, asked.to, seen));
                state.control.insert(change, true);
            }
            Purpose::Filter(change) => {
                let passed = if as_asked { Passed::Yes } else { Passed::NotTried };
                state.filter.insert(change, passed);
            }
            Purpose::Called => {
                state.seen.push((socket.role, asked.to, seen));
                self.ask(
                    socket.family,
                    Role::Caller,
                    seen,
                    Ask::default(),
                    Purpose::Hairpin,
                );
            }
            Purpose::Hairpin => {}
            Purpose::Age(n) => self.aged(socket.family, n, seen),
            Purpose::StillThere(_) => {}
            Purpose::Reachable(n) => self.reached(socket.family, n, Some(seen)),
        }
        self.settle(socket.family);
    }

    /// Where the answer to a filtering test has to come from.
    fn expected(&self, asked: &Transaction<Purpose>) -> Option<SocketAddr> {
        let Purpose::Filter(change) = asked.purpose else {
            return None;
        };
        let place = self.families.get(&asked.socket.family)?.primary?;
        let other = self.servers.get(place)?.other?;
        let ip = if change.ip { other.ip() } else { asked.to.ip() };
        let port = if change.port {
            other.port()
        } else {
            asked.to.port()
        };
        Some(SocketAddr::new(ip, port))
    }

    /// The least time is the way's: what was lost and asked again took longer.
    fn note_time(&mut self, asked: &Transaction<Purpose>) {
        let took = (self.now - asked.first).as_secs_f64();
        for server in self.servers.iter_mut().filter(|s| s.address == asked.to) {
            server.udp_rtt = server.udp_rtt.map(|known| known.min(took));
        }
    }

    fn note_alg(&mut self, family: Family, message: &Message<'_>) {
        let plain = message.address(attribute::MAPPED_ADDRESS);
        let masked = message.xor_address(attribute::XOR_MAPPED_ADDRESS);
        let (Some(plain), Some(masked), Some(state)) = (plain, masked, self.families.get_mut(&family)) else {
            return;
        };
        if plain == masked {
            state.alg.0 += 1;
        } else {
            state.alg.1 += 1;
        }
    }

    fn error(&mut self, from: SocketAddr, message: &Message<'_>, asked: &Transaction<Purpose>) {
        if from != asked.to {
            return;
        }
        self.transactions.end(&message.id);
        let code = message.error_code().unwrap_or(0);
        let family = asked.socket.family;
        match asked.purpose {
            Purpose::Filter(change) => {
                if let Some(state) = self.families.get_mut(&family) {
                    state.filter.insert(change, Passed::NotTried);
                }
            }
            Purpose::StillThere(_) => {
                if let Some(lifetime) = self.families.get_mut(&family).and_then(|s| s.lifetime.as_mut()) {
                    lifetime.unsupported = true;
                }
            }
            Purpose::Reachable(n) => self.reached(family, n, None),
            Purpose::Age(n) => self.unasked(family, n),
            Purpose::Again => {
                if let Some(state) = self.families.get_mut(&family) {
                    state.since = Some(Since::Silent);
                }
            }
            _ => self.complain(asked.to, &format!("refuses with STUN error {code}")),
        }
        self.settle(family);
    }

    /// A server has answered for the first time.
    fn met(&mut self, family: Family, place: usize, message: &Message<'_>, asked: &Transaction<Purpose>) {
        let rtt = (self.now - asked.first).as_secs_f64();
        let Some(server) = self.servers.get_mut(place) else {
            return;
        };
        server.udp_rtt = Some(rtt);
        server.software = message.software().map(|s| s.chars().take(64).collect());
        if let Some(other) = message.other_address() {
            match usable_other(server.address, other) {
                Ok(()) => server.other = Some(other),
                Err(why) => problem(server, format!("its other address {other} is not used: {why}")),
            }
        }
        let server = server.clone();
        let complete = server
            .other
            .is_some_and(|o| o.ip() != server.address.ip() && o.port() != server.address.port());
        let Some(state) = self.families.get_mut(&family) else {
            return;
        };
        if complete && state.primary.is_none() {
            self.take_primary(family, place);
        }
        let translated = self.families.get(&family).and_then(super::verdict::translated);
        if let Some(state) = self.families.get_mut(&family)
            && !state.hairpin_begun
            && translated == Some(true)
        {
            state.hairpin_begun = true;
            self.ask(
                family,
                Role::Called,
                server.address,
                Ask::default(),
                Purpose::Called,
            );
        }
    }

    /// Asks the first question once more, when the filtering tests are over: they take seconds, in which a link may go down and
    /// a NAT get another address, and both look like an answer to what is compared.
    fn begin_again(&mut self, family: Family) {
        let open = |p: &Purpose| matches!(p, Purpose::First(_) | Purpose::Filter(_) | Purpose::Control(_));
        if self.asking(family, open) {
            return;
        }
        let Some(state) = self.families.get_mut(&family) else {
            return;
        };
        let main = state.seen.iter().find(|(role, ..)| *role == Role::Main);
        let Some(first) = main.map(|(_, asked, _)| *asked).filter(|_| !state.again_begun) else {
            return;
        };
        state.again_begun = true;
        self.ask(family, Role::Main, first, Ask::default(), Purpose::Again);
    }

    /// Asks the primary's other addresses, after the filtering tests: some NATs let in whoever any socket of this host has
    /// called.
    fn begin_mapping(&mut self, family: Family) {
        let filtering = |p: &Purpose| matches!(p, Purpose::Filter(_) | Purpose::Control(_));
        if self.asking(family, filtering) {
            return;
        }
        let Some(state) = self.families.get_mut(&family) else {
            return;
        };
        let server = state.primary.and_then(|place| self.servers.get(place));
        let Some((first, other)) = server.and_then(|s| Some((s.address, s.other?))) else {
            return;
        };
        if state.mapping_begun {
            return;
        }
        state.mapping_begun = true;
        let mut others = vec![
            other,
            SocketAddr::new(other.ip(), first.port()),
            SocketAddr::new(first.ip(), other.port()),
        ];
        others.retain(|a| *a != first);
        others.sort();
        others.dedup();
        for to in others {
            self.ask(family, Role::Main, to, Ask::default(), Purpose::Mapping);
        }
    }

    /// Calls other addresses from sockets that have called nobody yet, when the filtering tests are over.
    fn begin_pooling(&mut self, family: Family) {
        let open = |p: &Purpose| matches!(p, Purpose::First(_) | Purpose::Filter(_) | Purpose::Control(_));
        let answering = |s: &&ServerFacts| Family::of(s.address.ip()) == family && s.udp_rtt.is_some();
        let Some(first) = self.servers.iter().find(answering).map(|s| s.address.ip()) else {
            return;
        };
        let open = self.asking(family, open);
        match self.families.get_mut(&family) {
            Some(state) if !state.pooling_begun && !open => {
                state.pooling_begun = true;
            }
            _ => return,
        }
        let mut elsewhere: Vec<SocketAddr> = Vec::new();
        for server in self.servers.iter().filter(answering) {
            for address in [Some(server.address), server.other].into_iter().flatten() {
                let known = elsewhere.iter().any(|a| a.ip() == address.ip());
                if address.ip() != first && !known {
                    elsewhere.push(address);
                }
            }
        }
        for (n, to) in (0..FRESH).zip(elsewhere) {
            self.ask(family, Role::Fresh(n), to, Ask::default(), Purpose::Mapping);
        }
    }

    /// Uses the other addresses of this server.
    fn take_primary(&mut self, family: Family, place: usize) {
        let Some(server) = self.servers.get(place) else {
            return;
        };
        let (first, Some(other)) = (server.address, server.other) else {
            return;
        };
        if let Some(state) = self.families.get_mut(&family) {
            state.primary = Some(place);
        }
        for change in CHANGES {
            let possible =
                (!change.ip || other.ip() != first.ip()) && (!change.port || other.port() != first.port());
            if possible {
                self.ask(
                    family,
                    Role::Filter(change),
                    first,
                    Ask::default(),
                    Purpose::Control(change),
                );
                let ask = Ask {
                    change: Some(change),
                    response_port: None,
                };
                self.ask(family, Role::Filter(change), first, ask, Purpose::Filter(change));
            }
        }
    }

    /// Nothing came.
    pub(super) fn silent(&mut self, asked: &Transaction<Purpose>) {
        let family = asked.socket.family;
        let Some(state) = self.families.get_mut(&family) else {
            return;
        };
        match asked.purpose {
            Purpose::First(place) => {
                if let Some(server) = self.servers.get_mut(place) {
                    problem(server, "over UDP: no answer that counts".to_owned());
                }
            }
            Purpose::Filter(change) => {
                state.filter.entry(change).or_insert(Passed::No);
            }
            Purpose::Control(change) => {
                state.control.entry(change).or_insert(false);
            }
            Purpose::Hairpin => state.hairpin = Some(state.hairpin.unwrap_or(false)),
            Purpose::StillThere(n) => self.silent_ageing(family, n),
            Purpose::Reachable(n) => self.reached(family, n, None),
            Purpose::Age(n) => self.unasked(family, n),
            Purpose::Again => state.since = Some(Since::Silent),
            Purpose::Mapping | Purpose::Called => {}
        }
        self.settle(family);
    }

    /// Where the first contacts are over and no server has two addresses: one with two ports is better than none.
    fn settle(&mut self, family: Family) {
        let contacting = self.asking(family, |p| matches!(p, Purpose::First(_)));
        if contacting || self.families.get(&family).is_none_or(|s| s.primary.is_some()) {
            self.begin_again(family);
            self.begin_mapping(family);
            self.begin_pooling(family);
            self.begin_lifetime(family);
            return;
        }
        let with_ports = self
            .servers
            .iter()
            .position(|s| Family::of(s.address.ip()) == family && s.other.is_some());
        if let Some(place) = with_ports {
            self.take_primary(family, place);
        }
        self.begin_again(family);
        self.begin_mapping(family);
        self.begin_pooling(family);
        self.begin_lifetime(family);
    }

    fn complain(&mut self, server: SocketAddr, text: &str) {
        for facts in self
            .servers
            .iter_mut()
            .filter(|s| s.address == server || s.other == Some(server))
        {
            problem(facts, text.to_owned());
        }
    }
}

/// An address that a NAT can have towards a server.
fn plausible(address: SocketAddr) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// A server may name any address as its other: it must not make us call what no server on its network can have.
fn usable_other(server: SocketAddr, other: SocketAddr) -> Result<(), &'static str> {
    if Family::of(server.ip()) != Family::of(other.ip()) {
        return Err("it is of another family");
    }
    if !plausible(other) || (other.ip().is_loopback() && !server.ip().is_loopback()) {
        return Err("no server can have it");
    }
    if other == server {
        return Err("it is the same");
    }
    Ok(())
}

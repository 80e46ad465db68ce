//! NAT behaviour discovery (RFC 5780) as a state machine.
//!
//! In: which servers to ask, opened sockets, datagrams, TCP's outcomes, time. Out: [`Effect`]s for a driver, and
//! [`NatFacts`] at the end. Tests of a family run side by side, each kind from a socket of its own: an unsolicited answer
//! that a filtering test provokes makes some NATs (Linux's among them) give that socket another mapping towards its
//! sender, so a shared socket would turn a filter into a "symmetric" NAT.

mod lifetime;
mod steps;
#[cfg(test)]
mod tests;
pub mod transaction;
mod verdict;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crate::observation::nat::{Family, NatFacts, ServerFacts};
use crate::time::{Span, Timestamp};
use crate::wire::stun::Change;
use lifetime::Lifetime;
use transaction::Transactions;

/// Servers that are asked at most.
pub const MAX_SERVERS: usize = 8;

/// What to find out.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Servers by the name that they were given and one address each; those beyond [`MAX_SERVERS`] are not asked.
    pub servers: Vec<(String, SocketAddr)>,
    /// What transaction identities are made from; random.
    pub key: [u8; 32],
    /// Measure how long a mapping lives, up to so long.
    pub lifetime: Option<Span>,
}

/// A socket of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    /// Its family.
    pub family: Family,
    /// Its task.
    pub role: Role,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Mapping tests.
    Main,
    /// The filtering test that asks for an answer from elsewhere.
    Filter(Change),
    /// Hairpinning: the one that is called by its external address.
    Called,
    /// Hairpinning: the one that calls.
    Caller,
    /// Pooling: ones whose first packet goes to another address than the others' does. A NAT with a pool that goes by the
    /// destination keeps a socket's first choice (Linux does), so sockets that begin alike look paired.
    Fresh(u8),
    /// Lifetime: the one whose mapping ages.
    Ageing(u8),
    /// Lifetime: the one that asks whether it still lives.
    Asking(u8),
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open a socket whose address is the one towards `toward`, and say how that went.
    Open(SocketId, SocketAddr),
    /// Send a datagram.
    Send(SocketId, SocketAddr, Vec<u8>),
    /// Close a socket.
    Close(SocketId),
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The first contact with a server, by its place in the plan.
    First(usize),
    /// The same question to another address of the primary server.
    Mapping,
    /// The first question once more, when others have taken their time: whether all is still as it was.
    Again,
    /// The control beside a filtering test: the same socket gets plain answers.
    Control(Change),
    /// A filtering test.
    Filter(Change),
    /// Where the called socket is outside.
    Called,
    /// A call to that.
    Hairpin,
    /// Begins an ageing mapping.
    Age(u8),
    /// Asks for an answer through an ageing mapping.
    StillThere(u8),
    /// Whether the server is still there, after a silence.
    Reachable(u8),
}

impl Purpose {
    /// Whether it measures how long a mapping lives.
    pub const fn is_of_lifetime(self) -> bool {
        matches!(self, Self::Age(_) | Self::StillThere(_) | Self::Reachable(_))
    }
}

/// How a filtering test went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// The answer came, from elsewhere as asked.
    Yes,
    /// None came.
    No,
    /// The server answered from where it was asked, or refused.
    NotTried,
}

/// What the first question, asked once more, says of the time between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// The main socket looks as before.
    Same,
    /// It has another address or port outside now.
    Moved(SocketAddr),
    /// The server does not answer any more.
    Silent,
}

/// What is known of one family so far.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Why no socket could be opened.
    pub refused: Option<String>,
    pub local: BTreeMap<Role, SocketAddr>,
    /// What each of our sockets looks like from where it was asked: (role, asked, seen).
    pub seen: Vec<(Role, SocketAddr, SocketAddr)>,
    /// The server whose other addresses are used, by its place in the plan.
    pub primary: Option<usize>,
    pub filter: BTreeMap<Change, Passed>,
    pub control: BTreeMap<Change, bool>,
    pub hairpin: Option<bool>,
    pub hairpin_begun: bool,
    pub mapping_begun: bool,
    pub pooling_begun: bool,
    pub again_begun: bool,
    pub since: Option<Since>,
    /// Responses in which MAPPED-ADDRESS and XOR-MAPPED-ADDRESS agree, and those in which not.
    pub alg: (u32, u32),
    pub lifetime: Option<Lifetime>,
}

impl State {
    /// Where the main socket was first seen from this address.
    pub fn main_at(&self, asked: SocketAddr) -> Option<SocketAddr> {
        let of_main = |(role, to, _): &&(Role, SocketAddr, SocketAddr)| *role == Role::Main && *to == asked;
        self.seen.iter().find(of_main).map(|(.., seen)| *seen)
    }

    /// Why what the tests told cannot be compared or silence not be taken for an answer: it changed while they ran.
    pub fn changed(&self) -> Option<String> {
        match self.since? {
            Since::Same => None,
            Since::Silent => Some("the server was not reached any more when the tests were over".to_owned()),
            Since::Moved(now) => Some(format!(
                "one socket's outside was another at the end of the tests ({now}) than at their beginning: the NAT or this host's \
                 network changed meanwhile"
            )),
        }
    }
}

/// One run of discovery.
#[derive(Debug)]
pub struct Discovery {
    plan: Plan,
    pub(crate) servers: Vec<ServerFacts>,
    /// Servers whose TCP test has not ended.
    tcp_open: Vec<bool>,
    pub(crate) families: BTreeMap<Family, State>,
    pub(crate) transactions: Transactions<Purpose>,
    pub(crate) effects: VecDeque<Effect>,
    /// Nobody waits for the lifetime any longer.
    stopped: bool,
    now: Timestamp,
}

impl Discovery {
    /// Begins at `now`.
    pub fn new(mut plan: Plan, now: Timestamp) -> Self {
        plan.servers.truncate(MAX_SERVERS);
        let servers: Vec<ServerFacts> = plan
            .servers
            .iter()
            .map(|(name, address)| ServerFacts {
                name: name.clone(),
                address: *address,
                udp_rtt: None,
                tcp_rtt: None,
                software: None,
                other: None,
                problems: Vec::new(),
            })
            .collect();
        let mut discovery = Self {
            transactions: Transactions::new(plan.key),
            tcp_open: vec![true; servers.len()],
            families: BTreeMap::new(),
            effects: VecDeque::new(),
            servers,
            plan,
            stopped: false,
            now,
        };
        discovery.begin();
        discovery
    }

    /// The next thing to do.
    pub fn poll_transmit(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The next time at which [`Discovery::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let ages = self.families.values().filter_map(|s| s.lifetime.as_ref());
        let age = ages.filter_map(Lifetime::timeout).min();
        [self.transactions.timeout(), age].into_iter().flatten().min()
    }

    /// Whether a question of this family is under way that `of` picks. The other family's take their own time.
    pub(crate) fn asking(&self, family: Family, of: impl Fn(&Purpose) -> bool) -> bool {
        self.transactions
            .any(|t| t.socket.family == family && of(&t.purpose))
    }

    /// What was found out, once every test has ended.
    pub fn poll_event(&self) -> Option<NatFacts> {
        let asking = match self.stopped {
            false => self.poll_timeout().is_some(),
            true => self.transactions.any(|t| !t.purpose.is_of_lifetime()),
        };
        let waiting = !self.effects.is_empty()
            || asking
            || self.tcp_open.iter().any(|open| *open)
            || self
                .families
                .values()
                .any(|s| s.refused.is_none() && s.local.is_empty());
        (!waiting).then(|| self.facts())
    }

    /// Servers that the driver is to try over TCP, by their place.
    pub fn servers(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        self.servers.iter().map(|s| s.address).enumerate()
    }

    /// How the TCP test of a server ended: the time from SYN to response, or why there was none.
    pub fn handle_tcp(&mut self, server: usize, outcome: Result<Span, String>) {
        let Some(facts) = self.servers.get_mut(server) else {
            return;
        };
        match outcome {
            Ok(rtt) => facts.tcp_rtt = Some(rtt.as_secs_f64()),
            Err(why) => problem(facts, format!("over TCP: {why}")),
        }
        if let Some(open) = self.tcp_open.get_mut(server) {
            *open = false;
        }
    }

    /// Measures no lifetime any longer: [`Discovery::poll_event`] tells what is known as soon as the other tests are over,
    /// which are not cut short, for silence would be taken for an answer.
    pub fn handle_stop(&mut self) {
        self.stopped = true;
        self.plan.lifetime = None;
        for lifetime in self.families.values_mut().filter_map(|s| s.lifetime.as_mut()) {
            lifetime.stop();
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        let (again, given_up) = self.transactions.handle_timeout(self.now);
        for (socket, to, bytes) in again {
            self.effects.push_back(Effect::Send(socket, to, bytes));
        }
        for transaction in given_up {
            self.silent(&transaction);
        }
        self.age();
    }
}

/// Sentences about one server that are kept.
const MAX_PROBLEMS: usize = 6;

/// Notes a problem once.
pub(crate) fn problem(server: &mut ServerFacts, text: String) {
    if server.problems.len() < MAX_PROBLEMS && !server.problems.contains(&text) {
        server.problems.push(text);
    }
}

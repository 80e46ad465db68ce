//! How long an idle UDP mapping lives (RFC 5780, section 4.6): many mappings age side by side, each for a time of its own,
//! and each is called once, from another socket, by way of RESPONSE-PORT.
//!
//! Polite: two packets each way and age, and no more sockets than ages. An answer that comes through refreshes the
//! mapping, so none is called twice.
//!
//! A NAT that restarts, or a link that goes down and up, ends mappings before their time, and leaves nothing by which one
//! silence differs from another. So an age is only told to be too long once mappings of two rounds, made at different
//! times, were gone by then.

use std::net::SocketAddr;

use super::transaction::Ask;
use super::{Discovery, Effect, Purpose, Role, SocketId};
use crate::observation::nat::{Family, LifetimeFacts};
use crate::time::{Span, Timestamp};

/// The ages tried first, in seconds: dense where NATs' defaults lie (30 s for Linux's unanswered flows, 60, 120 by RFC 4787,
/// 300 where it is followed generously). The first shows that calling works at all.
const AGES: [u64; 20] = [
    1, 2, 3, 5, 8, 12, 17, 22, 28, 33, 45, 58, 63, 90, 115, 125, 175, 185, 295, 310,
];
/// Ages tried between the last that lived and the first that did not.
const FINER: u32 = 4;
/// Rounds at most: the ages tried first, those in between, and a last one to confirm what these told.
const ROUNDS: u8 = 3;

/// One mapping that ages.
#[derive(Debug)]
struct Ageing {
    age: Span,
    round: u8,
    /// When it was made, and where it is outside.
    born: Option<(Timestamp, SocketAddr)>,
    asked: bool,
    alive: Option<bool>,
    /// The server was not reached any more when it was asked: nothing is told.
    void: bool,
}

/// The measurement.
#[derive(Debug)]
pub(crate) struct Lifetime {
    server: SocketAddr,
    all: Vec<Ageing>,
    /// The one under way.
    round: u8,
    /// The server does not answer to another port.
    pub unsupported: bool,
    /// Whoever asked does not wait any longer.
    stopped: bool,
}

impl Lifetime {
    pub(super) fn timeout(&self) -> Option<Timestamp> {
        if self.unsupported || self.stopped {
            return None;
        }
        let waiting = self.all.iter().filter(|a| !a.asked);
        waiting.filter_map(|a| a.born.map(|(at, _)| at + a.age)).min()
    }

    /// Ends it with what is known by now.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn seen(&self) -> impl Iterator<Item = (Role, SocketAddr)> {
        let born = |(n, a): (usize, &Ageing)| Some((Role::Ageing(u8::try_from(n).ok()?), a.born?.1));
        self.all.iter().enumerate().filter_map(born)
    }

    /// The longest age that lived, and the shortest beyond that did not. A shorter one that was lost tells nothing: the loss
    /// was the packet's, or something ended the mapping before its time.
    fn bracket(&self) -> (Option<Span>, Option<Span>) {
        let of = |alive| self.all.iter().filter(move |a| a.alive == Some(alive));
        let lived = of(true).map(|a| a.age).max();
        let gone = of(false).map(|a| a.age).filter(|g| lived.is_none_or(|l| *g > l));
        (lived, gone.min())
    }

    /// Whether mappings of two rounds were gone by this age.
    fn confirmed(&self, gone: Span) -> bool {
        let (lived, _) = self.bracket();
        let by_then =
            |a: &&Ageing| a.alive == Some(false) && a.age <= gone && lived.is_none_or(|lived| a.age > lived);
        let mut rounds = self.all.iter().filter(by_then).map(|a| a.round);
        let first = rounds.next();
        rounds.any(|round| Some(round) != first)
    }

    /// What was measured, and why it is not more.
    pub(super) fn facts(&self) -> (Option<LifetimeFacts>, Option<String>) {
        if self.unsupported {
            let why = "the server does not answer to another port (RESPONSE-PORT)";
            return (None, Some(why.to_owned()));
        }
        let (lived, gone) = self.bracket();
        let Some(alive_after) = lived else {
            let why = if self.stopped {
                STOPPED
            } else if self.all.iter().any(|a| a.void) {
                UNREACHED
            } else {
                "not even a fresh mapping let an answer from the same server in"
            };
            return (None, Some(why.to_owned()));
        };
        let beyond = |a: &&Ageing| a.alive == Some(false) && a.age > alive_after;
        let ages = self.all.iter().filter(beyond).map(|a| a.age);
        let gone_after = ages.filter(|age| self.confirmed(*age)).min();
        let void = self.all.iter().any(|a| a.void && a.age > alive_after);
        let why = match (gone, gone_after) {
            (_, Some(_)) => None,
            (_, None) if self.stopped => Some(format!("how long at most is not known: {STOPPED}")),
            (_, None) if void => Some(format!("how long at most is not known: {UNREACHED}")),
            (Some(_), None) => Some(format!("how long at most is not known: {INTERRUPTED}")),
            (None, None) => None,
        };
        let facts = LifetimeFacts {
            alive_after,
            gone_after: gone_after.map(|g| g.as_secs_f64()),
        };
        (Some(facts), why)
    }

    /// How a mapping fared, for who waits.
    pub(super) fn told(&self, n: u8) -> Option<(Span, &'static str)> {
        let ageing = self.all.get(usize::from(n))?;
        let words = match ageing.alive {
            Some(true) => "lives",
            Some(false) => "is gone",
            None => "is not known",
        };
        Some((ageing.age, words))
    }
}

const UNREACHED: &str = "the server was not reached any more, or saw another address, while mappings aged";
const STOPPED: &str = "the measurement was ended before it was done";
const INTERRUPTED: &str =
    "mappings were lost that lived as long at another time, so the NAT or the link was interrupted";

impl Discovery {
    /// Begins the measurement once the tests before it are over.
    pub(super) fn begin_lifetime(&mut self, family: Family) {
        let Some(longest) = self.plan.lifetime else {
            return;
        };
        let others = self.asking(family, |p| !p.is_of_lifetime());
        let Some(state) = self.families.get_mut(&family) else {
            return;
        };
        if others || state.lifetime.is_some() {
            return;
        }
        let of_family = |s: &&crate::observation::nat::ServerFacts| {
            Family::of(s.address.ip()) == family && s.udp_rtt.is_some()
        };
        let primary = state.primary.and_then(|place| self.servers.get(place));
        let Some(server) = primary.or_else(|| self.servers.iter().find(of_family)) else {
            return;
        };
        let mut ages: Vec<Span> = AGES
            .iter()
            .map(|s| Span::from_secs(*s))
            .filter(|a| *a < longest)
            .collect();
        ages.push(longest);
        state.lifetime = Some(Lifetime {
            server: server.address,
            all: Vec::new(),
            round: 0,
            unsupported: false,
            stopped: false,
        });
        self.add_ages(family, &ages);
    }

    fn add_ages(&mut self, family: Family, ages: &[Span]) {
        let Some(lifetime) = self.families.get_mut(&family).and_then(|s| s.lifetime.as_mut()) else {
            return;
        };
        for age in ages {
            let Ok(n) = u8::try_from(lifetime.all.len()) else {
                return;
            };
            lifetime.all.push(Ageing {
                age: *age,
                round: lifetime.round,
                born: None,
                asked: false,
                alive: None,
                void: false,
            });
            let role = Role::Ageing(n);
            self.effects
                .push_back(Effect::Open(SocketId { family, role }, lifetime.server));
        }
    }

    pub(super) fn begin_ageing(&mut self, family: Family, n: u8) {
        let Some(server) = self.lifetime_of(family).map(|l| l.server) else {
            return;
        };
        self.ask(family, Role::Ageing(n), server, Ask::default(), Purpose::Age(n));
    }

    fn lifetime_of(&mut self, family: Family) -> Option<&mut Lifetime> {
        self.families.get_mut(&family)?.lifetime.as_mut()
    }

    fn ageing(&mut self, family: Family, n: u8) -> Option<&mut Ageing> {
        self.lifetime_of(family)?.all.get_mut(usize::from(n))
    }

    pub(super) fn aged(&mut self, family: Family, n: u8, seen: SocketAddr) {
        let now = self.now;
        if let Some(ageing) = self.ageing(family, n) {
            ageing.born = Some((now, seen));
        }
    }

    /// Calls those that have come of age.
    pub(super) fn age(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        for (family, state) in &mut self.families {
            let Some(lifetime) = state.lifetime.as_mut().filter(|l| !l.stopped) else {
                continue;
            };
            for (n, ageing) in lifetime.all.iter_mut().enumerate() {
                if let Some((born, _)) = ageing.born
                    && !ageing.asked
                    && born + ageing.age <= now
                {
                    ageing.asked = true;
                    due.push((*family, u8::try_from(n).unwrap_or(u8::MAX), lifetime.server));
                }
            }
        }
        for (family, n, server) in due {
            let role = Role::Asking(n);
            self.effects
                .push_back(Effect::Open(SocketId { family, role }, server));
        }
    }

    pub(super) fn ask_ageing(&mut self, family: Family, n: u8) {
        let Some(server) = self.lifetime_of(family).map(|l| l.server) else {
            return;
        };
        let Some((_, outside)) = self.ageing(family, n).and_then(|a| a.born) else {
            return;
        };
        let ask = Ask {
            change: None,
            response_port: Some(outside.port()),
        };
        self.ask(family, Role::Asking(n), server, ask, Purpose::StillThere(n));
    }

    /// The answer came: to the ageing socket, or back to the one that asked.
    pub(super) fn answered_ageing(&mut self, socket: SocketId, n: u8) {
        if socket.role == Role::Ageing(n) {
            self.aged_to(socket.family, n, true);
        } else if let Some(lifetime) = self.lifetime_of(socket.family) {
            lifetime.unsupported = true;
        }
    }

    /// No answer came through the mapping. It is gone only where the server still answers, and sees this host where it did:
    /// a link that went down, or another address, would end every mapping.
    pub(super) fn silent_ageing(&mut self, family: Family, n: u8) {
        if let Some(server) = self.lifetime_of(family).map(|l| l.server) {
            self.ask(
                family,
                Role::Asking(n),
                server,
                Ask::default(),
                Purpose::Reachable(n),
            );
        }
    }

    /// The server was asked plainly after a silence, and saw the asking socket there; `None` where it was silent too.
    pub(super) fn reached(&mut self, family: Family, n: u8, seen: Option<SocketAddr>) {
        let born = self.ageing(family, n).and_then(|a| a.born);
        match (born, seen) {
            (Some((_, outside)), Some(seen)) if outside.ip() == seen.ip() => self.aged_to(family, n, false),
            _ => self.unasked(family, n),
        }
    }

    /// Nothing is told of this one: it could not be made, or not be asked.
    pub(super) fn unasked(&mut self, family: Family, n: u8) {
        if let Some(ageing) = self.ageing(family, n) {
            ageing.asked = true;
            ageing.void = true;
        }
        self.end_ageing(family, n);
    }

    /// How the mapping of a socket that is closed has fared.
    pub fn aged_as(&self, socket: SocketId) -> Option<(Span, &'static str)> {
        let Role::Ageing(n) = socket.role else {
            return None;
        };
        self.families.get(&socket.family)?.lifetime.as_ref()?.told(n)
    }

    fn aged_to(&mut self, family: Family, n: u8, alive: bool) {
        if let Some(ageing) = self.ageing(family, n) {
            ageing.alive = Some(alive);
        }
        self.end_ageing(family, n);
    }

    fn end_ageing(&mut self, family: Family, n: u8) {
        for role in [Role::Ageing(n), Role::Asking(n)] {
            self.effects.push_back(Effect::Close(SocketId { family, role }));
        }
        self.refine(family);
    }

    /// Once all ages of a round are known, looks closer between the last that lived and the first that did not, and once
    /// more at this one.
    fn refine(&mut self, family: Family) {
        let Some(lifetime) = self.lifetime_of(family) else {
            return;
        };
        let open = lifetime.all.iter().any(|a| a.alive.is_none() && !a.void);
        if open || lifetime.unsupported || lifetime.stopped || lifetime.round + 1 >= ROUNDS {
            return;
        }
        let (Some(alive), Some(gone)) = lifetime.bracket() else {
            return;
        };
        let mut ages = Vec::new();
        let step = (gone - alive) / (FINER + 1);
        if lifetime.round == 0 && step >= Span::from_millis(200) {
            ages.extend((1..=FINER).map(|i| alive + step * i));
        }
        if !lifetime.confirmed(gone) || !ages.is_empty() {
            ages.push(gone);
        }
        if !ages.is_empty() {
            lifetime.round += 1;
            self.add_ages(family, &ages);
        }
    }
}

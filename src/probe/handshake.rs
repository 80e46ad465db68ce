//! Handshakes with one peer: initiations at an interval, and what each answer proves.
//!
//! In: datagrams, ICMP errors, the time. Out: initiations (and, to a peer that calls back, responses), one
//! [`Event::Attempt`] for each initiation, and in the end the newest session. Nothing is sent under a session: an
//! unconfirmed responder goes on as before. Timestamps are on the kernel's scale, so that a probe does not make a kernel's
//! later handshakes with the same key look like replays.

use std::collections::VecDeque;

use super::entropy::Entropy;
use crate::observation::probe::{Attempt, Outcome, Stray, StrayKind};
use crate::time::{Span, Timestamp};
use crate::wire::icmp::{self, IcmpClass};
use crate::wire::mac::Cookie;
use crate::wire::noise::initiator::{Fresh, Identity, Pending, ResponseError};
use crate::wire::noise::transport::Transport as Session;
use crate::wire::tai64n::Tai64n;
use crate::wire::wireguard::{COOKIE_LIFETIME, Initiation, Message, first_index};

/// A peer that has not answered gets at least so many: a gateway that installs its peers on demand takes the first one
/// for that, and one lost packet is no verdict.
pub const LEAST_TRIES: u32 = 2;
/// How many more may follow cookies.
const AFTER_COOKIES: u32 = 3;
/// How long after a cookie the retry goes out: below the 20 a second that a responder under load allows.
const AFTER_COOKIE: Span = Span::from_millis(250);
/// Strays that are told; of more only how many.
const STRAYS: u32 = 4;
/// A responder takes two initiations of one key within 20 ms for a flood (kernel noise.c), and two within 16.8 ms carry the
/// same stamp.
pub const LEAST_INTERVAL: Span = Span::from_millis(50);

/// How to probe.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Initiations to send.
    pub count: u32,
    /// Between two of them.
    pub interval: Span,
    /// How long each may take.
    pub timeout: Span,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An initiation has been answered, or its time is over.
    Attempt(Attempt),
    /// Something arrived that answers nothing.
    Stray(Stray),
    /// All is said.
    Done,
}

/// An ICMP error about one of our messages.
#[derive(Clone, Debug)]
pub struct IcmpSeen {
    /// Who sent it.
    pub from: Option<std::net::IpAddr>,
    /// ICMPv6.
    pub v6: bool,
    /// Its type.
    pub icmp_type: u8,
    /// Its code.
    pub code: u8,
    /// What it quotes of our message; may be empty.
    pub quoted: Vec<u8>,
}

struct Open {
    number: u32,
    sent_at: Timestamp,
    with_cookie: bool,
    pending: Pending,
    /// The peer called back, and this is when.
    called_back: Option<Timestamp>,
}

/// The machine. It holds keys and so has no `Debug`.
pub struct HandshakeProbe {
    identity: Identity,
    plan: Plan,
    entropy: Entropy,
    open: Vec<Open>,
    sent: u32,
    /// Attempts that proved that the peer is there.
    heard: u32,
    after_cookies: u32,
    next_send: Option<Timestamp>,
    granted: bool,
    last_stamp: Option<Tai64n>,
    cookie: Option<(Cookie, Timestamp)>,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    strays: u32,
    /// The newest session, and whether it is the peer's to confirm.
    session: Option<Session>,
    done: bool,
}

impl HandshakeProbe {
    /// A probe whose first initiation is due at `start`.
    pub fn new(identity: Identity, plan: Plan, seed: [u8; 32], start: Timestamp) -> Self {
        Self {
            identity,
            plan: Plan {
                interval: plan.interval.max(LEAST_INTERVAL),
                count: plan.count.max(1),
                ..plan
            },
            entropy: Entropy::new(seed),
            open: Vec::new(),
            sent: 0,
            heard: 0,
            after_cookies: 0,
            next_send: Some(start),
            granted: false,
            last_stamp: None,
            cookie: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            strays: 0,
            session: None,
            done: false,
        }
    }

    /// The same for a key that was used with the timestamp `stamp` before.
    #[must_use]
    pub fn after(mut self, stamp: Option<Tai64n>) -> Self {
        self.last_stamp = stamp;
        self
    }

    /// When the next initiation would like to be sent, where it has no turn yet. See [`super::pacing`].
    pub fn wants_turn(&self) -> Option<Timestamp> {
        self.next_send.filter(|_| !self.granted)
    }

    /// Gives it its turn.
    pub fn grant(&mut self, at: Timestamp) {
        if self.next_send.is_some() {
            self.next_send = Some(at);
            self.granted = true;
        }
    }

    /// When to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let expiry = self.open.iter().map(|o| o.sent_at + self.plan.timeout).min();
        [self.next_send, expiry].into_iter().flatten().min()
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether it is over.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The newest session, with what made it.
    pub fn into_session(self) -> (Identity, Entropy, Option<Session>, Option<Tai64n>) {
        (self.identity, self.entropy, self.session, self.last_stamp)
    }

    /// Ends attempts whose time is over, and makes the next initiation when it has its turn.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let timeout = self.plan.timeout;
        while let Some(at) = self.open.iter().position(|o| now >= o.sent_at + timeout) {
            let open = self.open.remove(at);
            let outcome = match open.called_back {
                Some(at) => Outcome::CalledBack {
                    after: at - open.sent_at,
                    confirmed: None,
                },
                None => Outcome::Silent { waited: timeout },
            };
            self.close(&open, outcome);
        }
        if self.granted && self.next_send.is_some_and(|at| now >= at) {
            self.initiate(now);
        }
        self.end_or_go_on(now);
    }

    fn initiate(&mut self, now: Timestamp) {
        let cookie = self
            .cookie
            .filter(|(_, at)| now - *at < COOKIE_LIFETIME)
            .map(|(cookie, _)| cookie);
        let timestamp = Tai64n::like_the_kernel(now, self.last_stamp);
        self.last_stamp = Some(timestamp);
        let fresh = Fresh {
            sender: self.entropy.index(),
            ephemeral: self.entropy.bytes(),
            timestamp,
            cookie,
        };
        let (pending, message) = self.identity.initiate(fresh);
        self.sent += 1;
        self.open.push(Open {
            number: self.sent,
            sent_at: now,
            with_cookie: cookie.is_some(),
            pending,
            called_back: None,
        });
        self.transmits.push_back(message.to_vec());
        self.granted = false;
        self.next_send = (self.sent < self.plan.count).then(|| now + self.plan.interval);
    }

    /// The newest initiation really left at `now`: from then on counts its round trip.
    pub fn handle_sent(&mut self, now: Timestamp) {
        if let Some(open) = self.open.iter_mut().max_by_key(|o| o.number) {
            open.sent_at = now;
        }
    }

    /// The newest initiation could not be sent.
    pub fn handle_send_error(&mut self, now: Timestamp, errno: i32, error: String) {
        let newest = (0..self.open.len()).max_by_key(|at| self.open.get(*at).map(|o| o.number));
        if let Some(at) = newest {
            let open = self.open.remove(at);
            self.close(&open, Outcome::NotSent { errno, error });
        }
        self.end_or_go_on(now);
    }

    /// An ICMP error came.
    pub fn handle_icmp(&mut self, now: Timestamp, seen: &IcmpSeen) {
        let (class, _) = icmp::meaning(seen.v6, seen.icmp_type, seen.code);
        if matches!(
            class,
            IcmpClass::TooBig | IcmpClass::ParameterProblem | IcmpClass::Reassembly | IcmpClass::Other
        ) {
            return;
        }
        // Many routers quote no more than the UDP header: then it is about the oldest that is open.
        let index = first_index(&seen.quoted);
        let at = match index {
            Some(index) => self.open.iter().position(|o| o.pending.sender == index),
            None => (!self.open.is_empty()).then_some(0),
        };
        if let Some(at) = at {
            let open = self.open.remove(at);
            let outcome = Outcome::Icmp {
                from: seen.from,
                v6: seen.v6,
                icmp_type: seen.icmp_type,
                code: seen.code,
                after: now - open.sent_at,
            };
            self.close(&open, outcome);
        }
        self.end_or_go_on(now);
    }

    /// A datagram came from the peer's address.
    pub fn handle_input(&mut self, now: Timestamp, datagram: &[u8]) {
        let len = u32::try_from(datagram.len()).unwrap_or(u32::MAX);
        match Message::parse(datagram, len) {
            Some(Message::Response(response)) => {
                let at = self
                    .open
                    .iter()
                    .position(|o| o.pending.sender == response.receiver);
                let open = at.and_then(|at| self.open.get(at).map(|o| (at, o)));
                let Some((at, open)) = open else {
                    return self.stray(datagram, StrayKind::OtherResponse);
                };
                let rtt = now - open.sent_at;
                let outcome = match self.identity.finish(&open.pending, datagram, &response) {
                    Ok(session) => {
                        self.session = Some(session);
                        Outcome::Answered { rtt }
                    }
                    Err(ResponseError::PresharedKey) => Outcome::PresharedKeyDiffers { rtt },
                    Err(ResponseError::OtherIndex | ResponseError::OtherReceiver) => {
                        return self.stray(datagram, StrayKind::OtherResponse);
                    }
                };
                self.heard += 1;
                let open = self.open.remove(at);
                self.close(&open, outcome);
            }
            Some(Message::CookieReply(reply)) => {
                let at = self.open.iter().position(|o| o.pending.sender == reply.receiver);
                let opened = at.and_then(|at| {
                    let mac1 = &self.open.get(at)?.pending.mac1;
                    Some((at, self.identity.peer_keys().open_cookie(&reply, mac1)?))
                });
                let Some((at, cookie)) = opened else {
                    return self.stray(datagram, StrayKind::OtherCookie);
                };
                self.cookie = Some((cookie, now));
                let open = self.open.remove(at);
                let rtt = now - open.sent_at;
                self.close(&open, Outcome::Cookie { rtt });
                if self.next_send.is_none() && self.after_cookies < AFTER_COOKIES {
                    self.after_cookies += 1;
                    self.next_send = Some(now + AFTER_COOKIE);
                }
            }
            Some(Message::Initiation(initiation)) => self.called(now, datagram, &initiation),
            Some(Message::Data(_)) => self.data(now, datagram),
            None => self.stray(datagram, StrayKind::NotWireguard),
        }
        self.end_or_go_on(now);
    }

    /// The peer calls us: a gateway that has just installed us as its peer.
    fn called(&mut self, now: Timestamp, datagram: &[u8], initiation: &Initiation<'_>) {
        if self.identity.own_keys().made(datagram) != Some(true) {
            return self.stray(datagram, StrayKind::OtherInitiation);
        }
        let (sender, ephemeral) = (self.entropy.index(), self.entropy.bytes());
        let Ok((_, session, response)) = self.identity.answer(initiation, sender, ephemeral) else {
            return self.stray(datagram, StrayKind::OtherInitiation);
        };
        self.transmits.push_back(response.to_vec());
        self.session = Some(session);
        // Our newest initiation is what made it call.
        let newest = self
            .open
            .iter_mut()
            .filter(|o| o.called_back.is_none())
            .max_by_key(|o| o.number);
        if let Some(open) = newest {
            open.called_back = Some(now);
        }
    }

    /// Data under the session that the peer began confirms it.
    fn data(&mut self, now: Timestamp, datagram: &[u8]) {
        let opens = self
            .session
            .as_mut()
            .is_some_and(|session| session.open(datagram).is_ok());
        if !opens {
            return self.stray(datagram, StrayKind::OtherData);
        }
        if let Some(at) = self.open.iter().position(|o| o.called_back.is_some()) {
            let open = self.open.remove(at);
            self.heard += 1;
            let outcome = Outcome::CalledBack {
                after: open.called_back.unwrap_or(now) - open.sent_at,
                confirmed: Some((now - open.sent_at).as_secs_f64()),
            };
            self.close(&open, outcome);
        }
    }

    fn stray(&mut self, datagram: &[u8], kind: StrayKind) {
        self.strays += 1;
        if self.strays <= STRAYS {
            let begins = datagram.iter().take(16).map(|b| format!("{b:02x}")).collect();
            self.events.push_back(Event::Stray(Stray {
                kind,
                len: u32::try_from(datagram.len()).unwrap_or(u32::MAX),
                begins,
            }));
        }
    }

    fn close(&mut self, open: &Open, outcome: Outcome) {
        self.events.push_back(Event::Attempt(Attempt {
            number: open.number,
            sent_at: open.sent_at,
            local: None,
            with_cookie: open.with_cookie,
            outcome,
        }));
    }

    fn end_or_go_on(&mut self, now: Timestamp) {
        if self.done || self.next_send.is_some() || !self.open.is_empty() {
            return;
        }
        if self.heard == 0 && self.sent < LEAST_TRIES {
            self.next_send = Some(now + LEAST_INTERVAL);
            return;
        }
        self.done = true;
        self.events.push_back(Event::Done);
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;

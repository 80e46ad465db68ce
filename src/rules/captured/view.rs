//! What the rules of this area look at: each initiator with its attempts, and each move with its tunnel.

use std::net::SocketAddr;

use crate::finding::{Confidence, Evidence, Finding, Severity, Subject};
use crate::rules::Input;
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::track::handshake::{Attempt, Conversation, End};
use crate::track::sessions::{Move, Session, Side, Tunnel};

/// One end of a conversation that tries handshakes.
pub struct Initiator<'a> {
    pub world: &'a World,
    pub conversation: &'a Conversation,
    pub end: &'a End,
    pub responder: SocketAddr,
}

/// Every end that tried.
pub fn initiators<'a>(input: &Input<'a>) -> impl Iterator<Item = Initiator<'a>> + use<'a> {
    let world = input.world;
    world.handshakes.conversations().flat_map(move |conversation| {
        conversation
            .ends()
            .iter()
            .filter(|end| end.first_attempt.is_some())
            .filter_map(move |end| {
                let responder = conversation.other(end.address)?.address;
                Some(Initiator {
                    world,
                    conversation,
                    end,
                    responder,
                })
            })
    })
}

impl<'a> Initiator<'a> {
    /// Its newest attempts that one intention made: each a retry of the one before, none answered, up to the last.
    /// A retry proves that the initiator accepted no answer, also where the capture sees one direction only.
    pub fn silent_tries(&self) -> Vec<&'a Attempt> {
        let mut tries = Vec::new();
        for attempt in self.end.attempts().rev().take_while(|a| !a.is_answered()) {
            tries.push(attempt);
            if attempt.try_number == 1 {
                break;
            }
        }
        tries.reverse();
        tries
    }

    /// What was seen of the two parties' sessions.
    pub fn tunnel(&self) -> Option<&'a Tunnel> {
        self.world.sessions.between(self.end.address, self.responder)
    }

    /// When the responder last sent data to the initiator.
    pub fn heard_from_responder(&self) -> Option<Timestamp> {
        let tunnel = self.tunnel()?;
        let side = side_at(tunnel, self.responder)?;
        self.world.sessions.last_sent(tunnel, side)
    }

    /// Whether the tunnel came up after `since` all the same: by the other side's handshake, or by one whose response
    /// this capture does not hold.
    pub fn came_up_since(&self, since: Timestamp) -> bool {
        let by_other = self
            .conversation
            .other(self.end.address)
            .and_then(|o| o.last_answer);
        let new = |session: &Session| {
            let first = session.streams.iter().filter_map(|s| s.first_at).min();
            session.began.or(first).is_some_and(|at| at > since)
        };
        by_other.is_some_and(|at| at > since)
            || self
                .tunnel()
                .is_some_and(|t| self.world.sessions.live(t).any(new))
    }

    /// The subject: the responder, as the initiator sees it.
    pub fn subject(&self) -> Subject {
        peer(self.responder, self.end.address)
    }
}

/// A tunnel and one of its moves.
#[derive(Clone, Copy)]
pub struct Moved<'a> {
    pub tunnel: &'a Tunnel,
    pub moved: &'a Move,
}

impl Moved<'_> {
    /// Who stayed.
    pub fn other(&self) -> SocketAddr {
        let [first, second] = self.tunnel.ends;
        if self.moved.side == Side::First {
            second
        } else {
            first
        }
    }

    /// A port alone that changed after a silence long enough for a NAT to forget it.
    pub fn is_rebinding(&self, after: Span) -> bool {
        self.moved.is_port_only() && self.moved.quiet >= after
    }
}

/// Tunnels that moved, without those that two hosts fight over: what moves there is the rivals' doing.
pub fn moving<'a>(input: &Input<'a>) -> impl Iterator<Item = (&'a Tunnel, Vec<Moved<'a>>)> + use<'a> {
    let sessions = &input.world.sessions;
    let tunnels = sessions.tunnels();
    tunnels
        .iter()
        .filter(|t| t.moves().len() > 0)
        .filter_map(move |tunnel| {
            let fought_over = |t: &Tunnel| {
                t.rivalry
                    .is_some_and(|r| r.hosts.iter().any(|h| tunnel.ends.contains(h)))
            };
            if tunnels.iter().any(fought_over) || sessions.moves_on_purpose(tunnel) {
                return None;
            }
            Some((
                tunnel,
                tunnel.moves().map(|moved| Moved { tunnel, moved }).collect(),
            ))
        })
}

/// Which side of a tunnel is at `address`.
pub fn side_at(tunnel: &Tunnel, address: SocketAddr) -> Option<Side> {
    let [first, second] = tunnel.ends;
    match address {
        a if a == first => Some(Side::First),
        a if a == second => Some(Side::Second),
        _ => None,
    }
}

/// A peer at `endpoint`, seen from `local`.
pub fn peer(endpoint: SocketAddr, local: SocketAddr) -> Subject {
    Subject::Peer {
        device: None,
        public_key: None,
        endpoint: Some(endpoint),
        local: Some(local),
    }
}

/// A finding without its texts.
pub fn finding(
    code: &'static str,
    (severity, confidence): (Severity, Confidence),
    subject: Subject,
    (first_seen, last_seen): (Timestamp, Timestamp),
) -> Finding {
    Finding {
        code,
        severity,
        confidence,
        title: String::new(),
        subject,
        summary: String::new(),
        evidence: Evidence::new(),
        impact: String::new(),
        candidates: Vec::new(),
        fixes: Vec::new(),
        first_seen,
        last_seen,
        count: 1,
    }
}

/// `1 attempt`, `3 attempts`.
pub fn count(n: u64, noun: &str) -> String {
    if n == 1 {
        format!("1 {noun}")
    } else {
        format!("{n} {noun}s")
    }
}

/// A length of time, in seconds.
pub fn secs(span: Span) -> String {
    match span.as_secs() {
        0..10 => format!("{:.1} s", span.as_secs_f64()),
        10..120 => format!("{} s", span.as_secs()),
        s if s < 7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

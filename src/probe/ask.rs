//! Questions through the tunnel: an echo, a name, a connection.
//!
//! In: a question, inner packets, the time. Out: inner packets, and one [`Inner`] in the end.

mod dns;
mod echo;
mod tcp;

use std::net::{IpAddr, SocketAddr};

pub use echo::Echo;

use super::Inside;
use super::stack::Stack;
use crate::observation::probe::{Fact, Inner, InnerKind};
use crate::time::{Span, Timestamp};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// ICMP echo, several times.
    Ping {
        /// Whom.
        to: IpAddr,
        /// How often.
        count: u32,
    },
    /// The addresses of a name.
    Dns {
        /// Which name.
        name: String,
        /// Whom to ask.
        server: SocketAddr,
    },
    /// A connection that is closed at once.
    Tcp {
        /// Where to.
        to: SocketAddr,
    },
}

impl Question {
    /// Whom it is put to.
    pub fn to(&self) -> IpAddr {
        match self {
            Self::Ping { to, .. } => *to,
            Self::Dns { server, .. } => server.ip(),
            Self::Tcp { to } => to.ip(),
        }
    }

    /// As reports name its target.
    fn target(&self) -> String {
        match self {
            Self::Ping { to, .. } => to.to_string(),
            Self::Dns { name, server } => format!("{name}@{server}"),
            Self::Tcp { to } => to.to_string(),
        }
    }

    fn kind(&self) -> InnerKind {
        match self {
            Self::Ping { .. } => InnerKind::Ping,
            Self::Dns { .. } => InnerKind::Dns,
            Self::Tcp { .. } => InnerKind::Tcp,
        }
    }
}

/// One of the three.
enum Asking {
    Ping(echo::Pings),
    Dns(dns::Lookup),
    Tcp(tcp::Connect),
}

/// A question under way.
pub struct Ask {
    question: Question,
    stack: Stack,
    asking: Asking,
    answer: Option<Inner>,
    told: bool,
}

/// What a question has so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    sent: u32,
    rtts: Vec<Span>,
    answer: Option<String>,
    error: Option<String>,
}

impl Ask {
    /// Puts `question` from `source`; each try may take `timeout`.
    pub fn new(question: Question, source: IpAddr, seed: u64, timeout: Span, now: Timestamp) -> Self {
        let mut stack = Stack::new(source, seed, now);
        let asking = match &question {
            Question::Ping { to, count } => Asking::Ping(echo::Pings::new(
                &mut stack, source, *to, *count, timeout, seed, now,
            )),
            Question::Dns { name, server } => {
                Asking::Dns(dns::Lookup::new(&mut stack, name, *server, timeout, seed, now))
            }
            Question::Tcp { to } => Asking::Tcp(tcp::Connect::new(&mut stack, *to, timeout, seed, now)),
        };
        let mut ask = Self {
            question,
            stack,
            asking,
            answer: None,
            told: false,
        };
        ask.handle_timeout(now);
        ask
    }
}

impl Inside for Ask {
    fn handle_input(&mut self, now: Timestamp, inner: Vec<u8>) {
        self.stack.handle_input(now, inner);
        self.handle_timeout(now);
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        if self.told {
            return;
        }
        let done = match &mut self.asking {
            Asking::Ping(pings) => pings.step(&mut self.stack, now),
            Asking::Dns(lookup) => lookup.step(&mut self.stack, now),
            Asking::Tcp(connect) => connect.step(&mut self.stack, now),
        };
        self.stack.handle_timeout(now);
        if let Some(progress) = done {
            self.told = true;
            self.answer = Some(Inner {
                kind: self.question.kind(),
                target: self.question.target(),
                sent: progress.sent,
                answered: u32::try_from(progress.rtts.len()).unwrap_or(u32::MAX),
                rtts: progress.rtts.iter().map(Span::as_secs_f64).collect(),
                answer: progress.answer,
                error: progress.error,
            });
        }
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.stack.poll_transmit()
    }

    fn poll_timeout(&mut self, now: Timestamp) -> Option<Timestamp> {
        let own = match &self.asking {
            Asking::Ping(pings) => pings.due(),
            Asking::Dns(lookup) => lookup.due(),
            Asking::Tcp(connect) => connect.due(),
        };
        let stack = self.stack.poll_timeout(now);
        [Some(own), stack].into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<Fact> {
        self.answer.take().map(Fact::Inner)
    }
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;

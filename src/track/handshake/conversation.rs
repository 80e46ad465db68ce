//! Two outer addresses that speak WireGuard with each other.

use std::net::SocketAddr;

use super::attempt::IcmpNote;
use super::counts::MessageCounts;
use super::end::End;
use crate::time::Timestamp;
use crate::wire::wireguard::Kind;

/// Different ICMP errors that are kept of one conversation; further ones are only counted.
pub const ERRORS_KEPT: usize = 8;

/// Two addresses, in one order whichever way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pair(SocketAddr, SocketAddr);

impl Pair {
    /// Of two addresses that are [`plain`].
    pub fn new(a: SocketAddr, b: SocketAddr) -> Self {
        if a <= b { Self(a, b) } else { Self(b, a) }
    }

    /// The two.
    pub fn ends(self) -> [SocketAddr; 2] {
        [self.0, self.1]
    }
}

/// An address as packets have it: IPv4 as such, no zone, no flow label. Devices report both.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What was seen between two outer addresses.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// When its first message was seen.
    pub first_at: Timestamp,
    /// When its last message, or error about one, was seen.
    pub last_at: Timestamp,
    /// ICMP errors beyond those kept.
    pub errors_forgotten: u64,
    ends: [End; 2],
    errors: Vec<IcmpTally>,
}

/// One kind of ICMP error from one router about one kind of message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpTally {
    /// The error, as it was first seen.
    pub first: IcmpNote,
    /// When it was last seen.
    pub last_at: Timestamp,
    /// How often, each once however many interfaces it passed.
    pub count: u64,
    /// Who sent the message that it is about.
    pub about: SocketAddr,
    /// Which message that was, where the quote tells.
    pub kind: Option<Kind>,
    /// The smallest MTU that it named.
    pub mtu: Option<u32>,
    /// The beginning of the last quote: the same again is another sighting of the same error.
    quote: [u8; 16],
}

impl Conversation {
    pub(super) fn new(Pair(a, b): Pair, at: Timestamp) -> Self {
        Self {
            first_at: at,
            last_at: at,
            errors_forgotten: 0,
            ends: [End::new(a), End::new(b)],
            errors: Vec::new(),
        }
    }

    /// Both ends, in the order of their addresses.
    pub fn ends(&self) -> &[End; 2] {
        &self.ends
    }

    /// The end with `address`: what it sent and its attempts.
    pub fn end(&self, address: SocketAddr) -> Option<&End> {
        let address = plain(address);
        self.ends.iter().find(|e| e.address == address)
    }

    /// The end that is not `address`.
    pub fn other(&self, address: SocketAddr) -> Option<&End> {
        let [a, b] = &self.ends;
        match plain(address) {
            address if address == a.address => Some(b),
            address if address == b.address => Some(a),
            _ => None,
        }
    }

    /// The local and the remote end, where directions tell: what the local one sends goes out, what the remote one
    /// sends comes in. `None` on the loopback, where packets are forwarded, and in captures without directions.
    pub fn local_remote(&self) -> Option<(&End, &End)> {
        let [a, b] = &self.ends;
        match (a.sends_from_here(), b.sends_from_here()) {
            (Some(true), Some(false) | None) | (None, Some(false)) => Some((a, b)),
            (Some(false), Some(true) | None) | (None, Some(true)) => Some((b, a)),
            _ => None,
        }
    }

    /// Messages of both ends.
    pub fn messages(&self) -> MessageCounts {
        let [a, b] = &self.ends;
        a.messages + b.messages
    }

    /// ICMP errors about its messages, in the order in which they were first seen.
    pub fn errors(&self) -> &[IcmpTally] {
        &self.errors
    }

    pub(super) fn key(&self) -> Pair {
        let [a, b] = &self.ends;
        Pair(a.address, b.address)
    }

    pub(super) fn end_mut(&mut self, address: SocketAddr) -> Option<&mut End> {
        self.ends.iter_mut().find(|e| e.address == address)
    }

    /// Attempts that are kept.
    pub(super) fn kept(&self) -> usize {
        self.ends.iter().map(End::kept).sum()
    }

    /// How much it is worth when room is short: this host's own attempts first, then what was answered, then what
    /// anybody may have made up.
    pub(super) fn worth(&self) -> (u8, Timestamp) {
        let tried_from_here = |e: &End| e.first_attempt.is_some() && e.sends_from_here() != Some(false);
        let worth = if self.ends.iter().any(tried_from_here) {
            2
        } else {
            u8::from(self.ends.iter().any(|e| e.last_answer.is_some()))
        };
        (worth, self.last_at)
    }

    /// Counts an error about a message of `about`'s. `false` for another sighting of one that was counted.
    pub(super) fn count_error(
        &mut self,
        note: IcmpNote,
        about: SocketAddr,
        kind: Option<Kind>,
        mtu: Option<u32>,
        quoted: &[u8],
    ) -> bool {
        let mut quote = [0; 16];
        quote.iter_mut().zip(quoted).for_each(|(to, from)| *to = *from);
        let known = self
            .errors
            .iter_mut()
            .find(|t| t.first.same(&note) && (t.about, t.kind) == (about, kind));
        if let Some(tally) = known {
            // Quotes that end before the message are all alike: these count each time.
            let again = tally.quote == quote && !quoted.is_empty();
            tally.last_at = note.at;
            tally.quote = quote;
            tally.count += u64::from(!again);
            tally.mtu = tally.mtu.into_iter().chain(mtu).min();
            return !again;
        }
        if self.errors.len() == ERRORS_KEPT {
            self.errors_forgotten += 1;
            return true;
        }
        self.errors.push(IcmpTally {
            first: note,
            last_at: note.at,
            count: 1,
            about,
            kind,
            mtu,
            quote,
        });
        true
    }
}

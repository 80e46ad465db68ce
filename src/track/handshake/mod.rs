//! Handshakes on the wire: who tries with whom, what comes back, since when nothing does.
//!
//! In: handshake messages and ICMP errors, in the order in which they were seen, each perhaps on several interfaces.
//! Out: conversations with their attempts. Pure; bounded whatever arrives, with what was dropped counted. Nothing is
//! decrypted: responses belong to initiations by session index.

mod attempt;
mod conversation;
mod counts;
mod end;
mod inflow;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hashbrown::HashMap;

pub use attempt::{ANSWER_WITHIN, Answer, Attempt, IcmpNote, Outcome, Taps};
pub use conversation::{Conversation, ERRORS_KEPT, IcmpTally};
pub use counts::MessageCounts;
pub use end::{ATTEMPTS_KEPT, End};
pub use inflow::{Flow, Heavy, Inflow};

use crate::observation::packet::{Direction, IcmpError, InitiationTally, WirePacket};
use crate::time::Timestamp;
use crate::types::SessionIndex;
use crate::wire::wireguard::{self, Class, CookieReply, Initiation, Kind, Message, Response};
use conversation::{Pair, plain};

/// Conversations that are kept.
pub const CONVERSATIONS_KEPT: usize = 4096;
/// Attempts that are kept of all conversations together (about 300 bytes each).
pub const ALL_ATTEMPTS_KEPT: usize = 16_384;

/// Everything seen of handshakes.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// In the order in which they began.
    conversations: Vec<Conversation>,
    by_pair: HashMap<Pair, usize>,
    /// In which conversations, in their order, an address is an end: thousands of peers each look for theirs.
    by_end: BTreeSet<(SocketAddr, usize)>,
    /// In which conversation an index was last used by an initiator: for answers from an unexpected address.
    by_index: HashMap<SessionIndex, usize>,
    attempts: usize,
    /// How many initiations come to which address.
    pub inflow: Inflow,
    /// Conversations dropped for want of room: of little worth first (see [`CONVERSATIONS_KEPT`]), then the ones
    /// quiet for longest.
    pub dropped: u64,
    /// Payloads that are not standard WireGuard, or cut too short to say.
    pub unreadable: u64,
    /// ICMP errors about datagrams of no known conversation that quote too little to be WireGuard for sure.
    pub stray_errors: u64,
}

impl Handshakes {
    /// Takes a message in.
    pub fn apply_packet(&mut self, at: Timestamp, packet: &WirePacket) {
        let payload = &packet.payload.0;
        let standard = wireguard::classify(payload, packet.payload_len).is_some_and(Class::is_standard);
        let message = Message::parse(payload, packet.payload_len).filter(|_| standard);
        let Some(message) = message else {
            self.unreadable += 1;
            return;
        };
        let seen = Seen {
            at,
            from: plain(packet.source),
            to: plain(packet.destination),
            tos: packet.tos,
            taps: Taps::first(packet.direction, packet.if_index),
        };
        if let Message::Initiation(_) = message {
            self.inflow.packet(at, packet);
        }
        let place = self.open(Pair::new(seen.from, seen.to), at);
        if let Some(end) = self.end_at(place, seen.from) {
            end.sighted(packet.direction);
        }
        match message {
            Message::Initiation(message) => self.initiation(place, &seen, &message),
            Message::Response(message) => self.response(place, &seen, &message),
            Message::CookieReply(message) => self.cookie_reply(place, &seen, &message),
            Message::Data(message) => {
                if let Some(end) = self.end_at(place, seen.from) {
                    if message.is_keepalive() {
                        end.messages.keepalives += 1;
                    } else {
                        end.messages.data += 1;
                    }
                }
            }
        }
    }

    /// Takes in how many initiations came that nobody shows.
    pub fn apply_tally(&mut self, at: Timestamp, tally: &InitiationTally) {
        self.inflow.tally(at, tally);
    }

    /// Takes an ICMP error in.
    pub fn apply_icmp(&mut self, at: Timestamp, error: &IcmpError) {
        let quoted = &error.quoted_payload.0;
        let (from, to) = (plain(error.quoted_source), plain(error.quoted_destination));
        let pair = Pair::new(from, to);
        let kind = quoted
            .first_chunk::<4>()
            .filter(|[_, reserved @ ..]| *reserved == [0; 3])
            .and_then(|[kind, ..]| Kind::from_type(*kind));
        if kind.is_none() && !self.by_pair.contains_key(&pair) {
            self.stray_errors += 1;
            return;
        }
        let note = IcmpNote {
            at,
            from: error.from,
            icmp_type: error.icmp_type,
            code: error.code,
            sent_here: error.direction == Direction::Out,
        };
        let place = self.open(pair, at);
        let Some(conversation) = self.conversations.get_mut(place) else {
            return;
        };
        if !conversation.count_error(note, from, kind, error.mtu, quoted) {
            return;
        }
        let Some(end) = conversation.end_mut(from) else {
            return;
        };
        let attempt = match (kind, wireguard::first_index(quoted)) {
            (Some(Kind::Initiation), Some(sender)) => end.find(sender, None),
            (Some(Kind::Initiation) | None, None) => end.newest_before(at),
            _ => None,
        };
        if let Some(attempt) = attempt {
            attempt.icmp.get_or_insert(note);
        }
    }

    /// Every conversation, in the order in which they began.
    pub fn conversations(&self) -> impl ExactSizeIterator<Item = &Conversation> {
        self.conversations.iter()
    }

    /// The conversation between two outer addresses; without `local` the one with `remote` that was active last.
    pub fn conversation(&self, local: Option<SocketAddr>, remote: SocketAddr) -> Option<&Conversation> {
        match local {
            Some(local) => self
                .by_pair
                .get(&Pair::new(plain(local), plain(remote)))
                .and_then(|place| self.conversations.get(*place)),
            None => self.by_remote(remote).max_by_key(|c| c.last_at),
        }
    }

    /// The conversation between a local port, on whatever address, and `remote`; of several the one that was active
    /// last. A device knows its port and not its address.
    pub fn between(&self, local_port: u16, remote: SocketAddr) -> Option<&Conversation> {
        self.by_remote(remote)
            .filter(|c| c.other(remote).is_some_and(|e| e.address.port() == local_port))
            .max_by_key(|c| c.last_at)
    }

    /// Conversations with `remote` as one end.
    pub fn by_remote(&self, remote: SocketAddr) -> impl Iterator<Item = &Conversation> {
        let remote = plain(remote);
        let places = self.by_end.range((remote, 0)..=(remote, usize::MAX));
        places.filter_map(|(_, place)| self.conversations.get(*place))
    }

    /// Conversations in which the local end, or an end that may be it, has this port.
    pub fn by_local_port(&self, port: u16) -> impl Iterator<Item = &Conversation> {
        self.conversations.iter().filter(move |c| match c.local_remote() {
            Some((local, _)) => local.address.port() == port,
            None => c.ends().iter().any(|e| e.address.port() == port),
        })
    }

    /// Messages of all conversations that are kept.
    pub fn messages(&self) -> MessageCounts {
        self.conversations
            .iter()
            .fold(MessageCounts::default(), |sum, c| sum + c.messages())
    }

    fn initiation(&mut self, place: usize, seen: &Seen, message: &Initiation<'_>) {
        let Some(end) = self.end_at(place, seen.from) else {
            return;
        };
        if let Some(known) = end.find(message.sender, Some(message.mac1)) {
            seen.add_to(&mut known.taps);
            return;
        }
        let before = end.kept();
        end.push(Attempt {
            at: seen.at,
            initiator: seen.from,
            responder: seen.to,
            sender: message.sender,
            mac1: *message.mac1,
            mac2_set: message.has_mac2(),
            tos: seen.tos,
            try_number: 1,
            taps: seen.taps,
            answer: None,
            cookie_at: None,
            icmp: None,
        });
        self.attempts += end.kept() - before;
        self.by_index.insert(message.sender, place);
        if self.attempts > ALL_ATTEMPTS_KEPT {
            self.make_room();
        } else if self.by_index.len() > 2 * ALL_ATTEMPTS_KEPT {
            self.reindex();
        }
    }

    fn response(&mut self, place: usize, seen: &Seen, message: &Response<'_>) {
        let answer = Answer {
            at: seen.at,
            from: seen.from,
            sender: message.sender,
            taps: seen.taps,
        };
        let elsewhere = self.by_index.get(&message.receiver).copied();
        let mut matched = None;
        for tried in [Some(place), elsewhere].into_iter().flatten() {
            let Some(end) = self.end_at(tried, seen.to) else {
                continue;
            };
            if end.saw_response(message.receiver, message.sender, seen.taps) {
                return;
            }
            matched = end.answer(message.receiver, answer);
            if matched.is_some() {
                break;
            }
        }
        let Some(end) = self.end_at(place, seen.from) else {
            return;
        };
        if matched == Some(true) || end.is_new_odd(message.receiver, message.sender.0) {
            end.messages.count(Kind::Response);
            end.messages.stray_responses += u64::from(matched.is_none());
        }
    }

    fn cookie_reply(&mut self, place: usize, seen: &Seen, message: &CookieReply<'_>) {
        let matched = match self.end_at(place, seen.to) {
            Some(end) => end.cookie(message.receiver, seen.at),
            None => None,
        };
        let Some(end) = self.end_at(place, seen.from) else {
            return;
        };
        let [a, b, c, d, ..] = *message.nonce;
        match matched {
            Some(true) => end.messages.count(Kind::CookieReply),
            Some(false) => {}
            // An initiator under load answers a response so.
            None if !end.is_new_odd(message.receiver, u32::from_le_bytes([a, b, c, d])) => {}
            None => {
                end.messages.count(Kind::CookieReply);
                end.messages.stray_cookie_replies += u64::from(!end.was_answered_with(message.receiver));
            }
        }
    }

    /// The end `of` in the conversation at `place`.
    fn end_at(&mut self, place: usize, of: SocketAddr) -> Option<&mut End> {
        self.conversations.get_mut(place)?.end_mut(of)
    }

    /// The place of the conversation of `pair`, which is begun now where there is none.
    fn open(&mut self, pair: Pair, at: Timestamp) -> usize {
        if let Some(place) = self.by_pair.get(&pair).copied()
            && let Some(conversation) = self.conversations.get_mut(place)
        {
            conversation.last_at = conversation.last_at.max(at);
            return place;
        }
        if self.conversations.len() >= CONVERSATIONS_KEPT {
            self.make_room();
        }
        let place = self.conversations.len();
        self.conversations.push(Conversation::new(pair, at));
        self.index(place, pair);
        place
    }

    fn index(&mut self, place: usize, pair: Pair) {
        self.by_pair.insert(pair, place);
        self.by_end.extend(pair.ends().map(|end| (end, place)));
    }

    /// Drops the eighth that is worth least. In batches, so that a flood of made-up addresses costs little each.
    fn make_room(&mut self) {
        let rank = |(place, conversation): (usize, &Conversation)| (conversation.worth(), place);
        let mut ranks: Vec<_> = self.conversations.iter().enumerate().map(rank).collect();
        let dropped = (ranks.len() / 8).max(1);
        if ranks.len() < dropped {
            return;
        }
        let (_, last, _) = ranks.select_nth_unstable(dropped - 1);
        let last = *last;
        let mut place = 0..;
        self.conversations
            .retain(|c| place.next().is_some_and(|place| (c.worth(), place) > last));
        self.dropped += dropped as u64;
        self.attempts = self.conversations.iter().map(Conversation::kept).sum();
        self.by_pair.clear();
        self.by_end.clear();
        let pairs: Vec<Pair> = self.conversations.iter().map(Conversation::key).collect();
        for (place, pair) in pairs.into_iter().enumerate() {
            self.index(place, pair);
        }
        self.reindex();
    }

    /// Forgets the indices of attempts that are no longer kept.
    fn reindex(&mut self) {
        self.by_index.clear();
        for (place, conversation) in self.conversations.iter().enumerate() {
            let attempts = conversation.ends().iter().flat_map(End::attempts);
            self.by_index.extend(attempts.map(|a| (a.sender, place)));
        }
    }
}

/// What all messages have.
struct Seen {
    at: Timestamp,
    from: SocketAddr,
    to: SocketAddr,
    tos: u8,
    taps: Taps,
}

impl Seen {
    fn add_to(&self, taps: &mut Taps) {
        for (direction, if_index) in self.taps.iter() {
            taps.add(direction, if_index);
        }
    }
}

#[cfg(test)]
mod tests;

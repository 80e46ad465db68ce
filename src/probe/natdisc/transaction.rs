//! STUN transactions over UDP: sent, repeated, answered or given up.
//!
//! In: what to ask whom, and time. Out: datagrams that are due, and for each incoming one the transaction that it
//! answers. Why not RFC 8489's timing (section 6.2.1, 39.5 s until failure): half of these tests end in silence, so silence
//! must be certain in seconds; four sends within 2.5 s make it one in a hundred at 30 % loss.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use blake2::{Blake2s256, Digest};

use super::SocketId;
use crate::time::{Span, Timestamp};
use crate::wire::stun::{BINDING, Change, Class, TransactionId, Writer, attribute};

/// When a request is sent again, counted from the first time.
const REPEATS: [Span; 3] = [
    Span::from_millis(250),
    Span::from_millis(750),
    Span::from_millis(1500),
];
/// When it is given up.
const PATIENCE: Span = Span::from_millis(2600);

/// What a transaction asks for beside a Binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// An answer from elsewhere.
    pub change: Option<Change>,
    /// An answer to another port.
    pub response_port: Option<u16>,
}

/// A transaction under way.
#[derive(Clone, Debug)]
pub struct Transaction<P> {
    /// What it is for.
    pub purpose: P,
    /// The socket that asked.
    pub socket: SocketId,
    /// Whom.
    pub to: SocketAddr,
    /// When it was sent first.
    pub first: Timestamp,
    sent: usize,
    request: Vec<u8>,
}

impl<P> Transaction<P> {
    fn due(&self) -> Timestamp {
        self.first
            + REPEATS
                .get(self.sent.saturating_sub(1))
                .copied()
                .unwrap_or(PATIENCE)
    }
}

/// Every transaction under way; a plan makes a bounded number of them.
#[derive(Debug)]
pub struct Transactions<P> {
    key: [u8; 32],
    counter: u64,
    open: BTreeMap<TransactionId, Transaction<P>>,
}

impl<P> Transactions<P> {
    /// With identities that nobody can guess who does not know `key`.
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            counter: 0,
            open: BTreeMap::new(),
        }
    }

    /// Begins one; the datagram to send now.
    pub fn begin(
        &mut self,
        now: Timestamp,
        socket: SocketId,
        to: SocketAddr,
        ask: Ask,
        purpose: P,
    ) -> Vec<u8> {
        let id = self.identity();
        let request = request(id, to, ask);
        let transaction = Transaction {
            purpose,
            socket,
            to,
            first: now,
            sent: 1,
            request: request.clone(),
        };
        self.open.insert(id, transaction);
        request
    }

    fn identity(&mut self) -> TransactionId {
        self.counter += 1;
        let mut hash = Blake2s256::new();
        hash.update(self.key);
        hash.update(self.counter.to_be_bytes());
        let mut random = [0; 12];
        random.copy_from_slice(&hash.finalize()[..12]);
        TransactionId::new(random)
    }

    /// The one with this identity.
    pub fn get(&self, id: &TransactionId) -> Option<&Transaction<P>> {
        self.open.get(id)
    }

    /// Ends one.
    pub fn end(&mut self, id: &TransactionId) -> Option<Transaction<P>> {
        self.open.remove(id)
    }

    /// Ends those of a socket that could not be opened or cannot send.
    pub fn end_all(&mut self, mut of: impl FnMut(&Transaction<P>) -> bool) -> Vec<Transaction<P>> {
        let ids: Vec<_> = self
            .open
            .iter()
            .filter(|(_, t)| of(t))
            .map(|(id, _)| *id)
            .collect();
        ids.iter().filter_map(|id| self.open.remove(id)).collect()
    }

    /// Whether any is under way that `of` picks.
    pub fn any(&self, of: impl FnMut(&Transaction<P>) -> bool) -> bool {
        self.open.values().any(of)
    }

    /// The next time at which something is due.
    pub fn timeout(&self) -> Option<Timestamp> {
        self.open.values().map(Transaction::due).min()
    }

    /// What is due: datagrams to send again, and transactions that are given up.
    #[allow(clippy::type_complexity)]
    pub fn handle_timeout(
        &mut self,
        now: Timestamp,
    ) -> (Vec<(SocketId, SocketAddr, Vec<u8>)>, Vec<Transaction<P>>) {
        let mut again = Vec::new();
        for transaction in self.open.values_mut() {
            if transaction.due() <= now && transaction.sent <= REPEATS.len() {
                transaction.sent += 1;
                again.push((transaction.socket, transaction.to, transaction.request.clone()));
            }
        }
        // One repeat at a time: a driver that comes late must not send a burst, and must wait for the last answer.
        let late = |t: &Transaction<P>| t.sent > REPEATS.len() && t.due() <= now;
        let again_to = |t: &Transaction<P>| again.iter().any(|(_, _, request)| *request == t.request);
        let given_up = self
            .open
            .iter()
            .filter(|(_, t)| late(t) && !again_to(t))
            .map(|(id, _)| *id)
            .collect::<Vec<_>>();
        let given_up = given_up.iter().filter_map(|id| self.open.remove(id)).collect();
        (again, given_up)
    }
}

/// A Binding request, made as long as the longest answer of a server that answers with no more than it was asked with.
pub fn request(id: TransactionId, to: SocketAddr, ask: Ask) -> Vec<u8> {
    let length = if to.is_ipv4() { 100 } else { 148 };
    let mut bytes = vec![0; length];
    let written = Writer::new(&mut bytes, Class::Request, BINDING, id).map(|mut writer| {
        if let Some(change) = ask.change {
            writer.change_request(change);
        }
        if let Some(port) = ask.response_port {
            writer.response_port(port);
        }
        let used = 20 + 8 * (usize::from(ask.change.is_some()) + usize::from(ask.response_port.is_some()));
        // SOFTWARE may be as long as that (RFC 8489, section 14.14), and servers that do not know it pass over it; PADDING
        // would be refused by servers without RFC 5780.
        let name = format!(
            "{:<width$}",
            concat!("wgnat ", env!("CARGO_PKG_VERSION")),
            width = length - used - 4
        );
        writer.attribute(attribute::SOFTWARE, name.as_bytes());
        writer.finish()
    });
    bytes.truncate(written.unwrap_or(0));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::nat::Family;
    use crate::probe::natdisc::Role;
    use crate::wire::stun::Message;

    const SOCKET: SocketId = SocketId {
        family: Family::Ipv4,
        role: Role::Main,
    };

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_silent_server_is_asked_four_times_and_given_up() {
        let mut all = Transactions::new([7; 32]);
        let to = "192.0.2.1:3478".parse().unwrap();
        all.begin(at(0), SOCKET, to, Ask::default(), 1);
        let mut sends = 1;
        let mut ends = Vec::new();
        while let Some(due) = all.timeout() {
            let (again, given_up) = all.handle_timeout(due);
            sends += again.len();
            ends.extend(given_up.iter().map(|t| (due, t.purpose)));
        }
        assert_eq!(sends, 4);
        assert_eq!(ends, [(at(2600), 1)]);
    }

    #[test]
    fn a_driver_that_comes_late_sends_once_and_waits() {
        let mut all = Transactions::new([7; 32]);
        all.begin(
            at(0),
            SOCKET,
            "192.0.2.1:3478".parse().unwrap(),
            Ask::default(),
            (),
        );
        for _ in 0..3 {
            let (again, given_up) = all.handle_timeout(at(60_000));
            assert_eq!((again.len(), given_up.len()), (1, 0));
        }
        let (again, given_up) = all.handle_timeout(at(60_000));
        assert_eq!((again.len(), given_up.len()), (0, 1));
    }

    #[test]
    fn requests_have_room_for_every_answer() {
        use crate::probe::reflector::LONGEST;
        let ask = Ask {
            change: Some(Change { ip: true, port: true }),
            response_port: Some(9),
        };
        for ask in [ask, Ask::default()] {
            let bytes = request(
                TransactionId::new([1; 12]),
                "[2001:db8::1]:1".parse().unwrap(),
                ask,
            );
            assert!(bytes.len() >= LONGEST, "{}", bytes.len());
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(
                (message.change_request(), message.response_port()),
                (ask.change, ask.response_port)
            );
            assert!(message.software().unwrap().starts_with("wgnat "));
        }
        let mut all = Transactions::<()>::new([7; 32]);
        assert_ne!(all.identity(), all.identity());
    }
}

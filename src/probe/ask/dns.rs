//! The addresses of a name, asked for over UDP (RFC 1035): AAAA and A at once, again where no answer comes.

use std::net::SocketAddr;
use std::str::FromStr as _;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};

use super::Progress;
use crate::probe::stack::Stack;
use crate::time::{Span, Timestamp};

/// How often the same is asked.
const TRIES: u32 = 3;
/// The longest answer over UDP that is asked for (RFC 6891 would allow more).
const LONGEST: usize = 4096;
const PACKETS: usize = 8;

pub(super) struct Lookup {
    socket: SocketHandle,
    server: SocketAddr,
    queries: Vec<(u16, Vec<u8>)>,
    answered: Vec<u16>,
    addresses: usize,
    code: Option<ResponseCode>,
    timeout: Span,
    sent_at: Option<Timestamp>,
    due: Timestamp,
    progress: Progress,
}

impl Lookup {
    pub(super) fn new(
        stack: &mut Stack,
        name: &str,
        server: SocketAddr,
        timeout: Span,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let [a, b, c, d, ..] = seed.to_le_bytes();
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; PACKETS], vec![0; PACKETS * LONGEST]);
        let mut socket = Socket::new(buffer(), buffer());
        // A port above the privileged ones; a new socket can be bound to any.
        let _ = socket.bind(u16::from_le_bytes([a, b]) | 0x8000);
        let id = u16::from_le_bytes([c, d]);
        let query = |id: u16, kind| {
            let mut message = Message::new(id, MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = true;
            message.add_query(Query::query(Name::from_str(name).ok()?, kind));
            Some((id, message.to_vec().ok()?))
        };
        let queries = [
            query(id, RecordType::AAAA),
            query(id.wrapping_add(1), RecordType::A),
        ];
        Self {
            socket: stack.sockets.add(socket),
            server,
            queries: queries.into_iter().flatten().collect(),
            answered: Vec::new(),
            addresses: 0,
            code: None,
            timeout,
            sent_at: None,
            due: now,
            progress: Progress::default(),
        }
    }

    pub(super) fn step(&mut self, stack: &mut Stack, now: Timestamp) -> Option<Progress> {
        if self.queries.is_empty() {
            self.progress.error = Some("not a domain name".to_owned());
            return Some(std::mem::take(&mut self.progress));
        }
        let socket = stack.sockets.get_mut::<Socket<'_>>(self.socket);
        while let Ok((bytes, from)) = socket.recv() {
            if SocketAddr::from((std::net::IpAddr::from(from.endpoint.addr), from.endpoint.port))
                != self.server
            {
                continue;
            }
            let Ok(message) = Message::from_vec(bytes) else {
                continue;
            };
            let id = message.metadata.id;
            let ours = self.queries.iter().any(|(i, _)| *i == id) && !self.answered.contains(&id);
            if message.metadata.message_type != MessageType::Response || !ours {
                continue;
            }
            self.answered.push(id);
            let code = message.metadata.response_code;
            if self.code.is_none_or(|known| known == ResponseCode::NoError) {
                self.code = Some(code);
            }
            self.addresses += message
                .answers
                .iter()
                .filter(|r| matches!(r.record_type(), RecordType::A | RecordType::AAAA))
                .count();
            self.progress.rtts.push(now - self.sent_at.unwrap_or(now));
        }
        if self.answered.len() == self.queries.len() {
            return Some(self.end());
        }
        if now >= self.due {
            if self.progress.sent / 2 >= TRIES {
                return Some(self.end());
            }
            for (id, query) in &self.queries {
                if !self.answered.contains(id) {
                    let to = smoltcp::wire::IpEndpoint::from(self.server);
                    let _ = stack
                        .sockets
                        .get_mut::<Socket<'_>>(self.socket)
                        .send_slice(query, to);
                    self.progress.sent += 1;
                }
            }
            self.sent_at = Some(now);
            self.due = now + self.timeout;
        }
        None
    }

    fn end(&mut self) -> Progress {
        match self.code {
            None => self.progress.error = Some("no answer".to_owned()),
            Some(ResponseCode::NoError) => {
                self.progress.answer = Some(match self.addresses {
                    0 => "no addresses".to_owned(),
                    1 => "1 address".to_owned(),
                    n => format!("{n} addresses"),
                });
            }
            Some(code) => self.progress.answer = Some(format!("{code}")),
        }
        std::mem::take(&mut self.progress)
    }

    pub(super) fn due(&self) -> Timestamp {
        self.due
    }
}

//! ICMP and ICMPv6 echo, of any size.

use std::net::IpAddr;

use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp::{Endpoint, PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr};

use super::Progress;
use crate::probe::stack::{MTU, Stack};
use crate::time::{Span, Timestamp};

/// Echo's header (RFC 792, RFC 4443).
const HEADER: usize = 8;
/// Packets that wait in the socket.
const PACKETS: usize = 8;
/// Between two of a series.
const INTERVAL: Span = Span::from_millis(200);

/// Sends echo requests and knows their replies.
pub struct Echo {
    socket: SocketHandle,
    source: IpAddr,
    to: IpAddr,
    ident: u16,
}

impl Echo {
    /// From `source` to `to`, told from others' by `ident`.
    pub fn new(stack: &mut Stack, source: IpAddr, to: IpAddr, ident: u16) -> Self {
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; PACKETS], vec![0; PACKETS * MTU]);
        let mut socket = Socket::new(buffer(), buffer());
        // A new socket can be bound to any identifier.
        let _ = socket.bind(Endpoint::Ident(ident));
        Self {
            socket: stack.sockets.add(socket),
            source,
            to,
            ident,
        }
    }

    /// Sends number `seq` as an inner packet of `size` bytes, or the least that there is.
    pub fn send(&self, stack: &mut Stack, seq: u16, size: usize) {
        let ip = if self.to.is_ipv4() { 20 } else { 40 };
        let data = vec![0x77; size.saturating_sub(ip + HEADER)];
        let checksums = ChecksumCapabilities::default();
        let socket = stack.sockets.get_mut::<Socket<'_>>(self.socket);
        let Ok(place) = socket.send(HEADER + data.len(), self.to.into()) else {
            return;
        };
        match (self.source, self.to) {
            (IpAddr::V6(source), IpAddr::V6(to)) => {
                let request = Icmpv6Repr::EchoRequest {
                    ident: self.ident,
                    seq_no: seq,
                    data: &data,
                };
                request.emit(&source, &to, &mut Icmpv6Packet::new_unchecked(place), &checksums);
            }
            _ => {
                let request = Icmpv4Repr::EchoRequest {
                    ident: self.ident,
                    seq_no: seq,
                    data: &data,
                };
                request.emit(&mut Icmpv4Packet::new_unchecked(place), &checksums);
            }
        }
    }

    /// The number of the next reply that came.
    pub fn receive(&self, stack: &mut Stack) -> Option<u16> {
        let socket = stack.sockets.get_mut::<Socket<'_>>(self.socket);
        let checksums = ChecksumCapabilities::default();
        while let Ok((bytes, from)) = socket.recv() {
            if IpAddr::from(from) != self.to {
                continue;
            }
            let seq = match (self.source, self.to) {
                (IpAddr::V6(source), IpAddr::V6(to)) => {
                    let packet = Icmpv6Packet::new_checked(bytes).ok();
                    packet.and_then(|p| match Icmpv6Repr::parse(&to, &source, &p, &checksums) {
                        Ok(Icmpv6Repr::EchoReply { seq_no, .. }) => Some(seq_no),
                        _ => None,
                    })
                }
                _ => Icmpv4Packet::new_checked(bytes).ok().and_then(|p| {
                    match Icmpv4Repr::parse(&p, &checksums) {
                        Ok(Icmpv4Repr::EchoReply { seq_no, .. }) => Some(seq_no),
                        _ => None,
                    }
                }),
            };
            if seq.is_some() {
                return seq;
            }
        }
        None
    }
}

/// A series of echoes.
pub(super) struct Pings {
    echo: Echo,
    count: u16,
    timeout: Span,
    sent: Vec<(Timestamp, bool)>,
    next: Timestamp,
    progress: Progress,
}

impl Pings {
    pub(super) fn new(
        stack: &mut Stack,
        source: IpAddr,
        to: IpAddr,
        count: u32,
        timeout: Span,
        seed: u64,
        now: Timestamp,
    ) -> Self {
        let [a, b, ..] = seed.to_le_bytes();
        Self {
            echo: Echo::new(stack, source, to, u16::from_le_bytes([a, b])),
            count: u16::try_from(count).unwrap_or(u16::MAX),
            timeout,
            sent: Vec::new(),
            next: now,
            progress: Progress::default(),
        }
    }

    pub(super) fn step(&mut self, stack: &mut Stack, now: Timestamp) -> Option<Progress> {
        while let Some(seq) = self.echo.receive(stack) {
            if let Some((at, answered @ false)) = self.sent.get_mut(usize::from(seq)) {
                *answered = true;
                self.progress.rtts.push(now - *at);
            }
        }
        let number = u16::try_from(self.sent.len()).unwrap_or(u16::MAX);
        if number < self.count && now >= self.next {
            self.echo.send(stack, number, 84);
            self.sent.push((now, false));
            self.progress.sent += 1;
            self.next = now + INTERVAL;
        }
        let all_sent = self.sent.len() >= usize::from(self.count);
        let over = all_sent
            && self
                .sent
                .iter()
                .all(|(at, answered)| *answered || now >= *at + self.timeout);
        over.then(|| {
            if self.progress.rtts.is_empty() {
                self.progress.error = Some("no reply".to_owned());
            }
            std::mem::take(&mut self.progress)
        })
    }

    pub(super) fn due(&self) -> Timestamp {
        if self.sent.len() < usize::from(self.count) {
            return self.next;
        }
        let waiting = self.sent.iter().filter(|(_, answered)| !answered);
        waiting
            .map(|(at, _)| *at + self.timeout)
            .min()
            .unwrap_or(self.next)
    }
}

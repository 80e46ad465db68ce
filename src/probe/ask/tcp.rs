//! A TCP connection that is closed as soon as it stands.

use std::net::SocketAddr;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::Progress;
use crate::probe::stack::Stack;
use crate::time::{Span, Timestamp};

/// SYNs are repeated by the stack within this many times the time-out.
const PATIENCE: u32 = 2;

pub(super) struct Connect {
    socket: SocketHandle,
    began: Timestamp,
    end: Timestamp,
    progress: Progress,
}

impl Connect {
    pub(super) fn new(stack: &mut Stack, to: SocketAddr, timeout: Span, seed: u64, now: Timestamp) -> Self {
        let [a, b, ..] = seed.to_le_bytes();
        let buffer = || SocketBuffer::new(vec![0; 4096]);
        let mut socket = Socket::new(buffer(), buffer());
        let port = u16::from_le_bytes([a, b]) | 0x8000;
        let connected = socket.connect(stack.interface.context(), (to.ip(), to.port()), port);
        let progress = Progress {
            sent: 1,
            error: connected.err().map(|error| error.to_string()),
            ..Progress::default()
        };
        Self {
            socket: stack.sockets.add(socket),
            began: now,
            end: now + timeout * PATIENCE,
            progress,
        }
    }

    pub(super) fn step(&mut self, stack: &mut Stack, now: Timestamp) -> Option<Progress> {
        let socket = stack.sockets.get_mut::<Socket<'_>>(self.socket);
        match socket.state() {
            State::SynSent | State::SynReceived if now < self.end => return None,
            State::SynSent | State::SynReceived => self.progress.error = Some("no answer".to_owned()),
            // A reset ends it before it stood.
            State::Closed if self.progress.error.is_none() => {
                self.progress.rtts.push(now - self.began);
                self.progress.answer = Some("refused".to_owned());
            }
            State::Closed => {}
            _ => {
                self.progress.rtts.push(now - self.began);
                self.progress.answer = Some("connected".to_owned());
            }
        }
        socket.abort();
        Some(std::mem::take(&mut self.progress))
    }

    pub(super) fn due(&self) -> Timestamp {
        self.end
    }
}

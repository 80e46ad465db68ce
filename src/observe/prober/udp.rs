//! A connected UDP socket with its error queue.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::pipe::{Received, SendError};
use crate::probe::handshake::IcmpSeen;
use crate::sys::udp::{self, QueuedError};

/// Errors read in a row; a flood of them must not keep a datagram waiting for ever.
const ERRORS: usize = 64;

/// The socket.
pub struct Udp {
    socket: UdpSocket,
    errors: VecDeque<Received>,
}

impl Udp {
    /// On a free port, connected to `to`.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::from_std(udp::connect(to)?)?,
            errors: VecDeque::new(),
        })
    }

    /// This side's address.
    pub fn local(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// From now on nothing is fragmented. Where that cannot be set, what is found is the size that gets through in pieces.
    pub fn never_fragment(&self) {
        let v6 = self.local().is_some_and(|a| a.is_ipv6());
        if let Err(error) = udp::never_fragment(&self.socket, v6) {
            tracing::debug!("cannot forbid fragments: {error}");
        }
    }

    /// The next datagram or error.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> Received {
        loop {
            if let Some(error) = self.errors.pop_front() {
                return error;
            }
            match self.socket.recv(buffer).await {
                Ok(len) => return Received::Datagram(len),
                // An error is pending: what it is stands in the queue.
                Err(_) => self.read_errors(),
            }
        }
    }

    /// Sends a datagram. The system reports an older datagram's error at the next call, whatever that is: so once again.
    pub async fn send(&mut self, datagram: &[u8]) -> Result<(), SendError> {
        for last in [false, true] {
            match self.socket.send(datagram).await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    let before = self.errors.len();
                    self.read_errors();
                    if last || self.errors.len() == before {
                        return Err(SendError {
                            errno: error.raw_os_error().unwrap_or(0),
                            error: error.to_string(),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn read_errors(&mut self) {
        for _ in 0..ERRORS {
            let Some(error) = udp::next_error(&self.socket) else {
                break;
            };
            self.errors.extend(received(error));
        }
    }
}

fn received(error: QueuedError) -> Option<Received> {
    if let Some(mtu) = error.mtu {
        return Some(Received::TooBig {
            mtu,
            from: error.from,
        });
    }
    Some(Received::Icmp(IcmpSeen {
        from: error.from,
        v6: error.icmp_v6?,
        icmp_type: error.icmp_type,
        code: error.code,
        quoted: error.quoted,
    }))
}

//! ICMP echo by a ping socket (icmp(7), no privilege where the group is allowed), else by a raw socket (CAP_NET_RAW).

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::errors;
use crate::observation::path::Failure;
use crate::sys::{clock, random};
use crate::time::Span;
use crate::wire::echo;

/// Bytes after the IP header, as ping sends them: 8 of header and 56.
const USUAL: usize = 64;

/// A socket for echoes to one address.
pub(super) struct EchoSocket {
    socket: UdpSocket,
    v6: bool,
    target: IpAddr,
    /// Whether it hands out IPv4 headers.
    raw: bool,
    identifier: u16,
}

impl EchoSocket {
    /// Opens one, connected to `target`.
    pub(super) fn open(target: IpAddr) -> Result<Self, Failure> {
        let v6 = target.is_ipv6();
        let (domain, protocol) = if v6 {
            (Domain::IPV6, Protocol::ICMPV6)
        } else {
            (Domain::IPV4, Protocol::ICMPV4)
        };
        let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, false),
            Err(_) => match Socket::new(domain, Type::RAW, Some(protocol)) {
                Ok(socket) => (socket, true),
                Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::EACCES)) => {
                    return Err(Failure::Local(
                        "ICMP echo is not permitted: it needs CAP_NET_RAW, or a group within net.ipv4.ping_group_range"
                            .to_owned(),
                    ));
                }
                Err(e) => return Err(errors::of_errno(&e)),
            },
        };
        let made = (|| {
            socket.set_nonblocking(true)?;
            errors::ask_for(&socket, v6)?;
            socket.connect(&SocketAddr::new(target, 0).into())?;
            UdpSocket::from_std(std::os::fd::OwnedFd::from(socket).into())
        })();
        let identifier = random::bytes().map_or(1, u16::from_be_bytes);
        Ok(Self {
            socket: made.map_err(|e| errors::of_errno(&e))?,
            v6,
            target,
            raw,
            identifier,
        })
    }

    pub(super) fn is_v6(&self) -> bool {
        self.v6
    }

    pub(super) fn inner(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends an echo of `length` bytes after the IP header and waits for its reply, without end.
    pub(super) async fn exchange(&self, sequence: u16, length: usize) -> Result<Span, io::Error> {
        let nonce = random::bytes()?;
        let request = echo::request(self.v6, self.identifier, sequence, nonce, length);
        let begun = clock::instant();
        self.socket.send(&request).await?;
        let mut buffer = vec![0_u8; request.len() + 128];
        loop {
            let n = self.socket.recv(&mut buffer).await?;
            let datagram = buffer.get(..n).unwrap_or_default();
            let message = if self.raw && !self.v6 {
                echo::after_ipv4_header(datagram).unwrap_or_default()
            } else {
                datagram
            };
            if echo::is_reply(self.v6, message, nonce) {
                return Ok(begun.elapsed());
            }
        }
    }

    pub(super) fn failure(&self, error: &io::Error) -> Failure {
        errors::failure(&self.socket, error, self.target)
    }
}

/// One echo and its reply.
pub(super) async fn round_trip(target: IpAddr, sequence: u32) -> Result<Span, Failure> {
    let socket = EchoSocket::open(target)?;
    #[allow(clippy::cast_possible_truncation)] // a sequence number wraps
    let exchanged = socket.exchange(sequence as u16, USUAL).await;
    exchanged.map_err(|e| socket.failure(&e))
}

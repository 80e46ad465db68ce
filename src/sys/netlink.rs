//! One netlink request and its answers, at the speed of the kernel: a reused buffer, no allocation a message.
//!
//! Headers are `struct nlmsghdr` (include/uapi/linux/netlink.h): length, type, flags, sequence, port; 16 bytes in
//! host order, messages aligned to 4.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use zeroize::Zeroize;

/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x01;
/// `NLM_F_ACK`.
pub const ACK: u16 = 0x04;
/// `NLM_F_DUMP` (root and match).
pub const DUMP: u16 = 0x300;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const DUMP_INTR: u16 = 0x10;
const HEADER: usize = 16;

/// The kernel fills at most 32 KiB of a dump at a time whatever the buffer (measured), so this loses nothing.
const BUFFER: usize = 64 * 1024;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be made.
    #[error("cannot open a {what} netlink socket: {source}")]
    Open {
        /// The family in words.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The request could not be sent or no answer be received.
    #[error("{what} netlink: {doing}: {source}")]
    Transport {
        /// The family in words.
        what: &'static str,
        /// Sending or receiving.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("{what} netlink: the kernel refused the request: {}", io::Error::from_raw_os_error(*errno))]
    Refused {
        /// The family in words.
        what: &'static str,
        /// Its errno, positive.
        errno: i32,
    },
    /// ENOBUFS: the kernel dropped a part of the answer.
    #[error("{what} netlink: the kernel dropped a part of the answer (ENOBUFS, the receive buffer was full)")]
    Overrun {
        /// The family in words.
        what: &'static str,
    },
    /// No answer within the time limit.
    #[error("{what} netlink: no answer within {} s", limit.as_secs_f32())]
    TimedOut {
        /// The family in words.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// An answer that is not netlink.
    #[error("{what} netlink: the kernel's answer is malformed at byte {at}")]
    Malformed {
        /// The family in words.
        what: &'static str,
        /// Where in the datagram.
        at: usize,
    },
}

impl NetlinkError {
    /// The errno that the kernel refused with.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Open { source, .. } | Self::Transport { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether a missing capability is the reason (EPERM, EACCES).
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }
}

/// How a dump ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpEnd {
    /// `NLM_F_DUMP_INTR`: the table changed meanwhile; items may be missing or doubled.
    pub interrupted: bool,
    /// Bytes received.
    pub bytes: u64,
    /// Receive calls.
    pub receives: u64,
}

/// A request whose answers are being received.
#[derive(Debug)]
pub struct Dump {
    single: bool,
    end: DumpEnd,
}

impl Dump {
    /// How it stands.
    pub fn end(&self) -> DumpEnd {
        self.end
    }
}

/// A netlink socket with its buffer.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    what: &'static str,
    sequence: u32,
    buffer: Vec<u8>,
    limit: Duration,
}

impl Netlink {
    /// Opens a socket of `protocol` (`netlink_sys::protocols`). `what` names it in errors; `limit` bounds each wait
    /// for an answer.
    pub fn open(protocol: isize, what: &'static str, limit: Duration) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol).map_err(|source| NetlinkError::Open { what, source })?;
        let open = |source: io::Error| NetlinkError::Open { what, source };
        socket.bind_auto().map_err(open)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(open)?;
        let timeout = TimeVal::new(
            limit.as_secs().try_into().unwrap_or(i64::MAX),
            limit.subsec_micros().into(),
        );
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &timeout).map_err(|e| open(e.into()))?;
        // A larger receive buffer only helps; without CAP_NET_ADMIN the default must do.
        let _ = setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &(1 << 20));
        Ok(Self {
            socket,
            what,
            sequence: 0,
            buffer: vec![0; BUFFER],
            limit,
        })
    }

    /// The socket, for polling and for group membership.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The descriptor's number, for logs.
    pub fn raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// Overwrites the receive buffer, for after answers that hold keys.
    pub fn wipe(&mut self) {
        self.buffer.as_mut_slice().zeroize();
    }

    /// Sends one request (`payload` is what follows the netlink header) and hands every answer's type and payload
    /// to `each`, until the dump or acknowledgement ends it. `flags` must hold [`REQUEST`] and either [`DUMP`] or
    /// [`ACK`], or the request must be one that is answered by exactly one message (a plain get: `single`).
    pub fn request(
        &mut self,
        message_type: u16,
        flags: u16,
        payload: &[u8],
        each: impl FnMut(u16, &[u8]),
    ) -> Result<DumpEnd, NetlinkError> {
        self.request_paced(message_type, flags, payload, each, |_| {})
    }

    /// As [`Netlink::request`], and calls `between` with the bytes received so far after each receive, so that a
    /// caller can pace a large dump: the kernel does no work for it until the next receive.
    pub fn request_paced(
        &mut self,
        message_type: u16,
        flags: u16,
        payload: &[u8],
        mut each: impl FnMut(u16, &[u8]),
        mut between: impl FnMut(u64),
    ) -> Result<DumpEnd, NetlinkError> {
        let mut dump = self.begin(message_type, flags, payload)?;
        while !self.step(&mut dump, &mut each)? {
            between(dump.end.bytes);
        }
        Ok(dump.end)
    }

    /// Sends one request, whose answers [`Netlink::step`] then receives; no other request may be made on this socket before
    /// they have all come.
    pub fn begin(&mut self, message_type: u16, flags: u16, payload: &[u8]) -> Result<Dump, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(message_type, flags, payload)?;
        Ok(Dump {
            single: flags & (DUMP | ACK) == 0,
            end: DumpEnd::default(),
        })
    }

    /// Receives once and hands every answer's type and payload to `each`; true when the last has come. Between two steps of
    /// a dump the kernel does no work for it, however long that is.
    pub fn step(&mut self, dump: &mut Dump, mut each: impl FnMut(u16, &[u8])) -> Result<bool, NetlinkError> {
        let received = self.receive()?;
        let end = &mut dump.end;
        end.bytes += received as u64;
        end.receives += 1;
        let mut finished = false;
        let (what, sequence) = (self.what, self.sequence);
        walk(what, &self.buffer[..received], |header, body| {
            if header.sequence != sequence {
                return Ok(()); // left over from an earlier request that was given up
            }
            end.interrupted |= header.flags & DUMP_INTR != 0;
            match header.kind {
                NLMSG_NOOP => {}
                NLMSG_ERROR | NLMSG_DONE => {
                    finished = true;
                    let errno = body.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b));
                    if errno < 0 {
                        return Err(NetlinkError::Refused { what, errno: -errno });
                    }
                }
                kind => {
                    each(kind, body);
                    finished |= dump.single;
                }
            }
            Ok(())
        })?;
        Ok(finished)
    }

    /// Receives once, of a group that the socket has joined, and hands every message's type and payload to `each`.
    pub fn receive_events(&mut self, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        let received = self.receive()?;
        walk(self.what, &self.buffer[..received], |header, body| {
            each(header.kind, body);
            Ok(())
        })
    }

    fn send(&mut self, message_type: u16, flags: u16, payload: &[u8]) -> Result<(), NetlinkError> {
        let length = HEADER + payload.len();
        let mut message = Vec::with_capacity(length);
        message.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        message.extend_from_slice(&message_type.to_ne_bytes());
        message.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        message.extend_from_slice(&self.sequence.to_ne_bytes());
        message.extend_from_slice(&0u32.to_ne_bytes());
        message.extend_from_slice(payload);
        let what = self.what;
        match self.socket.send(&message, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(NetlinkError::Transport {
                what,
                doing: "sending a request",
                source,
            }),
        }
    }

    fn receive(&mut self) -> Result<usize, NetlinkError> {
        let what = self.what;
        loop {
            let source = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(received) => return Ok(received),
                Err(source) => source,
            };
            return Err(match source.raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::ENOBUFS) => NetlinkError::Overrun { what },
                Some(libc::EAGAIN) => NetlinkError::TimedOut {
                    what,
                    limit: self.limit,
                },
                _ => NetlinkError::Transport {
                    what,
                    doing: "receiving an answer",
                    source,
                },
            });
        }
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// Walks the messages of one datagram.
fn walk(
    what: &'static str,
    datagram: &[u8],
    mut each: impl FnMut(Header, &[u8]) -> Result<(), NetlinkError>,
) -> Result<(), NetlinkError> {
    let mut rest = datagram;
    while let Some(head) = rest.first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, t0, t1, f0, f1, s0, s1, s2, s3, ..] = *head;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let at = datagram.len() - rest.len();
        let body = rest
            .get(HEADER..length)
            .ok_or(NetlinkError::Malformed { what, at })?;
        let header = Header {
            kind: u16::from_ne_bytes([t0, t1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
        };
        each(header, body)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut m = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        m.extend(kind.to_ne_bytes());
        m.extend([0; 10]);
        m.extend(body);
        m.resize(m.len().next_multiple_of(4), 0);
        m
    }

    #[test]
    fn walks_aligned_messages_and_refuses_lies() {
        let datagram = [message(20, b"abc"), message(21, b"")].concat();
        let mut seen = Vec::new();
        let walked = walk("test", &datagram, |h, b| {
            seen.push((h.kind, b.to_vec()));
            Ok(())
        });
        assert!(walked.is_ok());
        assert_eq!(seen, [(20, b"abc".to_vec()), (21, vec![])]);
        for length in [0u32, 15, 17, u32::MAX] {
            let mut lie = message(20, b"");
            lie[..4].copy_from_slice(&length.to_ne_bytes());
            let refused = walk("test", &lie, |_, _| Ok(()));
            assert!(
                matches!(refused, Err(NetlinkError::Malformed { at: 0, .. })),
                "{length}"
            );
        }
    }
}

//! The wire: handshake messages and ICMP errors about WireGuard, as they pass this host's interfaces.
//!
//! In: a packet socket with [`filter`] in the kernel. Out: `Body::Packet` and `Body::IcmpError` with the kernel's
//! timestamp. A message that passes several interfaces is emitted once for each: the tracker folds them. Of a flood of
//! initiations [`governor`] lets a part through and counts the rest.

pub mod decode;
pub mod filter;
pub mod governor;

use std::os::fd::{AsFd, BorrowedFd};

use self::governor::Governor;
use super::keys::inbox::Outbox;
use super::{Emit, ObserveError, Observer};
use crate::observation::packet::Direction;
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::sys::packet::{PacketError, PacketSocket, Passing};
use crate::time::Span;

/// Kernel memory for packets that wait. One takes about 768 bytes of it (a small frame's `truesize`), so this holds
/// some 5,000 handshake messages.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Packets that one look takes at most; the descriptor stays readable, so the next look follows at once.
const PACKETS_A_LOOK: usize = 4096;

/// Nothing hangs on this: the descriptor wakes the observer. It bounds how late losses are told.
const INTERVAL: Span = Span::from_secs(1);

/// The observer.
pub struct Capture {
    socket: PacketSocket,
    governor: Governor,
    outbox: Option<Outbox>,
}

impl Capture {
    /// Opens the tap in the calling thread's network namespace.
    pub fn open() -> Result<Self, ObserveError> {
        let filter = filter::program().map_err(|error| ObserveError::Absent {
            what: format!("the capture filter cannot be built ({error}): a bug, please report it"),
        })?;
        match PacketSocket::open(&filter, RECEIVE_BUFFER) {
            Ok(socket) => Ok(Self {
                socket,
                governor: Governor::default(),
                outbox: None,
            }),
            Err(error) if error.is_denied() => Err(ObserveError::Denied {
                doing: "capturing handshakes with a packet socket",
                needs: "CAP_NET_RAW",
            }),
            Err(error) if error.source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                Err(ObserveError::Absent {
                    what: "this kernel has no packet sockets (CONFIG_PACKET)".to_owned(),
                })
            }
            Err(PacketError { doing, source }) => Err(ObserveError::System {
                doing: format!("packet socket: {doing}"),
                source,
            }),
        }
    }
}

impl Capture {
    /// Also passes on what keys may open.
    #[must_use]
    pub fn passing_on(self, outbox: Outbox) -> Self {
        Self {
            outbox: Some(outbox),
            ..self
        }
    }
}

impl Observer for Capture {
    fn source(&self) -> Source {
        Source::Capture
    }

    fn interval(&self) -> Span {
        INTERVAL
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let system = |doing: &str| {
            let doing = doing.to_owned();
            move |source| ObserveError::System { doing, source }
        };
        for _ in 0..PACKETS_A_LOOK {
            let received = self.socket.receive().map_err(system("receiving packets"))?;
            let Some(packet) = received else { break };
            let direction = match packet.passing {
                Passing::In => Direction::In,
                Passing::Out => Direction::Out,
            };
            if let Some(body) = decode::decode(packet.bytes, direction, Some(packet.if_index)) {
                let at = packet.at.unwrap_or_else(clock::now);
                if let Some(tally) = self.governor.flush(at) {
                    tally.for_each(|tally| emit.emit(at, Span::ZERO, Body::Initiations(tally)));
                }
                if !self.governor.admits(at, &body) {
                    continue;
                }
                if let Some(outbox) = &self.outbox {
                    outbox.offer(at, &body);
                }
                emit.emit(at, Span::ZERO, body);
            }
        }
        let now = clock::now();
        if let Some(tally) = self.governor.flush(now) {
            tally.for_each(|tally| emit.emit(now, Span::ZERO, Body::Initiations(tally)));
        }
        let counts = self
            .socket
            .counts()
            .map_err(system("reading packet statistics"))?;
        if counts.dropped == 0 {
            return Ok(SourceStatus::ok());
        }
        Ok(SourceStatus {
            lost: counts.dropped,
            ..SourceStatus::degraded(format!(
                "the kernel dropped {} of {} handshake packets before they could be read (receive buffer full): some \
                 attempts may look unanswered",
                counts.dropped, counts.passed
            ))
        })
    }
}

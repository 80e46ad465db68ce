//! The wire: handshake messages and ICMP errors about WireGuard, as they pass this host's interfaces.
//!
//! In: a packet socket with [`filter`] in the kernel. Out: `Body::Packet` and `Body::IcmpError` with the kernel's
//! timestamp. A message that passes several interfaces is emitted once for each: the tracker folds them.
//!
//! A flood of initiations costs little: the kernel hands out a share of those that come in ([`share`]), they are fetched
//! together ([`rhythm`]), and of these [`governor`] shows a part and counts the rest.
//!
//! [`Capture::with_data`] adds a sample of data messages' clear headers ([`sampler`]), by which sessions are told apart,
//! moves are seen when they happen, and what is large and never answered. What that costs: about ten instructions of the
//! filter for each packet of the host, at most some 400 copies of 84 bytes a second, and ten wake-ups a second while data
//! flows. Where none does it sleeps until the first one, and where there can be no session it is off ([`attention`]).

pub mod attention;
pub mod data_filter;
pub mod decode;
pub mod filter;
pub mod governor;
pub mod rhythm;
pub mod sampler;
pub mod share;

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use self::attention::Attention;
use self::governor::{Governor, Initiation};
use self::rhythm::Rhythm;
use self::share::Share;
use super::keys::inbox::Outbox;
use super::{Emit, ObserveError, Observer};
use crate::observation::packet::{Direction, Sampling};
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::sys::packet::{PacketError, PacketSocket, Passing, Received};
use crate::time::{Span, Timestamp};
use crate::wire::frame;
use sampler::Sampler;

/// Kernel memory for packets that wait. One takes about 768 bytes of it (a small frame's `truesize`), so this holds
/// some 5,000 handshake messages.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Packets that one look takes at most; the descriptor stays readable, so the next look follows at once.
const PACKETS_A_LOOK: usize = 4096;

/// Nothing hangs on this: the descriptor wakes the observer. It bounds how late losses are told, and how late a share is
/// judged.
const INTERVAL: Span = Span::from_secs(1);

/// While samples come they wake nobody: they are fetched this often, before their buffer is full at the rate that is wanted.
const SAMPLING_INTERVAL: Span = Span::from_millis(100);

/// After so many looks in a row without a sample the next one wakes the observer, which sleeps until then.
const LULL: u32 = 10;

/// The observer.
pub struct Capture {
    socket: PacketSocket,
    share: Share,
    rhythm: Rhythm,
    governor: Governor,
    outbox: Option<Outbox>,
    sampler: Option<Sampler>,
    attention: Attention,
    /// What was last told of the sample.
    told: Option<Sampling>,
    sampled_at: Option<std::time::Instant>,
    /// Readable when either socket is; waited for in a lull.
    both: Option<Epoll>,
    /// Looks without a sample since the last one.
    without: u32,
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
                share: Share::whole(clock::instant()),
                rhythm: Rhythm::new(clock::instant()),
                governor: Governor::default(),
                outbox: None,
                sampler: None,
                attention: Attention::new(clock::instant(), attention::QUIET),
                told: None,
                sampled_at: None,
                both: None,
                without: 0,
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

    /// Opens the tap, and a second one for a sample of data. Where that fails handshakes are still seen, and the report
    /// says that data is not.
    pub fn with_data() -> Result<Self, ObserveError> {
        Self::with_data_until(attention::QUIET)
    }

    /// The same; the second tap is taken off after `quiet` without a message of WireGuard, and put on at the next handshake.
    pub fn with_data_until(quiet: Span) -> Result<Self, ObserveError> {
        let mut capture = Self::open()?;
        capture.attention = Attention::new(clock::instant(), quiet);
        match Sampler::open() {
            Ok(sampler) => {
                // Without it samples are fetched by the clock at all times.
                capture.both = both(&capture.socket, &sampler).ok();
                capture.sampler = Some(sampler);
            }
            Err(error) => tracing::warn!(%error, "data messages are not sampled"),
        }
        Ok(capture)
    }

    /// What to wait for while no data flows.
    fn in_a_lull(&self) -> Option<&Epoll> {
        self.both.as_ref().filter(|_| self.without >= LULL)
    }

    /// What waits at the sampler. Before the handshakes are fetched: a session's data comes after its handshake, and so
    /// is never seen without it.
    fn samples(&mut self, into: &mut Vec<(Timestamp, Body)>) -> std::io::Result<Option<Sampling>> {
        let Some(sampler) = &mut self.sampler else {
            return Ok(None);
        };
        let now = clock::instant();
        let mut taken = 0;
        while taken < PACKETS_A_LOOK
            && let Some(packet) = sampler.receive()?
        {
            taken += 1;
            let body = decode::decode(packet.bytes, direction(&packet), Some(packet.if_index));
            into.extend(body.map(|body| (time(&packet), body)));
        }
        self.without = match taken {
            0 => self.without.saturating_add(1),
            _ => 0,
        };
        if taken > 0 {
            self.attention.passed(now);
        }
        let sampling = Sampling {
            one_in: sampler.one_in(),
            lost: sampler.lost()?,
        };
        if let Some(before) = self.sampled_at.replace(now) {
            sampler.adapt(taken as u64, now.saturating_duration_since(before));
        }
        Ok((self.told.replace(sampling) != Some(sampling)).then_some(sampling))
    }
}

impl Capture {
    /// What waits at the tap, with what is counted of a second that is over.
    fn handshakes(&mut self, into: &mut Vec<(Timestamp, Body)>) -> std::io::Result<()> {
        let mut received = 0;
        while received < PACKETS_A_LOOK
            && let Some(packet) = self.socket.receive()?
        {
            received += 1;
            let taken = self.share.taken();
            let (at, direction, if_index) = (time(&packet), direction(&packet), Some(packet.if_index));
            let Some(frame) = frame::parse(packet.bytes) else {
                continue;
            };
            flush(&mut self.governor, at, into);
            if let Some((destination, id)) = decode::initiation(&frame) {
                let comes_in = direction != Direction::Out;
                if comes_in {
                    self.share.count(taken);
                }
                let admitted = self.governor.admits(&Initiation {
                    at,
                    direction,
                    if_index,
                    destination,
                    id,
                    one_in: if comes_in { taken.one_in } else { 1 },
                });
                if !admitted {
                    continue;
                }
            }
            let Some(body) = decode::body(&frame, direction, if_index) else {
                continue;
            };
            if let Some(outbox) = &self.outbox {
                outbox.offer(at, &body);
            }
            into.push((at, body));
        }
        let now = clock::instant();
        self.rhythm.took(received as u64, now);
        if received > 0 {
            self.attention.passed(now);
        }
        if let Some(sampler) = &mut self.sampler {
            sampler.listen(self.attention.is_due(now))?;
        }
        self.adapt()
    }

    /// Another filter, where another share would do better.
    fn adapt(&mut self) -> std::io::Result<()> {
        let now = clock::instant();
        // A filter of the same shape as the one that was taken before; were it refused, that one stays.
        if let Some(power) = self.share.better(now)
            && let Ok(filter) = filter::sampling(power)
            && self.socket.set_filter(&filter).is_ok()
        {
            let waiting = self.socket.waiting()?;
            self.share.turn_to(power, waiting, now);
        }
        Ok(())
    }
}

/// Adds what was counted, once its second is over at `now`.
fn flush(governor: &mut Governor, now: Timestamp, into: &mut Vec<(Timestamp, Body)>) {
    if let Some((at, tallies)) = governor.flush(now) {
        into.extend(tallies.map(|tally| (at, Body::Initiations(tally))));
    }
}

/// What becomes readable when either of them is.
fn both(socket: &PacketSocket, sampler: &Sampler) -> nix::Result<Epoll> {
    let both = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let readable = EpollEvent::new(EpollFlags::EPOLLIN, 0);
    both.add(socket, readable)?;
    both.add(sampler, readable)?;
    Ok(both)
}

fn direction(packet: &Received<'_>) -> Direction {
    match packet.passing {
        Passing::In => Direction::In,
        Passing::Out => Direction::Out,
    }
}

fn time(packet: &Received<'_>) -> Timestamp {
    packet.at.unwrap_or_else(clock::now)
}

impl Observer for Capture {
    fn source(&self) -> Source {
        Source::Capture
    }

    fn interval(&self) -> Span {
        match self.sampler {
            Some(_) if self.in_a_lull().is_none() => SAMPLING_INTERVAL,
            _ => INTERVAL,
        }
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        Some(match self.in_a_lull() {
            Some(both) => both.0.as_fd(),
            None => self.socket.as_fd(),
        })
    }

    fn rest(&self) -> Span {
        self.rhythm.rest()
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        self.look_at(emit, false)
    }

    /// Tells what is counted of the running second too, which may be the last.
    fn look_fully(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        self.look_at(emit, true)
    }
}

impl Capture {
    fn look_at(&mut self, emit: &mut Emit<'_>, fully: bool) -> Result<SourceStatus, ObserveError> {
        let system = |doing: &str| {
            let doing = doing.to_owned();
            move |source| ObserveError::System { doing, source }
        };
        let mut packets = Vec::new();
        let sampling = self
            .samples(&mut packets)
            .map_err(system("receiving samples of data"))?;
        self.handshakes(&mut packets)
            .map_err(system("receiving packets"))?;
        let now = clock::now();
        flush(&mut self.governor, now, &mut packets);
        if fully {
            let so_far = self.governor.so_far();
            packets.extend(so_far.map(|tally| (now, Body::Initiations(tally))));
        }
        if let Some(sampling) = sampling {
            emit.emit(clock::now(), Span::ZERO, Body::Sampling(sampling));
        }
        // Each socket's are in order; together they are by time.
        packets.sort_by_key(|(at, _)| *at);
        for (at, body) in packets {
            emit.emit(at, Span::ZERO, body);
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

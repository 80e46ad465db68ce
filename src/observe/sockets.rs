//! Observer of the socket table: every TCP and UDP socket of the namespace, folded.
//!
//! In: nothing. Out: [`Body::Sockets`]. Two ways with the same answers: `sock_diag`, which needs no capability (the kernel shows
//! the sockets of a namespace to all who are in it) and costs 0.4 to 0.8 µs a socket; and BPF iterators
//! ([`super::bpf::tables`]), which cost a tenth of that and some 20 ms once. So a look begins with the former, and goes over to
//! the latter once the table is so long that this pays and where it can be had. Large tables are looked at less often.

use std::time::Instant;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::bpf::tables::Tables;
use super::tally::sockets::SocketFold;
use super::waiting::Waiting;
use super::{Emit, ObserveError, Observer, sysctl};
use crate::observation::socket::SocketTally;
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::sys::netlink::{DUMP, DumpEnd, Netlink, NetlinkError};
use crate::time::Span;
use crate::types::{PortRange, Proto};
use crate::wire::netlink::sock_diag::{BY_FAMILY, INET, INET6, TCP, UDP, request};

/// How often to look at most.
const INTERVAL: Span = Span::from_secs(1);
/// A look is followed by at least this many times its CPU time: 5 % of a core.
const SPACING: u32 = 19;
/// How often to look at least.
const LONGEST: Span = Span::from_secs(60);
/// Limit of each wait for the kernel.
const ANSWER_WITHIN: Span = Span::from_secs(5);

/// A dump that costs this much is worth loading iterators for: some ten thousand sockets.
const DEAR: Span = Span::from_millis(8);

/// TCP_LISTEN and TCP_CLOSE as bits: what has no remote end.
const LISTEN: u32 = 1 << 10;
const UNCONNECTED: u32 = 1 << 7;
/// Every state up to TCP_NEW_SYN_RECV.
const ALL: u32 = 0x1ffe;

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Dump {
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// The transport.
    pub proto: Proto,
    /// A bit per state.
    pub states: u32,
}

impl Dump {
    const fn new(family: u8, proto: Proto, states: u32) -> Self {
        Self {
            family,
            proto,
            states,
        }
    }

    /// The request's payload.
    pub fn payload(&self) -> [u8; 56] {
        let protocol = match self.proto {
            Proto::Tcp => TCP,
            Proto::Udp => UDP,
        };
        request(self.family, protocol, self.states)
    }
}

/// What a look asks for, in this order: what is served here first, for the fold needs to know.
pub const DUMPS: [Dump; 8] = [
    Dump::new(INET, Proto::Tcp, LISTEN),
    Dump::new(INET6, Proto::Tcp, LISTEN),
    Dump::new(INET, Proto::Udp, UNCONNECTED),
    Dump::new(INET6, Proto::Udp, UNCONNECTED),
    Dump::new(INET, Proto::Tcp, ALL & !LISTEN),
    Dump::new(INET6, Proto::Tcp, ALL & !LISTEN),
    Dump::new(INET, Proto::Udp, ALL & !UNCONNECTED),
    Dump::new(INET6, Proto::Udp, ALL & !UNCONNECTED),
];

/// Which way the table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By `sock_diag`, and by iterators once that pays.
    Cheapest,
    /// By `sock_diag` only.
    SockDiag,
    /// By iterators from the first look on.
    Iterators,
}

/// The observer.
pub struct SocketObserver {
    way: Way,
    tables: Option<Box<Tables>>,
    /// Why there are no iterators, once they were wanted.
    no_tables: Option<String>,
    netlink: Netlink,
    fold: SocketFold,
    waiting: Waiting,
    range: PortRange,
    reserved: Vec<PortRange>,
    interval: Span,
}

impl SocketObserver {
    /// Opens it in the calling thread's namespace.
    pub fn open() -> Result<Self, ObserveError> {
        Self::open_by(Way::Cheapest)
    }

    /// As [`Self::open`], by one way only.
    pub fn open_by(way: Way) -> Result<Self, ObserveError> {
        Ok(Self {
            way,
            tables: None,
            no_tables: None,
            netlink: open()?,
            fold: SocketFold::new(PortRange::LINUX_DEFAULT, &[]),
            waiting: Waiting::default(),
            range: PortRange::LINUX_DEFAULT,
            reserved: Vec::new(),
            interval: INTERVAL,
        })
    }

    /// Reads the settings; what is missing for that, in words.
    fn read_range(&mut self) -> Option<&'static str> {
        let (range, reserved) = (sysctl::local_port_range(), sysctl::reserved_ports());
        let missing = match (range, &reserved) {
            (Some(_), Some(_)) => None,
            _ => Some(
                "ip_local_port_range or ip_local_reserved_ports is not readable under /proc/sys/net/ipv4: \
                 Linux's defaults are assumed",
            ),
        };
        let range = range.unwrap_or(PortRange::LINUX_DEFAULT);
        let reserved = reserved.unwrap_or_default();
        if range != self.range || reserved != self.reserved {
            self.fold.set_range(range, &reserved);
            (self.range, self.reserved) = (range, reserved);
        }
        missing
    }

    /// Fills the fold. Which transports this kernel cannot show comes back with how the dumps ended.
    fn dump(&mut self) -> Result<(DumpEnd, Vec<Proto>), NetlinkError> {
        let mut all = DumpEnd::default();
        let mut missing = Vec::new();
        for dump in &DUMPS {
            let fold = &mut self.fold;
            let add = |_, payload: &[u8]| fold.add(dump.proto, payload);
            match self.netlink.request(BY_FAMILY, DUMP, &dump.payload(), add) {
                Ok(end) => {
                    all.interrupted |= end.interrupted;
                    all.bytes += end.bytes;
                    all.receives += end.receives;
                }
                // No handler: no IPv6 in this kernel, or the module for this transport is not there.
                Err(NetlinkError::Refused {
                    errno: libc::ENOENT, ..
                }) => {
                    if dump.family == INET && !missing.contains(&dump.proto) {
                        missing.push(dump.proto);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok((all, missing))
    }

    /// As [`Self::dump`]; an answer that was cut is asked for once more.
    fn dump_again(&mut self) -> Result<(DumpEnd, Vec<Proto>), NetlinkError> {
        self.fold.clear();
        match self.dump() {
            Err(NetlinkError::Overrun { .. } | NetlinkError::Malformed { .. }) => {
                // A new socket: the old one's dump is still under way.
                self.netlink = open()?;
                self.fold.clear();
                self.dump()
            }
            other => other,
        }
    }
}

impl SocketObserver {
    /// Loads the iterators where they are wanted and not known to be missing.
    fn want_tables(&mut self) {
        if self.tables.is_none() && self.no_tables.is_none() && self.way != Way::SockDiag {
            match Tables::load() {
                Ok(tables) => self.tables = Some(Box::new(tables)),
                Err(why) => self.no_tables = Some(why),
            }
        }
    }

    /// The tally by iterators; `None`, for good and with the reason kept, where that does not work.
    fn count(&mut self) -> Option<SocketTally> {
        match self.tables.as_mut()?.count(self.fold.usable()) {
            Ok(tally) => Some(tally),
            Err(why) => {
                self.tables = None;
                self.no_tables = Some(why);
                None
            }
        }
    }

    /// Tells what a look that began then counted, sets when the next is due, and gives what this one cost.
    fn tell(&mut self, mut tally: SocketTally, (begun, cpu): (Instant, Span), emit: &mut Emit<'_>) -> Span {
        tally.waiting = self.waiting.look(&mut self.netlink, &tally);
        emit.emit(clock::now(), begun.elapsed(), Body::Sockets(tally));
        let used = clock::thread_cpu().saturating_sub(cpu);
        self.interval = used.saturating_mul(SPACING).clamp(INTERVAL, LONGEST);
        used
    }

    /// Which way it is, for the report; nothing while `sock_diag` is cheap.
    fn way_words(&self) -> Option<String> {
        match (&self.tables, &self.no_tables) {
            (Some(_), _) => Some("by eBPF iterators".to_owned()),
            (None, Some(why)) => Some(format!("by sock_diag, without eBPF iterators: {why}")),
            (None, None) => None,
        }
    }
}

fn open() -> Result<Netlink, NetlinkError> {
    Netlink::open(NETLINK_SOCK_DIAG, "sock_diag", ANSWER_WITHIN)
}

impl Observer for SocketObserver {
    fn source(&self) -> Source {
        Source::Sockets
    }

    fn interval(&self) -> Span {
        self.interval
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let (begun, cpu) = (clock::instant(), clock::thread_cpu());
        let unknown_range = self.read_range();
        if self.way == Way::Iterators {
            self.want_tables();
        }
        if let Some(tally) = self.count() {
            self.tell(tally, (begun, cpu), emit);
            return Ok(match unknown_range {
                Some(reason) => SourceStatus::degraded(reason),
                None => SourceStatus {
                    reason: self.way_words(),
                    ..SourceStatus::ok()
                },
            });
        }
        let (end, missing) = match self.dump_again() {
            Ok(dumped) => dumped,
            Err(error) => {
                self.netlink = open()?;
                return Ok(SourceStatus::degraded(format!("{error}; this look is left out")));
            }
        };
        if missing.contains(&Proto::Tcp) {
            return Err(ObserveError::Absent {
                what: "this kernel cannot list TCP sockets (no tcp_diag)".to_owned(),
            });
        }
        let malformed = self.fold.malformed();
        let tally = self.fold.finish(end.interrupted);
        if self.tell(tally, (begun, cpu), emit) > DEAR {
            self.want_tables();
        }
        let reason = match unknown_range {
            Some(reason) => Some(reason),
            None if missing.contains(&Proto::Udp) => {
                Some("this kernel cannot list UDP sockets (no udp_diag)")
            }
            None if malformed > 0 => Some("the kernel gave sockets in a form that is not known"),
            None => None,
        };
        Ok(SourceStatus {
            lost: malformed,
            ..match reason {
                Some(reason) => SourceStatus::degraded(reason),
                None => SourceStatus {
                    reason: self.way_words(),
                    ..SourceStatus::ok()
                },
            }
        })
    }
}

#[cfg(test)]
#[path = "sockets_tests.rs"]
mod tests;

//! Outgoing TCP connections as the kernel counted them at each connect and close, folded by process and destination.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::socket::{LeftOut, ProcessIdentity};
use crate::time::{Span, Timestamp, span_secs};
use crate::types::Proto;

/// What was counted since counting began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectTally {
    /// When counting began: what was opened before is in no number here.
    pub since: Timestamp,
    /// By process, source and destination, those with most attempts first; bounded, see `left_out`.
    pub rows: Vec<ConnectRow>,
    /// Rows beyond the bound, and the attempts in them.
    #[serde(default)]
    pub left_out: LeftOut,
    /// Why a connect failed is known only for a want of ports: every other cause is in [`Failures::other`], and bytes are not
    /// counted.
    #[serde(default)]
    pub causes_unknown: bool,
    /// System calls that were denied a local port, those denied most first; bounded. `None`: they were not counted.
    #[serde(default)]
    pub denied: Option<Vec<Denial>>,
}

/// A system call of one process that was denied a local port, counted since [`ConnectTally::since`], where the socket table
/// tells nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// The process.
    pub process: ProcessIdentity,
    /// The transport.
    pub proto: Proto,
    /// The call.
    pub call: PortCall,
    /// The errno (EAGAIN 11, EADDRINUSE 98).
    pub errno: i32,
    /// The local address: of a `bind` the one asked for.
    pub source: IpAddr,
    /// The local port that was asked for; `None`: any that is free.
    pub port: Option<u16>,
    /// Where to, for all but `bind`.
    pub destination: Option<SocketAddr>,
    /// Who held that port when it was looked up, right after.
    #[serde(default)]
    pub holder: Option<PortHolder>,
    /// How often.
    pub count: u64,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
}

/// A socket that holds a local port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHolder {
    /// Its local address.
    pub source: IpAddr,
    /// Where it is connected to; `None`: it is a listener (or an unconnected UDP socket).
    pub destination: Option<SocketAddr>,
    /// Its inode; 0 in TIME_WAIT.
    pub inode: u32,
}

/// A system call that takes a local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortCall {
    /// `bind`.
    Bind,
    /// `connect` of a UDP socket.
    Connect,
    /// `sendto` or `sendmsg` on a UDP socket that has no port yet.
    Send,
}

impl PortCall {
    /// Its name, as in a manual.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Connect => "connect",
            Self::Send => "sendto",
        }
    }
}

/// Connections of one process from one source address to one destination, counted since [`ConnectTally::since`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectRow {
    /// The process that called `connect`.
    pub process: ProcessIdentity,
    /// The local address.
    pub source: IpAddr,
    /// The remote address and port.
    pub destination: SocketAddr,
    /// Calls of `connect` that got as far as TCP.
    pub attempts: u64,
    /// Of these, connections that were established.
    pub established: u64,
    /// Of these, those that failed.
    #[serde(default)]
    pub failed: Failures,
    /// Established connections that this side closed first (FIN or reset).
    pub closed_here: u64,
    /// Established connections that the other side closed first by a FIN.
    pub closed_there: u64,
    /// Established connections that ended in an error here: a reset by the other side, or a time-out.
    #[serde(default)]
    pub reset_there: u64,
    /// Connections that the process holds now, or tries to make.
    pub open: u64,
    /// The most that it held at a time.
    pub peak: u64,
    /// From `connect` until the process let go, summed over all established connections that are closed.
    #[serde(with = "span_secs")]
    pub lifetime_total: Span,
    /// Times that the first packet of a connection was sent again: nobody had answered it for a second or more.
    #[serde(default)]
    pub syn_retransmits: u64,
    /// Bytes that the process sent and received over established connections that are closed.
    #[serde(default)]
    pub bytes_sent: u64,
    /// Likewise.
    #[serde(default)]
    pub bytes_received: u64,
    /// Times that 16 or more attempts fell within a quarter of a second.
    #[serde(default)]
    pub bursts: Bursts,
    /// Those by length: class `i` holds 2^i to 2^(i+1) µs, the first also what is shorter; trailing zeros are cut.
    pub lifetimes: Vec<u32>,
}

/// Attempts that came close together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bursts {
    /// How many bursts.
    pub count: u64,
    /// The attempts in them.
    pub attempts: u64,
    /// When the first began.
    #[serde(default)]
    pub first: Option<Timestamp>,
    /// When the last began.
    #[serde(default)]
    pub last: Option<Timestamp>,
}

/// Failed connects by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failures {
    /// EADDRNOTAVAIL: no local port was free for this destination.
    pub no_port: u64,
    /// The first of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_port_first: Option<Timestamp>,
    /// The last of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_port_last: Option<Timestamp>,
    /// EADDRNOTAVAIL too, but of a socket whose port was chosen before (`bind`): that port was taken.
    pub tuple_taken: u64,
    /// ECONNREFUSED.
    pub refused: u64,
    /// ETIMEDOUT.
    pub timed_out: u64,
    /// EHOSTUNREACH or ENETUNREACH.
    pub unreachable: u64,
    /// The process closed the socket before there was an answer.
    pub given_up: u64,
    /// Of those: the first packet had been sent again, so the process had waited for a second at least.
    pub unanswered: u64,
    /// Any other cause.
    pub other: u64,
}

impl ConnectRow {
    /// Established connections that are closed.
    pub fn closed(&self) -> u64 {
        self.closed_here + self.closed_there + self.reset_there
    }
}

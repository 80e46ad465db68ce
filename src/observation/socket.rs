//! The socket table, folded to what diagnosis needs, and the processes behind it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::types::Proto;

/// TCP states as `sock_diag` numbers them (include/net/tcp_states.h), used as indices of [`StateCounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // RFC 9293's names
pub enum TcpState {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    FinWait1 = 4,
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    NewSynRecv = 12,
}

/// Sockets by state; index with [`TcpState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateCounts(pub [u32; 13]);

impl StateCounts {
    /// How many are in `state`.
    pub fn get(&self, state: TcpState) -> u32 {
        self.0[state as usize]
    }

    /// All together.
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }
}

/// How many 10-second classes a TIME_WAIT's remaining life is sorted into; TIME_WAIT lasts 60 s
/// (`TCP_TIMEWAIT_LEN`).
pub const TIME_WAIT_CLASSES: usize = 6;

/// The socket table at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SocketTally {
    /// TCP sockets by state, all of them.
    pub tcp: StateCounts,
    /// UDP sockets, connected or not.
    pub udp: u32,
    /// Distinct local UDP ports inside the ephemeral range, less reserved ones, that are taken.
    pub udp_ports_in_range: u32,
    /// Distinct local TCP ports inside the ephemeral range, less reserved ones, held by listeners (no connection can
    /// use them).
    pub listen_ports_in_range: u32,
    /// Local TCP ports that listeners hold, and those of unconnected UDP sockets outside the ephemeral range, ascending, each
    /// once: what a wider range would swallow. Bounded; `None` in records of before they were kept.
    #[serde(default)]
    pub served_ports: Option<ServedPorts>,
    /// Outbound use by (protocol, source, destination), the busiest first; bounded, see `left_out`.
    pub destinations: Vec<DestinationTally>,
    /// Destinations beyond the bound, and the sockets in them.
    pub left_out: LeftOut,
    /// Inbound connections by local port (a listener holds it), the busiest first; bounded.
    pub inbound: Vec<InboundTally>,
    /// Served ports beyond the bound, and the connections in them.
    #[serde(default)]
    pub inbound_left_out: LeftOut,
    /// The kernel changed the table during the dump, or it was cut: the numbers are close, not exact.
    pub inexact: bool,
    /// A closer look at the addresses beyond this host towards which connections have waited in SYN_SENT at this look and at
    /// the one before; bounded. `None`: none waited, or they could not be looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Vec<WaitingTally>>,
}

/// TCP sockets of one (source address, destination) at an address towards which connections wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingTally {
    /// The local address.
    pub source: IpAddr,
    /// The remote address and port.
    pub destination: SocketAddr,
    /// Sockets in SYN_SENT.
    pub syn_sent: u32,
    /// Of these, those whose SYN has been sent again: nobody has answered it for a second (RFC 6298).
    pub sent_again: u32,
    /// Sockets in ESTABLISHED.
    pub established: u32,
    /// Of these, those on which something came within the last second.
    pub heard: u32,
    /// Of these, those that send again what they sent, for want of an acknowledgement.
    pub unacknowledged: u32,
}

/// Local ports that services of this host hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedPorts {
    /// The ports, ascending.
    pub ports: Vec<u16>,
    /// How many more there are.
    pub left_out: u32,
    /// Of the TCP ports those that are served on loopback addresses alone, ascending: nobody beyond this host reaches them.
    /// `None` in records of before they were told apart.
    #[serde(default)]
    pub loopback_only: Option<Vec<u16>>,
}

/// What did not fit into a bounded list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Items; where even the fold's own table was full (the tally is then `inexact`), the least that it can be.
    pub items: u64,
    /// Sockets (or entries) in them.
    pub members: u64,
}

/// Outbound sockets of one (protocol, source address, destination).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DestinationTally {
    /// The transport.
    pub proto: Proto,
    /// The local address.
    pub source: IpAddr,
    /// The remote address and port.
    pub destination: SocketAddr,
    /// Sockets by state.
    pub states: StateCounts,
    /// Local ports held inside the ephemeral range, less reserved ones (a tuple holds a port once, so this is a count of
    /// sockets).
    pub ports_in_range: u32,
    /// TIME_WAIT sockets by remaining life: class `i` has `10·i ..= 10·(i+1)` seconds left, so the highest class
    /// closed most recently.
    pub time_wait_left: [u32; TIME_WAIT_CLASSES],
    /// Inodes of some live sockets (never TIME_WAIT, which has none), newest first as far as known; bounded.
    pub inodes: Vec<u32>,
    /// The owners' user ids of live sockets, distinct; bounded.
    pub uids: Vec<u32>,
}

/// Inbound connections of one listening port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InboundTally {
    /// The local port.
    pub port: u16,
    /// Sockets by state.
    pub states: StateCounts,
}

/// Processes of interest at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessTable {
    /// Those that hold many sockets, near their descriptor limit, or own an inode that was asked for.
    pub processes: Vec<ProcessFacts>,
    /// Which process holds which socket inode: `(inode, pid)`, for the inodes that were asked for.
    pub owners: Vec<(u32, u32)>,
    /// Processes whose descriptors could not be read.
    pub unreadable: u32,
}

/// A process by what names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Its id.
    pub pid: u32,
    /// Clock ticks since boot when it started: tells a reused pid apart.
    pub start_ticks: u64,
    /// Its name (`/proc/PID/comm`).
    pub comm: String,
    /// Its executable, where readable.
    pub exe: Option<String>,
    /// The runtime that it is, where recognised.
    pub runtime: Option<String>,
}

impl From<&ProcessFacts> for ProcessIdentity {
    fn from(facts: &ProcessFacts) -> Self {
        Self {
            pid: facts.pid,
            start_ticks: facts.start_ticks,
            comm: facts.comm.clone(),
            exe: facts.exe.clone(),
            runtime: facts.runtime.clone(),
        }
    }
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Its id.
    pub pid: u32,
    /// Clock ticks since boot when it started: tells a reused pid apart.
    pub start_ticks: u64,
    /// Its name (`/proc/PID/comm`).
    pub comm: String,
    /// Its executable, where readable.
    pub exe: Option<String>,
    /// The runtime that it is, by its executable (`node`, `python`, `go`, …), where recognised.
    pub runtime: Option<String>,
    /// Open descriptors.
    pub fds: u32,
    /// Of these, sockets; estimated from an even sample where there are more than 4,096 descriptors.
    pub sockets: u32,
    /// Soft limit of open files.
    pub fd_limit: Option<u64>,
}

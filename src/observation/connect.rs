//! Outgoing TCP connections as the kernel counted them at each connect and close, folded by process and destination.

use std::collections::BTreeMap;
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

impl ConnectTally {
    /// What was counted after `base` was, as if counting had begun at `since`. What is held now stays as it is.
    #[must_use]
    pub fn since(&self, base: &Self, since: Timestamp) -> Self {
        let before: BTreeMap<_, &ConnectRow> = base.rows.iter().map(|row| (row.key(), row)).collect();
        let rows = self.rows.iter().map(|row| match before.get(&row.key()) {
            Some(before) => row.since(before),
            None => row.clone(),
        });
        Self {
            since,
            rows: rows.filter(|row| row.attempts > 0 || row.open > 0).collect(),
            left_out: self.left_out,
            causes_unknown: self.causes_unknown,
            denied: self.denied.as_ref().map(|denied| {
                let before = base.denied.as_deref().unwrap_or_default();
                denied.iter().filter_map(|d| d.since(before)).collect()
            }),
        }
    }
}

impl Denial {
    /// What came after `base`, where anything did.
    fn since(&self, base: &[Self]) -> Option<Self> {
        let same = |other: &&Self| {
            (other.process.pid, other.process.start_ticks) == (self.process.pid, self.process.start_ticks)
                && (other.proto, other.call, other.errno) == (self.proto, self.call, self.errno)
                && (other.source, other.port, other.destination) == (self.source, self.port, self.destination)
        };
        let Some(before) = base.iter().find(same).filter(|before| before.count <= self.count) else {
            return Some(self.clone());
        };
        (self.count > before.count).then(|| Self {
            count: self.count - before.count,
            first: before.last,
            ..self.clone()
        })
    }
}

impl Bursts {
    fn since(&self, base: &Self) -> Self {
        let count = self.count.saturating_sub(base.count);
        Self {
            count,
            attempts: self.attempts.saturating_sub(base.attempts),
            first: base.last.or(self.first).filter(|_| count > 0),
            last: self.last.filter(|_| count > 0),
        }
    }
}

impl ConnectRow {
    fn key(&self) -> (u32, u64, IpAddr, SocketAddr) {
        let process = &self.process;
        (process.pid, process.start_ticks, self.source, self.destination)
    }

    /// A row that went back was forgotten and counted anew: it then stands as it is.
    fn since(&self, base: &Self) -> Self {
        if self.attempts < base.attempts {
            return self.clone();
        }
        let less = u64::saturating_sub;
        let lifetimes = self.lifetimes.iter().enumerate().map(|(class, count)| {
            let before = base.lifetimes.get(class).copied().unwrap_or(0);
            count.saturating_sub(before)
        });
        Self {
            attempts: less(self.attempts, base.attempts),
            established: less(self.established, base.established),
            failed: self.failed.since(&base.failed),
            closed_here: less(self.closed_here, base.closed_here),
            closed_there: less(self.closed_there, base.closed_there),
            reset_there: less(self.reset_there, base.reset_there),
            lifetime_total: self.lifetime_total.saturating_sub(base.lifetime_total),
            syn_retransmits: less(self.syn_retransmits, base.syn_retransmits),
            bytes_sent: less(self.bytes_sent, base.bytes_sent),
            bytes_received: less(self.bytes_received, base.bytes_received),
            bursts: self.bursts.since(&base.bursts),
            lifetimes: lifetimes.collect(),
            ..self.clone()
        }
    }

    /// Established connections that are closed.
    pub fn closed(&self) -> u64 {
        self.closed_here + self.closed_there + self.reset_there
    }
}

impl Failures {
    fn since(&self, base: &Self) -> Self {
        let less = u64::saturating_sub;
        let no_port = less(self.no_port, base.no_port);
        Self {
            no_port,
            // The last before is not after; that of the first after is not kept, so it is told as the next after that.
            no_port_first: if no_port == 0 {
                None
            } else {
                base.no_port_last.or(self.no_port_first)
            },
            no_port_last: self.no_port_last.filter(|_| no_port > 0),
            tuple_taken: less(self.tuple_taken, base.tuple_taken),
            refused: less(self.refused, base.refused),
            timed_out: less(self.timed_out, base.timed_out),
            unreachable: less(self.unreachable, base.unreachable),
            given_up: less(self.given_up, base.given_up),
            unanswered: less(self.unanswered, base.unanswered),
            other: less(self.other, base.other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_before_is_taken_off() {
        let row = |attempts: u64, no_port: u64, open: u64| ConnectRow {
            process: ProcessIdentity {
                pid: 7,
                start_ticks: 1,
                comm: "node".to_owned(),
                exe: None,
                runtime: None,
            },
            source: [10, 0, 0, 2].into(),
            destination: ([203, 0, 113, 9], 443).into(),
            attempts,
            established: attempts - no_port,
            failed: Failures {
                no_port,
                no_port_first: Some(Timestamp::from_secs(10)),
                no_port_last: Some(Timestamp::from_secs(20)),
                ..Failures::default()
            },
            closed_here: 0,
            closed_there: 0,
            reset_there: 0,
            open,
            peak: 3,
            lifetime_total: Span::from_secs(attempts),
            syn_retransmits: 0,
            bytes_sent: 0,
            bytes_received: 0,
            bursts: Bursts::default(),
            lifetimes: vec![1],
        };
        let tally = |row| ConnectTally {
            since: Timestamp::EPOCH,
            rows: vec![row],
            ..ConnectTally::default()
        };
        let now = Timestamp::from_secs(30);
        for (name, before, after, expected) in [
            ("nothing new", row(10, 2, 0), row(10, 2, 0), None),
            ("still open", row(10, 2, 1), row(10, 2, 1), Some((0, 0, None))),
            (
                "more failed",
                row(10, 2, 0),
                row(15, 4, 0),
                Some((5, 2, Some(Timestamp::from_secs(20)))),
            ),
            (
                "more, none failed",
                row(10, 2, 0),
                row(15, 2, 0),
                Some((5, 0, None)),
            ),
            (
                "counted anew",
                row(10, 2, 0),
                row(4, 1, 0),
                Some((4, 1, Some(Timestamp::from_secs(20)))),
            ),
        ] {
            let left = tally(after).since(&tally(before), now);
            assert_eq!(left.since, now);
            let got = left
                .rows
                .first()
                .map(|r| (r.attempts, r.failed.no_port, r.failed.no_port_last));
            assert_eq!(got, expected, "{name}");
        }
    }
}

//! Outgoing TCP connections as the kernel counted them at each connect and close, folded by process and destination.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::socket::{LeftOut, ProcessIdentity};
use crate::time::{Span, Timestamp, span_secs};

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
    /// Those by length: class `i` holds 2^i to 2^(i+1) µs, the first also what is shorter; trailing zeros are cut.
    pub lifetimes: Vec<u32>,
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

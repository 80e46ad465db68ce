//! Observers: each looks at one part of the host, says what it saw and how it fares. None knows what a finding is.
//!
//! Each runs on a thread of its own ([`supervisor`]): netlink and files block, a hung daemon must cost nobody else
//! anything, a network namespace is a thread's property, and a thread's CPU clock is the observer's cost.
//! See docs/decisions/.

pub mod bpf;
pub mod capture;
pub mod capture_file;
pub mod configured;
pub mod conntrack;
pub mod conntrack_events;
pub mod counters;
pub mod dump_plan;
pub mod executable;
pub mod fly_toml;
pub mod host;
mod jitter;
pub mod kernel_log;
pub mod keys;
pub mod nat;
pub mod nat_rules;
mod pace;
pub mod path;
pub mod prober;
pub mod processes;
pub mod routes;
pub mod sockets;
pub mod supervisor;
pub mod sysctl;
pub mod tally;
#[cfg(test)]
mod testing;
mod waiting;
pub mod wg_netlink;
pub mod wg_uapi;

use std::os::fd::BorrowedFd;

use crate::observation::{Body, Request, Source, SourceStatus};
use crate::sys::netlink::NetlinkError;
use crate::time::{Span, Timestamp};

/// One way to look at the host.
pub trait Observer {
    /// Which source it is.
    fn source(&self) -> Source;

    /// How often it wants to look.
    fn interval(&self) -> Span;

    /// A descriptor that becomes readable when there is something to see before the interval is over.
    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// How long after a look its descriptor shall wake nobody. For a time in which so much comes that each look would find
    /// one thing.
    fn rest(&self) -> Span {
        Span::ZERO
    }

    /// Looks once and emits what it saw. The status says how well it could see; cost is filled in for it.
    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError>;

    /// As [`Observer::look`], and at what is too dear to look at each time: asked for by the core, and at the end.
    fn look_fully(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        self.look(emit)
    }

    /// Answers a request of the core, where it is one for this observer.
    fn ask(&mut self, _request: &Request, _emit: &mut Emit<'_>) -> Result<(), ObserveError> {
        Ok(())
    }
}

/// Why an observer cannot see. Each becomes the reason in the report's collectors.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A capability is missing.
    #[error("{doing}: not permitted; needs {needs}")]
    Denied {
        /// What was tried.
        doing: &'static str,
        /// The capability or the user that it takes.
        needs: &'static str,
    },
    /// This host does not have it.
    #[error("{what}")]
    Absent {
        /// What is missing, in a sentence.
        what: String,
    },
    /// The system refused.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: String,
        /// Its answer.
        source: std::io::Error,
    },
    /// Netlink refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl ObserveError {
    /// Whether another observer of the same kind, opened now, might see: not where the host has no such thing or a right is
    /// missing, which is an answer and stays so.
    pub fn may_pass_by_opening(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Absent { .. } => false,
            Self::System { source, .. } => source.kind() != std::io::ErrorKind::PermissionDenied,
            Self::Netlink(error) => !error.is_denied(),
        }
    }
}

/// Where an observer puts what it sees.
pub struct Emit<'a> {
    source: Source,
    send: &'a mut dyn FnMut(Timestamp, Span, Source, Body),
}

impl<'a> Emit<'a> {
    /// Hands everything to `send`.
    pub fn new(source: Source, send: &'a mut dyn FnMut(Timestamp, Span, Source, Body)) -> Self {
        Self { source, send }
    }

    /// Emits a fact seen at `at` by a look that took `took` (zero for an event).
    pub fn emit(&mut self, at: Timestamp, took: Span, body: Body) {
        (self.send)(at, took, self.source, body);
    }
}

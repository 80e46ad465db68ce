//! Counts new conntrack entries by ctnetlink's events, on a thread of its own; only where that is asked for.
//!
//! In: the calling thread's namespace. Out: a count that grows. Each event costs the kernel and us 7 to 11 µs, and a listener
//! alone makes the kernel send them, so a busy router's rate of new flows suffers. Events come as they happen, so they are
//! received as they come: a second's worth would overrun any buffer. What is overrun is not told by number, only that it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::sys::socket::{setsockopt, sockopt};

use super::ObserveError;
use crate::observation::conntrack::CtEvents;
use crate::sys::clock;
use crate::sys::netlink::{Netlink, NetlinkError};
use crate::time::Span;
use crate::wire::netlink::conntrack as wire;

/// How soon the thread sees that it is to end.
const PATIENCE: Duration = Duration::from_millis(500);

/// The kernel's buffer: some 4,000 events, a fifth of a second at 20,000 a second.
const BUFFER: usize = 4 << 20;

/// The count, and the thread that makes it; ends when dropped.
pub struct EventCounter {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    new: AtomicU64,
    overruns: AtomicU64,
    cpu_nanos: AtomicU64,
    failed: AtomicBool,
    stop: AtomicBool,
}

impl EventCounter {
    /// Starts to count in the calling thread's namespace.
    pub fn start() -> Result<Self, ObserveError> {
        let mut netlink = Netlink::open(NETLINK_NETFILTER, "conntrack events", PATIENCE)?;
        let system = |doing: &str, source| ObserveError::System {
            doing: doing.to_owned(),
            source,
        };
        // A larger buffer only helps; without CAP_NET_ADMIN joining fails anyway.
        let _ = setsockopt(&netlink.as_fd(), sockopt::RcvBufForce, &BUFFER);
        netlink
            .socket()
            .add_membership(wire::GROUP_NEW)
            .map_err(|e| system("listening to conntrack events", e))?;
        let shared = Arc::<Shared>::default();
        let counted = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("ct-events".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || count(&mut netlink, &counted))
            .map_err(|e| system("starting a thread", e))?;
        Ok(Self { shared })
    }

    /// What was counted since the start.
    pub fn counted(&self) -> CtEvents {
        CtEvents {
            new: self.shared.new.load(Ordering::Relaxed),
            overruns: self.shared.overruns.load(Ordering::Relaxed),
        }
    }

    /// CPU time that counting took.
    pub fn cost(&self) -> Span {
        Span::from_nanos(self.shared.cpu_nanos.load(Ordering::Relaxed))
    }

    /// Whether counting ended for an error.
    pub fn failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed)
    }
}

impl Drop for EventCounter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn count(netlink: &mut Netlink, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let mut new = 0;
        let received = netlink.receive_events(|kind, _| new += u64::from(kind == wire::NEW));
        shared.new.fetch_add(new, Ordering::Relaxed);
        match received {
            Ok(()) | Err(NetlinkError::TimedOut { .. }) => {}
            Err(NetlinkError::Overrun { .. }) => {
                shared.overruns.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                shared.failed.store(true, Ordering::Relaxed);
                return;
            }
        }
        let nanos = u64::try_from(clock::thread_cpu().as_nanos()).unwrap_or(u64::MAX);
        shared.cpu_nanos.store(nanos, Ordering::Relaxed);
    }
}

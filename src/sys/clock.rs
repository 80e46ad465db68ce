//! The only place that reads clocks.

use std::time::Instant;

use nix::time::{ClockId, clock_gettime};

use crate::time::{Span, Timestamp};

/// The wall clock, now.
pub fn now() -> Timestamp {
    timespec(ClockId::CLOCK_REALTIME).map_or(Timestamp::EPOCH, |t| {
        Timestamp::from_parts(t.tv_sec(), t.tv_nsec().try_into().unwrap_or(0))
    })
}

/// The monotonic clock, now: for deadlines.
#[allow(clippy::disallowed_methods)] // this is the edge
pub fn instant() -> Instant {
    Instant::now()
}

/// The monotonic clock, now, as the kernel's own timestamps have it (`bpf_ktime_get_ns`).
pub fn monotonic() -> Span {
    cpu(ClockId::CLOCK_MONOTONIC)
}

/// CPU time that the calling thread has used.
pub fn thread_cpu() -> Span {
    cpu(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time that the process has used.
pub fn process_cpu() -> Span {
    cpu(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// Time since boot, sleep included.
pub fn since_boot() -> Option<Span> {
    Some(cpu(ClockId::CLOCK_BOOTTIME)).filter(|s| !s.is_zero())
}

fn cpu(id: ClockId) -> Span {
    timespec(id).map_or(Span::ZERO, Span::from)
}

fn timespec(id: ClockId) -> Option<nix::sys::time::TimeSpec> {
    clock_gettime(id).ok()
}

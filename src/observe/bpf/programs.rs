//! Who the processes are that were counted: from the kernel at connect, and from `/proc` for those that still live.
//!
//! The kernel's programs know a process by its id in the initial PID namespace. In a container that number means nothing, so
//! they tell the id in the observer's own namespace too; of a process outside of it there is none, and that is said.

use std::collections::{BTreeMap, BTreeSet};

use crate::observation::socket::ProcessIdentity;
use crate::observe::executable::Recogniser;
use crate::sys::netns;
use crate::types::NetnsId;
use crate::wire::procfs;
use crate::wire::runtime_name::runtime_of;

/// A clock tick as `/proc` counts them: USER_HZ is 100 on every architecture that wgnat runs on.
const TICK_NANOS: u64 = 10_000_000;

/// `PROC_PID_INIT_INO` (include/linux/proc_ns.h): the initial PID namespace.
const INITIAL: u64 = 0xefff_fffc;

/// The inode of the PID namespace that this process is in; `None` where it is the initial one, whose numbers the kernel's
/// programs tell already, or where `/proc` does not show it.
pub fn own_pid_namespace() -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = std::fs::metadata("/proc/self/ns/pid").ok()?.ino();
    u32::try_from(inode).ok().filter(|_| inode != INITIAL)
}

/// A process as the kernel's programs tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its id in the initial PID namespace.
    pub tgid: u32,
    /// Its id in the observer's own, where that is another; 0 where it is not in there.
    pub tgid_here: u32,
    /// When it started, in nanoseconds since boot; 0 where the kernel did not tell.
    pub started: u64,
}

/// What `/proc` told, by process; looked up once, for a process keeps its executable but for `exec`.
#[derive(Default)]
pub struct Names {
    /// The observer is in a PID namespace of its own.
    translated: bool,
    known: BTreeMap<(u32, u64), Known>,
    /// Processes outside the observer's PID namespace.
    outside: BTreeSet<(u32, u64)>,
    recogniser: Recogniser,
}

/// What `/proc` told of a process.
#[derive(Clone, Debug, Default)]
struct Known {
    executable: Option<String>,
    runtime: Option<&'static str>,
    start_ticks: u64,
    netns: Option<NetnsId>,
}

impl Names {
    /// For an observer in the PID namespace `own`.
    pub fn new(own: Option<u32>) -> Self {
        Self {
            translated: own.is_some(),
            ..Self::default()
        }
    }

    /// Who the process is. One that has ended has no executable here, for the id may be another's by now; nor has one that the
    /// observer's PID namespace does not show, whose id is as the host numbers it.
    pub fn of(&mut self, process: Counted, comm: &str) -> ProcessIdentity {
        let key = (process.tgid, process.started);
        let pid = if self.translated {
            process.tgid_here
        } else {
            process.tgid
        };
        if pid == 0 {
            self.outside.insert(key);
        }
        let known = self
            .known
            .entry(key)
            .or_insert_with(|| look_up(&mut self.recogniser, pid, process.started / TICK_NANOS, comm));
        ProcessIdentity {
            pid: if pid == 0 { process.tgid } else { pid },
            start_ticks: known.start_ticks,
            comm: comm.to_owned(),
            runtime: known.runtime.or_else(|| runtime_of("", comm)).map(str::to_owned),
            exe: known.executable.clone(),
        }
    }

    /// The network namespace of a process that the kernel's program did not tell; `None` where it has ended.
    pub fn netns(&mut self, process: Counted, comm: &str) -> Option<NetnsId> {
        let known = self
            .known
            .entry((process.tgid, process.started))
            .or_insert_with(|| look_up(&mut self.recogniser, process.tgid, 0, comm));
        known.netns
    }

    /// Processes that this observer's PID namespace does not show.
    pub fn outside(&self) -> usize {
        self.outside.len()
    }

    /// Forgets all but `shown`.
    pub fn keep(&mut self, shown: &BTreeSet<(u32, u64)>) {
        self.known.retain(|process, _| shown.contains(process));
        self.outside.retain(|process| shown.contains(process));
    }
}

/// `start_ticks`: 0 where it is to be learned.
fn look_up(recogniser: &mut Recogniser, pid: u32, start_ticks: u64, comm: &str) -> Known {
    let unknown = Known {
        start_ticks,
        ..Known::default()
    };
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let exe = exe.map(|exe| exe.to_string_lossy().into_owned());
    let runtime = exe
        .as_deref()
        .and_then(|exe| recogniser.runtime(pid, start_ticks, exe, comm));
    let netns = netns::of_process(pid);
    // Read after the others: if it is still the same process now, it was then.
    let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else {
        return unknown;
    };
    match procfs::process_stat(&String::from_utf8_lossy(&stat)) {
        Some(now) if start_ticks == 0 || now.start_ticks == start_ticks => Known {
            executable: exe,
            runtime,
            start_ticks: now.start_ticks,
            netns,
        },
        _ => unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this() -> Counted {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        Counted {
            tgid: std::process::id(),
            tgid_here: 0,
            started: procfs::process_stat(&stat).unwrap().start_ticks * TICK_NANOS,
        }
    }

    #[test]
    fn a_reused_id_is_not_taken_for_the_process_that_had_it() {
        let mut names = Names::new(None);
        let is = names.of(this(), "x");
        assert!(is.exe.is_some());
        let before = Counted {
            started: this().started - 10 * TICK_NANOS,
            ..this()
        };
        let was = names.of(before, "x");
        assert_eq!((was.pid, was.exe), (is.pid, None));
        assert_ne!(was.start_ticks, is.start_ticks);
    }

    #[test]
    fn in_a_pid_namespace_of_its_own_ids_are_translated_or_said_to_be_the_hosts() {
        let mut names = Names::new(Some(7));
        let here = Counted {
            tgid: 4_000_000,
            tgid_here: std::process::id(),
            ..this()
        };
        let is = names.of(here, "x");
        assert_eq!(
            (is.pid, is.exe.is_some(), names.outside()),
            (std::process::id(), true, 0)
        );
        let outside = Counted {
            tgid: 4_000_001,
            tgid_here: 0,
            started: 5 * TICK_NANOS,
        };
        let is = names.of(outside, "y");
        assert_eq!((is.pid, is.exe, names.outside()), (4_000_001, None, 1));
        names.keep(&BTreeSet::new());
        assert_eq!(names.outside(), 0);
    }

    #[test]
    fn a_start_that_the_kernel_did_not_tell_is_learned() {
        let mut names = Names::new(None);
        let untold = Counted { started: 0, ..this() };
        assert_eq!(names.of(untold, "x").start_ticks, this().started / TICK_NANOS);
        assert_eq!(names.netns(untold, "x"), netns::current());
    }
}

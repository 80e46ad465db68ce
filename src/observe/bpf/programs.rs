//! The names of the processes that were counted: from the kernel at connect, and from `/proc` for those that still live.

use std::collections::{BTreeMap, BTreeSet};

use crate::observation::socket::ProcessIdentity;
use crate::observe::executable::Recogniser;
use crate::wire::bpf_records::Key;
use crate::wire::procfs;
use crate::wire::runtime_name::runtime_of;

/// A clock tick as `/proc` counts them: USER_HZ is 100 on every architecture that wgnat runs on.
const TICK_NANOS: u64 = 10_000_000;

/// What `/proc` told, by process id and start; looked up once, for a process keeps its executable but for `exec`.
#[derive(Default)]
pub struct Names {
    executables: BTreeMap<(u32, u64), Executable>,
    recogniser: Recogniser,
}

/// An executable and the runtime that it is, where these could be told.
#[derive(Clone, Default)]
struct Executable {
    path: Option<String>,
    runtime: Option<&'static str>,
}

impl Names {
    /// Who the key's process is. One that has ended has no executable here, for the id may be another's by now.
    pub fn of(&mut self, key: &Key, comm: &str) -> ProcessIdentity {
        let start_ticks = key.started / TICK_NANOS;
        let recogniser = &mut self.recogniser;
        let exe = self
            .executables
            .entry((key.tgid, key.started))
            .or_insert_with(|| executable(recogniser, key.tgid, start_ticks, comm).unwrap_or_default());
        ProcessIdentity {
            pid: key.tgid,
            start_ticks,
            comm: comm.to_owned(),
            runtime: exe.runtime.or_else(|| runtime_of("", comm)).map(str::to_owned),
            exe: exe.path.clone(),
        }
    }

    /// Forgets all but `shown`.
    pub fn keep(&mut self, shown: &BTreeSet<(u32, u64)>) {
        self.executables.retain(|process, _| shown.contains(process));
    }
}

fn executable(recogniser: &mut Recogniser, pid: u32, start_ticks: u64, comm: &str) -> Option<Executable> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let path = path.to_string_lossy().into_owned();
    let runtime = recogniser.runtime(pid, start_ticks, &path, comm);
    // Read after the link: if it is still the same process now, it was then.
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let now = procfs::process_stat(&String::from_utf8_lossy(&stat))?;
    (now.start_ticks == start_ticks).then_some(Executable {
        path: Some(path),
        runtime,
    })
}

//! Processes that hold sockets: who owns which, and who comes near its limit of open files.
//!
//! Needs: CAP_SYS_PTRACE (or root) to see other users' processes. Costs: two or three look-ups in `/proc` per process
//! of the host (5-20 µs), and 3-4 µs per descriptor of those with 32 or more, at most 4,096 of each; so tens of
//! milliseconds on a busy host, at the start and at the end of a run and every minute between.
//!
//! Only processes whose network namespace is the observed one count. Bounds: 65,536 processes looked at, 64 reported
//! besides the owners that were asked for, 4,096 owners remembered, 200,000 descriptors searched for one request
//! (under a second of CPU at worst; it begins with the busiest processes and ends as soon as all are found).

mod descriptors;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use self::descriptors::Descriptors;
use super::executable::Recogniser;
use super::{Emit, ObserveError, Observer};
use crate::observation::socket::{ProcessFacts, ProcessTable};
use crate::observation::{Body, Request, Source, SourceStatus};
use crate::sys::{caps, clock, netns};
use crate::time::Span;
use crate::types::NetnsId;
use crate::wire::procfs::{self, ProcessStat};

const MAX_PROCESSES: usize = 65_536;
const MAX_REPORTED: usize = 64;
const MAX_OWNERS: usize = 4096;
const MAX_SEARCHED: u32 = 200_000;

/// From this many sockets on a process is of interest.
const MANY_SOCKETS: u32 = 64;
/// From this many descriptors on it is worth reading the limit; a lower limit than twice this is nobody's default.
const FEW_DESCRIPTORS: u32 = 32;

/// The observer.
pub struct Processes {
    here: NetnsId,
    /// The inode of the observed namespace's `net/dev`: a file of its own in each namespace, and unlike the namespace
    /// itself one that every user may stat for every process (kernel fs/proc/proc_net.c).
    here_file: Option<u64>,
    /// Socket inode to the process that held it when it was asked for.
    owners: BTreeMap<u32, Process>,
    /// Processes by falling number of sockets, as of the last look: where a search begins.
    busiest: Vec<u32>,
    unreadable: u32,
    recogniser: Recogniser,
}

/// A process; with its start, for its id may be another's later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    start_ticks: u64,
}

impl Processes {
    /// For the calling thread's network namespace.
    pub fn open() -> Result<Self, ObserveError> {
        let here = netns::current().ok_or_else(|| ObserveError::Absent {
            what: "processes cannot be seen: /proc/thread-self/ns/net is not there (is /proc mounted?)"
                .to_owned(),
        })?;
        Ok(Self {
            here,
            here_file: inode("/proc/thread-self/net/dev"),
            owners: BTreeMap::new(),
            busiest: Vec::new(),
            unreadable: 0,
            recogniser: Recogniser::default(),
        })
    }

    /// The processes of the observed namespace.
    fn list(&self) -> Result<Listed, ObserveError> {
        let entries = std::fs::read_dir("/proc").map_err(|source| ObserveError::System {
            doing: "listing /proc".to_owned(),
            source,
        })?;
        let mut listed = Listed::default();
        let pids = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids {
            if listed.seen == MAX_PROCESSES {
                listed.left_out += 1;
                continue;
            }
            listed.seen += 1;
            let here = match std::fs::metadata(format!("/proc/{pid}/ns/net")) {
                Ok(namespace) => namespace.ino() == self.here.0,
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let file = inode(&format!("/proc/{pid}/net/dev"));
                    file.is_some() && file == self.here_file
                }
                Err(_) => false, // it has just ended
            };
            if here {
                listed.pids.push(pid);
            }
        }
        Ok(listed)
    }

    /// Remembers who holds the sockets with these inodes.
    fn find_owners(&mut self, wanted: &[u32]) -> Result<(), ObserveError> {
        let mut missing: BTreeSet<u32> = wanted.iter().copied().collect();
        missing.retain(|inode| !self.owners.contains_key(inode));
        let listed = self.list()?;
        // Whoever has most sockets most likely has these.
        let known = self.busiest.iter().filter(|pid| listed.pids.contains(pid));
        let others = listed.pids.iter().filter(|pid| !self.busiest.contains(pid));
        let mut left = MAX_SEARCHED;
        let mut found = Vec::new();
        for pid in known.chain(others) {
            if missing.is_empty() || left == 0 {
                break;
            }
            let (Some(stat), Ok(descriptors)) = (process_stat(*pid), Descriptors::open(*pid)) else {
                continue;
            };
            let process = Process {
                pid: *pid,
                start_ticks: stat.start_ticks,
            };
            left -= descriptors.each_socket(left, |inode| {
                if missing.remove(&inode) {
                    found.push((inode, process));
                }
                !missing.is_empty()
            });
        }
        for (inode, process) in found {
            if self.owners.len() < MAX_OWNERS {
                self.owners.insert(inode, process);
            }
        }
        Ok(())
    }

    /// Facts of the remembered owners that still live.
    fn owners_facts(&mut self) -> Vec<ProcessFacts> {
        let processes: BTreeMap<u32, u64> = self.owners.values().map(|p| (p.pid, p.start_ticks)).collect();
        processes
            .into_iter()
            .filter_map(|(pid, start)| {
                let facts = facts(pid, 0, &mut self.recogniser).ok().flatten();
                facts.filter(|f| f.start_ticks == start)
            })
            .collect()
    }

    fn table(&self, processes: Vec<ProcessFacts>) -> ProcessTable {
        ProcessTable {
            processes,
            owners: self.owners.iter().map(|(inode, p)| (*inode, p.pid)).collect(),
            unreadable: self.unreadable,
        }
    }
}

#[derive(Default)]
struct Listed {
    pids: Vec<u32>,
    seen: usize,
    left_out: u64,
}

impl Observer for Processes {
    fn source(&self) -> Source {
        Source::Processes
    }

    fn interval(&self) -> Span {
        Span::from_secs(60)
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let (at, began) = (clock::now(), clock::instant());
        let listed = self.list()?;
        let mut processes = Vec::new();
        let mut unreadable = 0;
        for pid in &listed.pids {
            match facts(*pid, FEW_DESCRIPTORS, &mut self.recogniser) {
                Ok(found) => processes.extend(found.filter(of_interest)),
                // Kernel threads hold no sockets.
                Err(Hidden) => {
                    let kernels = process_stat(*pid).is_none_or(|stat| stat.kernel_thread);
                    unreadable += u32::from(!kernels);
                }
            }
        }
        self.unreadable = unreadable;
        processes.sort_by_key(|p| (std::cmp::Reverse((near_limit(p), p.sockets)), p.pid));
        let left_out = processes.len().saturating_sub(MAX_REPORTED);
        processes.truncate(MAX_REPORTED);
        self.busiest = processes.iter().map(|p| p.pid).collect();
        let owners = self.owners_facts();
        self.owners
            .retain(|_, process| owners.iter().any(|o| o.pid == process.pid));
        for owner in owners {
            if !processes.iter().any(|p| p.pid == owner.pid) {
                processes.push(owner);
            }
        }
        emit.emit(at, began.elapsed(), Body::Processes(self.table(processes)));
        Ok(status(unreadable, holds_ptrace(), left_out, listed.left_out))
    }

    fn ask(&mut self, request: &Request, emit: &mut Emit<'_>) -> Result<(), ObserveError> {
        if let Request::OwnersOf(inodes) = request {
            let (at, began) = (clock::now(), clock::instant());
            self.find_owners(inodes)?;
            let owners = self.owners_facts();
            let table = self.table(owners);
            emit.emit(at, began.elapsed(), Body::Processes(table));
        }
        Ok(())
    }
}

fn holds_ptrace() -> bool {
    caps::effective().is_some_and(|held| held.iter().any(|name| name == "CAP_SYS_PTRACE"))
}

fn status(unreadable: u32, ptrace: bool, not_reported: usize, not_looked_at: u64) -> SourceStatus {
    let mut reasons = Vec::new();
    if unreadable > 0 {
        let why = if ptrace {
            "the system protects them even from CAP_SYS_PTRACE"
        } else {
            "needs CAP_SYS_PTRACE (or root)"
        };
        let whose = if unreadable == 1 { "process" } else { "processes" };
        reasons.push(format!(
            "the descriptors of {unreadable} {whose} cannot be read; {why}"
        ));
    }
    if not_reported > 0 {
        reasons.push(format!(
            "{not_reported} further processes with many sockets were left out"
        ));
    }
    if not_looked_at > 0 {
        reasons.push(format!(
            "{not_looked_at} processes beyond the first 65,536 were left out"
        ));
    }
    if reasons.is_empty() {
        SourceStatus::ok()
    } else {
        SourceStatus::degraded(reasons.join("; "))
    }
}

fn of_interest(process: &ProcessFacts) -> bool {
    process.sockets >= MANY_SOCKETS || near_limit(process)
}

/// Whether half the limit is in use.
fn near_limit(process: &ProcessFacts) -> bool {
    process
        .fd_limit
        .is_some_and(|limit| u64::from(process.fds) * 2 >= limit)
}

/// The process's descriptors may not be looked at.
struct Hidden;

/// Facts of a process that has at least `least` descriptors and has not just ended.
fn facts(pid: u32, least: u32, recogniser: &mut Recogniser) -> Result<Option<ProcessFacts>, Hidden> {
    let descriptors = match Descriptors::open(pid) {
        Ok(descriptors) => descriptors,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(Hidden),
        Err(_) => return Ok(None),
    };
    let fds = descriptors.count();
    if fds < least {
        return Ok(None);
    }
    if !descriptors.readable() {
        return Err(Hidden);
    }
    Ok(facts_of(pid, &descriptors, fds, recogniser))
}

fn facts_of(
    pid: u32,
    descriptors: &Descriptors,
    fds: u32,
    recogniser: &mut Recogniser,
) -> Option<ProcessFacts> {
    let stat = process_stat(pid)?;
    let comm = read(pid, "comm")?.trim_end().to_owned();
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"))
        .ok()
        .map(|path| path.to_string_lossy().into_owned());
    let limits = read(pid, "limits").unwrap_or_default();
    Some(ProcessFacts {
        pid,
        start_ticks: stat.start_ticks,
        runtime: recogniser
            .runtime(pid, stat.start_ticks, exe.as_deref().unwrap_or_default(), &comm)
            .map(str::to_owned),
        comm,
        exe,
        fds,
        sockets: descriptors.sockets(fds),
        fd_limit: procfs::open_files_limit(&limits),
    })
}

fn process_stat(pid: u32) -> Option<ProcessStat> {
    procfs::process_stat(&read(pid, "stat")?)
}

fn inode(path: &str) -> Option<u64> {
    std::fs::metadata(path).ok().map(|m| m.ino())
}

fn read(pid: u32, file: &str) -> Option<String> {
    // A process may call itself by bytes that are no text.
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;

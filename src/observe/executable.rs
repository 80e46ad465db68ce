//! Which runtime a process is: by its names, else by what its executable was built with, else by what it has loaded.
//!
//! In: a process. Out: a runtime's short name. Costs: nothing where the name tells; else five reads of the executable
//! (some 20 µs), once for each file, and one of the process's memory map, once for each process. Bounds: 1,024 files and as
//! many processes remembered; at the bound all are forgotten and read anew when asked for.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::wire::elf;
use crate::wire::runtime_name::{runtime_by_libraries, runtime_of};

const MAX_KNOWN: usize = 1024;

/// As much of a memory map is read; a JVM's has a few thousand lines of some 100 bytes.
const MAX_MAP: u64 = 256 * 1024;

/// A file as it was when it was read: device, inode, size, change time.
type Identity = (u64, u64, u64, i64);

/// Recognises runtimes, each executable once.
#[derive(Debug, Default)]
pub struct Recogniser {
    files: HashMap<Identity, Option<&'static str>>,
    processes: HashMap<(u32, u64), Option<&'static str>>,
}

impl Recogniser {
    /// The runtime of process `pid`, started at `start_ticks`, with executable `exe` and name `comm`.
    pub fn runtime(&mut self, pid: u32, start_ticks: u64, exe: &str, comm: &str) -> Option<&'static str> {
        runtime_of(exe, comm)
            .or_else(|| self.by_file(pid))
            .or_else(|| self.by_libraries(pid, start_ticks))
    }

    fn by_file(&mut self, pid: u32) -> Option<&'static str> {
        let file = File::open(format!("/proc/{pid}/exe")).ok()?;
        let about = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let identity = (about.dev(), about.ino(), about.len(), about.ctime());
        let read = |at: u64, length: usize| {
            let mut bytes = vec![0; length];
            let mut filled = 0;
            while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
                match file.read_at(room, at.checked_add(filled as u64)?).ok()? {
                    0 => break,
                    more => filled += more,
                }
            }
            bytes.truncate(filled);
            Some(bytes)
        };
        remember(&mut self.files, identity, || elf::runtime_of(read))
    }

    fn by_libraries(&mut self, pid: u32, start_ticks: u64) -> Option<&'static str> {
        remember(&mut self.processes, (pid, start_ticks), || {
            let file = File::open(format!("/proc/{pid}/maps")).ok()?;
            let mut bytes = Vec::new();
            file.take(MAX_MAP).read_to_end(&mut bytes).ok()?;
            runtime_by_libraries(&String::from_utf8_lossy(&bytes))
        })
    }
}

fn remember<K: std::hash::Hash + Eq>(
    known: &mut HashMap<K, Option<&'static str>>,
    key: K,
    find: impl FnOnce() -> Option<&'static str>,
) -> Option<&'static str> {
    if known.len() >= MAX_KNOWN && !known.contains_key(&key) {
        known.clear();
    }
    *known.entry(key).or_insert_with(find)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_first_and_the_file_tells_the_rest() {
        let mut recogniser = Recogniser::default();
        let me = std::process::id();
        assert_eq!(recogniser.runtime(me, 1, "/usr/bin/node", "x"), Some("node"));
        assert!(
            recogniser.files.is_empty(),
            "the file is not read where the name tells"
        );
        assert_eq!(recogniser.runtime(me, 1, "/opt/server", "server"), Some("rust"));
        assert_eq!(recogniser.runtime(me, 1, "/opt/server", "server"), Some("rust"));
        assert_eq!((recogniser.files.len(), recogniser.processes.len()), (1, 0));
    }

    #[test]
    fn what_cannot_be_read_is_not_recognised_and_what_is_remembered_is_bounded() {
        let mut recogniser = Recogniser::default();
        for start in 0..3000 {
            assert_eq!(recogniser.runtime(u32::MAX, start, "", ""), None);
        }
        assert!(recogniser.processes.len() <= MAX_KNOWN);
    }
}

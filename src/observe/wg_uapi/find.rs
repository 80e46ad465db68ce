//! Where UAPI sockets are: in the usual directories, and in those of mount namespaces that we do not see directly.
//!
//! A socket is a file, and files do not belong to network namespaces: the usual directory may list devices of any
//! namespace, and a container's own directory is reached only through `/proc/PID/root`. The latter is searched only
//! while the observed namespace has a TUN interface that no known socket explains, and then at most every 30 s.
//!
//! Bounds: 256 sockets, 32 further directories, 32,768 processes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::netns;

const MAX_SOCKETS: usize = 256;
const MAX_PLACES: usize = 32;
const MAX_PROCESSES: usize = 32_768;
const RESCAN_AFTER: Duration = Duration::from_secs(30);

/// A socket file that by its name is a device's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub path: PathBuf,
    /// The device's name.
    pub device: String,
    id: (u64, u64),
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Search {
    /// Sockets, each once however many ways lead to it.
    pub candidates: Vec<Candidate>,
    /// Directories that may not be read.
    pub denied: Vec<PathBuf>,
    /// Sockets beyond the bound.
    pub left_out: u64,
}

/// Looks for sockets.
#[derive(Debug)]
pub struct Finder {
    usual: Vec<PathBuf>,
    further: Vec<PathBuf>,
    unexplained: BTreeSet<String>,
    scanned: Option<Instant>,
}

impl Finder {
    /// With the directories to look into first.
    pub fn new(usual: Vec<PathBuf>) -> Self {
        Self {
            usual,
            further: Vec::new(),
            unexplained: BTreeSet::new(),
            scanned: None,
        }
    }

    /// Lists the sockets in all known directories.
    pub fn search(&self) -> Search {
        let mut search = Search::default();
        for place in self.usual.iter().chain(&self.further) {
            search.list(place);
        }
        search
    }

    /// Looks for further directories where interfaces in `unexplained` call for it. True if some are now known.
    pub fn widen(&mut self, unexplained: BTreeSet<String>, now: Instant) -> bool {
        if unexplained.is_empty() {
            return false;
        }
        let recent = self
            .scanned
            .is_some_and(|then| now.saturating_duration_since(then) < RESCAN_AFTER);
        // A further directory goes with the process through which it was reached.
        let all_there = self.further.iter().all(|place| place.is_dir());
        if recent && all_there && unexplained == self.unexplained {
            return false;
        }
        self.scanned = Some(now);
        self.unexplained = unexplained;
        self.further = further_places();
        !self.further.is_empty()
    }
}

impl Search {
    fn list(&mut self, place: &Path) {
        let entries = match std::fs::read_dir(place) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() == ErrorKind::PermissionDenied {
                    self.denied.push(place.to_owned());
                }
                return;
            }
        };
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(device) = file.to_str().and_then(|name| name.strip_suffix(".sock")) else {
                continue;
            };
            let Ok(metadata) = entry.metadata() else { continue };
            let id = (metadata.dev(), metadata.ino());
            if !metadata.file_type().is_socket() || self.candidates.iter().any(|c| c.id == id) {
                continue;
            }
            if self.candidates.len() >= MAX_SOCKETS {
                self.left_out += 1;
                continue;
            }
            self.candidates.push(Candidate {
                path: entry.path(),
                device: device.to_owned(),
                id,
            });
        }
    }
}

/// The socket directories of processes that live in this network namespace but in other mount namespaces.
fn further_places() -> Vec<PathBuf> {
    let Some(here) = netns::current() else {
        return Vec::new();
    };
    let inode = |path: &str| std::fs::metadata(path).ok().map(|m| m.ino());
    let mut seen: BTreeSet<u64> = inode("/proc/thread-self/ns/mnt").into_iter().collect();
    let mut places = Vec::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.take(MAX_PROCESSES) {
        if netns::of_process(pid) != Some(here) {
            continue;
        }
        match inode(&format!("/proc/{pid}/ns/mnt")) {
            Some(mounts) if seen.insert(mounts) => {}
            _ => continue,
        }
        for run in ["run", "var/run"] {
            let place = PathBuf::from(format!("/proc/{pid}/root/{run}/wireguard"));
            if place.is_dir() {
                places.push(place);
            }
        }
        if places.len() >= MAX_PLACES {
            break;
        }
    }
    places
}

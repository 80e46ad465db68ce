//! Network namespaces: finding one by name, path or pid, or all of them, and entering one with the calling thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::types::NetnsId;

/// Why a namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// No such name, path or process.
    #[error("network namespace {name:?}: cannot open {} (expected a name from `ip netns list`, a path or a process id)", path.display())]
    Open {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Not allowed, or not a namespace.
    #[error(
        "network namespace {name:?}: cannot enter it (needs CAP_SYS_ADMIN, and {name:?} must be a network namespace)"
    )]
    Enter {
        /// What was asked for.
        name: String,
        /// The kernel's answer.
        source: nix::Error,
    },
}

impl NetnsError {
    /// Whether it is not allowed, rather than not there.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    /// Opens `name`: a process id (digits only), a path (with a slash), or a name as `ip netns` has it.
    pub fn open(name: &str) -> Result<Self, NetnsError> {
        let path = if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
            PathBuf::from(format!("/proc/{name}/ns/net"))
        } else if name.contains('/') {
            PathBuf::from(name)
        } else {
            PathBuf::from("/run/netns").join(name)
        };
        match File::open(&path) {
            Ok(file) => Ok(Self {
                name: name.to_owned(),
                file,
            }),
            Err(source) => Err(NetnsError::Open {
                name: name.to_owned(),
                path,
                source,
            }),
        }
    }

    /// Which it is.
    pub fn id(&self) -> Option<NetnsId> {
        self.file.metadata().ok().map(|m| NetnsId(m.ino()))
    }

    /// Moves the calling thread into it. Threads that it starts afterwards are there too.
    pub fn enter(&self) -> Result<(), NetnsError> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|source| NetnsError::Enter {
            name: self.name.clone(),
            source,
        })
    }
}

/// The calling thread's network namespace.
pub fn current() -> Option<NetnsId> {
    std::fs::metadata("/proc/thread-self/ns/net")
        .ok()
        .map(|m| NetnsId(m.ino()))
}

/// The network namespace that the file `path` stands for, where readable.
pub fn id_of(path: &Path) -> Option<NetnsId> {
    std::fs::metadata(path).ok().map(|m| NetnsId(m.ino()))
}

/// A network namespace of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Which it is.
    pub id: NetnsId,
    /// Its name as `ip netns` has it, or a process in it: `pid 812 (node)`.
    pub name: String,
    /// Where it can be opened.
    pub path: PathBuf,
}

impl Listed {
    /// As shell commands take it: the name of `ip netns`, else the path.
    pub fn shell_name(&self) -> String {
        match self.path.parent() == Some(Path::new(NAMED)) {
            true => self.name.clone(),
            false => self.path.to_string_lossy().into_owned(),
        }
    }
}

/// The network namespaces that could be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// All but the calling thread's own, by name; bounded.
    pub found: Vec<Listed>,
    /// How many did not fit.
    pub left_out: usize,
    /// Processes whose namespace could not be read.
    pub unreadable: usize,
}

/// Where `ip netns` keeps its names.
const NAMED: &str = "/run/netns";
/// Where containers' engines keep theirs, beside it.
const OTHERS: [&str; 1] = ["/run/docker/netns"];

/// Every network namespace that has a name, or a process in it, but the calling thread's own: at most `limit`.
pub fn list(limit: usize) -> Listing {
    let own = current();
    // Names lie on the kernel's file system of namespaces; a name whose namespace is gone is an empty file elsewhere.
    let device = std::fs::metadata("/proc/thread-self/ns/net")
        .ok()
        .map(|m| m.dev());
    let mut all: BTreeMap<NetnsId, Listed> = BTreeMap::new();
    let mut add = |path: PathBuf, name: &dyn Fn() -> String| -> io::Result<()> {
        let metadata = std::fs::metadata(&path)?;
        let id = NetnsId(metadata.ino());
        if Some(metadata.dev()) == device && Some(id) != own {
            all.entry(id).or_insert_with(|| Listed {
                id,
                name: name(),
                path,
            });
        }
        Ok(())
    };
    for directory in std::iter::once(NAMED).chain(OTHERS) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            // One that vanished meanwhile is not there.
            let _ = add(entry.path(), &|| entry.file_name().to_string_lossy().into_owned());
        }
    }
    let mut unreadable = 0;
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let added = add(entry.path().join("ns/net"), &|| {
            let comm = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            format!("pid {pid} ({})", comm.trim_end())
        });
        unreadable += usize::from(added.is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied));
    }
    let mut found: Vec<Listed> = all.into_values().collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let left_out = found.len().saturating_sub(limit);
    found.truncate(limit);
    Listing {
        found,
        left_out,
        unreadable,
    }
}

/// The network namespace of process `pid`, where readable.
pub fn of_process(pid: u32) -> Option<NetnsId> {
    std::fs::metadata(format!("/proc/{pid}/ns/net"))
        .ok()
        .map(|m| NetnsId(m.ino()))
}

//! Network namespaces: finding one by name, path or pid, and entering it with the calling thread.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

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
pub fn id_of(path: &std::path::Path) -> Option<NetnsId> {
    std::fs::metadata(path).ok().map(|m| NetnsId(m.ino()))
}

/// The network namespace of process `pid`, where readable.
pub fn of_process(pid: u32) -> Option<NetnsId> {
    std::fs::metadata(format!("/proc/{pid}/ns/net"))
        .ok()
        .map(|m| NetnsId(m.ino()))
}

//! Removing what labs leave: their own things at the end, and those of labs that were killed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the names of all namespaces and directories of labs begin with; the owner's pid follows.
pub const PREFIX: &str = "wgnat-";

/// Removes namespaces, processes and directories of labs whose test process no longer exists.
pub fn sweep_dead() {
    let dead: Vec<String> = namespaces()
        .into_iter()
        .filter(|name| owner_is_dead(name))
        .collect();
    remove_namespaces(&dead);
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        if owner_is_dead(&entry.file_name().to_string_lossy()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The names of all network namespaces of the machine.
pub fn namespaces() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Kills what runs in these namespaces, then deletes them. Never panics: it runs in `Drop`.
pub fn remove_namespaces(names: &[String]) {
    let inodes: Vec<u64> = names.iter().filter_map(|name| inode(&path(name))).collect();
    for pid in processes_in(&inodes) {
        // SAFETY: kill takes two numbers and touches no memory.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    for name in names {
        // Another lab may have swept the same name a moment ago, so failure says nothing.
        let mut delete = Command::new("ip");
        delete.args(["netns", "delete", name]).stderr(Stdio::null());
        let _ = delete.status();
    }
}

/// The processes whose network namespace has one of these inode numbers.
pub fn processes_in(inodes: &[u64]) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| inode(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|i| inodes.contains(&i)))
        .collect()
}

/// The inode number of a namespace, by a file that stands for it.
pub fn inode(file: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).ok().map(|m| m.ino())
}

/// Where the named network namespace is mounted.
pub fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// True of `wgnat-<pid>-<number>…` when there is no process `<pid>`.
fn owner_is_dead(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else {
        return false;
    };
    let mut parts = rest.split('-');
    let (Some(pid), Some(number)) = (parts.next(), parts.next()) else {
        return false;
    };
    let ours = pid.parse::<u32>().is_ok() && number.parse::<u32>().is_ok();
    ours && !Path::new("/proc").join(pid).exists()
}

//! Faults inside a running process: what it has opened breaks, or it can open nothing more. The process is not changed
//! otherwise, and does not know.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;

use super::exec;

/// A netlink port at which nobody is.
const NOBODY: u32 = 0x7fff_fff7;

/// Lowers the process's soft limit of open files so that it can open no more, whatever it has open; [`OpenFiles::lift`] ends it.
#[derive(Debug)]
pub struct OpenFiles {
    pid: u32,
    before: libc::rlimit,
}

impl OpenFiles {
    /// From now on.
    #[track_caller]
    pub fn none_more(pid: u32) -> Self {
        // The numbers of standard input, output and error are taken: there is none below this.
        let before = limit(pid, None);
        let none = libc::rlimit {
            rlim_cur: 3,
            ..before
        };
        limit(pid, Some(none));
        Self { pid, before }
    }

    /// As before.
    pub fn lift(self) {
        limit(self.pid, Some(self.before));
    }
}

#[track_caller]
fn limit(pid: u32, new: Option<libc::rlimit>) -> libc::rlimit {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are null or to a structure that outlives the call.
    let done = unsafe { libc::prlimit(pid.cast_signed(), libc::RLIMIT_NOFILE, new, &raw mut old) };
    assert_eq!(done, 0, "prlimit of {pid}: {}", io::Error::last_os_error());
    old
}

/// Turns the netlink sockets of `protocol` that the process `pid` has open away from the kernel: whatever it sends by them is
/// refused (ECONNREFUSED), until it opens others. Says how many they were.
#[track_caller]
pub fn deafen_netlink(pid: u32, protocol: isize) -> usize {
    // SAFETY: the call takes and gives numbers; the descriptor is this process's own then.
    let process = unsafe { own(libc::syscall(libc::SYS_pidfd_open, pid, 0)) }
        .unwrap_or_else(|e| panic!("pidfd_open of {pid}: {e}"));
    let numbers = netlink_sockets(pid, protocol);
    for number in &numbers {
        // SAFETY: as above.
        let socket = unsafe {
            own(libc::syscall(
                libc::SYS_pidfd_getfd,
                process.as_raw_fd(),
                *number,
                0,
            ))
        }
        .unwrap_or_else(|e| panic!("pidfd_getfd of {pid}: {e}"));
        turn_away(&socket).unwrap_or_else(|e| panic!("connect: {e}"));
    }
    numbers.len()
}

/// # Safety
/// `number` must be a system call's result that is an error or a descriptor that nobody owns.
unsafe fn own(number: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(number) {
        // SAFETY: the caller's word.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn turn_away(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: all zeroes are a valid address.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).expect("a small number");
    address.nl_pid = NOBODY;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).expect("a few bytes");
    // SAFETY: the pointer is to an address of that length.
    let done = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The descriptors' numbers.
fn netlink_sockets(pid: u32, protocol: isize) -> Vec<i32> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap();
    let protocol = protocol.to_string();
    let inodes: Vec<String> = table
        .lines()
        .skip(1)
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns.get(1) == Some(&protocol.as_str()))
        .filter_map(|columns| columns.last().map(|inode| format!("socket:[{inode}]")))
        .collect();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    open.flatten()
        .filter(|entry| {
            std::fs::read_link(entry.path())
                .is_ok_and(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Stops a process where it stands, or lets it go on (SIGSTOP, SIGCONT): its sockets stay open, and nobody serves them.
pub fn freeze(pid: u32, frozen: bool) {
    let mut kill = Command::new("kill");
    kill.args([if frozen { "-STOP" } else { "-CONT" }, &pid.to_string()]);
    exec::run(kill);
}

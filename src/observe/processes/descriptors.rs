//! The descriptors of one process: how many, how many of them sockets, and which sockets.
//!
//! What costs is the kernel's look-up of `/proc/PID/fd/N` (2.5 µs each, whether by stat or by readlink; counting all
//! is one stat since Linux 6.2, else 0.8 µs each). So small processes are counted exactly and large ones sampled.

use std::fs::File;
use std::os::fd::AsFd;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

use crate::wire::procfs;

/// Up to this many descriptors are counted one by one.
const COUNTED: u32 = 4096;
/// Of more than that, this many numbers are tried.
const SAMPLES: u32 = 2048;

/// An open `/proc/PID/fd`.
pub struct Descriptors {
    directory: File,
    pid: u32,
}

impl Descriptors {
    /// Opens that of process `pid`. Needs CAP_SYS_PTRACE for the processes of other users.
    pub fn open(pid: u32) -> std::io::Result<Self> {
        let directory = File::open(format!("/proc/{pid}/fd"))?;
        Ok(Self { directory, pid })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        // Since Linux 6.2 the directory's size is their number (fs/proc/fd.c, proc_fd_getattr).
        let size = fstat(self.directory.as_fd()).map_or(0, |stat| stat.st_size);
        match u32::try_from(size) {
            Ok(0) | Err(_) => self.numbers(|_| true),
            Ok(count) => count,
        }
    }

    /// Whether the descriptors themselves may be looked up: the system may allow the list and refuse what it leads to.
    pub fn readable(&self) -> bool {
        let mut readable = true;
        self.numbers(|number| {
            let denied = matches!(self.stat(number), Err(Errno::EACCES | Errno::EPERM));
            readable = !denied;
            false
        });
        readable
    }

    /// How many of `count` are sockets: exact up to 4,096, beyond that from an even sample of the table's numbers.
    pub fn sockets(&self, count: u32) -> u32 {
        if count > COUNTED {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
            let table = procfs::descriptor_table_size(&status).unwrap_or(count).max(count);
            return estimate(count, table, |number| self.look_up(number));
        }
        let mut sockets = 0;
        self.each_socket(u32::MAX, |_| {
            sockets += 1;
            true
        });
        sockets
    }

    /// Hands each socket's inode to `each` until it returns false, looking at no more than `most` descriptors. Returns
    /// how many were looked at.
    pub fn each_socket(&self, most: u32, mut each: impl FnMut(u32) -> bool) -> u32 {
        let mut looked = 0;
        self.numbers(|number| {
            if looked == most {
                return false;
            }
            looked += 1;
            match self.look_up(number) {
                Some(Kind::Socket(inode)) => each(inode),
                _ => true,
            }
        });
        looked
    }

    /// Hands each descriptor's number to `each` until it returns false; returns how many were handed over.
    fn numbers(&self, mut each: impl FnMut(u32) -> bool) -> u32 {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut directory) = Dir::openat(self.directory.as_fd(), ".", flags, Mode::empty()) else {
            return 0;
        };
        let mut seen = 0;
        for entry in directory.iter().flatten() {
            let Some(number) = entry.file_name().to_str().ok().and_then(|n| n.parse().ok()) else {
                continue; // "." and ".."
            };
            seen += 1;
            if !each(number) {
                break;
            }
        }
        seen
    }

    fn stat(&self, number: u32) -> nix::Result<FileStat> {
        let mut text = [0u8; 10];
        fstatat(
            self.directory.as_fd(),
            decimal(number, &mut text),
            AtFlags::empty(),
        )
    }

    fn look_up(&self, number: u32) -> Option<Kind> {
        let stat = self.stat(number).ok()?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        Some(match u32::try_from(stat.st_ino) {
            // A socket's inode number is the one that sock_diag tells.
            Ok(inode) if kind == SFlag::S_IFSOCK => Kind::Socket(inode),
            _ => Kind::Other,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Socket(u32),
    Other,
}

/// `number` in decimal, without an allocation.
fn decimal(mut number: u32, text: &mut [u8; 10]) -> &str {
    let mut start = text.len();
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        start -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.get(start..)
        .and_then(|t| std::str::from_utf8(t).ok())
        .unwrap_or_default()
}

/// Sockets among `count` descriptors, by trying numbers spread evenly over a table with room for `table`.
fn estimate(count: u32, table: u32, look_up: impl Fn(u32) -> Option<Kind>) -> u32 {
    let (mut there, mut sockets) = (0u64, 0u64);
    for sample in 0..u64::from(SAMPLES) {
        let number = sample * u64::from(table) / u64::from(SAMPLES);
        match u32::try_from(number).ok().and_then(&look_up) {
            Some(Kind::Socket(_)) => (there, sockets) = (there + 1, sockets + 1),
            Some(Kind::Other) => there += 1,
            None => {}
        }
    }
    let estimate = (u64::from(count) * sockets).checked_div(there).unwrap_or(0);
    u32::try_from(estimate).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn numbers_as_text() {
        for number in [0, 7, 10, 4096, 1_000_000, u32::MAX] {
            assert_eq!(decimal(number, &mut [0; 10]), number.to_string());
        }
    }

    #[test]
    fn a_large_process_is_estimated_from_a_sample() {
        // The lower three quarters of the numbers are sockets, the table is twice as large as it need be.
        let look_up = |number| match number {
            0..75_000 => Some(Kind::Socket(number)),
            75_000..100_000 => Some(Kind::Other),
            _ => None,
        };
        let sockets = estimate(100_000, 200_000, look_up);
        assert!((74_000..76_000).contains(&sockets), "{sockets}");
        assert_eq!(estimate(5000, 8192, |_| None), 0);
    }

    #[test]
    fn this_process() {
        let held: Vec<UdpSocket> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let expected: Vec<u32> = held
            .iter()
            .map(|socket| {
                let file = File::from(socket.as_fd().try_clone_to_owned().unwrap());
                u32::try_from(file.metadata().unwrap().ino()).unwrap()
            })
            .collect();
        let descriptors = Descriptors::open(std::process::id()).unwrap();
        assert!(descriptors.count() >= 23 && descriptors.readable());
        assert!(descriptors.sockets(descriptors.count()) >= 20);
        let mut inodes = Vec::new();
        descriptors.each_socket(u32::MAX, |inode| {
            inodes.push(inode);
            true
        });
        assert!(expected.iter().all(|inode| inodes.contains(inode)));
        let mut calls = 0;
        let looked = descriptors.each_socket(5, |_| {
            calls += 1;
            true
        });
        assert!(looked == 5 && calls <= 5);
        assert!(Descriptors::open(u32::MAX).is_err());
    }
}

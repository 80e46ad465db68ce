//! What the kernel's WireGuard says of its reasons, in the kernel's log.
//!
//! Needs: CAP_SYSLOG where `kernel.dmesg_restrict` is set, and debug lines that somebody has switched on (`module wireguard
//! +p` in dynamic debug): this observer only reads, and switches nothing. Costs: one read a second where nothing is said.
//! The log is the machine's, not the namespace's: lines are matched by device and endpoint.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{Emit, ObserveError, Observer};
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::time::Span;
use crate::wire::kmsg;

/// No record is longer (`CONSOLE_EXT_LOG_MAX`, and its dictionary).
const RECORD: usize = 8192;
/// Records that one look reads at most.
const A_LOOK: usize = 2_000;
/// WireGuard's lines that one look emits at most; further ones say the same.
const LINES: usize = 200;

/// The observer.
pub struct KernelLog {
    log: Option<File>,
    buffer: Box<[u8]>,
    /// Records that the kernel overwrote before they were read.
    lost: u64,
}

impl KernelLog {
    /// Opens the log at its end. Where the kernel has no WireGuard there is nothing to read.
    pub fn open() -> Result<Self, ObserveError> {
        let log = match Path::new("/sys/module/wireguard").exists() {
            true => Some(open_log()?),
            false => None,
        };
        Ok(Self {
            log,
            buffer: vec![0; RECORD].into_boxed_slice(),
            lost: 0,
        })
    }
}

fn open_log() -> Result<File, ObserveError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/kmsg");
    let at_end = opened.and_then(|mut log| log.seek(SeekFrom::End(0)).map(|_| log));
    at_end.map_err(|source| match source.kind() {
        ErrorKind::PermissionDenied => ObserveError::Denied {
            doing: "reading the kernel's log (/dev/kmsg) for WireGuard's reasons",
            needs: "CAP_SYSLOG",
        },
        ErrorKind::NotFound => ObserveError::Absent {
            what: "there is no /dev/kmsg here: the kernel's reasons stay unread".to_owned(),
        },
        _ => ObserveError::System {
            doing: "opening /dev/kmsg".to_owned(),
            source,
        },
    })
}

impl Observer for KernelLog {
    fn source(&self) -> Source {
        Source::KernelLog
    }

    fn interval(&self) -> Span {
        Span::from_secs(1)
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let Some(log) = &mut self.log else {
            return Ok(SourceStatus {
                reason: Some("this kernel's WireGuard is not loaded, so it says nothing".to_owned()),
                ..SourceStatus::ok()
            });
        };
        let mut emitted = 0;
        for _ in 0..A_LOOK {
            let read = match log.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => break,
                    Some(libc::EPIPE) => {
                        self.lost += 1;
                        continue;
                    }
                    Some(libc::EINTR) => continue,
                    _ => {
                        return Err(ObserveError::System {
                            doing: "reading /dev/kmsg".to_owned(),
                            source: error,
                        });
                    }
                },
            };
            let record = String::from_utf8_lossy(self.buffer.get(..read).unwrap_or_default());
            if let Some(line) = kmsg::parse(&record)
                && emitted < LINES
            {
                emitted += 1;
                emit.emit(clock::now(), Span::ZERO, Body::KernelLine(line));
            }
        }
        Ok(SourceStatus {
            lost: self.lost,
            ..SourceStatus::ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::testing::look;

    #[test]
    fn it_reads_to_the_end_and_says_nothing_of_others() {
        // Where there is a log: its end at once; what others say of other things is passed over.
        let log = open_log().ok();
        let mut observer = KernelLog {
            log,
            buffer: vec![0; RECORD].into_boxed_slice(),
            lost: 0,
        };
        let (bodies, status) = look(&mut observer);
        assert!(bodies.iter().all(|b| matches!(b, Body::KernelLine(_))));
        assert!(status.is_ok());
    }
}

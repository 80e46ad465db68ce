//! Files that the user names: read with a bound, and not waited for without end.
//!
//! In: a path, to a file, a pipe or anything else. Out: its bytes. Why not `std::fs` alone: opening a fifo that nobody
//! writes to blocks for ever, a device has no end, and a text that grows while it is read leaves copies of its keys behind.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::{Zeroize, Zeroizing};

/// Each piece of a pipe must come within this: longer than a whole look, whose record may be on its way through it.
const PATIENCE_SECONDS: u16 = 60;

/// An open file or pipe.
#[derive(Debug)]
pub struct Input {
    file: File,
    /// How long to wait for a piece, in milliseconds.
    patience: u16,
}

impl Input {
    /// Opens `path` at once, whatever it is.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        if file.metadata()?.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        Ok(Self {
            file,
            patience: PATIENCE_SECONDS * 1000,
        })
    }

    /// Waits until there is something to read, or the end.
    fn wait(&self) -> io::Result<()> {
        loop {
            // A fifo that was never written to is neither readable nor at its end; a regular file always is one.
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(self.patience)) {
                Ok(0) => {
                    let text = format!("nothing came for {} s", self.patience / 1000);
                    return Err(io::Error::new(ErrorKind::TimedOut, text));
                }
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait()?;
            match self.file.read(buffer) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                other => return other,
            }
        }
    }
}

/// The text at `path`, of at most `limit` bytes. It never moves while it is read and is wiped in the end, for it may hold keys.
pub fn text(path: &Path, limit: usize) -> io::Result<Zeroizing<String>> {
    bounded(Input::open(path)?, limit)
}

fn bounded(mut input: impl Read, limit: usize) -> io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(vec![0; limit.saturating_add(1)]);
    let mut filled = 0;
    loop {
        let room = bytes.get_mut(filled..).unwrap_or_default();
        if room.is_empty() {
            let text = format!("larger than {limit} bytes");
            return Err(io::Error::new(ErrorKind::FileTooLarge, text));
        }
        match input.read(room)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            Err(io::Error::new(ErrorKind::InvalidData, "not a text (UTF-8)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn what_has_no_end_is_refused_at_the_bound() {
        let error = text(Path::new("/dev/zero"), 100).unwrap_err();
        assert_eq!(error.to_string(), "larger than 100 bytes");
        assert!(bounded(&b"12345"[..], 4).is_err());
        assert_eq!(*bounded(&b"1234"[..], 4).unwrap(), "1234");
        assert_eq!(*text(Path::new("/dev/null"), 4).unwrap(), "");
    }

    #[test]
    fn the_text_is_never_moved_to_a_larger_place() {
        let text = bounded(&b"PrivateKey"[..], 1000).unwrap();
        assert_eq!(text.capacity(), 1001, "it was allocated once");
    }

    #[test]
    fn a_silent_pipe_ends_in_an_error_and_a_written_one_is_read() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut input = Input {
            file: OwnedFd::from(reader).into(),
            patience: 1,
        };
        let mut piece = [0; 4];
        assert_eq!(
            input.read(&mut piece).map_err(|e| e.kind()),
            Err(ErrorKind::TimedOut)
        );
        writer.write_all(b"ab").unwrap();
        drop(writer);
        assert_eq!(*bounded(input, 10).unwrap(), "ab");
    }

    #[test]
    fn a_directory_is_said_to_be_one() {
        let error = Input::open(Path::new("/")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
    }
}

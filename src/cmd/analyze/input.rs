//! Capture files as a command opens them: files, pipes and standard input, several merged by time.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::feed::Feed;
use crate::observation::log;
use crate::observe::capture_file::{CaptureFile, CaptureFileError, Ending};
use crate::time::Timestamp;

/// How long a pipe without data keeps an interruption waiting.
const PATIENCE_MILLIS: u16 = 100;
/// A file that ends when the user interrupts.
pub struct Source {
    file: File,
    is_regular: bool,
    stop: Arc<AtomicBool>,
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(0);
            }
            if self.is_regular {
                return self.file.read(out);
            }
            let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(PATIENCE_MILLIS)) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return self.file.read(out),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// One input.
pub struct Input {
    /// As the user named it.
    pub name: String,
    /// Its reader.
    pub capture: CaptureFile<Source>,
    /// How it ended, once it has.
    pub ended: Option<Result<Ending, CaptureFileError>>,
    /// A second reading would give the same.
    pub is_regular: bool,
    /// It is a record of `doctor --record`, to be read by this.
    pub record: Option<Record>,
}

/// A record, and what was wrong with it once it was read.
pub struct Record {
    file: File,
    /// How far it was read, in bytes.
    pub bytes: u64,
    /// Why it is not whole.
    pub problem: Option<String>,
}

/// Opens `path`; `-` is standard input.
pub fn open(path: &Path, stop: &Arc<AtomicBool>) -> anyhow::Result<Input> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let path = if is_stdin {
        PathBuf::from("/dev/stdin")
    } else {
        path.to_owned()
    };
    let file = File::open(&path).with_context(|| format!("cannot open the capture file {name}"))?;
    let about = file
        .metadata()
        .with_context(|| format!("cannot look at {name}"))?;
    anyhow::ensure!(
        !about.is_dir(),
        "{name} is a directory: name the capture files in it"
    );
    let is_regular = about.is_file();
    let mut first = [0];
    // No capture file begins with a brace, and every record does.
    let is_record = is_regular && file.read_at(&mut first, 0).is_ok_and(|n| n == 1) && first == *b"{";
    let record = if is_record {
        let file = file.try_clone().with_context(|| format!("cannot read {name}"))?;
        Some(Record {
            file,
            bytes: about.len(),
            problem: None,
        })
    } else {
        None
    };
    let source = Source {
        file,
        is_regular,
        stop: Arc::clone(stop),
    };
    Ok(Input {
        name,
        capture: CaptureFile::new(source),
        ended: None,
        is_regular,
        record,
    })
}

impl Input {
    /// Reads this one alone to its end.
    pub fn read(&mut self, feed: &mut Feed) {
        match &mut self.record {
            Some(record) => record.read(feed),
            None => {
                let end = self.capture.read(|packet| {
                    feed.packet(&packet);
                    std::ops::ControlFlow::Continue(())
                });
                self.ended = Some(end);
            }
        }
    }
}

impl Record {
    fn read(&mut self, feed: &mut Feed) {
        let mut last = None;
        let read = log::read(
            BufReader::new(&self.file),
            |_| {},
            |observation| {
                last = Some(observation.at);
                feed.recorded(observation);
            },
        );
        match read {
            Ok((header, end)) => {
                let until = end.or(last).unwrap_or(header.started);
                feed.recorded_until(header.started, until);
                if end.is_none() {
                    self.problem = Some("cut at its end: its last line is missing".to_owned());
                }
            }
            Err(error) => self.problem = Some(error.to_string()),
        }
    }
}

/// Reads all inputs to their end, packets in the order of their time.
pub fn read(inputs: &mut [Input], feed: &mut Feed) {
    match inputs {
        [one] => one.read(feed),
        several => merge(several, feed),
    }
}

fn merge(inputs: &mut [Input], feed: &mut Feed) {
    let mut next: Vec<Option<Timestamp>> = inputs.iter_mut().map(advance).collect();
    // A handful of files: looking at each one's head is cheaper than keeping a heap of them.
    while let Some((place, _)) = next
        .iter()
        .enumerate()
        .filter_map(|(n, at)| Some((n, (*at)?)))
        .min_by_key(|(_, at)| *at)
    {
        let Some(input) = inputs.get_mut(place) else {
            return;
        };
        if let Some(packet) = input.capture.current() {
            feed.packet(&packet);
        }
        let at = advance(input);
        if let Some(slot) = next.get_mut(place) {
            *slot = at;
        }
    }
}

/// Goes to an input's next packet and says when that passed.
fn advance(input: &mut Input) -> Option<Timestamp> {
    match input.capture.advance() {
        Ok(None) => Some(
            input
                .capture
                .current()
                .and_then(|p| p.at)
                .unwrap_or(Timestamp::EPOCH),
        ),
        Ok(Some(ending)) => {
            input.ended = Some(Ok(ending));
            None
        }
        Err(error) => {
            input.ended = Some(Err(error));
            None
        }
    }
}

//! Capture files as a source: reads from anything that reads, in one buffer, and hands out packets that borrow from it.
//!
//! In: a file, a pipe, standard input. Out: every packet in turn to a function, then how the file ended. Memory is the
//! buffer and nothing else, whatever arrives.

use std::io::{self, Read};
use std::ops::{ControlFlow, Range};

use crate::wire::pcap::{Decoder, MAX_NEED, Packet, PcapError, Step};

/// How much is asked for at once: enough to make system calls cheap, little enough that it is still in the second
/// level cache when it is parsed.
const READ: usize = 128 * 1024;

/// How a capture file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Where a packet or a block ends.
    Complete,
    /// In the middle of a packet or a block, which was left out.
    Truncated {
        /// Where that began, in bytes from the file's start.
        offset: u64,
        /// How many bytes are there.
        have: u64,
        /// How many it takes.
        need: u64,
    },
    /// The caller had enough.
    Stopped,
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureFileError {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Shorter than any file header.
    #[error("the file ends after {have} bytes, before the end of a capture file's header")]
    NoHeader {
        /// Its length.
        have: u64,
    },
    /// The system refused.
    #[error("reading at byte {offset}: {source}")]
    Read {
        /// Where.
        offset: u64,
        /// Its answer.
        source: io::Error,
    },
    /// Not a capture file, or damaged.
    #[error(transparent)]
    Format(#[from] PcapError),
}

/// What lies between two packets: the buffer's end, or bytes without interest.
enum Gap {
    Need(usize),
    Skip(u64),
}

/// Reads one capture file.
#[derive(Debug)]
pub struct CaptureFile<R> {
    input: R,
    decoder: Decoder,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The packet that [`CaptureFile::advance`] came to: all but its bytes, and where these lie.
    current: Option<(Packet<'static>, Range<usize>)>,
}

impl<R: Read> CaptureFile<R> {
    /// From the start of `input`.
    pub fn new(input: R) -> Self {
        // Never grows: a step needs at most MAX_NEED, and a read adds at most READ.
        Self {
            input,
            decoder: Decoder::new(),
            buffer: vec![0; MAX_NEED + READ],
            start: 0,
            end: 0,
            current: None,
        }
    }

    /// Packets that the capturing program says it lost; `None` where it does not say.
    pub fn lost(&self) -> Option<u64> {
        self.decoder.lost()
    }

    /// How far the file was read, in bytes.
    pub fn offset(&self) -> u64 {
        self.decoder.offset()
    }

    /// Hands every packet to `each`, until the end or until it breaks.
    pub fn read(
        &mut self,
        mut each: impl FnMut(Packet<'_>) -> ControlFlow<()>,
    ) -> Result<Ending, CaptureFileError> {
        loop {
            let input = self.buffer.get(self.start..self.end).unwrap_or(&[]);
            match self.decoder.step(input)? {
                Step::Packet { packet, used } => {
                    let flow = each(packet);
                    self.start += used;
                    if flow.is_break() {
                        return Ok(Ending::Stopped);
                    }
                }
                Step::Need(need) => {
                    if let Some(ending) = self.between_packets(Gap::Need(need))? {
                        return Ok(ending);
                    }
                }
                Step::Skip(length) => {
                    if let Some(ending) = self.between_packets(Gap::Skip(length))? {
                        return Ok(ending);
                    }
                }
            }
        }
    }

    /// Goes to the next packet, which [`CaptureFile::current`] then gives; else says how the file ended.
    pub fn advance(&mut self) -> Result<Option<Ending>, CaptureFileError> {
        self.current = None;
        loop {
            let input = self.buffer.get(self.start..self.end).unwrap_or(&[]);
            match self.decoder.step(input)? {
                Step::Packet { packet, used } => {
                    let from = packet.bytes.as_ptr().addr() - input.as_ptr().addr() + self.start;
                    let place = from..from + packet.bytes.len();
                    self.current = Some((Packet { bytes: &[], ..packet }, place));
                    self.start += used;
                    return Ok(None);
                }
                Step::Need(need) => {
                    if let Some(ending) = self.between_packets(Gap::Need(need))? {
                        return Ok(Some(ending));
                    }
                }
                Step::Skip(length) => {
                    if let Some(ending) = self.between_packets(Gap::Skip(length))? {
                        return Ok(Some(ending));
                    }
                }
            }
        }
    }

    /// The packet that [`CaptureFile::advance`] came to.
    pub fn current(&self) -> Option<Packet<'_>> {
        let (packet, place) = self.current.as_ref()?;
        let bytes = self.buffer.get(place.clone())?;
        Some(Packet { bytes, ..*packet })
    }

    /// Does what a step asks for between packets.
    fn between_packets(&mut self, gap: Gap) -> Result<Option<Ending>, CaptureFileError> {
        match gap {
            Gap::Need(need) => {
                let have = self.fill(need)?;
                if have < need {
                    return self.ended(have as u64, need as u64).map(Some);
                }
            }
            Gap::Skip(length) => {
                let missing = self.skip(length)?;
                if missing > 0 {
                    let offset = self.decoder.offset() - length;
                    return Ok(Some(Ending::Truncated {
                        offset,
                        have: length - missing,
                        need: length,
                    }));
                }
            }
        }
        Ok(None)
    }

    fn ended(&self, have: u64, need: u64) -> Result<Ending, CaptureFileError> {
        match (self.decoder.is_recognised(), have) {
            (true, 0) => Ok(Ending::Complete),
            (true, have) => Ok(Ending::Truncated {
                offset: self.decoder.offset(),
                have,
                need,
            }),
            (false, 0) => Err(CaptureFileError::Empty),
            (false, have) => Err(CaptureFileError::NoHeader { have }),
        }
    }

    /// Reads until `need` bytes are buffered or the input ends; says how many there are.
    fn fill(&mut self, need: usize) -> Result<usize, CaptureFileError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < need {
            let until = (self.end + READ).min(self.buffer.len());
            match self.more(until)? {
                0 => break,
                count => self.end += count,
            }
        }
        Ok(self.end)
    }

    /// Passes over `length` bytes; says how many were missing.
    fn skip(&mut self, length: u64) -> Result<u64, CaptureFileError> {
        let mut left = length;
        loop {
            let here = self.end - self.start;
            let step = usize::try_from(left).map_or(here, |left| left.min(here));
            self.start += step;
            left -= step as u64;
            if left == 0 {
                return Ok(0);
            }
            (self.start, self.end) = (0, 0);
            match self.more(READ)? {
                0 => return Ok(left),
                count => self.end = count,
            }
        }
    }

    /// One read to behind `self.end`, up to `until`.
    fn more(&mut self, until: usize) -> Result<usize, CaptureFileError> {
        let Some(room) = self.buffer.get_mut(self.end..until) else {
            return Ok(0);
        };
        loop {
            match self.input.read(room) {
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(CaptureFileError::Read {
                        offset: self.decoder.offset(),
                        source,
                    });
                }
                Ok(count) => return Ok(count),
            }
        }
    }
}

#[cfg(test)]
#[path = "capture_file_tests.rs"]
mod tests;

//! Capture files, as tcpdump, dumpcap and Wireshark write them: bytes → borrowed packets.
//!
//! In: bytes from wherever the last [`Decoder::step`] ended. Out: what to do next: give more bytes, pass over some, or
//! take a packet that borrows from the input. The caller reads; so a step costs no copy and no allocation, and memory
//! is the caller's one buffer. Errors name the offset in the file.

mod classic;
pub mod datagram;
mod error;
pub mod link;
mod ng;
mod options;
mod resolution;

pub use error::{PcapError, Problem};
pub use link::LinkType;

use crate::observation::packet::Direction;
use crate::time::Timestamp;

/// The longest packet that is believed: libpcap's largest snapshot length (`MAXIMUM_SNAPLEN`, 262,144 bytes), which
/// is what `tcpdump` takes by default.
pub const MAX_PACKET: u32 = 262_144;

/// The most bytes that [`Step::Need`] ever asks for: the largest packet with its block and options.
pub const MAX_NEED: usize = MAX_PACKET as usize + 65_536 + 64;

/// A packet of a capture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it passed; pcapng's simple packets do not say.
    pub at: Option<Timestamp>,
    /// How its first header is to be read.
    pub link: LinkType,
    /// Which way it passed, where the file itself says so (pcapng).
    pub direction: Direction,
    /// Its length on the wire, in bytes; `bytes` may hold fewer.
    pub wire_len: u32,
    /// What was captured of it.
    pub bytes: &'a [u8],
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The input is too short: call again with at least this many bytes from the same place (at most [`MAX_NEED`]).
    Need(usize),
    /// Nothing of interest: pass over this many bytes, which may be more than there are. Never 0.
    Skip(u64),
    /// A packet; the next step begins `used` bytes on.
    Packet {
        /// The packet.
        packet: Packet<'a>,
        /// How many bytes of the input it took. Never 0.
        used: usize,
    },
}

/// Reads one capture file, step by step.
#[derive(Debug, Default)]
pub struct Decoder {
    format: Format,
    offset: u64,
}

#[derive(Debug, Default)]
enum Format {
    #[default]
    NotYetKnown,
    Classic(classic::Classic),
    Ng(ng::Ng),
}

impl Decoder {
    /// At the start of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the next step begins: the distance from the file's start, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the file's header was read.
    pub fn is_recognised(&self) -> bool {
        !matches!(self.format, Format::NotYetKnown)
    }

    /// Packets that the capturing program says it lost (pcapng's interface statistics); `None` where it does not say.
    pub fn lost(&self) -> Option<u64> {
        match &self.format {
            Format::Ng(ng) => ng.lost(),
            _ => None,
        }
    }

    /// Takes the next step. `input` begins at [`Decoder::offset`].
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, PcapError> {
        let step = match &mut self.format {
            Format::Classic(classic) => classic.step(input),
            Format::Ng(ng) => ng.step(input),
            Format::NotYetKnown => self.recognise(input),
        };
        let step = step.map_err(|problem| PcapError {
            offset: self.offset,
            problem,
        })?;
        self.offset = self.offset.saturating_add(match step {
            Step::Need(_) => 0,
            Step::Skip(length) => length,
            Step::Packet { used, .. } => used as u64,
        });
        Ok(step)
    }

    fn recognise<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Problem> {
        let Some(magic) = input.first_chunk::<4>() else {
            return Ok(Step::Need(4));
        };
        if *magic == ng::SECTION_HEADER.to_le_bytes() {
            let mut ng = ng::Ng::default();
            let step = ng.step(input)?;
            if !matches!(step, Step::Need(_)) {
                self.format = Format::Ng(ng);
            }
            return Ok(step);
        }
        let order = classic::recognise(*magic)?;
        let Some(header) = input.first_chunk::<{ classic::FILE_HEADER }>() else {
            return Ok(Step::Need(classic::FILE_HEADER));
        };
        self.format = Format::Classic(classic::Classic::new(order, header)?);
        Ok(Step::Skip(classic::FILE_HEADER as u64))
    }
}

/// The two byte orders that a capture file may be written in: that of the machine that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    #[inline]
    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Little => u64::from_le_bytes(bytes),
            Self::Big => u64::from_be_bytes(bytes),
        }
    }

    /// The 32-bit number that `bytes` begin with, and the rest.
    #[inline]
    fn take_u32(self, bytes: &[u8]) -> Option<(u32, &[u8])> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        Some((self.u32(*head), rest))
    }
}

#[cfg(test)]
mod tests;

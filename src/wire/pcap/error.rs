//! What is wrong with a capture file, and where.

use std::fmt;

/// A file that cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {problem}")]
pub struct PcapError {
    /// Where in the file, in bytes from its start.
    pub offset: u64,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Neither pcap nor pcapng.
    #[error("expected a pcap or pcapng file, got one that begins with {}{}", Hex(*magic), hint(*magic))]
    NotACapture {
        /// Its first four bytes.
        magic: [u8; 4],
    },
    /// A pcap dialect with other record headers.
    #[error(
        "this is a modified pcap ({dialect}), whose record headers differ; convert it with `editcap -F pcap`"
    )]
    Modified {
        /// Whose.
        dialect: &'static str,
    },
    /// A version of the format that is not known.
    #[error("expected {format} version {expected}, got {major}.{minor}")]
    Version {
        /// `pcap` or `pcapng`.
        format: &'static str,
        /// What is read.
        expected: &'static str,
        /// What it is.
        major: u16,
        /// See `major`.
        minor: u16,
    },
    /// pcapng's byte-order magic is neither way round.
    #[error("expected pcapng's byte-order magic 0x1a2b3c4d, got {}", Hex(*got))]
    ByteOrder {
        /// What is there.
        got: [u8; 4],
    },
    /// A packet larger than any that is captured.
    #[error(
        "expected a packet of at most {} captured bytes, got {length}: the file is damaged here",
        super::MAX_PACKET
    )]
    PacketTooLong {
        /// What its header says.
        length: u32,
    },
    /// A pcapng block of an impossible length.
    #[error("expected {expected}, got {length}: the file is damaged here")]
    BlockLength {
        /// What would be right.
        expected: &'static str,
        /// What the block says.
        length: u32,
    },
    /// A pcapng block that does not end as it began.
    #[error("expected the block's length {expected} again at its end, got {got}: the file is damaged here")]
    BlockEnd {
        /// The length at its start.
        expected: u32,
        /// The one at its end.
        got: u32,
    },
    /// A packet of an interface that the section has not described.
    #[error("a packet names interface {interface}, but the section has described {known}")]
    NoSuchInterface {
        /// The interface's number.
        interface: u32,
        /// How many there are.
        known: usize,
    },
    /// More interfaces than are kept.
    #[error("expected at most {limit} interfaces in a section")]
    TooManyInterfaces {
        /// The bound.
        limit: usize,
    },
}

struct Hex([u8; 4]);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "{a:02x} {b:02x} {c:02x} {d:02x}")
    }
}

/// What a file with these first bytes is, where it is often met.
fn hint(magic: [u8; 4]) -> &'static str {
    match magic {
        [0x1f, 0x8b, ..] => " (compressed by gzip: run gunzip first)",
        [0x28, 0xb5, 0x2f, 0xfd] => " (compressed by zstd: run unzstd first)",
        [0xfd, b'7', b'z', b'X'] => " (compressed by xz: run unxz first)",
        [b'B', b'Z', b'h', _] => " (compressed by bzip2: run bunzip2 first)",
        [0x04, 0x22, 0x4d, 0x18] => " (compressed by lz4: run unlz4 first)",
        [b's', b'n', b'o', b'o'] => " (a snoop file: convert it with `editcap -F pcap`)",
        _ => "",
    }
}

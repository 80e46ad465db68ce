//! `--record` and `--replay`: observations as JSON lines, so that a user's case can be judged elsewhere.
//!
//! The first line is a [`Header`], then one [`Observation`] a line in the order in which they were taken in, and
//! last an [`End`]. A file that was cut short replays as far as it goes. Pure over `Write` and `BufRead`.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::Observation;
use crate::time::Timestamp;

/// The format's version, in [`Header::wgnat_record`].
pub const VERSION: u32 = 1;

/// No honest line is longer: the largest is a conntrack or socket tally of a few hundred rows.
const LINE_LIMIT: u64 = 16 * 1024 * 1024;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub wgnat_record: u32,
    /// The version of the wgnat that recorded.
    pub version: String,
    /// When watching began.
    pub started: Timestamp,
    /// Whether addresses, names and keys were replaced.
    pub anonymised: bool,
}

/// The last line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The time of the verdict.
    pub end: Timestamp,
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The first line is not a header.
    #[error("line 1: not a record made by --record: {0}")]
    Header(String),
    /// A later version.
    #[error("line 1: the record has version {0}; this wgnat reads version {VERSION}")]
    Version(u32),
    /// A line that is no observation.
    #[error("line {line}: expected an observation as --record writes it")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A line without end.
    #[error("line {line}: longer than {LINE_LIMIT} bytes; no record has such lines")]
    TooLong {
        /// Counted from 1.
        line: u64,
    },
    /// Something after the end.
    #[error("line {line}: the record goes on after its end line")]
    AfterEnd {
        /// Counted from 1.
        line: u64,
    },
    /// Reading failed.
    #[error("line {line}: cannot be read")]
    Read {
        /// Counted from 1.
        line: u64,
        /// The system's answer.
        source: io::Error,
    },
}

/// Writes a record.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins a record.
    pub fn begin(mut out: W, header: &Header) -> io::Result<Self> {
        write_line(&mut out, header)?;
        Ok(Self { out })
    }

    /// Adds an observation.
    pub fn write(&mut self, observation: &Observation) -> io::Result<()> {
        write_line(&mut self.out, observation)
    }

    /// Ends the record.
    pub fn end(mut self, end: Timestamp) -> io::Result<()> {
        write_line(&mut self.out, &End { end })?;
        self.out.flush()
    }
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Reads a record: hands each observation to `each` and returns the header and the end (`None` for a record that
/// was cut short between two lines or inside the last).
pub fn read(
    mut input: impl BufRead,
    mut begin: impl FnMut(&Header),
    mut each: impl FnMut(&Observation),
) -> Result<(Header, Option<Timestamp>), LogError> {
    let mut buffer = Vec::new();
    let mut line = 1;
    next_line(&mut input, &mut buffer, line)?;
    let header: Header =
        serde_json::from_slice(&buffer).map_err(|error| LogError::Header(error.to_string()))?;
    if header.wgnat_record != VERSION {
        return Err(LogError::Version(header.wgnat_record));
    }
    begin(&header);
    let mut end = None;
    loop {
        line += 1;
        let complete = next_line(&mut input, &mut buffer, line)?;
        if buffer.is_empty() {
            return Ok((header, end));
        }
        if end.is_some() {
            return Err(LogError::AfterEnd { line });
        }
        match serde_json::from_slice::<Observation>(&buffer) {
            Ok(observation) => each(&observation),
            Err(source) => match serde_json::from_slice::<End>(&buffer) {
                Ok(last) => end = Some(last.end),
                // A last line without its newline was cut while it was written.
                Err(_) if !complete => return Ok((header, None)),
                Err(_) => return Err(LogError::Line { line, source }),
            },
        }
    }
}

/// Reads one line without its newline; whether the newline was there.
fn next_line(input: &mut impl BufRead, buffer: &mut Vec<u8>, line: u64) -> Result<bool, LogError> {
    buffer.clear();
    let read = input
        .by_ref()
        .take(LINE_LIMIT)
        .read_until(b'\n', buffer)
        .map_err(|source| LogError::Read { line, source })?;
    let complete = buffer.last() == Some(&b'\n');
    if complete {
        buffer.pop();
    } else if read as u64 == LINE_LIMIT {
        return Err(LogError::TooLong { line });
    }
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Body, Source, SourceStatus};
    use crate::time::Span;

    fn header() -> Header {
        Header {
            wgnat_record: 1,
            version: "0".into(),
            started: Timestamp::from_secs(7),
            anonymised: false,
        }
    }

    fn observation() -> Observation {
        Observation {
            at: Timestamp::from_secs(8),
            took: Span::from_millis(3),
            source: Source::Capture,
            body: Body::Status(SourceStatus::degraded("why")),
        }
    }

    fn record() -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::begin(&mut out, &header()).unwrap();
        writer.write(&observation()).unwrap();
        writer.end(Timestamp::from_secs(9)).unwrap();
        out
    }

    fn read_back(bytes: &[u8]) -> Result<(usize, Option<Timestamp>), LogError> {
        let mut seen = Vec::new();
        let (_, end) = read(bytes, |_| {}, |o| seen.push(o.clone()))?;
        assert!(seen.iter().all(|o| *o == observation()));
        Ok((seen.len(), end))
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read_back(&record()).unwrap(), (1, Some(Timestamp::from_secs(9))));
    }

    #[test]
    fn a_record_cut_anywhere_replays_as_far_as_it_goes() {
        let whole = record();
        let first_line = whole.iter().position(|b| *b == b'\n').unwrap();
        for cut in 0..whole.len() {
            let read = read_back(&whole[..cut]);
            match cut {
                // The header must be whole; its newline alone may be missing.
                _ if cut < first_line => assert!(matches!(read, Err(LogError::Header(_))), "{cut}"),
                _ => assert!(read.is_ok(), "{cut}: {read:?}"),
            }
        }
    }

    #[test]
    fn errors_name_the_line() {
        let mut bad = record();
        bad.extend_from_slice(b"{}\n");
        assert_eq!(
            read_back(&bad).unwrap_err().to_string(),
            "line 4: the record goes on after its end line"
        );
        let text = String::from_utf8(record())
            .unwrap()
            .replace("\"capture\"", "\"cpature\"");
        let error = format!(
            "{:#}",
            anyhow::Error::from(read_back(text.as_bytes()).unwrap_err())
        );
        assert!(
            error.starts_with("line 2: expected an observation") && error.contains("cpature"),
            "{error}"
        );
        let text = String::from_utf8(record())
            .unwrap()
            .replace("\"wgnat_record\":1", "\"wgnat_record\":2");
        assert!(matches!(read_back(text.as_bytes()), Err(LogError::Version(2))));
    }
}

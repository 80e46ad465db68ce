//! The reader gives the same packets however its input comes, and says how it ended.

use std::io::{self, Read};
use std::ops::ControlFlow::{Break, Continue};

use super::*;

/// Gives at most `step` bytes a read, and an interruption now and then.
struct Drip<'a> {
    bytes: &'a [u8],
    step: usize,
    reads: usize,
}

impl Read for Drip<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = self.step.min(out.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        out[..count].copy_from_slice(now);
        self.bytes = later;
        Ok(count)
    }
}

fn file(lengths: &[usize]) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    file.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    for (n, length) in (0u8..).zip(lengths) {
        let length32 = u32::try_from(*length).unwrap().to_le_bytes();
        file.extend([&[n, 0, 0, 0, 0, 0, 0, 0][..], &length32, &length32].concat());
        file.extend(std::iter::repeat_n(n, *length));
    }
    file
}

/// A packet's length and its bytes, which are all alike.
type Seen = (usize, Option<u8>);

fn read(input: impl Read) -> (Vec<Seen>, Result<Ending, CaptureFileError>) {
    let mut seen = Vec::new();
    let end = CaptureFile::new(input).read(|packet| {
        assert!(packet.bytes.iter().all(|b| Some(b) == packet.bytes.first()));
        seen.push((packet.bytes.len(), packet.bytes.first().copied()));
        Continue(())
    });
    (seen, end)
}

#[test]
fn packets_are_the_same_however_the_input_drips() {
    let lengths = [60, 0, 262_144, 1500, 131_000, 9000, 1];
    let bytes = file(&lengths);
    let whole = read(&bytes[..]).0;
    assert_eq!(
        whole.iter().map(|(length, _)| *length).collect::<Vec<_>>(),
        lengths
    );
    for step in [1, 16, 1000, 131_072] {
        let (seen, end) = read(Drip {
            bytes: &bytes,
            step,
            reads: 0,
        });
        assert!(matches!(end, Ok(Ending::Complete)));
        assert_eq!(seen, whole);
    }
}

#[test]
fn a_cut_packet_is_told_and_left_out() {
    let bytes = file(&[100, 100]);
    let (seen, end) = read(&bytes[..bytes.len() - 1]);
    assert_eq!(seen.len(), 1);
    assert!(matches!(
        end,
        Ok(Ending::Truncated {
            offset: 140,
            have: 115,
            need: 116
        })
    ));
}

#[test]
fn a_block_that_is_passed_over_may_be_cut_too() {
    // pcapng: a section, then an unknown block that claims almost 4 GiB.
    let mut bytes = vec![
        0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0,
    ];
    bytes.extend([0xff; 8]);
    bytes.extend([28, 0, 0, 0, 0xad, 0x0b, 0, 0, 0xfc, 0xff, 0xff, 0xff, 1, 2, 3]);
    let (seen, end) = read(&bytes[..]);
    assert!(seen.is_empty());
    assert!(matches!(
        end,
        Ok(Ending::Truncated {
            offset: 28,
            have: 11,
            need: 0xffff_fffc
        })
    ));
}

#[test]
fn what_is_no_capture_is_an_error() {
    assert!(matches!(read(&b""[..]).1, Err(CaptureFileError::Empty)));
    assert!(matches!(
        read(&file(&[])[..9]).1,
        Err(CaptureFileError::NoHeader { have: 9 })
    ));
    let text = read(&b"hello world"[..]).1.unwrap_err().to_string();
    assert!(
        text.starts_with("at byte 0: expected a pcap or pcapng file"),
        "{text}"
    );
}

/// A file that never ends.
struct Endless {
    head: Vec<u8>,
    record: Vec<u8>,
}

impl Read for Endless {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let next = if self.head.is_empty() {
            self.record.clone()
        } else {
            std::mem::take(&mut self.head)
        };
        let count = next.len().min(out.len());
        out[..count].copy_from_slice(&next[..count]);
        self.head = next[count..].to_vec();
        Ok(count)
    }
}

#[test]
fn an_endless_input_stays_in_its_buffer_and_can_be_left() {
    let (head, record) = (file(&[]), file(&[300])[24..].to_vec());
    let mut capture = CaptureFile::new(Endless { head, record });
    let room = capture.buffer.capacity();
    let mut left = 30_000;
    let end = capture.read(|_| {
        left -= 1;
        if left == 0 { Break(()) } else { Continue(()) }
    });
    assert!(matches!(end, Ok(Ending::Stopped)));
    assert_eq!(capture.buffer.capacity(), room);
    assert_eq!(capture.offset(), 24 + 30_000 * 316);
}

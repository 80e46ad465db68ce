//! WebSocket frames (RFC 6455, section 5), as a client reads and writes them.
//!
//! In: bytes as they come. Out: frames. Text is not checked to be UTF-8: flyctl and Fly's gateways send WireGuard's bytes in
//! text frames, which is why no library that keeps the RFC can be used.

/// Longer frames are refused: a gateway's hold a few datagrams.
pub const LONGEST: usize = 1 << 20;

/// What a frame is (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on where the one before ended.
    Continuation,
    /// Text.
    Text,
    /// Binary.
    Binary,
    /// The end.
    Close,
    /// To be answered by a pong with the same content.
    Ping,
    /// The answer.
    Pong,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub opcode: Opcode,
    /// What it holds.
    pub payload: Vec<u8>,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Reserved bits or an opcode that does not exist.
    #[error("not a WebSocket frame: it begins with {0:#04x}")]
    Header(u8),
    /// Beyond [`LONGEST`].
    #[error("a WebSocket frame of {0} bytes: expected at most {LONGEST}")]
    TooLong(u64),
}

/// Writes a whole message in one frame; a client's is masked (section 5.3).
pub fn write(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode.bits()];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ 0..=125), _) => frame.push(0x80 | len),
        (_, Ok(len)) => {
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    frame
}

/// Reads frames from bytes as they come.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, where it is whole. After an error there is none.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((header, rest)) = self.bytes.split_first_chunk::<2>() else {
            return Ok(None);
        };
        let [first, second] = *header;
        let opcode = Opcode::from_bits(first & 0x0f)
            .filter(|_| first & 0x70 == 0)
            .ok_or(FrameError::Header(first))?;
        let (len, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((len, rest)) => (u64::from_be_bytes(*len), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        let size = usize::try_from(len)
            .ok()
            .filter(|n| *n <= LONGEST)
            .ok_or(FrameError::TooLong(len))?;
        let (mask, rest) = match second & 0x80 {
            0 => ([0; 4], rest),
            _ => match rest.split_first_chunk::<4>() {
                Some((mask, rest)) => (*mask, rest),
                None => return Ok(None),
            },
        };
        let Some((payload, rest)) = rest.split_at_checked(size) else {
            return Ok(None);
        };
        let payload = payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(b, m)| b ^ m)
            .collect();
        let used = self.bytes.len() - rest.len();
        self.bytes.drain(..used);
        Ok(Some(Frame { opcode, payload }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_standards_examples() {
        let mut frames = Frames::default();
        // RFC 6455, section 5.7: "Hello" unmasked, then masked.
        frames.push(&[0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        frames.push(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        for _ in 0..2 {
            let frame = frames.next_frame().unwrap().unwrap();
            assert_eq!(
                (frame.opcode, frame.payload.as_slice()),
                (Opcode::Text, &b"Hello"[..])
            );
        }
        assert_eq!(frames.next_frame(), Ok(None));
        frames.push(b"HTTP");
        assert_eq!(frames.next_frame(), Err(FrameError::Header(b'H')));
        let mut frames = Frames::default();
        frames.push(&[0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(frames.next_frame(), Err(FrameError::TooLong(1 << 40)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..70_000), 1..4), mask in any::<[u8; 4]>(), cut in 1usize..5000) {
            let stream: Vec<u8> = payloads.iter().flat_map(|p| write(Opcode::Text, p, mask)).collect();
            let (mut frames, mut read) = (Frames::default(), Vec::new());
            for piece in stream.chunks(cut) {
                frames.push(piece);
                while let Some(frame) = frames.next_frame().unwrap() {
                    read.push(frame.payload);
                }
            }
            prop_assert_eq!(read, payloads);
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut frames = Frames::default();
            frames.push(&bytes);
            while let Ok(Some(_)) = frames.next_frame() {}
        }
    }
}

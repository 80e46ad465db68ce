//! WireGuard in a stream, as flyctl sends it through a WebSocket (wg/ws.go): a magic number, then each datagram with its
//! length before it.
//!
//! In: bytes as they come. Out: datagrams. A length of zero is a keepalive of the stream.

/// What the client's stream begins with.
pub const MAGIC: [u8; 4] = 0x2FAC_ED77_u32.to_be_bytes();
/// The longest datagram that UDP carries.
pub const LONGEST: u32 = 65_535;

/// A length that no datagram has: what follows is no such stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a datagram of {0} bytes in the stream: expected at most {LONGEST}")]
pub struct TooLong(pub u32);

/// A datagram with its length before it.
pub fn write(datagram: &[u8]) -> Vec<u8> {
    let len = u32::try_from(datagram.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes(), datagram].concat()
}

/// Reads datagrams from bytes as they come.
#[derive(Debug, Default)]
pub struct Datagrams {
    bytes: Vec<u8>,
    begun: bool,
}

impl Datagrams {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next datagram, where it is whole. Keepalives are passed over. After an error there is none.
    pub fn next_datagram(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        loop {
            let Some((len, rest)) = self.bytes.split_first_chunk::<4>() else {
                return Ok(None);
            };
            // A server that greets back does no harm.
            let greeting = !self.begun && *len == MAGIC;
            let size = if greeting { 0 } else { u32::from_be_bytes(*len) };
            if size > LONGEST {
                return Err(TooLong(size));
            }
            let Some((datagram, rest)) = rest.split_at_checked(usize::try_from(size).unwrap_or(usize::MAX))
            else {
                return Ok(None);
            };
            let datagram = datagram.to_vec();
            let used = self.bytes.len() - rest.len();
            self.bytes.drain(..used);
            self.begun = true;
            if !datagram.is_empty() {
                return Ok(Some(datagram));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keepalives_greetings_and_nonsense() {
        let mut datagrams = Datagrams::default();
        datagrams.push(&MAGIC);
        datagrams.push(&[0, 0, 0, 0, 0, 0, 0, 2, 7]);
        assert_eq!(datagrams.next_datagram(), Ok(None));
        datagrams.push(&[8]);
        assert_eq!(datagrams.next_datagram(), Ok(Some(vec![7, 8])));
        datagrams.push(&MAGIC);
        assert_eq!(datagrams.next_datagram(), Err(TooLong(0x2FAC_ED77)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..2000), 1..9), cut in 1usize..700) {
            let stream: Vec<u8> = all.iter().flat_map(|d| write(d)).collect();
            let (mut datagrams, mut read) = (Datagrams::default(), Vec::new());
            for piece in stream.chunks(cut) {
                datagrams.push(piece);
                while let Some(datagram) = datagrams.next_datagram().unwrap() {
                    read.push(datagram);
                }
            }
            prop_assert_eq!(read, all);
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut datagrams = Datagrams::default();
            datagrams.push(&bytes);
            while let Ok(Some(_)) = datagrams.next_datagram() {}
        }
    }
}

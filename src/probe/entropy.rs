//! Fresh bytes from one seed, so that a machine needs no source of randomness and a test can repeat it.

use blake2::{Blake2s256, Digest as _};
use zeroize::Zeroizing;

use crate::types::SessionIndex;

/// A stream of fresh bytes. It makes secrets and so has no `Debug`.
pub struct Entropy {
    seed: Zeroizing<[u8; 32]>,
    drawn: u64,
}

impl Entropy {
    /// From 32 random bytes.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            seed: Zeroizing::new(seed),
            drawn: 0,
        }
    }

    /// 32 bytes: BLAKE2s of the seed and how many were drawn before.
    pub fn bytes(&mut self) -> [u8; 32] {
        self.drawn += 1;
        Blake2s256::new()
            .chain_update(*self.seed)
            .chain_update(self.drawn.to_le_bytes())
            .finalize()
            .into()
    }

    /// A session index.
    pub fn index(&mut self) -> SessionIndex {
        let [a, b, c, d, ..] = self.bytes();
        SessionIndex(u32::from_le_bytes([a, b, c, d]))
    }
}

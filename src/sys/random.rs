//! Random bytes from the kernel.

use std::fs::File;
use std::io::{self, Read};

/// 32 random bytes (`/dev/urandom`).
pub fn key() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

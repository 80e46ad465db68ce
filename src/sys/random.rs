//! Random bytes from the kernel.

use std::fs::File;
use std::io::{self, Read};

/// 32 random bytes (`/dev/urandom`).
pub fn key() -> io::Result<[u8; 32]> {
    bytes()
}

/// `N` random bytes (`/dev/urandom`).
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

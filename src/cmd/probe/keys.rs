//! Keys from files.

use std::path::Path;

use anyhow::Context as _;

use crate::cmd::input;
use crate::types::{PresharedKey, PrivateKey};

/// A key's file is a line; some tools put a comment beside it.
const LIMIT: usize = 4096;

/// The private key in `path`.
pub fn private(path: &Path) -> anyhow::Result<PrivateKey> {
    let doing = || format!("private key file {}", path.display());
    let text = read(path).with_context(doing)?;
    PrivateKey::from_base64(&text).with_context(doing)
}

/// The pre-shared key in `path`; all zeros are none.
pub fn preshared(path: &Path) -> anyhow::Result<Option<PresharedKey>> {
    let doing = || format!("preshared key file {}", path.display());
    let text = read(path).with_context(doing)?;
    let key = PresharedKey::from_base64(&text).with_context(doing)?;
    Ok(Some(key).filter(|key| !key.is_none()))
}

fn read(path: &Path) -> std::io::Result<zeroize::Zeroizing<String>> {
    let stdin = path == Path::new("-");
    input::text(if stdin { Path::new("/dev/stdin") } else { path }, LIMIT)
}

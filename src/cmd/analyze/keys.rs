//! `--keys`: files of keys.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context as _;
use zeroize::Zeroizing;

use crate::observation::SourceStatus;
use crate::wire::key_file::KeyFile;
use crate::wire::key_ring::KeyRing;

/// No file of keys is larger; a path to something endless must not fill memory.
const LIMIT: u64 = 1024 * 1024;

/// Reads files of keys. An error names the file and the line, never what is in it.
pub fn read(files: &[PathBuf]) -> anyhow::Result<KeyRing> {
    let mut ring = KeyRing::default();
    for path in files {
        let doing = || format!("key file {}", path.display());
        let mut text = Zeroizing::new(String::new());
        let file = File::open(path).with_context(doing)?;
        file.take(LIMIT).read_to_string(&mut text).with_context(doing)?;
        let keys = KeyFile::parse(&text).with_context(doing)?;
        for note in &keys.notes {
            tracing::info!("{}: {note}", path.display());
        }
        ring.add(keys);
    }
    Ok(ring)
}

/// Whether keys were given, as a source's state.
pub fn status(files: &[PathBuf]) -> SourceStatus {
    if files.is_empty() {
        SourceStatus::unavailable("no --keys: who calls by which key and clock stays closed")
    } else {
        SourceStatus::ok()
    }
}

//! A file that takes another's place as a whole: no reader ever sees half of it, and a crash leaves the old or the new one.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::sys::random;

/// Writes `bytes` to `path`: beside it first, onto the disk, then renamed. A file that is there keeps its permissions and, as
/// far as that is allowed, its owner; a new one has `mode` less the umask. What a link points to is replaced, not the link. What
/// is no regular file (a pipe, `/dev/stdout`) is written to as it is.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let doing = || format!("cannot write {}", path.display());
    let path = match std::fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error).with_context(doing),
    };
    let there = match std::fs::metadata(&path) {
        Ok(there) => Some(there),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(doing),
    };
    if let Some(there) = &there {
        if there.is_dir() {
            bail!(
                "cannot write {}: it is a directory: expected a file's name",
                path.display()
            );
        }
        if !there.is_file() {
            let mut file = OpenOptions::new().write(true).open(&path).with_context(doing)?;
            return file.write_all(bytes).with_context(doing);
        }
    }
    let (temporary, mut file) = beside(&path, mode).with_context(doing)?;
    let written = (|| {
        file.write_all(bytes)?;
        if let Some(there) = &there {
            // Another owner's file stays theirs where we may; its permissions stay in any case.
            let _ = fchown(&file, Some(there.uid()), Some(there.gid()));
            file.set_permissions(Permissions::from_mode(there.mode() & 0o7777))?;
        }
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    })();
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(error).with_context(doing);
    }
    // So that the new name survives a power cut too; not every file system can.
    if let Ok(directory) = File::open(directory(&path)) {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// The directory that holds `path`.
pub fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A new file in the same directory, under a name that nobody else has.
fn beside(path: &Path, mode: u32) -> std::io::Result<(PathBuf, File)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let random: [u8; 8] = random::bytes()?;
    let temporary = directory(path).join(format!(".{name}.{:016x}", u64::from_ne_bytes(random)));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    Ok((temporary, file))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn permissions_stay_and_nothing_is_left_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report");
        replace(&path, b"one", 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link_and_a_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&link, b"new", 0o644).unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"new");
        let error = format!("{:#}", replace(directory.path(), b"x", 0o644).unwrap_err());
        assert!(error.contains("it is a directory"), "{error}");
        let nowhere = directory.path().join("no/such/place");
        let error = format!("{:#}", replace(&nowhere, b"x", 0o644).unwrap_err());
        assert!(error.contains("No such file"), "{error}");
        replace(Path::new("/dev/null"), b"x", 0o644).unwrap();
    }

    #[test]
    fn a_reader_never_sees_half_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report");
        replace(&path, &[b'0'; 100_000], 0o644).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen = 0_u32;
                while !done.load(Ordering::Relaxed) || seen == 0 {
                    let text = std::fs::read(&path).unwrap();
                    assert_eq!(text.len(), 100_000);
                    assert!(text.iter().all(|b| *b == text[0]), "two reports in one");
                    seen += 1;
                }
                seen
            });
            for round in 0..40_u8 {
                replace(&path, &vec![b'0' + round; 100_000], 0o644).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap() > 0);
        });
    }
}

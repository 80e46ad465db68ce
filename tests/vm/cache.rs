//! QEMU, busybox and the kernel, as Debian packages them, unpacked below the build directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the packages are unpacked.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    /// Where the kernel is: of the same packages, or another.
    kernel: PathBuf,
}

/// The kernel of a release of Debian, whichever this machine's is.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Where it is unpacked: its version, which no other has.
    pub name: &'static str,
    /// The release.
    pub suite: &'static str,
}

impl Cache {
    /// Fetches what is not there yet. Panics with the reason where it cannot.
    #[track_caller]
    pub fn ready() -> Self {
        let dir = directory();
        fetch(&dir, &[]);
        Self {
            root: dir.join("root"),
            kernel: dir.join("root"),
        }
    }

    /// The same with another kernel.
    #[track_caller]
    pub fn with(self, kernel: Kernel) -> Self {
        let dir = directory().join(kernel.name);
        fetch(&dir, &["linux-image-cloud-amd64", kernel.suite]);
        Self {
            kernel: dir.join("root"),
            ..self
        }
    }

    /// A file of a package.
    pub fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The kernel's image.
    #[track_caller]
    pub fn kernel(&self) -> PathBuf {
        only(&self.kernel.join("boot"), "vmlinuz-")
    }

    /// The directory of the kernel's modules.
    #[track_caller]
    pub fn modules(&self) -> PathBuf {
        // Since trixie packages have all of /lib below /usr.
        let dirs = ["lib/modules", "usr/lib/modules"].map(|dir| self.kernel.join(dir));
        let there = dirs.iter().find(|dir| dir.is_dir());
        only(there.unwrap_or(&dirs[0]), "")
    }
}

fn directory() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = tmp.parent().expect("the build directory has a name");
    dir.join("vm-cache")
}

#[track_caller]
fn fetch(dir: &Path, wanted: &[&str]) {
    let arch = std::env::consts::ARCH;
    assert!(
        arch == "x86_64",
        "the VM test knows kernels for x86-64 only, and this is {arch} (WGNAT_VM=skip skips it)"
    );
    let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/fetch");
    // Without a time limit of ours: apt has its own, and the first download takes what the network takes.
    let out = Command::new(&fetch)
        .arg(dir)
        .args(wanted)
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", fetch.display()));
    assert!(
        out.status.success(),
        "{}: {}",
        fetch.display(),
        String::from_utf8_lossy(&out.stderr).trim()
    );
}

#[track_caller]
fn only(dir: &Path, prefix: &str) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display()));
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the directory can be read").path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    assert!(
        found.len() == 1,
        "expected one {prefix}* in {}: {found:?}",
        dir.display()
    );
    found.remove(0)
}

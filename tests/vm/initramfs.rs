//! The guest's file system: a static busybox, modules, programs of this machine with their libraries, and a script.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::cache::Cache;
use super::cpio::Archive;
use super::modules;

/// The file system under way. It lives in memory, so what is in it counts against the guest's memory twice.
#[derive(Debug)]
pub struct Initramfs {
    archive: Archive,
    directories: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Initramfs {
    /// With what every guest has: busybox, /dev/console, and what the kernel starts, which runs /test.
    #[track_caller]
    pub fn new(cache: &Cache) -> Self {
        let mut new = Self {
            archive: Archive::default(),
            directories: BTreeSet::new(),
            files: BTreeSet::new(),
        };
        for dir in ["dev", "proc", "sys", "run", "tmp", "root", "etc", "results"] {
            new.directory(dir);
        }
        // Before devtmpfs is mounted the kernel opens it for init's output.
        new.archive.device("dev/console", 5, 1);
        new.archive.device("dev/null", 1, 3);
        new.content("bin/busybox", 0o755, &read(&cache.file("bin/busybox")));
        new.archive.symlink("bin/sh", "busybox");
        new.content("init", 0o755, include_bytes!("guest-init"));
        new.content("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n");
        new
    }

    /// Adds a file.
    pub fn content(&mut self, path: &str, permissions: u32, content: &[u8]) {
        if let Some((dir, _)) = path.rsplit_once('/') {
            self.directory(dir);
        }
        if self.files.insert(path.to_owned()) {
            self.archive.file(path, permissions, content);
        }
    }

    /// Adds modules and those that they need, numbered in the order of loading: `modules/NN-NAME.ko`.
    #[track_caller]
    pub fn modules(&mut self, cache: &Cache, names: &[&str]) {
        for (number, (name, module)) in modules::in_order(&cache.modules(), names).iter().enumerate() {
            self.content(&format!("modules/{number:02}-{name}.ko"), 0o644, module);
        }
    }

    /// Adds a program of this machine as /bin/NAME, and its libraries where it looks for them.
    #[track_caller]
    pub fn program(&mut self, name: &str, path: &Path) {
        self.content(&format!("bin/{name}"), 0o755, &read(path));
        for library in libraries(path) {
            let content = read(Path::new(&library));
            self.content(library.trim_start_matches('/'), 0o755, &content);
        }
    }

    /// Adds a program that is in this machine's PATH; `package` is what brings it.
    #[track_caller]
    pub fn installed(&mut self, name: &str, package: &str) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .find(|file| file.is_file());
        let found = found.unwrap_or_else(|| {
            panic!("`{name}` is not installed (package {package}); the VM test takes it into its guest")
        });
        self.program(name, &found);
    }

    /// The archive for the kernel.
    pub fn finish(self) -> Vec<u8> {
        self.archive.finish()
    }

    fn directory(&mut self, path: &str) {
        if self.directories.contains(path) {
            return;
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
        let permissions = if path == "tmp" { 0o1777 } else { 0o755 };
        self.archive.directory(path, permissions);
        self.directories.insert(path.to_owned());
    }
}

#[track_caller]
fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// The paths of the shared libraries of a program, the dynamic loader included; none for a static one.
#[track_caller]
fn libraries(program: &Path) -> Vec<String> {
    let out = Command::new("ldd").arg(program).output();
    let out = out.unwrap_or_else(|e| panic!("cannot run ldd (package libc-bin): {e}"));
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        !text.contains("not found"),
        "a library of {} is missing:\n{text}",
        program.display()
    );
    // "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)"
    text.lines()
        .flat_map(|line| line.split_whitespace())
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

//! Running a guest: one processor, no disk, no network, two serial ports.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::cache::Cache;
use super::results::{Results, tail};

/// The guest's memory in MiB. The file system's archive is in it twice while it is unpacked, and half of it is the most that the
/// file system may take: an unoptimised wgnat alone is 100 MB of that.
const MEMORY: &str = "768";

/// Ends with its handle.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a guest with this file system until it powers itself off. Panics with its console when `limit` has passed.
///
/// The first serial port is its console, the second takes a compressed tar of /results.
#[track_caller]
pub fn run(cache: &Cache, initramfs: &[u8], limit: Duration) -> Results {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = |name: &str| dir.path().join(name);
    fs::write(file("initramfs"), initramfs).expect("the initramfs can be written");
    // Its own loader and libraries: this machine's may be of another release.
    let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|dir| cache.file(dir));
    let mut command = Command::new(cache.file("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"));
    command
        .arg("--library-path")
        .arg(std::env::join_paths(&libraries).expect("the build directory's path has no colon"))
        .arg(cache.file("usr/bin/qemu-system-x86_64"))
        .env("QEMU_MODULE_DIR", cache.file("usr/lib/x86_64-linux-gnu/qemu"));
    // KVM is not everywhere, and a nested one not reliable; a second processor makes emulation slower.
    command.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY]);
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-vga",
        "none",
    ]);
    command
        .args(["-no-reboot", "-L"])
        .arg(cache.file("usr/share/seabios"));
    command.arg("-L").arg(cache.file("usr/share/qemu"));
    command.arg("-kernel").arg(cache.kernel());
    command.arg("-initrd").arg(file("initramfs"));
    // A kernel that panics ends at once, and -no-reboot ends the machine.
    command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
    for name in ["console", "results"] {
        command
            .arg("-serial")
            .arg(format!("file:{}", file(name).display()));
    }
    let said = File::create(file("stderr")).expect("a file can be made");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
    let child = command
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start QEMU: {e}"));
    let mut machine = Machine(child);
    let text = |name: &str| {
        let bytes = fs::read(file(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let began = Instant::now();
    let status = loop {
        if let Some(status) = machine.0.try_wait().expect("it is our child") {
            break status;
        }
        assert!(
            began.elapsed() < limit,
            "the guest did not end within {limit:?}; {}",
            tail(&text("console"))
        );
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(
        status.success(),
        "QEMU failed ({status}): {}\n{}",
        text("stderr"),
        tail(&text("console"))
    );
    Results::unpack(&file("results"), text("console"))
}

//! The mounts that a namespace has for itself: control sockets and /sys.

use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes the mount namespace that all commands of one namespace share, as the processes of one host do.
///
/// Userspace WireGuard's control sockets are files, and would be seen from all namespaces without it.
pub fn private(net: &File, wireguard: &Path) -> io::Result<File> {
    for point in wireguard_dirs() {
        std::fs::create_dir_all(point)?;
    }
    let make = || -> io::Result<File> {
        setns(net, CloneFlags::CLONE_NEWNET)?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        // Slaves still learn that a namespace was unmounted outside, so that none is kept alive in here.
        mount(c"none", Path::new("/"), c"", libc::MS_REC | libc::MS_SLAVE)?;
        // A sysfs mount belongs to the network namespace that it was made in. What is mounted below goes out of sight.
        mount(c"sysfs", Path::new("/sys"), c"sysfs", 0)?;
        for point in wireguard_dirs() {
            bind(wireguard, point)?;
        }
        File::open("/proc/thread-self/ns/mnt")
    };
    std::thread::scope(|scope| scope.spawn(make).join().expect("no panic in there"))
}

/// The places where control sockets are looked for; one, where /var/run is a link to /run.
fn wireguard_dirs() -> &'static [&'static Path] {
    static DIRS: std::sync::LazyLock<Vec<&Path>> = std::sync::LazyLock::new(|| {
        let same = std::fs::canonicalize("/var/run").ok() == std::fs::canonicalize("/run").ok();
        let both = [Path::new("/run/wireguard"), Path::new("/var/run/wireguard")];
        both[..if same { 1 } else { 2 }].to_vec()
    });
    &DIRS
}

/// Lets `source` appear at `target`, in the calling thread's mount namespace.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    let source = CString::new(source.as_os_str().as_bytes())?;
    mount(&source, target, c"", libc::MS_BIND)
}

fn mount(source: &CStr, target: &Path, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    let to = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: all pointers are to strings that outlive the call; no data argument is given.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            to.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

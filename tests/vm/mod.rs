//! A virtual machine with Debian's kernel and its own WireGuard: QEMU, without KVM, so that it runs anywhere.
//!
//! In: a file system with a script for the guest. Out: the files that it left in /results. Why: the kernel that the tests run on may have
//! no WireGuard module, and the observer of kernel devices is true only of the kernel's. README.md beside this file
//! says how it is made.

// The machine's edge: programs, files and time limits.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
// Each test uses a part of it.
#![allow(dead_code, unused_imports)]
// A panic is how a test fails, in its helpers too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout
)]

pub mod cache;
pub mod cpio;
pub mod initramfs;
pub mod modules;
pub mod qemu;
pub mod results;

pub use cache::{Cache, Kernel};
pub use initramfs::Initramfs;
pub use qemu::run;
pub use results::Results;

/// True when the virtual machine is wanted. `WGNAT_VM=skip` makes it print `skipped: …` and return false.
///
/// What is missing is no reason to skip: it fails the test, or nobody would know that it never runs.
pub fn wanted() -> bool {
    if std::env::var("WGNAT_VM").is_ok_and(|v| v == "skip") {
        eprintln!("skipped: WGNAT_VM=skip");
        return false;
    }
    true
}

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

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use cache::{Cache, Kernel};
pub use initramfs::Initramfs;
pub use qemu::run;
pub use results::Results;

/// A check of what a guest left, and its name.
pub type Check<G> = (&'static str, fn(&G));

/// Goes through all checks, and names each that fails.
#[track_caller]
pub fn all_pass<G>(guest: &G, checks: &[Check<G>]) {
    let failed: Vec<&str> = checks
        .iter()
        .filter(|(_, check)| catch_unwind(AssertUnwindSafe(|| check(guest))).is_err())
        .map(|(name, _)| *name)
        .collect();
    assert!(failed.is_empty(), "failed (see above): {}", failed.join(", "));
}

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

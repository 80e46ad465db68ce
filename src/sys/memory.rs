//! How the C library's allocator behaves.

// A call that no safe wrapper in use has.
#![allow(unsafe_code)]

/// What is larger than this is given back as soon as it is freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Makes the allocator give back what is no longer used, as whoever runs for good beside a load should.
///
/// By default glibc gives each thread an arena of its own, which keeps what it once took: a dozen observers would hold a dozen
/// times the largest dump. And once something large is freed (the kernel's types are 6 MB, read whenever programs are
/// loaded), it takes things of that size from an arena too, which then stays that large (mallopt(3), `M_MMAP_THRESHOLD`).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers; it is called before any other thread is started.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

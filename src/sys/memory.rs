//! How the C library's allocator behaves.

// A call that no safe wrapper in use has.
#![allow(unsafe_code)]

/// Lets all threads share two arenas. By default glibc gives each thread its own, which keeps what it once took: a dozen
/// observers would hold a dozen times the largest dump.
pub fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two numbers; it is called before any other thread is started.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

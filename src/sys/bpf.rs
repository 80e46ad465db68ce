//! Reading a BPF hash map in a few system calls instead of two an entry (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h).
const LOOKUP_BATCH: libc::c_long = 24;

/// `struct { … } batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `each` with every key (`K` bytes) and value (`V` bytes) of the hash map `map`, which has at most `entries`.
///
/// `K` and `V` must be the map's own sizes. An entry that changes meanwhile is read as it is at its moment.
pub fn for_each<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    entries: u32,
    mut each: impl FnMut(&[u8; K], &[u8; V]),
) -> io::Result<()> {
    let mut keys = vec![[0_u8; K]; entries as usize];
    let mut values = vec![[0_u8; V]; entries as usize];
    let mut cursor = 0_u64;
    let mut left_off = None;
    // One call reads all; further ones are for entries that were added meanwhile.
    for _ in 0..=entries {
        let mut batch = Batch {
            in_batch: left_off
                .as_ref()
                .map_or(0, |at: &u64| std::ptr::from_ref(at).addr() as u64),
            out_batch: (&raw mut cursor).addr() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: entries,
            map_fd: map.as_raw_fd().cast_unsigned(),
            ..Batch::default()
        };
        // SAFETY: the kernel writes at most `count` keys and values of the map's sizes, which by this function's contract are
        // `K` and `V`, to buffers of `entries` of each, and a cursor of at most eight bytes; it reads the eight bytes of
        // `in_batch`. All of them outlive the call.
        let done = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
        let error = io::Error::last_os_error();
        // ENOENT: that was the end.
        let at_end = done < 0 && error.raw_os_error() == Some(libc::ENOENT);
        if done < 0 && !at_end {
            return Err(error);
        }
        let count = batch.count as usize;
        for (key, value) in keys.iter().zip(&values).take(count) {
            each(key, value);
        }
        if at_end {
            return Ok(());
        }
        left_off = Some(cursor);
    }
    Ok(())
}

//! The system call `bpf` (include/uapi/linux/bpf.h), as far as wgnat's programs need it: maps, programs, where they are
//! attached, and maps read in one call.
//!
//! Each `attr` is the prefix of `union bpf_attr` that the command uses; the kernel takes the rest for zero.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::bpf_insn;

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const MAP_FREEZE: libc::c_long = 22;
const LOOKUP_BATCH: libc::c_long = 24;
const LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
const LINK_CREATE: libc::c_long = 28;
const ITER_CREATE: libc::c_long = 33;

/// `BPF_PROG_TYPE_TRACEPOINT`.
pub const TRACEPOINT: u32 = 5;
/// `BPF_PROG_TYPE_RAW_TRACEPOINT`.
pub const RAW_TRACEPOINT: u32 = 17;
/// `BPF_PROG_TYPE_TRACING`.
pub const TRACING: u32 = 26;
/// `BPF_TRACE_RAW_TP`: how a `tp_btf` program is attached.
pub const TRACE_RAW_TP: u32 = 23;
/// `BPF_TRACE_ITER`.
pub const TRACE_ITER: u32 = 28;

/// The verifier's words, as far as they are kept.
const LOG: usize = 256 * 1024;

/// Calls `bpf(command, attr)`.
///
/// # Safety
/// Every address in `attr` must be valid for what `command` reads or writes there.
unsafe fn call<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads at most the size given, writes back to it only; what `attr` points to is the caller's promise.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(done).unwrap_or(0))
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn address<T: ?Sized>(of: *const T) -> u64 {
    of.cast::<u8>().expose_provenance() as u64
}

/// What a map is to be.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec {
    /// `BPF_MAP_TYPE_…`.
    pub kind: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
    /// Entries at most.
    pub entries: u32,
    /// `BPF_F_…`.
    pub flags: u32,
}

/// Makes a map.
pub fn map_create(spec: &MapSpec) -> io::Result<OwnedFd> {
    let mut attr: [u32; 5] = [spec.kind, spec.key, spec.value, spec.entries, spec.flags];
    // SAFETY: no addresses.
    unsafe { call(MAP_CREATE, &mut attr) }.map(owned)
}

#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Sets entry 0 of an array, or an entry of a hash by its key. `key` and `value` must be of the map's own sizes.
pub fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = Element {
        map: map.as_raw_fd().cast_unsigned(),
        key: address(key),
        value: address(value),
        ..Element::default()
    };
    // SAFETY: the kernel reads a key and a value of the map's sizes, which by this function's contract are these slices'.
    unsafe { call(MAP_UPDATE, &mut attr) }.map(drop)
}

/// Reads the entry of `key` into `value`; both must be of the map's own sizes.
pub fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut attr = Element {
        map: map.as_raw_fd().cast_unsigned(),
        key: address(key),
        value: address(value),
        ..Element::default()
    };
    // SAFETY: the kernel reads a key and writes a value of the map's sizes, which by this function's contract are these
    // slices'; nobody else has `value`.
    unsafe { call(MAP_LOOKUP, &mut attr) }.map(drop)
}

/// Nobody can write to the map any more from user space: the verifier then takes what is in it for constants.
pub fn map_freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = map.as_raw_fd();
    // SAFETY: no addresses.
    unsafe { call(MAP_FREEZE, &mut attr) }.map(drop)
}

/// A program to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct ProgramSpec<'a> {
    /// `BPF_PROG_TYPE_…`.
    pub kind: u32,
    /// `BPF_TRACE_…`; 0 where the kind needs none.
    pub attach: u32,
    /// What it is attached to, by its id among the kernel's types; 0 where the kind needs none.
    pub target: u32,
    /// Its instructions.
    pub code: &'a [bpf_insn],
    /// Its name, at most 15 bytes.
    pub name: &'a str,
}

/// Why a program was not loaded.
#[derive(Debug)]
pub struct Refused {
    /// The kernel's answer.
    pub error: io::Error,
    /// The verifier's words; empty where it was not asked.
    pub log: String,
}

/// Loads a program; where it is refused, once more for the verifier's words.
pub fn program_load(spec: &ProgramSpec<'_>) -> Result<OwnedFd, Refused> {
    let refused = match load(spec, &mut []) {
        Ok(fd) => return Ok(fd),
        Err(error) => error,
    };
    let mut log = vec![0; LOG];
    // What is told is the first answer: with a log that is too small the second is ENOSPC.
    let again = load(spec, &mut log);
    let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(log.get(..end).unwrap_or_default()).into_owned();
    match again {
        Ok(fd) => Ok(fd),
        Err(_) => Err(Refused {
            error: refused,
            log: text,
        }),
    }
}

fn load(spec: &ProgramSpec<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        kind: u32,
        code_len: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        if_index: u32,
        attach: u32,
        btf: u32,
        func_info_size: u32,
        func_info: u64,
        func_info_len: u32,
        line_info_size: u32,
        line_info: u64,
        line_info_len: u32,
        target: u32,
    }
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().take(15).zip(spec.name.bytes()) {
        *to = from;
    }
    let license = c"GPL";
    let mut attr = Attr {
        kind: spec.kind,
        code_len: u32::try_from(spec.code.len()).unwrap_or(0),
        code: address(spec.code),
        license: address(license.as_ptr()),
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).unwrap_or(0),
        log: if log.is_empty() { 0 } else { address(log) },
        name,
        attach: spec.attach,
        target: spec.target,
        ..Attr::default()
    };
    // SAFETY: the kernel reads `code_len` instructions of eight bytes and a string that ends in a zero, and writes at most
    // `log_size` bytes to `log`, which nobody else has; all outlive the call.
    unsafe { call(PROG_LOAD, &mut attr) }.map(owned)
}

/// Attaches a program to a raw tracepoint by name, or without a name to the one that it was loaded for (`tp_btf`). It is
/// detached when what is returned is dropped.
pub fn attach_raw(program: BorrowedFd<'_>, tracepoint: Option<&CStr>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        name: u64,
        program: u32,
        pad: u32,
    }
    let mut attr = Attr {
        name: tracepoint.map_or(0, |name| address(name.as_ptr())),
        program: program.as_raw_fd().cast_unsigned(),
        pad: 0,
    };
    // SAFETY: the kernel reads a string that ends in a zero and outlives the call, or none.
    unsafe { call(RAW_TRACEPOINT_OPEN, &mut attr) }.map(owned)
}

/// Makes a link of an iterator's program, from which [`iterate`] starts walks.
pub fn link_iterator(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr: [u32; 4] = [program.as_raw_fd().cast_unsigned(), 0, TRACE_ITER, 0];
    // SAFETY: no addresses.
    unsafe { call(LINK_CREATE, &mut attr) }.map(owned)
}

/// Begins a walk in the calling thread's network namespace; it goes on while what is returned is read.
pub fn iterate(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr: [u32; 2] = [link.as_raw_fd().cast_unsigned(), 0];
    // SAFETY: no addresses.
    unsafe { call(ITER_CREATE, &mut attr) }.map(owned)
}

/// Attaches a program to a tracepoint by its number in tracefs. It is detached when what is returned is dropped.
pub fn attach_tracepoint(program: BorrowedFd<'_>, number: u64) -> io::Result<OwnedFd> {
    /// `PERF_TYPE_TRACEPOINT`, `PERF_EVENT_IOC_SET_BPF`, `PERF_EVENT_IOC_ENABLE`, `PERF_FLAG_FD_CLOEXEC`
    /// (include/uapi/linux/perf_event.h).
    const TYPE: u32 = 2;
    const SET_BPF: libc::Ioctl = 0x4004_2408;
    const ENABLE: libc::Ioctl = 0x2400;
    const CLOEXEC: libc::c_ulong = 8;
    /// `struct perf_event_attr`, version 0.
    #[repr(C)]
    #[derive(Default)]
    struct Attr {
        kind: u32,
        size: u32,
        config: u64,
        period: u64,
        sample: u64,
        read: u64,
        flags: u64,
        wakeup: u32,
        breakpoint: u32,
        more: u64,
    }
    let attr = Attr {
        kind: TYPE,
        size: u32::try_from(size_of::<Attr>()).unwrap_or(0),
        config: number,
        period: 1,
        ..Attr::default()
    };
    // SAFETY: the kernel reads `size` bytes of `attr`. A program at a tracepoint runs for every processor, whichever one the
    // event is opened for.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, 0, -1, CLOEXEC) };
    let fd = owned(
        i32::try_from(fd)
            .ok()
            .filter(|fd| *fd >= 0)
            .ok_or_else(io::Error::last_os_error)?,
    );
    // SAFETY: both requests take a number.
    if unsafe { libc::ioctl(fd.as_raw_fd(), SET_BPF, program.as_raw_fd()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::ioctl(fd.as_raw_fd(), ENABLE, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

/// `struct { … } batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// Reads a hash map in a few system calls instead of two an entry (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6): calls `each` with every
/// key (`K` bytes) and value (`V` bytes) of `map`, which has at most `entries`.
///
/// `K` and `V` must be the map's own sizes. An entry that changes meanwhile is read as it is at its moment.
pub fn for_each<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    entries: u32,
    each: impl FnMut(&[u8; K], &[u8; V]),
) -> io::Result<()> {
    batch(LOOKUP_BATCH, map, entries, each)
}

/// As [`for_each`], and empties the map.
pub fn drain<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    entries: u32,
    each: impl FnMut(&[u8; K], &[u8; V]),
) -> io::Result<()> {
    batch(LOOKUP_AND_DELETE_BATCH, map, entries, each)
}

/// Entries read in one call.
const AT_ONCE: u32 = 512;

fn batch<const K: usize, const V: usize>(
    command: libc::c_long,
    map: BorrowedFd<'_>,
    entries: u32,
    mut each: impl FnMut(&[u8; K], &[u8; V]),
) -> io::Result<()> {
    let mut at_once = AT_ONCE.min(entries);
    let mut keys = vec![[0_u8; K]; at_once as usize];
    let mut values = vec![[0_u8; V]; at_once as usize];
    let mut cursor = 0_u64;
    let mut left_off = None;
    // Entries that are added meanwhile may prolong it, but not for ever.
    for _ in 0..=entries {
        let mut attr = Batch {
            in_batch: left_off.as_ref().map_or(0, |at: &u64| address(at)),
            out_batch: address(&raw mut cursor),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: at_once,
            map: map.as_raw_fd().cast_unsigned(),
            ..Batch::default()
        };
        // SAFETY: the kernel writes at most `count` keys and values of the map's sizes, which by this function's contract are
        // `K` and `V`, to buffers of as many of each, and a cursor of at most eight bytes; it reads the eight bytes of
        // `in_batch`. All of them outlive the call.
        let done = unsafe { call(command, &mut attr) };
        let at_end = match done {
            Ok(_) => false,
            // That was the end.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // A bucket with more entries than fit: nothing was read.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && at_once < entries => {
                at_once = entries.min(at_once.saturating_mul(4));
                keys.resize(at_once as usize, [0; K]);
                values.resize(at_once as usize, [0; V]);
                continue;
            }
            Err(error) => return Err(error),
        };
        for (key, value) in keys.iter().zip(&values).take(attr.count as usize) {
            each(key, value);
        }
        if at_end {
            return Ok(());
        }
        left_off = Some(cursor);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BPF_EXIT` without a result.
    fn exits_with_nothing() -> bpf_insn {
        bpf_insn {
            code: 0x95,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off: 0,
            imm: 0,
        }
    }

    #[test]
    fn a_refused_program_comes_back_with_the_verifiers_words() {
        let code = [exits_with_nothing()];
        let spec = ProgramSpec {
            kind: RAW_TRACEPOINT,
            attach: 0,
            target: 0,
            code: &code,
            name: "wrong",
        };
        let refused = program_load(&spec).expect_err("it reads a register that nobody wrote");
        assert_eq!(refused.error.raw_os_error(), Some(libc::EACCES), "{refused:?}");
        assert!(refused.log.contains("R0 !read_ok"), "{}", refused.log);
    }

    #[test]
    fn a_map_is_read_in_batches_and_emptied() {
        use std::os::fd::AsFd as _;
        let spec = MapSpec {
            kind: 1,
            key: 4,
            value: 8,
            entries: 4096,
            flags: 0,
        };
        let map = map_create(&spec).expect("needs root");
        let keys = 0..3000_u32;
        for key in keys.clone() {
            map_update(map.as_fd(), &key.to_ne_bytes(), &u64::from(key * 2).to_ne_bytes()).unwrap();
        }
        let mut seen = Vec::new();
        let each = |key: &[u8; 4], value: &[u8; 8]| {
            assert_eq!(
                u64::from_ne_bytes(*value),
                u64::from(u32::from_ne_bytes(*key)) * 2
            );
            seen.push(u32::from_ne_bytes(*key));
        };
        drain::<4, 8>(map.as_fd(), 4096, each).unwrap();
        seen.sort_unstable();
        assert_eq!(seen, keys.collect::<Vec<_>>());
        for_each::<4, 8>(map.as_fd(), 4096, |_, _| panic!("it is empty")).unwrap();
    }
}

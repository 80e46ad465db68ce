//! Capabilities: which are held (`/proc/self/status`, so the process's first thread's), and giving the others up.

// System calls that no safe wrapper in use has.
#![allow(unsafe_code)]

use std::io;

use nix::errno::Errno;

/// The capabilities that wgnat can use, with their numbers (include/uapi/linux/capability.h).
const KNOWN: &[(&str, u32)] = &[
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYSLOG", 34),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// `_LINUX_CAPABILITY_VERSION_3`: 64 bits in two words.
const VERSION: u32 = 0x2008_0522;
/// The highest capability that any kernel has is below this.
const HIGHEST: u32 = 63;

/// The names of those known capabilities that the process has; `None` where `/proc` is not readable.
pub fn effective() -> Option<Vec<String>> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    // Whoever may read everything may search everything; to tell both would only be noise.
    let mut held = parse(&status)?;
    held.retain(|name| name != "CAP_DAC_OVERRIDE");
    Some(held)
}

fn number(name: &str) -> Option<u32> {
    let known = KNOWN.iter().find(|(known, _)| *known == name);
    known.map(|(_, number)| *number)
}

fn mask(names: &[&str]) -> u64 {
    let bits = names.iter().filter_map(|name| number(name));
    bits.fold(0, |mask, bit| mask | 1 << bit)
}

/// `struct __user_cap_header_struct` (include/uapi/linux/capability.h).
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Lets the calling thread keep only those of `names` that it has; threads that it starts have no more. They can not be had
/// again. Those kept become effective.
pub fn keep(names: &[&str]) -> io::Result<()> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    // SAFETY: both point to structures of the layout that the kernel expects of version 3, which live through the call.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    Errno::result(got)?;
    let wanted = mask(names);
    for (data, shift) in data.iter_mut().zip([0, 32]) {
        #[allow(clippy::cast_possible_truncation)] // the word at `shift`
        let word = (wanted >> shift) as u32;
        data.permitted &= word;
        data.effective = data.permitted;
        data.inheritable = 0;
    }
    // SAFETY: as above; the kernel only reads.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    Errno::result(set)?;
    Ok(())
}

/// Takes all but `names` from what a program that is started could gain, for good. Needs CAP_SETPCAP.
pub fn bound_to(names: &[&str]) -> io::Result<()> {
    let wanted = mask(names);
    for capability in (0..=HIGHEST).filter(|bit| wanted >> bit & 1 == 0) {
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        match Errno::result(dropped) {
            // This kernel has no such capability, nor one above it.
            Err(Errno::EINVAL) => break,
            other => other?,
        };
    }
    Ok(())
}

fn parse(status: &str) -> Option<Vec<String>> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    let bits = u64::from_str_radix(line.trim(), 16).ok()?;
    Some(
        KNOWN
            .iter()
            .filter(|(_, n)| bits >> n & 1 == 1)
            .map(|(name, _)| (*name).to_owned())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_the_effective_set() {
        let net = Some(vec!["CAP_NET_ADMIN".to_owned(), "CAP_NET_RAW".to_owned()]);
        assert_eq!(parse("Name:\tx\nCapEff:\t0000000000003000\nCapBnd:\t0\n"), net);
        assert_eq!(parse("CapEff:\t0000000000000000\n"), Some(vec![]));
        assert_eq!(parse("CapEff:\tzz\n"), None);
    }
}

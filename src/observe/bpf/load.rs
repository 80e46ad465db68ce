//! Loading and attaching the program, and saying in words why that did not work.
//!
//! The object is committed (docs/decisions/0004): it is compiled from bpf/connects.bpf.c, for little-endian machines.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use aya::programs::{BtfTracePoint, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::observe::ObserveError;
use crate::sys::caps;
use crate::types::NetnsId;
use crate::wire::bpf_records::{self as records, Losses};

/// Entries of the map `tallies`.
pub const TALLIES: u32 = 4096;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/connects.bpf.o"));

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const NEEDS: &str = "CAP_BPF and CAP_PERFMON (or root)";

/// The program, attached for as long as this lives.
pub struct Loaded {
    ebpf: Ebpf,
}

/// Loads and attaches the program to count in the namespace `here`.
pub fn load(here: NetnsId) -> Result<Loaded, ObserveError> {
    if !permitted() {
        return Err(ObserveError::Denied {
            doing: "counting connects by eBPF",
            needs: NEEDS,
        });
    }
    if !Path::new(VMLINUX).exists() {
        return Err(absent(format!(
            "this kernel does not describe its types ({VMLINUX} is not there: CONFIG_DEBUG_INFO_BTF is off, or /sys is not mounted)"
        )));
    }
    // A namespace's inode number is 32 bits wide in the kernel.
    let inode = u32::try_from(here.0).map_err(|_| {
        absent(format!(
            "the network namespace's number {} is out of range",
            here.0
        ))
    })?;
    // Before Linux 5.11 maps count as locked memory. Where this is refused, the load says so.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let btf = Btf::from_sys_fs().map_err(|e| absent(reason(&e)))?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("only_netns", &inode, true)
        .load(OBJECT)
        .map_err(|e| absent(reason(&e)))?;
    let program: &mut BtfTracePoint = ebpf
        .program_mut("connects")
        .ok_or_else(|| absent("the object lacks its program".to_owned()))?
        .try_into()
        .map_err(|e: ProgramError| absent(reason(&e)))?;
    program
        .load("inet_sock_set_state", &btf)
        .map_err(|e| absent(refused(&e)))?;
    program.attach().map_err(|e| absent(refused(&e)))?;
    Ok(Loaded { ebpf })
}

impl Loaded {
    /// The map of what was counted.
    pub fn tallies(&self) -> Result<BorrowedFd<'_>, ObserveError> {
        match self.ebpf.map("tallies") {
            Some(aya::maps::Map::LruHashMap(data)) => Ok(data.fd().as_fd()),
            _ => Err(absent("the object lacks its map".to_owned())),
        }
    }

    /// What could not be counted.
    pub fn losses(&self) -> Result<Losses, ObserveError> {
        self.ebpf
            .map("losses")
            .and_then(super::read_losses)
            .ok_or_else(|| absent("the count of losses cannot be read".to_owned()))
    }

    /// Events that came while the program already ran on the same processor; 0 where the kernel does not count them.
    pub fn misses(&self) -> u64 {
        let read = || {
            let fd = self.ebpf.program("connects")?.fd().ok()?.as_fd().as_raw_fd();
            let text = std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{fd}")).ok()?;
            records::recursion_misses(&text)
        };
        read().unwrap_or(0)
    }
}

/// Whether the capabilities are held; where that is not known the kernel will say.
fn permitted() -> bool {
    caps::effective().is_none_or(|held| {
        let holds = |name: &str| held.iter().any(|h| h == name);
        holds("CAP_SYS_ADMIN") || (holds("CAP_BPF") && holds("CAP_PERFMON"))
    })
}

fn absent(what: String) -> ObserveError {
    ObserveError::Absent { what }
}

/// Why the kernel refused the program.
fn refused(error: &ProgramError) -> String {
    if let ProgramError::LoadError { verifier_log, .. } = error {
        let log = verifier_log.to_string();
        if let Some(last) = last_lines(&log) {
            return format!("the kernel's verifier refused the eBPF program: {last}");
        }
    }
    reason(error)
}

/// The last lines of a verifier's log that say something: its statistics do not.
fn last_lines(log: &str) -> Option<String> {
    let telling = |line: &&str| {
        let line = line.trim();
        !line.is_empty()
            && ["processed ", "verification time", "stack depth"]
                .iter()
                .all(|noise| !line.starts_with(noise))
    };
    let mut last: Vec<&str> = log.lines().filter(telling).map(str::trim).rev().take(3).collect();
    last.reverse();
    (!last.is_empty()).then(|| last.join(" / "))
}

/// An error with all that lies beneath it; a refusal in words that help.
fn reason(error: &(dyn Error + 'static)) -> String {
    let errno = chain(error)
        .filter_map(|e| e.downcast_ref::<io::Error>())
        .find_map(io::Error::raw_os_error);
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
            not_permitted(&lockdown)
        }
        Some(libc::ENOSYS) => "this kernel has no eBPF (CONFIG_BPF_SYSCALL is off)".to_owned(),
        Some(libc::ENOMEM) => "the kernel has no memory for the eBPF maps (about 10 MiB)".to_owned(),
        _ => {
            let mut text = "eBPF: ".to_owned();
            let mut last = String::new();
            for part in chain(error).map(ToString::to_string) {
                // Many errors repeat the one beneath.
                if !last.contains(&part) {
                    let colon = if last.is_empty() { "" } else { ": " };
                    let _ = write!(text, "{colon}{part}");
                    last = part;
                }
            }
            text
        }
    }
}

/// An error and all that lies beneath it.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |e| (**e).source())
}

fn not_permitted(lockdown: &str) -> String {
    let why = if lockdown.contains("[confidentiality]") {
        "the kernel is locked down in confidentiality mode, which forbids programs that read its memory"
    } else {
        "though the capabilities are held: a container's seccomp profile, a user namespace, or kernel.unprivileged_bpf_disabled \
         and locked-memory limits on old kernels do that"
    };
    format!("the kernel refused eBPF; {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_are_told() {
        let log = "0: R1=ctx()\n; int old = ctx[1];\n12: (85) call unknown#999\ninvalid func unknown#999\n\
                   processed 12 insns (limit 1000000)\nverification time 9 usec\nstack depth 0\n";
        assert_eq!(
            last_lines(log).as_deref(),
            Some("; int old = ctx[1]; / 12: (85) call unknown#999 / invalid func unknown#999")
        );
        assert_eq!(last_lines("\nprocessed 0 insns\n"), None);
    }

    #[test]
    fn a_refusal_names_what_to_look_at() {
        assert!(not_permitted("none integrity [confidentiality]\n").contains("locked down"));
        assert!(not_permitted("none [integrity] confidentiality\n").contains("seccomp"));
        let error = io::Error::from_raw_os_error(libc::EPERM);
        assert!(
            reason(&error).starts_with("the kernel refused eBPF"),
            "{}",
            reason(&error)
        );
        let error = io::Error::from_raw_os_error(libc::EINVAL);
        assert!(reason(&error).contains("Invalid argument"), "{}", reason(&error));
    }
}

//! The ladder: the best way to count connects that this kernel and these capabilities allow, and why not a better one.
//!
//! 1. `typed`: the tracepoints with the kernel's types (BTF). Tells everything.
//! 2. `plain`: the same tracepoint by tracefs, with the fields of its own interface. Tells a want of ports, who closes first,
//!    lifetimes and concurrency; not the other causes of failures, bytes and retransmissions.
//!
//! Beside either, where there is BTF: system calls that were denied a port. The objects are committed (docs/decisions/0004):
//! they are compiled from bpf/, for little-endian machines.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::denials::Denials;
use super::object::{Aligned, Attached, Object, with_types};
use super::words;
use crate::observe::ObserveError;
use crate::sys::{bpf, caps};
use crate::types::NetnsId;
use crate::wire::bpf_records::{self as records, LOSSES, Losses};

/// Entries of the map `tallies`.
pub const TALLIES: u32 = 4096;

static TYPED: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../bpf/connects.bpf.o"));
static PLAIN: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../bpf/plain.bpf.o"));

/// Where tracefs is mounted, if it is.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// What its `format` must say of the fields that bpf/plain.bpf.c reads: name, offset, bytes at least.
const FIELDS: [(&str, u32); 11] = [
    ("skaddr", 8),
    ("oldstate", 16),
    ("newstate", 20),
    ("sport", 24),
    ("dport", 26),
    ("family", 28),
    ("protocol", 30),
    ("saddr", 32),
    ("daddr", 36),
    ("saddr_v6", 40),
    ("daddr_v6", 56),
];

/// What gives pointers that a program may follow without a call for each field (Linux 5.9 and 5.11).
const FOLLOWS: [&str; 2] = ["bpf_skc_to_tcp_sock", "bpf_get_current_task_btf"];

const NEEDS: &str = "CAP_BPF and CAP_PERFMON (or root)";

/// How connects are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// At the tracepoints with the kernel's types.
    Typed,
    /// At the plain tracepoint.
    Plain,
}

/// The programs, attached for as long as this lives.
pub struct Loaded {
    /// Which rung it is.
    pub rung: Rung,
    /// What is missing, and why.
    pub missing: Vec<String>,
    /// System calls that were denied a port, where they are counted.
    pub denials: Option<Denials>,
    object: Object,
    attached: Vec<Attached>,
}

/// Where to count, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The inode of the network namespace.
    pub netns: u32,
    /// The inode of the observer's PID namespace; `None`: it is the initial one.
    pub pidns: Option<u32>,
}

impl Scope {
    fn globals(self) -> [(&'static str, u32); 2] {
        [("only_netns", self.netns), ("own_pidns", self.pidns.unwrap_or(0))]
    }
}

/// Loads and attaches the best that there is to count in the namespace `here`.
pub fn load(here: NetnsId, pidns: Option<u32>) -> Result<Loaded, ObserveError> {
    if !permitted() {
        return Err(ObserveError::Denied {
            doing: "counting connects by eBPF",
            needs: NEEDS,
        });
    }
    // A namespace's inode number is 32 bits wide in the kernel.
    let netns = u32::try_from(here.0).map_err(|_| {
        absent(format!(
            "the network namespace's number {} is out of range",
            here.0
        ))
    })?;
    let scope = Scope { netns, pidns };
    raise_memlock();
    typed(scope, true).or_else(|why_not| {
        plain(&why_not).map_err(|no_plain| absent(format!("{why_not}; without that: {no_plain}")))
    })
}

/// Before Linux 5.11 maps count as locked memory. Where this is refused, the load says so.
pub fn raise_memlock() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// `follow`: as newer kernels allow it, where this is one; a test has it as on older ones.
pub(super) fn typed(scope: Scope, follow: bool) -> Result<Loaded, String> {
    with_types(|types| {
        let follows = follow && types.helpers(&FOLLOWS);
        let [netns, pidns] = scope.globals();
        let globals = [netns, pidns, ("follows", u32::from(follows))];
        let object = Object::open(&TYPED.0, &globals, Some(types))?;
        let mut attached = vec![object.attach_typed("connects", types, "inet_sock_set_state")?];
        let mut missing = Vec::new();
        match object.attach_typed("retransmits", types, "tcp_retransmit_skb") {
            Ok(program) => attached.push(program),
            Err(why) => missing.push(format!(
                "unanswered connects are not told from abandoned ones: {why}"
            )),
        }
        let denials = Denials::load(&scope.globals(), types)
            .map_err(|why| missing.push(format!("denied ports of UDP and of bind are not counted: {why}")))
            .ok();
        Ok(Loaded {
            rung: Rung::Typed,
            missing,
            denials,
            object,
            attached,
        })
    })
}

fn plain(why_not: &str) -> Result<Loaded, String> {
    let event = tracepoint()?;
    let number = std::fs::read_to_string(event.join("id"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| format!("{} is not readable", event.join("id").display()))?;
    let format = std::fs::read_to_string(event.join("format")).unwrap_or_default();
    known_format(&format)?;
    let object = Object::open(&PLAIN.0, &[], None)?;
    let program = object.program("connects", bpf::TRACEPOINT, 0, 0)?;
    let attached = Attached::new(program, |fd| bpf::attach_tracepoint(fd, number))?;
    Ok(Loaded {
        rung: Rung::Plain,
        missing: vec![format!(
            "{why_not}; so connects are counted at the plain tracepoint, which tells a want of ports but not refused, unanswered \
             and unreachable ones apart, neither bytes nor denied ports of UDP and bind, and processes of this namespace only \
             while they live"
        )],
        denials: None,
        object,
        attached: vec![attached],
    })
}

fn tracepoint() -> Result<PathBuf, String> {
    let event = |root: &&str| Path::new(root).join("events/sock/inet_sock_set_state");
    TRACEFS
        .iter()
        .map(event)
        .find(|event| event.join("id").exists())
        .ok_or_else(|| {
            format!(
                "there is no tracefs at {} (mount -t tracefs tracefs {0}), or it has no sock:inet_sock_set_state (Linux 4.16)",
                TRACEFS[0]
            )
        })
}

/// Whether the fields lie where the program reads them.
fn known_format(format: &str) -> Result<(), String> {
    for (name, offset) in FIELDS {
        let found = format.lines().any(|line| {
            let mut parts = line.split(';').map(str::trim);
            let field = parts.next().unwrap_or_default();
            let named = field
                .split(' ')
                .next_back()
                .map(|f| f.split('[').next().unwrap_or(f));
            field.starts_with("field:")
                && named.map(|f| f.trim_start_matches('*')) == Some(name)
                && parts.next() == Some(&format!("offset:{offset}"))
        });
        if !found {
            return Err(format!(
                "the tracepoint sock:inet_sock_set_state has no field {name} at offset {offset}"
            ));
        }
    }
    Ok(())
}

impl Loaded {
    /// The map of what was counted.
    pub fn tallies(&self) -> Result<BorrowedFd<'_>, ObserveError> {
        self.object.map("tallies").map_err(absent)
    }

    /// What could not be counted.
    pub fn losses(&self) -> Result<Losses, ObserveError> {
        let mut bytes = [0; LOSSES];
        let map = self.object.map("losses").map_err(absent)?;
        bpf::map_lookup(map, &0_u32.to_ne_bytes(), &mut bytes).map_err(|e| {
            absent(format!(
                "the count of losses cannot be read: {}",
                words::reason(&e)
            ))
        })?;
        Ok(records::losses(&bytes))
    }

    /// Events that came while a program already ran on the same processor; 0 where the kernel does not count them.
    pub fn misses(&self) -> u64 {
        self.attached
            .iter()
            .filter_map(|program| records::recursion_misses(&program.info()))
            .sum()
    }
}

/// Whether the capabilities are held; where that is not known the kernel will say.
pub fn permitted() -> bool {
    caps::effective().is_none_or(|held| {
        let holds = |name: &str| held.iter().any(|h| h == name);
        holds("CAP_SYS_ADMIN") || (holds("CAP_BPF") && holds("CAP_PERFMON"))
    })
}

pub(super) fn absent(what: String) -> ObserveError {
    ObserveError::Absent { what }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &str = "name: inet_sock_set_state\nID: 1546\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:int oldstate;\toffset:16;\tsize:4;\tsigned:1;\n\
        \tfield:int newstate;\toffset:20;\tsize:4;\tsigned:1;\n\
        \tfield:__u16 sport;\toffset:24;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 dport;\toffset:26;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 family;\toffset:28;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 protocol;\toffset:30;\tsize:2;\tsigned:0;\n\
        \tfield:__u8 saddr[4];\toffset:32;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 daddr[4];\toffset:36;\tsize:4;\tsigned:0;\n\
        \tfield:__u8 saddr_v6[16];\toffset:40;\tsize:16;\tsigned:0;\n\
        \tfield:__u8 daddr_v6[16];\toffset:56;\tsize:16;\tsigned:0;\n";

    #[test]
    fn a_tracepoint_of_another_shape_is_not_read() {
        assert_eq!(known_format(FORMAT), Ok(()));
        let moved = FORMAT.replace("offset:26", "offset:28");
        assert!(known_format(&moved).unwrap_err().contains("dport"));
        assert!(known_format("").is_err());
    }
}

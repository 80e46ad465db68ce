//! System calls that were denied a local port: `bind` with EADDRINUSE, and `connect` and sends of UDP sockets with EAGAIN.
//!
//! No tracepoint of sockets tells these, so the program sits where every system call returns, which costs each of them (some
//! tens of nanoseconds; docs/benchmarks.md). A short look may have that always; who watches for good attaches it only while
//! ports are short ([`When`]).

use std::collections::BTreeSet;

use super::holders::Holders;
use super::load::absent;
use super::object::{Aligned, Attached, Object, Types};
use super::programs::{Counted, Names};
use super::{Clocks, failed};
use crate::observation::connect::{Denial, PortCall};
use crate::observe::{ObserveError, sysctl};
use crate::sys::bpf;
use crate::types::{PortRange, Proto};
use crate::wire::bpf_records::{self as records, Call, DENIED, Denied, WANT, Want};

/// Entries of the map `wants`.
const WANTS: u32 = 1024;

/// Denials in one observation.
const MAX_DENIALS: usize = 64;

/// From this share of the ports on, sockets are so many that a call may be denied one.
const SHORT: f64 = 0.5;

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../bpf/errnos.bpf.o"));

/// When the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// From the start on: for a look of a few seconds.
    Always,
    /// While sockets hold half of the ports or more.
    PortsAreShort,
}

/// The program and what it counted.
pub struct Denials {
    object: Object,
    attached: Option<Attached>,
    holders: Holders,
}

/// Bytes into `struct pt_regs`, and system calls by number (arch/*/include/uapi/asm/ptrace.h, unistd.h).
#[cfg(target_arch = "x86_64")]
const MACHINE: [(&str, u32); 8] = [
    ("nr_bind", 49),
    ("nr_connect", 42),
    ("nr_sendto", 44),
    ("nr_sendmsg", 46),
    // orig_ax, di, si, r8
    ("at_number", 120),
    ("at_fd", 112),
    ("at_second", 104),
    ("at_fifth", 72),
];

/// Likewise; the first argument is kept in `orig_x0`, for x0 has the result.
#[cfg(target_arch = "aarch64")]
const MACHINE: [(&str, u32); 8] = [
    ("nr_bind", 200),
    ("nr_connect", 203),
    ("nr_sendto", 206),
    ("nr_sendmsg", 211),
    ("at_number", 280),
    ("at_fd", 272),
    ("at_second", 8),
    ("at_fifth", 32),
];

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MACHINE: [(&str, u32); 0] = [];

impl Denials {
    /// Loads the program; it is not attached yet.
    pub fn load(scope: &[(&'static str, u32)], types: &Types<'_>) -> Result<Self, String> {
        if MACHINE.is_empty() {
            return Err("this machine's system calls are not known".to_owned());
        }
        let globals: Vec<(&str, u32)> = scope.iter().chain(&MACHINE).copied().collect();
        Ok(Self {
            object: Object::open(&OBJECT.0, &globals, Some(types))?,
            attached: None,
            holders: Holders::default(),
        })
    }

    /// Attaches or detaches it as `when` says; an error says why it could not be attached.
    pub fn attend(&mut self, when: When) -> Result<(), String> {
        let wanted = when == When::Always || ports_are_short();
        if wanted && self.attached.is_none() {
            self.attached = Some(self.object.attach_raw("errnos", c"sys_exit")?);
        } else if !wanted {
            self.attached = None;
        }
        Ok(())
    }

    /// What was counted, those denied most first; and how many were forgotten or do not fit.
    pub(super) fn read(
        &mut self,
        names: &mut Names,
        clocks: &Clocks,
        shown: &mut BTreeSet<(u32, u64)>,
    ) -> Result<(Vec<Denial>, u64), ObserveError> {
        // First: what is made after that is among the entries, and must not be missed there.
        let mut made = [0; 8];
        let map = self.object.map("wants_made").map_err(absent)?;
        bpf::map_lookup(map, &0_u32.to_ne_bytes(), &mut made).map_err(failed("reading the denied ports"))?;
        let map = self.object.map("wants").map_err(absent)?;
        let mut counted: Vec<(Want, Denied)> = Vec::new();
        let mut entries = 0_u64;
        bpf::for_each::<WANT, DENIED>(map, WANTS, |want, denied| {
            entries += 1;
            counted.extend(records::want(want).map(|want| (want, records::denied(denied))));
        })
        .map_err(failed("reading the denied ports (BPF_MAP_LOOKUP_BATCH)"))?;
        let evicted = u64::from_ne_bytes(made).saturating_sub(entries);
        counted.sort_by_key(|(want, denied)| {
            (
                std::cmp::Reverse(denied.count),
                want.source,
                want.destination,
                want.tgid,
            )
        });
        let beyond = counted.len().saturating_sub(MAX_DENIALS);
        counted.truncate(MAX_DENIALS);
        shown.extend(counted.iter().map(|(want, _)| (want.tgid, want.started)));
        let mut denials: Vec<Denial> = counted
            .into_iter()
            .map(|(want, denied)| denial(&want, &denied, names, clocks))
            .collect();
        self.holders.fill(&mut denials);
        Ok((denials, evicted + beyond as u64))
    }
}

fn denial(want: &Want, denied: &Denied, names: &mut Names, clocks: &Clocks) -> Denial {
    let process = Counted {
        tgid: want.tgid,
        tgid_here: denied.tgid_here,
        started: want.started,
    };
    let asked = want.destination.port() != 0;
    Denial {
        process: names.of(process, &denied.comm),
        proto: if i32::from(want.protocol) == libc::IPPROTO_UDP {
            Proto::Udp
        } else {
            Proto::Tcp
        },
        call: match want.call {
            Call::Bind => PortCall::Bind,
            Call::Connect => PortCall::Connect,
            Call::Send => PortCall::Send,
        },
        errno: want.errno.into(),
        source: want.source.ip(),
        port: Some(want.source.port()).filter(|port| *port != 0),
        destination: asked.then_some(want.destination),
        holder: None,
        count: denied.count,
        first: clocks.wall(denied.first),
        last: clocks.wall(denied.last),
    }
}

/// Whether the namespace has so many sockets that ports may be short. Sockets of servers count too: then it is attached for
/// nothing, which costs a little and says nothing wrong.
fn ports_are_short() -> bool {
    let range = sysctl::local_port_range().unwrap_or(PortRange::LINUX_DEFAULT);
    let Ok(text) = std::fs::read_to_string("/proc/thread-self/net/sockstat") else {
        return true;
    };
    let six = std::fs::read_to_string("/proc/thread-self/net/sockstat6").unwrap_or_default();
    let most = sockets(&text, &six);
    f64::from(most) >= f64::from(range.len()) * SHORT
}

/// The sockets of the transport that has more, TIME_WAIT included.
fn sockets(sockstat: &str, sockstat6: &str) -> u32 {
    let number = |text: &str, head: &str, name: &str| -> u32 {
        let line = text.lines().find_map(|line| line.strip_prefix(head));
        let mut words = line.unwrap_or_default().split_whitespace();
        words
            .find(|word| *word == name)
            .and_then(|_| words.next()?.parse().ok())
            .unwrap_or(0)
    };
    let tcp = number(sockstat, "TCP:", "inuse")
        + number(sockstat, "TCP:", "tw")
        + number(sockstat6, "TCP6:", "inuse");
    let udp = number(sockstat, "UDP:", "inuse") + number(sockstat6, "UDP6:", "inuse");
    tcp.max(udp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_off_sockstat() {
        let four = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 30 alloc 6 mem 1\nUDP: inuse 3 mem 0\n";
        let six = "TCP6: inuse 2\nUDP6: inuse 40\n";
        assert_eq!(sockets(four, six), 43);
        assert_eq!(sockets(four, ""), 35);
        assert_eq!(sockets("", ""), 0);
    }
}

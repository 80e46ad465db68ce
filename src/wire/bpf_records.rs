//! The records that the eBPF programs in `bpf/` keep in their maps, by the layouts in bpf/connects.h and bpf/errnos.bpf.c.
//!
//! In: bytes as the kernel gives them, in this machine's byte order. Out: plain values. The sizes are part of the types,
//! so that a record of another layout is refused where a map is opened and not misread here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes of `struct key`.
pub const KEY: usize = 48;

/// Bytes of `struct tally`.
pub const TALLY: usize = 392;

/// Bytes of `struct losses`.
pub const LOSSES: usize = 24;

/// Classes of lifetimes: class `i` holds 2^i to 2^(i+1) µs.
pub const CLASSES: usize = 40;

/// Whose connections, from where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The local address.
    pub source: IpAddr,
    /// The remote address and port.
    pub destination: SocketAddr,
    /// When the process started, in nanoseconds since boot.
    pub started: u64,
    /// Its id.
    pub tgid: u32,
}

/// What was counted. Names as in `struct tally`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // crate::observation::connect says what each is
pub struct Tally {
    pub comm: String,
    pub attempts: u64,
    pub established: u64,
    pub no_port: u64,
    pub tuple_taken: u64,
    pub refused: u64,
    pub timed_out: u64,
    pub unreachable: u64,
    pub given_up: u64,
    pub failed_otherwise: u64,
    pub closed_here: u64,
    pub closed_there: u64,
    pub reset_there: u64,
    pub lifetime_ns: u64,
    /// `CLOCK_MONOTONIC`, 0 where there was none.
    pub no_port_first: u64,
    /// Likewise.
    pub no_port_last: u64,
    pub open: u64,
    pub peak: u64,
    pub syn_retransmits: u64,
    pub unanswered: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub bursts: u64,
    pub burst_opens: u64,
    /// `CLOCK_MONOTONIC`, 0 where there was none.
    pub burst_first: u64,
    /// Likewise.
    pub burst_last: u64,
    /// The process as the observer's own PID namespace numbers it, 0 where it does not.
    pub tgid_here: u32,
    pub lifetimes: [u32; CLASSES],
}

/// What could not be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Entries ever made; those that are not there any more were evicted.
    pub made: u64,
    /// Connections that were not followed.
    pub not_followed: u64,
    /// Ends of connections whose entry had been evicted.
    pub orphans: u64,
}

/// Takes a record's fields off its front, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes; zeros beyond the end, which a record's own size rules out.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }
    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }
    fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.take())
    }
    fn ip(&mut self) -> IpAddr {
        Ipv6Addr::from(self.take::<16>()).to_canonical()
    }
    /// A process's name, which ends in a zero.
    fn comm(&mut self) -> String {
        let comm = self.take::<16>();
        let comm = comm.split(|b| *b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(comm).into_owned()
    }
    /// A count that may be off by the few that another processor has not added yet.
    fn count(&mut self) -> u64 {
        u64::try_from(i64::from_ne_bytes(self.take())).unwrap_or(0)
    }
}

/// Reads a `struct key`.
pub fn key(bytes: &[u8; KEY]) -> Key {
    let mut f = Fields(bytes);
    let (source, destination) = (f.ip(), f.ip());
    let (started, tgid, port) = (f.u64(), f.u32(), f.u16());
    Key {
        source,
        destination: SocketAddr::new(destination, port),
        started,
        tgid,
    }
}

/// Reads a `struct tally`.
pub fn tally(bytes: &[u8; TALLY]) -> Tally {
    let mut f = Fields(bytes);
    Tally {
        comm: f.comm(),
        attempts: f.u64(),
        established: f.u64(),
        no_port: f.u64(),
        tuple_taken: f.u64(),
        refused: f.u64(),
        timed_out: f.u64(),
        unreachable: f.u64(),
        given_up: f.u64(),
        failed_otherwise: f.u64(),
        closed_here: f.u64(),
        closed_there: f.u64(),
        reset_there: f.u64(),
        lifetime_ns: f.u64(),
        no_port_first: f.u64(),
        no_port_last: f.u64(),
        open: f.count(),
        peak: f.count(),
        syn_retransmits: f.u64(),
        unanswered: f.u64(),
        bytes_sent: f.u64(),
        bytes_received: f.u64(),
        bursts: f.u64(),
        burst_opens: f.u64(),
        burst_first: f.u64(),
        burst_last: f.u64(),
        tgid_here: {
            // `window_at` and `window_opens`: the burst that may be under way.
            f.take::<12>();
            f.u32()
        },
        lifetimes: std::array::from_fn(|_| f.u32()),
    }
}

/// Reads a `struct losses`.
pub fn losses(bytes: &[u8; LOSSES]) -> Losses {
    let mut f = Fields(bytes);
    Losses {
        made: f.u64(),
        not_followed: f.u64(),
        orphans: f.u64(),
    }
}

/// Bytes of `struct want`.
pub const WANT: usize = 56;

/// Bytes of `struct denied`.
pub const DENIED: usize = 48;

/// A system call that asks for a local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// `bind`.
    Bind,
    /// `connect`.
    Connect,
    /// `sendto` or `sendmsg`.
    Send,
}

/// Which port was wanted by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// The local address and port; port 0 is any.
    pub source: SocketAddr,
    /// Where to, for `connect` and a send.
    pub destination: SocketAddr,
    /// When the process started, in nanoseconds since boot.
    pub started: u64,
    /// Its id.
    pub tgid: u32,
    /// `IPPROTO_…`.
    pub protocol: u16,
    /// The call.
    pub call: Call,
    /// The errno.
    pub errno: u8,
}

/// How often that was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The process's name.
    pub comm: String,
    /// How often.
    pub count: u64,
    /// `CLOCK_MONOTONIC`.
    pub first: u64,
    /// Likewise.
    pub last: u64,
    /// The process as the observer's own PID namespace numbers it, 0 where it does not.
    pub tgid_here: u32,
}

/// Reads a `struct want`; `None` for a call that is not known.
pub fn want(bytes: &[u8; WANT]) -> Option<Want> {
    let mut f = Fields(bytes);
    let (source, destination) = (f.ip(), f.ip());
    let (started, tgid) = (f.u64(), f.u32());
    let (source_port, destination_port, protocol) = (f.u16(), f.u16(), f.u16());
    let [call, errno] = f.take();
    Some(Want {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
        started,
        tgid,
        protocol,
        call: match call {
            1 => Call::Bind,
            2 => Call::Connect,
            3 => Call::Send,
            _ => return None,
        },
        errno,
    })
}

/// Reads a `struct denied`.
pub fn denied(bytes: &[u8; DENIED]) -> Denied {
    let mut f = Fields(bytes);
    Denied {
        comm: f.comm(),
        count: f.u64(),
        first: f.u64(),
        last: f.u64(),
        tgid_here: f.u32(),
    }
}

/// The program's `recursion_misses` in its `fdinfo` (kernel 5.12): events that came while it ran on the same processor.
pub fn recursion_misses(fdinfo: &str) -> Option<u64> {
    let line = fdinfo.lines().find_map(|l| l.strip_prefix("recursion_misses:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_field_by_field() {
        let mut bytes = [0; KEY];
        bytes[10..16].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 2]);
        bytes[16..32].copy_from_slice(&"2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
        bytes[32..40].copy_from_slice(&77_u64.to_ne_bytes());
        bytes[40..44].copy_from_slice(&812_u32.to_ne_bytes());
        bytes[44..46].copy_from_slice(&443_u16.to_ne_bytes());
        assert_eq!(
            key(&bytes),
            Key {
                source: [10, 0, 0, 2].into(),
                destination: "[2001:db8::9]:443".parse().unwrap(),
                started: 77,
                tgid: 812
            }
        );
    }

    #[test]
    fn a_tally_uses_each_of_its_bytes_once() {
        let mut bytes = [0; TALLY];
        bytes[..4].copy_from_slice(b"node");
        for (i, field) in bytes[16..224].chunks_exact_mut(8).enumerate() {
            field.copy_from_slice(&(i as u64 + 1).to_ne_bytes());
        }
        bytes[228..232].copy_from_slice(&812_u32.to_ne_bytes());
        for (i, field) in bytes[232..].chunks_exact_mut(4).enumerate() {
            field.copy_from_slice(&(u32::try_from(i).unwrap() + 100).to_ne_bytes());
        }
        let t = tally(&bytes);
        assert_eq!(
            (t.comm.as_str(), t.attempts, t.established, t.no_port),
            ("node", 1, 2, 3)
        );
        assert_eq!((t.failed_otherwise, t.closed_here, t.reset_there), (9, 10, 12));
        assert_eq!((t.lifetime_ns, t.no_port_last, t.open, t.peak), (13, 15, 16, 17));
        assert_eq!((t.syn_retransmits, t.bytes_received, t.bursts), (18, 21, 22));
        assert_eq!(
            (t.burst_opens, t.burst_first, t.burst_last, t.tgid_here),
            (23, 24, 25, 812)
        );
        assert_eq!((t.lifetimes[0], t.lifetimes[CLASSES - 1]), (100, 139));
    }

    #[test]
    fn a_denied_port_is_read_field_by_field() {
        let mut bytes = [0; WANT];
        bytes[10..16].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 2]);
        bytes[26..32].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        bytes[32..40].copy_from_slice(&77_u64.to_ne_bytes());
        bytes[40..44].copy_from_slice(&812_u32.to_ne_bytes());
        for (at, n) in [(44, 8080_u16), (46, 443), (48, 17)] {
            bytes[at..at + 2].copy_from_slice(&n.to_ne_bytes());
        }
        bytes[50..52].copy_from_slice(&[2, 11]);
        let expected = Want {
            source: "10.0.0.2:8080".parse().unwrap(),
            destination: "192.0.2.7:443".parse().unwrap(),
            started: 77,
            tgid: 812,
            protocol: 17,
            call: Call::Connect,
            errno: 11,
        };
        assert_eq!(want(&bytes), Some(expected));
        bytes[50] = 9;
        assert_eq!(want(&bytes), None);
        let mut bytes = [0; DENIED];
        bytes[..4].copy_from_slice(b"node");
        bytes[16..24].copy_from_slice(&5_u64.to_ne_bytes());
        bytes[40..44].copy_from_slice(&7_u32.to_ne_bytes());
        let d = denied(&bytes);
        assert_eq!((d.comm.as_str(), d.count, d.last, d.tgid_here), ("node", 5, 0, 7));
    }

    #[test]
    fn a_count_below_zero_is_none() {
        let mut bytes = [0; TALLY];
        bytes[136..144].copy_from_slice(&(-1_i64).to_ne_bytes());
        assert_eq!(tally(&bytes).open, 0);
    }

    #[test]
    fn misses_are_read_where_the_kernel_tells_them() {
        assert_eq!(
            recursion_misses("prog_type:\t26\nrecursion_misses:\t3\n"),
            Some(3)
        );
        assert_eq!(recursion_misses("prog_type:\t26\n"), None);
    }
}

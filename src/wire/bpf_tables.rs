//! The records of bpf/tables.bpf.c: socket tables counted in the kernel.
//!
//! In: bytes as the kernel gives them, in this machine's byte order. Out: plain values. Sizes are part of the types.

use super::netlink::addr::Addr;
use crate::observation::socket::{StateCounts, TIME_WAIT_CLASSES};

/// Bytes of `struct place`.
pub const PLACE: usize = 36;
/// Bytes of `struct use`.
pub const USE: usize = SLOTS * 4 + 4 + 24 + 64 + 32 + 4;
/// Bytes of `struct states`.
pub const STATES: usize = SLOTS * 4;
/// Bytes of `struct board`.
pub const BOARD: usize = WORDS * 8 * 6 + 8 + 8 * 4 + SLOTS * 4 + 8;
/// Bytes of a key of `inbound`.
pub const PORT: usize = 4;
/// Bytes of a `struct end`.
pub const END: usize = 20;
/// `IPPROTO_TCP`.
const TCP: u16 = 6;

/// States in a record; those beyond [`StateCounts`]' are not used.
const SLOTS: usize = 16;
/// Words of a set of ports.
const WORDS: usize = 1024;
/// Bytes of a set of ports.
const SET: usize = WORDS * 8;
/// Inodes in `struct use`.
const INODES: usize = 16;
/// User ids in `struct use`.
const UIDS: usize = 8;

/// `INITIAL_JIFFIES` (include/linux/jiffies.h) is 2^32 less 300 s.
const FIRST_JIFFIES: u64 = 1 << 32;
const BEFORE_SECONDS: f64 = 300.0;
/// `CONFIG_HZ` as kernels are built.
const HERTZ: [u32; 5] = [100, 250, 300, 1000, 1024];

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The local address.
    pub source: Addr,
    /// The remote address.
    pub destination: Addr,
    /// The remote port.
    pub port: u16,
    /// `IPPROTO_…`.
    pub protocol: u8,
}

/// Outbound sockets of one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// By state.
    pub states: StateCounts,
    /// Those whose local port is one that the kernel hands out.
    pub ports_in_range: u32,
    /// TIME_WAIT by remaining life.
    pub left: [u32; TIME_WAIT_CLASSES],
    /// The greatest inodes, greatest first.
    pub inodes: Vec<u32>,
    /// User ids, ascending.
    pub uids: Vec<u32>,
}

/// What the walks left on the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// TCP sockets by state.
    pub tcp: StateCounts,
    /// UDP sockets.
    pub udp: u32,
    /// Local ports that TCP listeners hold.
    pub tcp_served: Ports,
    /// Of these, those held at every address, or at one that found no place of its own.
    pub tcp_everywhere: Ports,
    /// Local ports that unconnected UDP sockets hold.
    pub udp_served: Ports,
    /// Local ports that UDP sockets hold.
    pub udp_ports: Ports,
    /// `jiffies_64` during the first walk.
    pub jiffies: u64,
    /// `CLOCK_MONOTONIC` then, in nanoseconds.
    pub monotonic: u64,
    /// Outbound sockets whose destination did not fit.
    pub outbound_beyond: u64,
    /// Inbound ones whose port did not fit.
    pub inbound_beyond: u64,
}

/// A set of ports, a bit each.
#[derive(Clone, PartialEq, Eq)]
pub struct Ports(Vec<u64>);

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Ports {
    /// The ports that are in, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        // Most words are empty.
        let words = self.0.iter().zip(0_u16..).filter(|(word, _)| **word != 0);
        words.flat_map(|(word, at)| {
            let set = (0..64_u16).filter(move |bit| word >> bit & 1 == 1);
            set.map(move |bit| at * 64 + bit)
        })
    }
}

/// Takes fields off a record's front.
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
    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.take())
    }
    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.take())
    }
    fn words<const N: usize>(&mut self) -> [u32; N] {
        std::array::from_fn(|_| self.u32())
    }
    fn states(&mut self) -> StateCounts {
        let words: [u32; SLOTS] = self.words();
        let mut states = StateCounts::default();
        for (to, from) in states.0.iter_mut().zip(words) {
            *to = from;
        }
        states
    }
    fn ports(&mut self) -> Ports {
        Ports((0..WORDS).map(|_| self.u64()).collect())
    }
    fn skip(&mut self, bytes: usize) {
        self.0 = self.0.get(bytes..).unwrap_or_default();
    }
}

/// Reads a `struct place`.
pub fn place(bytes: &[u8; PLACE]) -> Place {
    let mut f = Fields(bytes);
    Place {
        source: Addr::from_v6(f.take()),
        destination: Addr::from_v6(f.take()),
        port: u16::from_ne_bytes(f.take()),
        protocol: u8::from_ne_bytes(f.take()),
    }
}

/// Reads a `struct use`.
pub fn used(bytes: &[u8; USE]) -> Use {
    let mut f = Fields(bytes);
    let (states, ports_in_range, left) = (f.states(), f.u32(), f.words());
    let (inodes, uids): ([u32; INODES], [u32; UIDS]) = (f.words(), f.words());
    let uid_count = (f.u32() as usize).min(UIDS);
    let mut inodes: Vec<u32> = inodes.into_iter().filter(|inode| *inode != 0).collect();
    inodes.sort_unstable_by_key(|inode| std::cmp::Reverse(*inode));
    let mut uids: Vec<u32> = uids.into_iter().take(uid_count).collect();
    uids.sort_unstable();
    Use {
        states,
        ports_in_range,
        left,
        inodes,
        uids,
    }
}

/// Reads a `struct end` of a TCP listener: its address and port; `None` for another protocol's.
pub fn listener(bytes: &[u8; END]) -> Option<(Addr, u16)> {
    let (address, rest) = bytes.split_first_chunk::<16>()?;
    let (port, protocol) = rest.split_first_chunk::<2>()?;
    let protocol = u16::from_ne_bytes(*protocol.first_chunk()?);
    (protocol == TCP).then_some((Addr::from_v6(*address), u16::from_ne_bytes(*port)))
}

/// Reads a `struct states`.
pub fn states(bytes: &[u8; STATES]) -> StateCounts {
    Fields(bytes).states()
}

/// Reads a `struct board`.
pub fn board(bytes: &[u8; BOARD]) -> Board {
    let mut f = Fields(bytes);
    f.skip(SET + 8);
    let tcp_served = f.ports();
    let tcp_everywhere = f.ports();
    let udp_served = f.ports();
    f.skip(SET);
    let udp_ports = f.ports();
    Board {
        jiffies: f.u64(),
        monotonic: f.u64(),
        outbound_beyond: f.u64(),
        inbound_beyond: f.u64(),
        tcp: f.states(),
        udp: f.u32(),
        tcp_served,
        tcp_everywhere,
        udp_served,
        udp_ports,
    }
}

/// A board for the next walks: nothing is counted, `usable` are the ports that the kernel hands out, a bit each, `hertz` its
/// ticks a second (0: not known yet).
pub fn fresh_board(usable: &[u64; WORDS], hertz: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BOARD);
    for word in usable {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend((u64::from(hertz) * 10).to_ne_bytes());
    bytes.resize(BOARD, 0);
    bytes
}

/// The kernel's ticks a second, from its count of them at a time since boot; `None` where they do not tell: around five minutes
/// after boot, when the count wraps.
pub fn hertz(jiffies: u64, monotonic_ns: u64) -> Option<u32> {
    #[allow(clippy::cast_precision_loss)] // years of nanoseconds; a per mille is enough
    let seconds = monotonic_ns as f64 / 1e9 - BEFORE_SECONDS;
    if seconds.abs() < 15.0 {
        return None;
    }
    #[allow(clippy::cast_precision_loss)]
    let ticks = jiffies as f64 - FIRST_JIFFIES as f64;
    let measured = ticks / seconds;
    let near = |hertz: &u32| (f64::from(*hertz) / measured - 1.0).abs();
    HERTZ
        .into_iter()
        .min_by(|a, b| near(a).total_cmp(&near(b)))
        .filter(|best| near(best) < 0.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_and_its_use_are_read_field_by_field() {
        let mut bytes = [0; PLACE];
        bytes[10..16].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 2]);
        bytes[26..32].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        bytes[32..34].copy_from_slice(&443_u16.to_ne_bytes());
        bytes[34] = 6;
        let expected = Place {
            source: Addr::from_v4([10, 0, 0, 2]),
            destination: Addr::from_v4([192, 0, 2, 7]),
            port: 443,
            protocol: 6,
        };
        assert_eq!(place(&bytes), expected);
        let mut bytes = [0; USE];
        for (i, word) in bytes.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&u32::try_from(i).unwrap().to_ne_bytes());
        }
        bytes[USE - 4..].copy_from_slice(&3_u32.to_ne_bytes());
        let u = used(&bytes);
        assert_eq!(
            (u.states.0[12], u.ports_in_range, u.left),
            (12, 16, [17, 18, 19, 20, 21, 22])
        );
        assert_eq!(u.inodes, (23..39).rev().collect::<Vec<_>>());
        assert_eq!(u.uids, [39, 40, 41]);
    }

    #[test]
    fn a_board_is_written_and_read() {
        let mut usable = [0; WORDS];
        usable[0] = 2;
        let mut bytes = fresh_board(&usable, 250);
        assert_eq!(bytes.len(), BOARD);
        assert_eq!(bytes[..8], 2_u64.to_ne_bytes());
        assert_eq!(bytes[SET..SET + 8], 2500_u64.to_ne_bytes());
        bytes[SET + 8] = 1 << 3;
        bytes[SET + 8 + SET - 1] = 1 << 7;
        let end = BOARD - 8;
        bytes[end..end + 4].copy_from_slice(&9_u32.to_ne_bytes());
        let read = board(bytes[..].first_chunk().unwrap());
        assert_eq!(read.tcp_served.iter().collect::<Vec<_>>(), [3, 65_535]);
        assert_eq!((read.udp, read.udp_served.iter().count()), (9, 0));
    }

    #[test]
    fn ticks_a_second_are_told_by_the_count_since_boot() {
        for hz in HERTZ {
            for up in [20_u64, 1000, 10_000_000] {
                let jiffies = FIRST_JIFFIES - 300 * u64::from(hz) + up * u64::from(hz);
                // The two clocks do not begin in the same instant.
                let nearest = hertz(jiffies + 20, up * 1_000_000_000);
                assert!(
                    nearest == Some(hz) || hz >= 1000 && nearest.is_some(),
                    "{hz} {up}"
                );
            }
        }
        assert_eq!(hertz(FIRST_JIFFIES, 300_000_000_000), None);
        assert_eq!(hertz(7, 20_000_000_000), None);
    }
}

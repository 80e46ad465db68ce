//! ctnetlink: conntrack entries and statistics (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
//!
//! In: the payload of one message (`struct nfgenmsg`, then attributes). Out: the few fields that diagnosis needs,
//! read in place. What is unknown or missing is `None`, never zero.

use super::addr::Addr;
use super::attr::{Attr, Attrs};

/// `NFNL_SUBSYS_CTNETLINK` in a message type's upper byte.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`: an event of a new entry.
pub const NEW: u16 = SUBSYSTEM;
/// `NFNLGRP_CONNTRACK_NEW`: the group to which those are sent (include/uapi/linux/netfilter/nfnetlink.h).
pub const GROUP_NEW: u32 = 1;
/// `IPCTNL_MSG_CT_GET`: with the dump flag, the whole table.
pub const GET: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_GET_STATS_CPU`: with the dump flag, one answer per CPU.
pub const GET_STATS_CPU: u16 = SUBSYSTEM | 4;
/// `IPCTNL_MSG_CT_GET_STATS`: count and limit.
pub const GET_STATS: u16 = SUBSYSTEM | 5;

/// `struct nfgenmsg` of a request: any family (`AF_UNSPEC`, so that one walk over the table gives both), version
/// 0, no resource.
///
/// There is no filter for addresses on purpose: the kernel's for IPv6 is inverted (seen on 6.18).
pub const REQUEST: [u8; 4] = [0; 4];
const NFGENMSG: usize = 4;

/// `enum ip_conntrack_status` (include/uapi/linux/netfilter/nf_conntrack_common.h).
pub mod status {
    /// Traffic was seen both ways.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// Not evicted early.
    pub const ASSURED: u32 = 1 << 2;
    /// Handled by a flow table: the entry then shows neither time-out nor protocol state.
    pub const OFFLOAD: u32 = 1 << 14;
}

/// `enum tcp_conntrack` (include/uapi/linux/netfilter/nf_conntrack_tcp.h), those that are told apart here.
pub mod tcp_state {
    /// Both directions have acknowledged.
    pub const ESTABLISHED: u8 = 3;
    /// The first closing state; up to [`CLOSE`] all are.
    pub const FIN_WAIT: u8 = 4;
    /// Waiting out late segments (120 s unless set otherwise).
    pub const TIME_WAIT: u8 = 7;
    /// Reset (10 s unless set otherwise).
    pub const CLOSE: u8 = 8;
}

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tuple {
    /// Source address.
    pub source: Addr,
    /// Destination address.
    pub destination: Addr,
    /// Transport protocol number.
    pub protocol: u8,
    /// Source port; 0 for a protocol without ports.
    pub source_port: u16,
    /// Destination port; 0 for a protocol without ports.
    pub destination_port: u16,
}

/// A conntrack entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// As the first packet came.
    pub original: Tuple,
    /// As an answer is expected: differs from the mirrored original by what NAT changes.
    pub reply: Tuple,
    /// See [`status`].
    pub status: u32,
    /// Seconds until it is removed; `None` where a flow table handles it.
    pub timeout: Option<u32>,
    /// See [`tcp_state`]; `None` for other protocols and where a flow table handles it.
    pub tcp_state: Option<u8>,
    /// The zone in which `reply` is unique; 0 unless a rule sets one (`ct zone set`), for both directions or for answers only.
    pub zone: u16,
}

/// Reads an entry; `None` where a tuple or the status is missing or an attribute's length lies.
pub fn entry(payload: &[u8]) -> Option<Entry> {
    const TUPLE_ORIG: u16 = 1;
    const TUPLE_REPLY: u16 = 2;
    const STATUS: u16 = 3;
    const PROTOINFO: u16 = 4;
    const TIMEOUT: u16 = 7;
    const ZONE: u16 = 18;
    let mut entry = Entry::default();
    let mut found = 0;
    let mut attrs = Attrs::new(payload.get(NFGENMSG..)?);
    for attr in attrs.by_ref() {
        match attr.kind {
            // The zone of this direction alone has no say in which ports NAT may choose.
            TUPLE_ORIG => (entry.original, found) = (tuple(attr)?.0, found | 1),
            TUPLE_REPLY => {
                let zone;
                ((entry.reply, zone), found) = (tuple(attr)?, found | 2);
                entry.zone = zone.unwrap_or(entry.zone);
            }
            STATUS => (entry.status, found) = (attr.be32()?, found | 4),
            TIMEOUT => entry.timeout = attr.be32(),
            PROTOINFO => entry.tcp_state = tcp_state_of(attr),
            ZONE => entry.zone = attr.be16().unwrap_or(entry.zone),
            _ => {}
        }
    }
    (found == 7 && !attrs.is_broken()).then_some(entry)
}

/// A tuple, and the zone where it is one of this direction alone.
fn tuple(attr: Attr<'_>) -> Option<(Tuple, Option<u16>)> {
    const IP: u16 = 1;
    const PROTO: u16 = 2;
    const ZONE: u16 = 3;
    const V4_SRC: u16 = 1;
    const V4_DST: u16 = 2;
    const V6_SRC: u16 = 3;
    const V6_DST: u16 = 4;
    const NUM: u16 = 1;
    const SRC_PORT: u16 = 2;
    const DST_PORT: u16 = 3;
    let mut tuple = Tuple::default();
    let (mut found, mut zone) = (0, None);
    for part in attr.nested() {
        match part.kind {
            IP => {
                for ip in part.nested() {
                    match ip.kind {
                        V4_SRC => (tuple.source, found) = (v4(ip)?, found | 1),
                        V4_DST => (tuple.destination, found) = (v4(ip)?, found | 2),
                        V6_SRC => (tuple.source, found) = (v6(ip)?, found | 1),
                        V6_DST => (tuple.destination, found) = (v6(ip)?, found | 2),
                        _ => {}
                    }
                }
            }
            PROTO => {
                for proto in part.nested() {
                    match proto.kind {
                        NUM => (tuple.protocol, found) = (proto.u8()?, found | 4),
                        SRC_PORT => tuple.source_port = proto.be16()?,
                        DST_PORT => tuple.destination_port = proto.be16()?,
                        _ => {}
                    }
                }
            }
            ZONE => zone = part.be16(),
            _ => {}
        }
    }
    (found == 7).then_some((tuple, zone))
}

fn v4(attr: Attr<'_>) -> Option<Addr> {
    attr.value.first_chunk().map(|b| Addr::from_v4(*b))
}

fn v6(attr: Attr<'_>) -> Option<Addr> {
    attr.value.first_chunk().map(|b| Addr::from_v6(*b))
}

fn tcp_state_of(attr: Attr<'_>) -> Option<u8> {
    const PROTOINFO_TCP: u16 = 1;
    const STATE: u16 = 1;
    let tcp = attr.nested().find(|a| a.kind == PROTOINFO_TCP)?;
    tcp.nested().find(|a| a.kind == STATE)?.u8()
}

/// Count and limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries in the namespace.
    pub entries: Option<u32>,
    /// `nf_conntrack_max`; older kernels do not tell.
    pub max: Option<u32>,
}

/// Reads an answer to [`GET_STATS`].
pub fn stats(payload: &[u8]) -> Stats {
    const ENTRIES: u16 = 1;
    const MAX_ENTRIES: u16 = 2;
    let mut stats = Stats::default();
    for attr in Attrs::new(payload.get(NFGENMSG..).unwrap_or(&[])) {
        match attr.kind {
            ENTRIES => stats.entries = attr.be32(),
            MAX_ENTRIES => stats.max = attr.be32(),
            _ => {}
        }
    }
    stats
}

/// One CPU's cumulative counters, 32 bits wide; those that the kernel still moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the kernel's names; `observation::conntrack` says what each means today
pub struct CpuStats {
    pub found: u32,
    pub invalid: u32,
    pub insert: u32,
    pub insert_failed: u32,
    pub drop: u32,
    pub early_drop: u32,
    pub error: u32,
    pub search_restart: u32,
    pub clash_resolve: u32,
    pub chain_toolong: u32,
}

/// Reads one answer to [`GET_STATS_CPU`]. Counters that an older kernel lacks stay zero: it does not count them.
pub fn cpu_stats(payload: &[u8]) -> CpuStats {
    let mut stats = CpuStats::default();
    for attr in Attrs::new(payload.get(NFGENMSG..).unwrap_or(&[])) {
        let counter = match attr.kind {
            2 => &mut stats.found,
            4 => &mut stats.invalid,
            8 => &mut stats.insert,
            9 => &mut stats.insert_failed,
            10 => &mut stats.drop,
            11 => &mut stats.early_drop,
            12 => &mut stats.error,
            13 => &mut stats.search_restart,
            14 => &mut stats.clash_resolve,
            15 => &mut stats.chain_toolong,
            _ => continue,
        };
        *counter = attr.be32().unwrap_or(0);
    }
    stats
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::netlink::attr::push;

    fn nest(kind: u16, parts: &[(u16, &[u8])]) -> Vec<u8> {
        let mut inner = Vec::new();
        for (kind, value) in parts {
            push(&mut inner, *kind, value);
        }
        let mut out = Vec::new();
        push(&mut out, kind | 0x8000, &inner);
        out
    }

    fn tuple_bytes(kind: u16, ip: &[(u16, &[u8])], proto: &[(u16, &[u8])]) -> Vec<u8> {
        let inner = [nest(1, ip), nest(2, proto)].concat();
        let mut out = Vec::new();
        push(&mut out, kind | 0x8000, &inner);
        out
    }

    fn v4_entry() -> Vec<u8> {
        let mut m = vec![2, 0, 0, 0];
        let orig_ip: [(u16, &[u8]); 2] = [(1, &[10, 0, 0, 2]), (2, &[192, 0, 2, 7])];
        let reply_ip: [(u16, &[u8]); 2] = [(1, &[192, 0, 2, 7]), (2, &[198, 51, 100, 1])];
        m.extend(tuple_bytes(
            1,
            &orig_ip,
            &[(1, &[6]), (2, &[0x80, 1]), (3, &[1, 0xbb])],
        ));
        m.extend(tuple_bytes(
            2,
            &reply_ip,
            &[(1, &[6]), (2, &[1, 0xbb]), (3, &[4, 0])],
        ));
        push(&mut m, 3, &0x18eu32.to_be_bytes());
        push(&mut m, 7, &431_999u32.to_be_bytes());
        m.extend(nest(4, &[(1 | 0x8000, &[])]));
        m
    }

    #[test]
    fn an_entry_is_read_whole() {
        let mut bytes = v4_entry();
        bytes.truncate(bytes.len() - 8);
        let mut inner = Vec::new();
        push(&mut inner, 1, &[3]);
        bytes.extend(nest(4, &[(1 | 0x8000, &inner)]));
        let e = entry(&bytes).unwrap();
        assert_eq!(e.original.source, Addr::from_v4([10, 0, 0, 2]));
        assert_eq!(e.original.destination, Addr::from_v4([192, 0, 2, 7]));
        assert_eq!(
            (e.original.source_port, e.original.destination_port),
            (0x8001, 443)
        );
        assert_eq!(e.reply.destination, Addr::from_v4([198, 51, 100, 1]));
        assert_eq!((e.reply.source_port, e.reply.destination_port), (443, 1024));
        assert_eq!(
            (e.original.protocol, e.status, e.timeout),
            (TCP, 0x18e, Some(431_999))
        );
        assert_eq!(e.tcp_state, Some(tcp_state::ESTABLISHED));
    }

    #[test]
    fn the_zone_is_that_of_the_answers() {
        assert_eq!(entry(&v4_entry()).unwrap().zone, 0);
        let mut both = v4_entry();
        push(&mut both, 18, &7u16.to_be_bytes());
        assert_eq!(entry(&both).unwrap().zone, 7);
        // Of one direction: inside of its tuple, and of the original it does not matter to NAT's ports.
        for (direction, expected) in [(1, 0), (2, 9)] {
            let mut inner = Vec::new();
            let (source, destination): (&[u8], &[u8]) = (&[10, 0, 0, 2], &[192, 0, 2, 7]);
            inner.extend(nest(1, &[(1, source), (2, destination)]));
            inner.extend(nest(2, &[(1, &[6][..]), (2, &[0, 1][..]), (3, &[0, 2][..])]));
            push(&mut inner, 3, &9u16.to_be_bytes());
            let mut bytes = v4_entry();
            push(&mut bytes, direction | 0x8000, &inner);
            assert_eq!(entry(&bytes).unwrap().zone, expected, "{direction}");
        }
    }

    #[test]
    fn what_is_missing_is_none_and_half_an_entry_is_refused() {
        let bytes = v4_entry();
        assert_eq!(entry(&bytes).unwrap().tcp_state, None);
        for length in 0..bytes.len() - 4 {
            // Cut anywhere it is either refused or, between attributes after the status, still whole.
            if let Some(e) = entry(&bytes[..length]) {
                assert_eq!(e.reply.destination_port, 1024);
            }
        }
        assert_eq!(entry(&bytes[..80]), None);
        assert_eq!(entry(&[]), None);
    }

    #[test]
    fn statistics_by_attribute() {
        let mut m = vec![0; 4];
        for kind in 1..=15u16 {
            push(&mut m, kind, &u32::from(kind).to_be_bytes());
        }
        assert_eq!((stats(&m).entries, stats(&m).max), (Some(1), Some(2)));
        let cpu = cpu_stats(&m);
        assert_eq!(
            (cpu.found, cpu.insert_failed, cpu.drop, cpu.early_drop),
            (2, 9, 10, 11)
        );
        assert_eq!((cpu.clash_resolve, cpu.chain_toolong), (14, 15));
        assert_eq!(stats(&[0; 4]), Stats::default());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (entry(&bytes), stats(&bytes), cpu_stats(&bytes));
        }

        #[test]
        fn any_damage_is_survived(at in 0usize..140, to: u8) {
            let mut bytes = v4_entry();
            if let Some(b) = bytes.get_mut(at) {
                *b = to;
            }
            let _ = entry(&bytes);
        }
    }
}

//! Filling a connection tracking table by ctnetlink, faster than packets could.

use super::Namespace;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::net::Ipv4Addr;

/// ctnetlink's NEW request, with its subsystem in the high byte (linux/netfilter/nfnetlink.h).
const CT_NEW: u16 = 1 << 8;
const AF_INET: u8 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLA_F_NESTED: u16 = 0x8000;
/// IPS_CONFIRMED, IPS_SEEN_REPLY, IPS_ASSURED (linux/netfilter/nf_conntrack_common.h).
const CONFIRMED: u32 = 1 << 3;
const SEEN_REPLY: u32 = 1 << 1;
const ASSURED: u32 = 1 << 2;
/// TCP_CONNTRACK_ESTABLISHED.
const ESTABLISHED: u8 = 3;
/// Messages a send: more do not make it faster.
const BATCH: u32 = 256;
/// Entries with one client address; the client's port counts from 1024.
const PORTS: u32 = 50_000;

/// Entries to make. All differ in the client's address (10.128.0.0 upwards) or port.
#[derive(Clone, Copy, Debug)]
pub struct CtFill {
    /// How many; fewer come in where the table is full.
    pub count: u32,
    /// The first one's number: another fill into the same table begins where the last one ended.
    pub first: u32,
    /// TCP (established) or UDP.
    pub tcp: bool,
    /// Assured entries stay when the table is full; others are thrown out for new ones.
    pub assured: bool,
    /// The server.
    pub to: (Ipv4Addr, u16),
    /// Seconds until they end.
    pub timeout: u32,
    /// Source-translated to this address: one client, whose ports from 1024 up NAT has kept; 64,512 at most.
    pub nat: Option<Ipv4Addr>,
    /// Such ports are spread over the range rather than side by side.
    pub spread: bool,
}

impl CtFill {
    /// Established TCP that a full table does not give up.
    pub fn assured(count: u32) -> Self {
        let to = (Ipv4Addr::new(192, 0, 2, 80), 443);
        Self {
            count,
            first: 0,
            tcp: true,
            assured: true,
            to,
            timeout: 600,
            nat: None,
            spread: false,
        }
    }

    /// UDP through a NAT towards `to`, answered, ports kept from 1024 up side by side.
    pub fn translated(count: u32, nat: Ipv4Addr, to: (Ipv4Addr, u16)) -> Self {
        Self {
            tcp: false,
            to,
            nat: Some(nat),
            ..Self::assured(count)
        }
    }

    /// UDP without a reply, which a full table throws out early.
    pub fn unreplied(count: u32) -> Self {
        Self {
            tcp: false,
            assured: false,
            ..Self::assured(count)
        }
    }
}

impl Namespace {
    /// Makes the entries; returns how many the table then holds in all.
    #[track_caller]
    pub fn fill_conntrack(&self, fill: CtFill) -> u64 {
        let result = self.run(|| send_all(fill));
        result.unwrap_or_else(|e| panic!("cannot fill the conntrack table of {}: {e}", self.name()));
        self.conntrack_count()
    }

    /// Fills the table with assured entries to the brim: the next new connection is dropped.
    #[track_caller]
    pub fn fill_conntrack_up(&self) {
        let max = self.conntrack_max();
        let free =
            u32::try_from(max - self.conntrack_count().min(max)).expect("a table is smaller than 2^32");
        // A few more than fit: the kernel stops us, so entries that end meanwhile leave no room.
        let count = self.fill_conntrack(CtFill::assured(free + BATCH));
        assert!(count >= max, "the table took {count} of {max} entries");
    }
}

fn send_all(fill: CtFill) -> io::Result<()> {
    // 12 is NETLINK_NETFILTER.
    let socket = Socket::new(12)?;
    let kernel = SocketAddr::new(0, 0);
    let mut batch = Vec::with_capacity(1 << 16);
    let end = fill.first + fill.count;
    for number in fill.first..end {
        message(&mut batch, fill, number);
        if (number + 1 - fill.first).is_multiple_of(BATCH) || number + 1 == end {
            socket.send_to(&batch, &kernel, 0)?;
            batch.clear();
        }
    }
    // Without NLM_F_ACK only errors are answered. Those of a full table are meant to be, and overrun the socket.
    let mut answer = [0; 8192];
    match socket.recv(&mut &mut answer[..], libc::MSG_DONTWAIT) {
        Ok(length) => refused(&answer[..length]),
        Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) || e.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(e) => Err(e),
    }
}

/// The first error that the kernel answered, except that the table is full.
fn refused(answer: &[u8]) -> io::Result<()> {
    let Some(code) = answer
        .get(16..20)
        .and_then(|b| b.try_into().ok())
        .map(i32::from_ne_bytes)
    else {
        return Ok(());
    };
    if code == 0 || -code == libc::ENOMEM {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-code))
    }
}

/// Appends one request to a batch.
fn message(out: &mut Vec<u8>, fill: CtFill, number: u32) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(CT_NEW.to_ne_bytes());
    out.extend((NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL).to_ne_bytes());
    out.extend([0; 8]);
    out.extend([AF_INET, 0, 0, 0]);
    let ports = if fill.nat.is_some() { 64_512 } else { PORTS };
    // A stride that has no divisor in common with the range meets each port once.
    let place = if fill.spread { number * 7919 } else { number };
    let client = (
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + number / ports),
        u16::try_from(1024 + place % ports).expect("it is at most 65,535"),
    );
    tuple(out, 1, fill.tcp, client, fill.to);
    let outside = (fill.nat.unwrap_or(client.0), client.1);
    tuple(out, 2, fill.tcp, fill.to, outside);
    let reply = if fill.assured { SEEN_REPLY | ASSURED } else { 0 };
    attribute(out, 3, |out| out.extend((CONFIRMED | reply).to_be_bytes()));
    if fill.tcp {
        attribute(out, 4 | NLA_F_NESTED, |out| {
            attribute(out, 1 | NLA_F_NESTED, |out| {
                attribute(out, 1, |out| out.push(ESTABLISHED))
            });
        });
    }
    attribute(out, 7, |out| out.extend(fill.timeout.to_be_bytes()));
    let length = u32::try_from(out.len() - start).expect("a message is short");
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

fn tuple(out: &mut Vec<u8>, kind: u16, tcp: bool, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) {
    attribute(out, kind | NLA_F_NESTED, |out| {
        attribute(out, 1 | NLA_F_NESTED, |out| {
            attribute(out, 1, |out| out.extend(from.0.octets()));
            attribute(out, 2, |out| out.extend(to.0.octets()));
        });
        attribute(out, 2 | NLA_F_NESTED, |out| {
            attribute(out, 1, |out| out.push(if tcp { 6 } else { 17 }));
            attribute(out, 2, |out| out.extend(from.1.to_be_bytes()));
            attribute(out, 3, |out| out.extend(to.1.to_be_bytes()));
        });
    });
}

/// Appends a netlink attribute: length, kind, content, padding to four bytes.
fn attribute(out: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 2]);
    out.extend(kind.to_ne_bytes());
    content(out);
    let length = u16::try_from(out.len() - start).expect("an attribute is short");
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

//! nf_tables: the rules that translate source addresses (include/uapi/linux/netfilter/nf_tables.h).
//!
//! In: the payload of one message (`struct nfgenmsg`, then attributes). Out: a [`Rule`] where the message is one with
//! `masq`, `nat … snat`, or the target MASQUERADE or SNAT of iptables-nft. A rule is a little program over registers; of
//! it the loads of constants are followed, conditions on protocol and destination are read, and any other condition is
//! kept as a number to compare with others. Read only: nothing here makes a request that changes a rule.

use std::hash::{DefaultHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attr::{Attr, Attrs};
use crate::types::PortRange;

/// `NFNL_SUBSYS_NFTABLES` in a message type's upper byte.
const SUBSYSTEM: u16 = 10 << 8;
/// `NFT_MSG_GETRULE`: with the dump flag, every rule of every table.
pub const GET_RULE: u16 = SUBSYSTEM | 7;
/// `NFT_MSG_GETGEN`: the ruleset's generation, which each change moves.
pub const GET_GEN: u16 = SUBSYSTEM | 16;

/// `struct nfgenmsg` of a request: any family, version 0.
pub const REQUEST: [u8; 4] = [0; 4];
const NFGENMSG: usize = 4;

/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6` (include/uapi/linux/netfilter.h).
pub mod family {
    /// Both IP versions.
    pub const INET: u8 = 1;
    /// IPv4.
    pub const IPV4: u8 = 2;
    /// IPv6.
    pub const IPV6: u8 = 10;
}

/// `NF_NAT_RANGE_…` (include/uapi/linux/netfilter/nf_nat.h).
mod flag {
    pub const MAP_IPS: u32 = 1;
    pub const PROTO_SPECIFIED: u32 = 1 << 1;
    pub const PROTO_RANDOM: u32 = 1 << 2;
    pub const PERSISTENT: u32 = 1 << 3;
    pub const PROTO_RANDOM_FULLY: u32 = 1 << 4;
}

/// The ports that a rule takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// It names none.
    Any,
    /// These.
    Range(PortRange),
    /// They are not constants.
    Unknown,
}

/// A rule that translates source addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// See [`family`].
    pub family: u8,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its handle.
    pub handle: u64,
    /// `masquerade`, not `snat`.
    pub masquerade: bool,
    /// First and last address; `None` for masquerade and where they are not constants.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The ports.
    pub ports: Ports,
    /// `random`.
    pub random: bool,
    /// `fully-random`.
    pub fully_random: bool,
    /// `persistent`.
    pub persistent: bool,
    /// Only for this transport protocol.
    pub protocol: Option<u8>,
    /// Only towards this address.
    pub destination: Option<IpAddr>,
    /// Only towards this port.
    pub destination_port: Option<u16>,
    /// Any other condition, hashed; the same condition has the same number.
    pub conditions: Vec<u64>,
}

/// Reads the answer to [`GET_GEN`].
pub fn generation(payload: &[u8]) -> Option<u32> {
    const ID: u16 = 1;
    Attrs::new(payload.get(NFGENMSG..)?)
        .find(|a| a.kind == ID)?
        .be32()
}

/// Reads a rule. `Ok(None)` where it translates no source address.
///
/// # Errors
///
/// Where it is cut, or a translation's attributes are not understood.
pub fn rule(payload: &[u8]) -> Result<Option<Rule>, Malformed> {
    const TABLE: u16 = 1;
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    const EXPRESSIONS: u16 = 4;
    let family = *payload.first().ok_or(Malformed)?;
    let (mut table, mut chain, mut handle, mut expressions) = (None, None, 0, None);
    let mut attrs = Attrs::new(payload.get(NFGENMSG..).ok_or(Malformed)?);
    for attr in attrs.by_ref() {
        match attr.kind {
            TABLE => table = Some(name(attr.value)),
            CHAIN => chain = Some(name(attr.value)),
            HANDLE => handle = attr.value.first_chunk().map_or(0, |b| u64::from_be_bytes(*b)),
            EXPRESSIONS => expressions = Some(attr.nested()),
            _ => {}
        }
    }
    if attrs.is_broken() {
        return Err(Malformed);
    }
    let (Some(table), Some(chain), Some(expressions)) = (table, chain, expressions) else {
        // A rule without expressions counts nothing and translates nothing.
        return Ok(None);
    };
    let mut program = Program::new(family);
    let Some(nat) = program.run(expressions)? else {
        return Ok(None);
    };
    Ok(Some(Rule {
        family,
        table,
        chain,
        handle,
        masquerade: nat.masquerade,
        addresses: nat.addresses,
        ports: nat.ports,
        random: nat.flags & flag::PROTO_RANDOM != 0,
        fully_random: nat.flags & flag::PROTO_RANDOM_FULLY != 0,
        persistent: nat.flags & flag::PERSISTENT != 0,
        protocol: program.protocol,
        destination: program.destination,
        destination_port: program.destination_port,
        conditions: program.conditions,
    }))
}

/// A rule that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Registers that are followed at most: the kernel has 20 of 4 bytes.
const REGISTERS: usize = 32;
/// Conditions remembered of one rule; with more it is rare enough to be like no other.
const MAX_CONDITIONS: usize = 32;

/// A translation as it stands in the rule.
struct Nat {
    masquerade: bool,
    addresses: Option<(IpAddr, IpAddr)>,
    ports: Ports,
    flags: u32,
}

/// What a register holds, as far as it is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held<'a> {
    Constant(&'a [u8]),
    Protocol,
    Destination,
    DestinationPort,
}

/// A rule's program, as far as it has been read.
struct Program<'a> {
    family: u8,
    registers: Vec<(u32, Held<'a>)>,
    protocol: Option<u8>,
    destination: Option<IpAddr>,
    destination_port: Option<u16>,
    conditions: Vec<u64>,
    /// Hash of what was loaded since the last condition.
    pending: DefaultHasher,
}

impl<'a> Program<'a> {
    fn new(family: u8) -> Self {
        Self {
            family,
            registers: Vec::new(),
            protocol: None,
            destination: None,
            destination_port: None,
            conditions: Vec::new(),
            pending: DefaultHasher::new(),
        }
    }

    fn run(&mut self, expressions: Attrs<'a>) -> Result<Option<Nat>, Malformed> {
        const ELEMENT: u16 = 1;
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        for element in expressions.filter(|a| a.kind == ELEMENT) {
            let (mut kind, mut data) = (&[][..], &[][..]);
            for attr in element.nested() {
                match attr.kind {
                    NAME => kind = attr.value,
                    DATA => data = attr.value,
                    _ => {}
                }
            }
            let kind = kind.split(|b| *b == 0).next().unwrap_or(&[]);
            match kind {
                b"immediate" => self.immediate(data),
                b"meta" => self.meta(data),
                b"payload" => self.payload(data),
                b"cmp" => self.cmp(data),
                // Loads that are not followed.
                b"ct" | b"fib" | b"rt" | b"socket" | b"hash" | b"numgen" | b"bitwise" | b"byteorder"
                | b"exthdr" | b"osf" | b"xfrm" | b"tunnel" => self.load(kind, data),
                // No condition.
                b"counter" | b"log" | b"notrack" | b"last" | b"objref" => {}
                b"match" if xt_name(data) == b"comment" => {}
                b"masq" => return self.masq(data).map(Some),
                b"nat" => return self.nat(data),
                b"target" => return target(self.family, data),
                _ => self.condition(kind, data),
            }
        }
        Ok(None)
    }

    fn held(&self, register: u32) -> Option<Held<'a>> {
        self.registers
            .iter()
            .find(|(r, _)| *r == register)
            .map(|(_, h)| *h)
    }

    fn constant(&self, register: u32) -> Option<&'a [u8]> {
        match self.held(register)? {
            Held::Constant(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn set(&mut self, register: u32, held: Option<Held<'a>>) {
        self.registers.retain(|(r, _)| *r != register);
        if let Some(held) = held.filter(|_| self.registers.len() < REGISTERS) {
            self.registers.push((register, held));
        }
    }

    fn immediate(&mut self, data: &'a [u8]) {
        const DREG: u16 = 1;
        const VALUE: u16 = 2;
        let register = attr32(data, DREG).unwrap_or(0);
        let value = find(data, VALUE).and_then(data_value);
        self.set(register, value.map(Held::Constant));
    }

    fn meta(&mut self, data: &'a [u8]) {
        const DREG: u16 = 1;
        const KEY: u16 = 2;
        const L4PROTO: u32 = 16;
        let Some(register) = attr32(data, DREG) else {
            return; // it sets a mark or the like
        };
        if attr32(data, KEY) == Some(L4PROTO) {
            self.set(register, Some(Held::Protocol));
        } else {
            self.set(register, None);
            self.hash(b"meta", data);
        }
    }

    fn payload(&mut self, data: &'a [u8]) {
        const DREG: u16 = 1;
        const BASE: u16 = 2;
        const OFFSET: u16 = 3;
        const LENGTH: u16 = 4;
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        let Some(register) = attr32(data, DREG) else {
            return; // it writes to the packet
        };
        let at = (attr32(data, BASE), attr32(data, OFFSET), attr32(data, LENGTH));
        let held = match (self.family, at) {
            (_, (Some(TRANSPORT), Some(2), Some(2))) => Some(Held::DestinationPort),
            (family::IPV4, (Some(NETWORK), Some(9), Some(1))) => Some(Held::Protocol),
            (family::IPV4, (Some(NETWORK), Some(16), Some(4))) => Some(Held::Destination),
            (family::IPV6, (Some(NETWORK), Some(24), Some(16))) => Some(Held::Destination),
            _ => None,
        };
        if held.is_none() {
            self.hash(b"payload", data);
        }
        self.set(register, held);
    }

    fn cmp(&mut self, data: &'a [u8]) {
        const SREG: u16 = 1;
        const OP: u16 = 2;
        const DATA: u16 = 3;
        const EQUAL: u32 = 0;
        let held = attr32(data, SREG).and_then(|r| self.held(r));
        let value = find(data, DATA).and_then(data_value).unwrap_or(&[]);
        if attr32(data, OP) == Some(EQUAL) {
            match (held, value) {
                (Some(Held::Protocol), [protocol, ..]) if self.protocol.is_none() => {
                    self.protocol = Some(*protocol);
                    return;
                }
                (Some(Held::Destination), bytes) if self.destination.is_none() => {
                    self.destination = address(bytes);
                    if self.destination.is_some() {
                        return;
                    }
                }
                (Some(Held::DestinationPort), [a, b, ..]) if self.destination_port.is_none() => {
                    self.destination_port = Some(u16::from_be_bytes([*a, *b]));
                    return;
                }
                _ => {}
            }
        }
        if let Some(held) = held {
            // What was loaded is told by its kind; its register may differ from rule to rule.
            self.pending.write_u8(match held {
                Held::Constant(_) => 0,
                Held::Protocol => 1,
                Held::Destination => 2,
                Held::DestinationPort => 3,
            });
        }
        self.condition(b"cmp", data);
    }

    /// A load that is not followed; what its register held before is no longer there.
    fn load(&mut self, kind: &[u8], data: &'a [u8]) {
        // The destination register is attribute 1 or 2 in all of these; forgetting both is safe.
        for attr in [1, 2] {
            if let Some(register) = attr32(data, attr) {
                self.set(register, None);
            }
        }
        self.hash(kind, data);
    }

    fn hash(&mut self, kind: &[u8], data: &[u8]) {
        self.pending.write(kind);
        self.pending.write(data);
    }

    fn condition(&mut self, kind: &[u8], data: &'a [u8]) {
        // A look-up may write what a map holds.
        const LOOKUP_DREG: u16 = 3;
        if kind == b"lookup"
            && let Some(register) = attr32(data, LOOKUP_DREG)
        {
            self.set(register, None);
        }
        self.hash(kind, data);
        let hash = std::mem::replace(&mut self.pending, DefaultHasher::new()).finish();
        if self.conditions.len() < MAX_CONDITIONS && !self.conditions.contains(&hash) {
            self.conditions.push(hash);
        }
    }

    fn masq(&self, data: &[u8]) -> Result<Nat, Malformed> {
        const FLAGS: u16 = 1;
        const PROTO_MIN: u16 = 2;
        const PROTO_MAX: u16 = 3;
        Ok(Nat {
            masquerade: true,
            addresses: None,
            ports: self.ports(data, PROTO_MIN, PROTO_MAX),
            flags: flags(data, FLAGS)?,
        })
    }

    fn nat(&self, data: &[u8]) -> Result<Option<Nat>, Malformed> {
        const TYPE: u16 = 1;
        const ADDR_MIN: u16 = 3;
        const ADDR_MAX: u16 = 4;
        const PROTO_MIN: u16 = 5;
        const PROTO_MAX: u16 = 6;
        const FLAGS: u16 = 7;
        const SNAT: u32 = 0;
        if attr32(data, TYPE).ok_or(Malformed)? != SNAT {
            return Ok(None);
        }
        let register = |attr| {
            attr32(data, attr)
                .and_then(|r| self.constant(r))
                .and_then(address)
        };
        let first = register(ADDR_MIN);
        let last = match attr32(data, ADDR_MAX) {
            Some(_) => register(ADDR_MAX),
            None => first,
        };
        Ok(Some(Nat {
            masquerade: false,
            addresses: first.zip(last),
            ports: self.ports(data, PROTO_MIN, PROTO_MAX),
            flags: flags(data, FLAGS)?,
        }))
    }

    fn ports(&self, data: &[u8], min: u16, max: u16) -> Ports {
        let Some(register) = attr32(data, min) else {
            return Ports::Any;
        };
        let port = |register| {
            let bytes = self.constant(register)?.first_chunk::<2>()?;
            Some(u16::from_be_bytes(*bytes))
        };
        let low = port(register);
        let high = attr32(data, max).map_or(low, port);
        range(low.zip(high))
    }
}

/// The target of iptables-nft: `struct nf_nat_ipv4_multi_range_compat` for IPv4 up to revision 1, else `struct
/// nf_nat_range` or `nf_nat_range2`, all in the machine's byte order but for addresses and ports.
fn target(rule_family: u8, data: &[u8]) -> Result<Option<Nat>, Malformed> {
    const REVISION: u16 = 2;
    const INFO: u16 = 3;
    let masquerade = match xt_name(data) {
        b"MASQUERADE" => true,
        b"SNAT" => false,
        _ => return Ok(None),
    };
    let info = find(data, INFO).ok_or(Malformed)?.value;
    let short = rule_family == family::IPV4 && (masquerade || attr32(data, REVISION).unwrap_or(0) == 0);
    let take = |at: usize, length: usize| info.get(at..at + length).ok_or(Malformed);
    let word = |at| take(at, 4).map(|b| b.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b)));
    let (flags, length, addresses_at) = if short {
        // rangesize, then one range.
        (word(4)?, 4, 8)
    } else {
        (word(0)?, if rule_family == family::IPV4 { 4 } else { 16 }, 4)
    };
    let step = if short { 4 } else { 16 };
    let first = address(take(addresses_at, length)?);
    let last = address(take(addresses_at + step, length)?);
    let ports_at = addresses_at + 2 * step;
    let port = |at| take(at, 2).map(|b| b.first_chunk().map_or(0, |b| u16::from_be_bytes(*b)));
    let ports = if flags & flag::PROTO_SPECIFIED == 0 {
        Ports::Any
    } else {
        range(Some((port(ports_at)?, port(ports_at + 2)?)))
    };
    Ok(Some(Nat {
        masquerade,
        addresses: first.zip(last).filter(|_| flags & flag::MAP_IPS != 0),
        ports,
        flags,
    }))
}

fn range(ports: Option<(u16, u16)>) -> Ports {
    match ports {
        Some((low, high)) if low <= high => Ports::Range(PortRange { low, high }),
        _ => Ports::Unknown,
    }
}

/// Flags of a `nat` or `masq` expression; absent means none.
fn flags(data: &[u8], kind: u16) -> Result<u32, Malformed> {
    match find(data, kind) {
        Some(attr) => attr.be32().ok_or(Malformed),
        None => Ok(0),
    }
}

/// The name of an xtables match or target.
fn xt_name(data: &[u8]) -> &[u8] {
    const NAME: u16 = 1;
    let value = find(data, NAME).map_or(&[][..], |a| a.value);
    value.split(|b| *b == 0).next().unwrap_or(&[])
}

/// The value inside `NFTA_…_DATA`; a verdict has none.
fn data_value(attr: Attr<'_>) -> Option<&[u8]> {
    const VALUE: u16 = 1;
    attr.nested().find(|a| a.kind == VALUE).map(|a| a.value)
}

fn find(data: &[u8], kind: u16) -> Option<Attr<'_>> {
    Attrs::new(data).find(|a| a.kind == kind)
}

fn attr32(data: &[u8], kind: u16) -> Option<u32> {
    find(data, kind)?.be32()
}

/// 4 or 16 bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|v6| Ipv6Addr::from(v6).into())
}

/// A string that ends at its NUL; names are ASCII, and what is not is shown as such.
fn name(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or(&[])).into_owned()
}

#[cfg(test)]
#[path = "nf_tables_tests.rs"]
mod tests;

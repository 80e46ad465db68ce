//! pcapng: sections of blocks (draft-ietf-opsawg-pcapng). Each section has its own byte order and interfaces.

use super::options::options;
use super::resolution::Resolution;
use super::{LinkType, MAX_PACKET, Order, Packet, Problem, Step};
use crate::observation::packet::Direction;

/// A section's first block; the number reads the same both ways round.
pub const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
/// Obsolete, but old dumpcaps wrote it.
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// Octets of type and length at a block's start.
const BLOCK_START: usize = 8;
/// Type, length, and the length again.
const BLOCK_FRAME: u32 = 12;
/// Octets of options that are believed with a packet or an interface; comments are short.
const MAX_OPTIONS: u32 = 65_536;
/// Interfaces of a section that are kept. tcpdump writes one, dumpcap one for each that it was told.
const MAX_INTERFACES: usize = 4096;

const OPTION_IF_TSRESOL: u16 = 9;
const OPTION_IF_TSOFFSET: u16 = 14;
const OPTION_EPB_FLAGS: u16 = 2;
const OPTION_ISB_IFDROP: u16 = 5;

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: LinkType,
    snap_len: u32,
    resolution: Resolution,
    lost: Option<u64>,
}

/// A pcapng file within a section.
#[derive(Debug)]
pub struct Ng {
    order: Order,
    interfaces: Vec<Interface>,
    /// Lost by interfaces of sections that are over.
    lost_before: Option<u64>,
}

impl Default for Ng {
    fn default() -> Self {
        Self {
            order: Order::Little,
            interfaces: Vec::new(),
            lost_before: None,
        }
    }
}

impl Ng {
    /// Packets that the capturing program lost, by the newest statistics of each interface.
    pub fn lost(&self) -> Option<u64> {
        let all = self.interfaces.iter().map(|i| i.lost).chain([self.lost_before]);
        all.flatten().reduce(u64::saturating_add)
    }

    /// Reads a block.
    #[inline]
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Problem> {
        let Some((start, after)) = input.split_first_chunk::<BLOCK_START>() else {
            return Ok(Step::Need(BLOCK_START));
        };
        let [a, b, c, d, e, f, g, h] = *start;
        let kind = self.order.u32([a, b, c, d]);
        if kind == SECTION_HEADER {
            return self.section(after, [e, f, g, h]);
        }
        let length = self.order.u32([e, f, g, h]);
        let least = match kind {
            ENHANCED_PACKET | PACKET => 32,
            INTERFACE_DESCRIPTION => 20,
            SIMPLE_PACKET => 16,
            INTERFACE_STATISTICS => 24,
            _ => BLOCK_FRAME,
        };
        if length < least || !length.is_multiple_of(4) {
            let expected = "a block's length to be a multiple of 4 that holds its fixed fields";
            return Err(Problem::BlockLength { expected, length });
        }
        let known = matches!(
            kind,
            INTERFACE_DESCRIPTION | PACKET | SIMPLE_PACKET | INTERFACE_STATISTICS | ENHANCED_PACKET
        );
        if !known {
            return Ok(Step::Skip(length.into()));
        }
        if length > MAX_PACKET + MAX_OPTIONS {
            let expected = "a block of a known kind of at most 327,680 bytes";
            return Err(Problem::BlockLength { expected, length });
        }
        let Some(block) = input.get(..length as usize) else {
            return Ok(Step::Need(length as usize));
        };
        let body = self.body(block, length)?;
        match kind {
            ENHANCED_PACKET => self.enhanced(body, block.len()),
            PACKET => self.obsolete(body, block.len()),
            SIMPLE_PACKET => self.simple(body, block.len()),
            INTERFACE_DESCRIPTION => self.interface(body, length),
            _ => Ok(self.statistics(body, length)),
        }
    }

    /// What lies between a block's start and its end, which must repeat its length.
    #[inline]
    fn body<'a>(&self, block: &'a [u8], length: u32) -> Result<&'a [u8], Problem> {
        let (front, end) = block.split_last_chunk::<4>().unwrap_or((&[], &[0; 4]));
        match self.order.u32(*end) {
            again if again == length => Ok(front.get(BLOCK_START..).unwrap_or(&[])),
            got => Err(Problem::BlockEnd {
                expected: length,
                got,
            }),
        }
    }

    fn section<'a>(&mut self, after: &[u8], length: [u8; 4]) -> Result<Step<'a>, Problem> {
        let Some(([a, b, c, d, e, f, g, h], _)) = after.split_first_chunk::<8>() else {
            return Ok(Step::Need(BLOCK_START + 8));
        };
        let magic = [*a, *b, *c, *d];
        let order = match (Order::Little.u32(magic), Order::Big.u32(magic)) {
            (BYTE_ORDER_MAGIC, _) => Order::Little,
            (_, BYTE_ORDER_MAGIC) => Order::Big,
            _ => return Err(Problem::ByteOrder { got: magic }),
        };
        let (major, minor) = (order.u16([*e, *f]), order.u16([*g, *h]));
        if major != 1 {
            return Err(Problem::Version {
                format: "pcapng",
                expected: "1.x",
                major,
                minor,
            });
        }
        let length = order.u32(length);
        if length < 28 || !length.is_multiple_of(4) {
            let expected = "a section header's length to be a multiple of 4 of at least 28";
            return Err(Problem::BlockLength { expected, length });
        }
        *self = Self {
            order,
            interfaces: Vec::new(),
            lost_before: self.lost(),
        };
        Ok(Step::Skip(length.into()))
    }

    fn interface<'a>(&mut self, body: &[u8], length: u32) -> Result<Step<'a>, Problem> {
        let order = self.order;
        if self.interfaces.len() >= MAX_INTERFACES {
            return Err(Problem::TooManyInterfaces {
                limit: MAX_INTERFACES,
            });
        }
        if let Some(([a, b, _, _, s, n, a2, p], list)) = body.split_first_chunk::<8>() {
            let mut resolution = Resolution::default();
            for (code, value) in options(order, list) {
                match (code, value) {
                    (OPTION_IF_TSRESOL, [exponent]) => resolution = resolution.with_exponent(*exponent),
                    (OPTION_IF_TSOFFSET, value) => {
                        if let Ok(bytes) = <[u8; 8]>::try_from(value) {
                            resolution = resolution.with_offset(order.u64(bytes).cast_signed());
                        }
                    }
                    _ => {}
                }
            }
            self.interfaces.push(Interface {
                link: LinkType::from_number(order.u16([*a, *b]).into()),
                snap_len: order.u32([*s, *n, *a2, *p]),
                resolution,
                lost: None,
            });
        }
        Ok(Step::Skip(length.into()))
    }

    #[inline]
    fn enhanced<'a>(&self, body: &'a [u8], used: usize) -> Result<Step<'a>, Problem> {
        let order = self.order;
        let Some((interface, rest)) = order.take_u32(body) else {
            return Ok(Step::Skip(used as u64));
        };
        self.packet(interface, rest, used)
    }

    fn obsolete<'a>(&self, body: &'a [u8], used: usize) -> Result<Step<'a>, Problem> {
        let Some(([a, b, _, _], rest)) = body.split_first_chunk::<4>() else {
            return Ok(Step::Skip(used as u64));
        };
        self.packet(self.order.u16([*a, *b]).into(), rest, used)
    }

    /// What the two blocks have in common: timestamp, both lengths, the bytes, options.
    #[inline]
    fn packet<'a>(&self, number: u32, fields: &'a [u8], used: usize) -> Result<Step<'a>, Problem> {
        let interface = self.get(number)?;
        let Some(([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], rest)) = fields.split_first_chunk::<16>()
        else {
            return Ok(Step::Skip(used as u64));
        };
        let order = self.order;
        let high = u64::from(order.u32([*a, *b, *c, *d]));
        let low = u64::from(order.u32([*e, *f, *g, *h]));
        let captured = order.u32([*i, *j, *k, *l]);
        let Some(bytes) = rest.get(..captured as usize).filter(|_| captured <= MAX_PACKET) else {
            return Err(Problem::PacketTooLong { length: captured });
        };
        let list = rest.get(bytes.len().next_multiple_of(4)..).unwrap_or(&[]);
        let packet = Packet {
            at: Some(interface.resolution.timestamp(high << 32 | low)),
            link: interface.link,
            direction: if list.is_empty() {
                Direction::Unknown
            } else {
                direction(order, list)
            },
            wire_len: order.u32([*m, *n, *o, *p]).max(captured),
            bytes,
        };
        Ok(Step::Packet { packet, used })
    }

    fn simple<'a>(&self, body: &'a [u8], used: usize) -> Result<Step<'a>, Problem> {
        let interface = self.get(0)?;
        let Some((wire_len, rest)) = self.order.take_u32(body) else {
            return Ok(Step::Skip(used as u64));
        };
        let captured = match interface.snap_len {
            0 => wire_len,
            limit => wire_len.min(limit),
        };
        let Some(bytes) = rest.get(..captured as usize).filter(|_| captured <= MAX_PACKET) else {
            return Err(Problem::PacketTooLong { length: captured });
        };
        let packet = Packet {
            at: None,
            link: interface.link,
            direction: Direction::Unknown,
            wire_len,
            bytes,
        };
        Ok(Step::Packet { packet, used })
    }

    fn statistics<'a>(&mut self, body: &[u8], length: u32) -> Step<'a> {
        let order = self.order;
        // Interface, then a timestamp of two words, then options.
        if let Some((number, rest)) = order.take_u32(body) {
            let list = rest.get(8..).unwrap_or(&[]);
            let lost = options(order, list)
                .filter(|(code, _)| *code == OPTION_ISB_IFDROP)
                .find_map(|(_, value)| value.try_into().ok().map(|bytes| order.u64(bytes)));
            let place = usize::try_from(number)
                .ok()
                .and_then(|n| self.interfaces.get_mut(n));
            if let (Some(interface), Some(lost)) = (place, lost) {
                interface.lost = Some(lost);
            }
        }
        Step::Skip(length.into())
    }

    #[inline]
    fn get(&self, number: u32) -> Result<&Interface, Problem> {
        usize::try_from(number)
            .ok()
            .and_then(|n| self.interfaces.get(n))
            .ok_or(Problem::NoSuchInterface {
                interface: number,
                known: self.interfaces.len(),
            })
    }
}

/// `epb_flags`' two lowest bits.
fn direction(order: Order, list: &[u8]) -> Direction {
    let flags = options(order, list)
        .find(|(code, _)| *code == OPTION_EPB_FLAGS)
        .and_then(|(_, value)| value.try_into().ok())
        .map_or(0, |bytes| order.u32(bytes));
    match flags & 3 {
        1 => Direction::In,
        2 => Direction::Out,
        _ => Direction::Unknown,
    }
}

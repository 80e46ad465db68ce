//! pcap: a file header, then records of 16 bytes of header and a packet (draft-ietf-opsawg-pcap).

use super::{LinkType, MAX_PACKET, Order, Packet, Problem, Step};
use crate::observation::packet::Direction;
use crate::time::Timestamp;

/// Octets of the file header.
pub const FILE_HEADER: usize = 24;
/// Octets of a record's header.
const RECORD_HEADER: usize = 16;
/// The link type's bits in the file header's last word; above them is the length of the frame check sequence.
const LINK_TYPE_BITS: u32 = 0x03ff_ffff;

/// Byte order and the unit of a timestamp's fraction, as the magic number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavour {
    order: Order,
    nanos_per_unit: u32,
}

/// Recognises the first four bytes of a pcap file.
pub fn recognise(magic: [u8; 4]) -> Result<Flavour, Problem> {
    for order in [Order::Little, Order::Big] {
        return Ok(match order.u32(magic) {
            0xa1b2_c3d4 => Flavour {
                order,
                nanos_per_unit: 1000,
            },
            0xa1b2_3c4d => Flavour {
                order,
                nanos_per_unit: 1,
            },
            0xa1b2_cd34 => {
                return Err(Problem::Modified {
                    dialect: "Kuznetzov's",
                });
            }
            0xa1b2_34cd => return Err(Problem::Modified { dialect: "Navtel's" }),
            0x1c00_01ac | 0x1c00_01ab => {
                return Err(Problem::Modified {
                    dialect: "IXIA's lcap",
                });
            }
            _ => continue,
        });
    }
    Err(Problem::NotACapture { magic })
}

/// A pcap file after its header.
#[derive(Debug)]
pub struct Classic {
    flavour: Flavour,
    link: LinkType,
}

impl Classic {
    /// Reads the file header.
    pub fn new(flavour: Flavour, header: &[u8; FILE_HEADER]) -> Result<Self, Problem> {
        let order = flavour.order;
        let [_, _, _, _, a, b, c, d, .., w, x, y, z] = *header;
        let (major, minor) = (order.u16([a, b]), order.u16([c, d]));
        // 2.3 and 2.4 have the record header below; a 2.2 has not been written since 1997.
        if major != 2 || minor < 3 {
            return Err(Problem::Version {
                format: "pcap",
                expected: "2.3 or 2.4",
                major,
                minor,
            });
        }
        let link = LinkType::from_number(order.u32([w, x, y, z]) & LINK_TYPE_BITS);
        Ok(Self { flavour, link })
    }

    /// Reads a record.
    #[inline]
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Problem> {
        let Some((header, rest)) = input.split_first_chunk::<RECORD_HEADER>() else {
            return Ok(Step::Need(RECORD_HEADER));
        };
        let order = self.flavour.order;
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *header;
        let captured = order.u32([i, j, k, l]);
        if captured > MAX_PACKET {
            return Err(Problem::PacketTooLong { length: captured });
        }
        let used = RECORD_HEADER + captured as usize;
        let Some(bytes) = rest.get(..captured as usize) else {
            return Ok(Step::Need(used));
        };
        // A fraction of a second or more is a writer's slip; the sum is still the best guess.
        let fraction = u64::from(order.u32([e, f, g, h])) * u64::from(self.flavour.nanos_per_unit);
        let nanos = u64::from(order.u32([a, b, c, d])) * 1_000_000_000 + fraction;
        let packet = Packet {
            at: Some(Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))),
            link: self.link,
            direction: Direction::Unknown,
            // Some writers put 0 here; a packet is never shorter than what was captured of it.
            wire_len: order.u32([m, n, o, p]).max(captured),
            bytes,
        };
        Ok(Step::Packet { packet, used })
    }
}

//! STUN messages: RFC 8489's framing, the attributes of RFC 5780, and what RFC 3489's clients still speak.
//!
//! In: bytes from strangers. Out: a [`Message`] that borrows them. Nothing is allocated and nothing panics, since the
//! reflector reads fifty thousand of them a second; docs/decisions/0020 says why this is not a library. [`mod@write`] makes
//! messages.

pub mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use write::Writer;

/// Bytes of the header (RFC 8489, section 5).
pub const HEADER: usize = 20;
/// The first four bytes of a transaction's identity since RFC 5389; RFC 3489 has random ones there.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// The Binding method (RFC 8489, section 18.2).
pub const BINDING: u16 = 0x001;
/// The largest message that this module makes or that `nat` accepts: an IPv6 minimum MTU's worth.
pub const LARGEST: usize = 1232;

/// Attribute types (RFC 8489, section 18.3; RFC 5780, section 7; RFC 3489, section 11.2).
#[allow(missing_docs)] // the RFCs' names
pub mod attribute {
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const RESPONSE_ADDRESS: u16 = 0x0002;
    pub const CHANGE_REQUEST: u16 = 0x0003;
    pub const SOURCE_ADDRESS: u16 = 0x0004;
    pub const CHANGED_ADDRESS: u16 = 0x0005;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const PADDING: u16 = 0x0026;
    pub const RESPONSE_PORT: u16 = 0x0027;
    pub const SOFTWARE: u16 = 0x8022;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const RESPONSE_ORIGIN: u16 = 0x802B;
    pub const OTHER_ADDRESS: u16 = 0x802C;
}

/// The two class bits (RFC 8489, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the RFC's names
pub enum Class {
    Request,
    Indication,
    Success,
    Error,
}

impl Class {
    const fn bits(self) -> u16 {
        match self {
            Self::Request => 0x000,
            Self::Indication => 0x010,
            Self::Success => 0x100,
            Self::Error => 0x110,
        }
    }
}

/// A transaction's identity, the magic cookie included: RFC 3489's clients have sixteen random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 16]);

impl TransactionId {
    /// With the magic cookie in front.
    pub fn new(random: [u8; 12]) -> Self {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        id[4..].copy_from_slice(&random);
        Self(id)
    }

    /// Whether its maker speaks RFC 3489, which knows neither the cookie nor XOR-MAPPED-ADDRESS.
    pub fn is_classic(&self) -> bool {
        self.0[..4] != MAGIC_COOKIE.to_be_bytes()
    }
}

/// Why bytes are no STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// Shorter than a header.
    #[error("{0} bytes are too few for a STUN message")]
    Short(usize),
    /// The first two bits are not zero.
    #[error("not STUN: the first two bits are not zero")]
    Leading,
    /// The length field is not what is there.
    #[error("the length field says {said} bytes, {have} are there")]
    Length {
        /// What the field says.
        said: usize,
        /// What follows the header.
        have: usize,
    },
    /// An attribute reaches beyond the end.
    #[error("attribute {kind:#06x} reaches beyond the end of the message")]
    Attribute {
        /// Its type.
        kind: u16,
    },
}

/// A message that has been looked through: each attribute lies within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Request, success, ….
    pub class: Class,
    /// The method; [`BINDING`] is the only one of interest.
    pub method: u16,
    /// The transaction.
    pub id: TransactionId,
    attributes: &'a [u8],
}

/// The length of the message that begins with `header`, for streams; `None` where that is no STUN.
pub fn length(header: &[u8; HEADER]) -> Option<usize> {
    let said = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (header[0] & 0xC0 == 0 && said.is_multiple_of(4)).then_some(HEADER + said)
}

impl<'a> Message<'a> {
    /// Reads a datagram, all of it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, StunError> {
        let Some((header, attributes)) = bytes.split_first_chunk::<HEADER>() else {
            return Err(StunError::Short(bytes.len()));
        };
        if header[0] & 0xC0 != 0 {
            return Err(StunError::Leading);
        }
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let said = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if said != attributes.len() || !said.is_multiple_of(4) {
            return Err(StunError::Length {
                said,
                have: attributes.len(),
            });
        }
        let mut rest = attributes;
        while !rest.is_empty() {
            match split(rest) {
                Ok((_, after)) => rest = after,
                Err(kind) => return Err(StunError::Attribute { kind }),
            }
        }
        let mut id = [0; 16];
        id.copy_from_slice(&header[4..]);
        Ok(Self {
            class: match kind & 0x110 {
                0x000 => Class::Request,
                0x010 => Class::Indication,
                0x100 => Class::Success,
                _ => Class::Error,
            },
            method: (kind & 0x000F) | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2,
            id: TransactionId(id),
            attributes,
        })
    }

    /// Every attribute in order: type and value.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let mut rest = self.attributes;
        std::iter::from_fn(move || {
            let (one, after) = split(rest).ok()?;
            rest = after;
            Some(one)
        })
    }

    /// The first attribute of a type: later ones are to be ignored (RFC 8489, section 14).
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.attributes()
            .find(|(k, _)| *k == kind)
            .map(|(_, value)| value)
    }

    /// An address attribute as it stands.
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        address(self.get(kind)?)
    }

    /// An address attribute, unmasked (RFC 8489, section 14.2).
    pub fn xor_address(&self, kind: u16) -> Option<SocketAddr> {
        self.address(kind).map(|a| xor(a, &self.id))
    }

    /// Where the server saw the request come from: XOR-MAPPED-ADDRESS, and MAPPED-ADDRESS from older servers.
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.xor_address(attribute::XOR_MAPPED_ADDRESS)
            .or_else(|| self.address(attribute::MAPPED_ADDRESS))
    }

    /// The server's other address and port: OTHER-ADDRESS, and CHANGED-ADDRESS from older servers.
    pub fn other_address(&self) -> Option<SocketAddr> {
        self.address(attribute::OTHER_ADDRESS)
            .or_else(|| self.address(attribute::CHANGED_ADDRESS))
    }

    /// The flags of CHANGE-REQUEST (RFC 5780, section 7.2).
    pub fn change_request(&self) -> Option<Change> {
        let flags = self.get(attribute::CHANGE_REQUEST)?.last()?;
        Some(Change {
            ip: flags & 4 != 0,
            port: flags & 2 != 0,
        })
    }

    /// The port of RESPONSE-PORT (RFC 5780, section 7.5).
    pub fn response_port(&self) -> Option<u16> {
        let value = self.get(attribute::RESPONSE_PORT)?;
        value.first_chunk::<2>().map(|p| u16::from_be_bytes(*p))
    }

    /// The number of ERROR-CODE (RFC 8489, section 14.8).
    pub fn error_code(&self) -> Option<u16> {
        match self.get(attribute::ERROR_CODE)? {
            [_, _, class, number, ..] if *number < 100 => {
                Some(u16::from(class & 7) * 100 + u16::from(*number))
            }
            _ => None,
        }
    }

    /// SOFTWARE, where it is text. It comes from a stranger: clean it before it is shown.
    pub fn software(&self) -> Option<&'a str> {
        std::str::from_utf8(self.get(attribute::SOFTWARE)?).ok()
    }
}

/// What a CHANGE-REQUEST asks for: an answer from another address, another port, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// From the server's other address.
    pub ip: bool,
    /// From its other port.
    pub port: bool,
}

/// Splits the first attribute off; what a broken one calls itself as error.
#[allow(clippy::type_complexity)]
fn split(bytes: &[u8]) -> Result<((u16, &[u8]), &[u8]), u16> {
    let Some(([a, b, c, d], rest)) = bytes.split_first_chunk::<4>() else {
        return Err(0);
    };
    let kind = u16::from_be_bytes([*a, *b]);
    let length = usize::from(u16::from_be_bytes([*c, *d]));
    let value = rest.get(..length).ok_or(kind)?;
    // The message's length is a multiple of four, so padding that is missing means a length that lies.
    let after = rest.get(length.next_multiple_of(4)..).ok_or(kind)?;
    Ok(((kind, value), after))
}

/// MAPPED-ADDRESS's form (RFC 8489, section 14.1).
fn address(value: &[u8]) -> Option<SocketAddr> {
    let (head, rest) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2], head[3]]);
    let ip: IpAddr = match (head[1], rest.len()) {
        (1, 4) => Ipv4Addr::from(*rest.first_chunk::<4>()?).into(),
        (2, 16) => Ipv6Addr::from(*rest.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Masks or unmasks an address; RFC 3489's identities mask too, with their own first bytes.
fn xor(address: SocketAddr, id: &TransactionId) -> SocketAddr {
    let mask = u128::from_be_bytes(id.0);
    let cookie = MAGIC_COOKIE;
    let port = address.port() ^ 0x2112;
    let ip = match address.ip() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() ^ cookie)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() ^ mask)),
    };
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests;

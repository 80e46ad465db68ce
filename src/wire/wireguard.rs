//! WireGuard's four messages: bytes ↔ borrowed types.
//!
//! In: a UDP payload, whole or cut. Out: its class, its fields by reference, or the bytes again. Nothing is
//! allocated and nothing is decrypted. Sections are those of the WireGuard paper (Donenfeld, NDSS 2017, revised
//! 2020); lengths and order are the kernel's drivers/net/wireguard/messages.h.

use crate::time::Span;
use crate::types::SessionIndex;

/// UDP payload of a handshake initiation (5.4.2).
pub const INITIATION_LEN: usize = 148;
/// UDP payload of a handshake response (5.4.3).
pub const RESPONSE_LEN: usize = 92;
/// UDP payload of a cookie reply (5.4.7).
pub const COOKIE_REPLY_LEN: usize = 64;
/// What data messages have before the encrypted packet: type, receiver, counter (5.4.6).
pub const DATA_HEADER_LEN: usize = 16;
/// The smallest data message: an empty packet and its tag, which is a keepalive (6.5).
pub const KEEPALIVE_LEN: usize = 32;

/// Messages under one session before its initiator asks for a new one (6.1).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// Messages under one session, at most (6.1).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Age at which the initiator of a session asks for a new one (6.1).
pub const REKEY_AFTER_TIME: Span = Span::from_secs(120);
/// Age at which a session is dead (6.1).
pub const REJECT_AFTER_TIME: Span = Span::from_secs(180);
/// How long an initiator goes on without new traffic (6.1).
pub const REKEY_ATTEMPT_TIME: Span = Span::from_secs(90);
/// How long an initiator waits for a response before it tries again (6.1).
pub const REKEY_TIMEOUT: Span = Span::from_secs(5);
/// What an initiator may wait longer, at random, so that two sides do not collide for ever (6.1; a third of a
/// second in the kernel's timers.c).
pub const REKEY_TIMEOUT_JITTER: Span = Span::from_millis(334);
/// Silence after received data that is answered by a keepalive (6.1).
pub const KEEPALIVE_TIMEOUT: Span = Span::from_secs(10);
/// How long a cookie counts (5.4.7).
pub const COOKIE_LIFETIME: Span = Span::from_secs(120);

/// Which of the four messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Type 1.
    Initiation,
    /// Type 2.
    Response,
    /// Type 3.
    CookieReply,
    /// Type 4.
    Data,
}

impl Kind {
    /// From the type byte.
    pub const fn from_type(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Initiation,
            2 => Self::Response,
            3 => Self::CookieReply,
            4 => Self::Data,
            _ => return None,
        })
    }

    /// The type byte.
    pub const fn type_byte(self) -> u8 {
        match self {
            Self::Initiation => 1,
            Self::Response => 2,
            Self::CookieReply => 3,
            Self::Data => 4,
        }
    }

    /// UDP payload in bytes: exactly for handshake messages, at least for data.
    pub const fn payload_len(self) -> u32 {
        match self {
            Self::Initiation => 148,
            Self::Response => 92,
            Self::CookieReply => 64,
            Self::Data => 32,
        }
    }

    /// Whether a UDP payload of `len` bytes can hold it.
    pub const fn fits(self, len: u32) -> bool {
        match self {
            Self::Data => len >= self.payload_len(),
            _ => len == self.payload_len(),
        }
    }

    /// The name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initiation => "handshake initiation",
            Self::Response => "handshake response",
            Self::CookieReply => "cookie reply",
            Self::Data => "data",
        }
    }
}

const _: () = assert!(
    Kind::Initiation.payload_len() as usize == INITIATION_LEN
        && Kind::Response.payload_len() as usize == RESPONSE_LEN
        && Kind::CookieReply.payload_len() as usize == COOKIE_REPLY_LEN
        && Kind::Data.payload_len() as usize == KEEPALIVE_LEN
);

/// How sure the shape is, and whose dialect it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Type, three zero bytes, the right length.
    Standard,
    /// Type and length fit, but the reserved bytes are used: Cloudflare's WARP puts a client id there.
    Reserved([u8; 3]),
    /// A handshake's length under another header: AmneziaWG replaces the four type bytes. The length alone says
    /// so, which is a guess until indices of a response agree.
    CustomHeader([u8; 4]),
}

/// What a payload looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    /// Which message.
    pub kind: Kind,
    /// In which dialect.
    pub variant: Variant,
}

impl Class {
    /// Whether it is WireGuard as the paper has it.
    pub fn is_standard(self) -> bool {
        self.variant == Variant::Standard
    }
}

/// Says what `payload` looks like; it may be cut short, but its first four bytes must be there. `wire_len` is the
/// UDP payload's length on the wire.
pub fn classify(payload: &[u8], wire_len: u32) -> Option<Class> {
    let header = *payload.first_chunk::<4>()?;
    let [kind, reserved @ ..] = header;
    let typed = Kind::from_type(kind).filter(|k| k.fits(wire_len));
    let (kind, variant) = match typed {
        Some(kind) if reserved == [0; 3] => (kind, Variant::Standard),
        Some(kind) => (kind, Variant::Reserved(reserved)),
        // A cookie reply's 64 bytes and data's 32 or more are the lengths of too much else.
        None => [Kind::Initiation, Kind::Response]
            .into_iter()
            .find(|k| k.fits(wire_len))
            .map(|k| (k, Variant::CustomHeader(header)))?,
    };
    Some(Class { kind, variant })
}

/// The index at offset 4: the sender's in types 1 and 2, the receiver's in types 3 and 4. Eight bytes suffice, as
/// an ICMP error quotes them.
pub fn first_index(payload: &[u8]) -> Option<SessionIndex> {
    let (_, rest) = payload.split_first_chunk::<4>()?;
    rest.first_chunk::<4>()
        .map(|b| SessionIndex(u32::from_le_bytes(*b)))
}

/// A message's fields, by reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Type 1.
    Initiation(Initiation<'a>),
    /// Type 2.
    Response(Response<'a>),
    /// Type 3.
    CookieReply(CookieReply<'a>),
    /// Type 4.
    Data(Data),
}

impl<'a> Message<'a> {
    /// Reads a standard message or one with reserved bytes. Handshake messages must be whole; of data the first 16
    /// bytes suffice.
    pub fn parse(payload: &'a [u8], wire_len: u32) -> Option<Self> {
        let class = classify(payload, wire_len)?;
        if matches!(class.variant, Variant::CustomHeader(_)) {
            return None;
        }
        Some(match class.kind {
            Kind::Initiation => Self::Initiation(Initiation::parse(payload.try_into().ok()?)?),
            Kind::Response => Self::Response(Response::parse(payload.try_into().ok()?)?),
            Kind::CookieReply => Self::CookieReply(CookieReply::parse(payload.try_into().ok()?)?),
            Kind::Data => Self::Data(Data::parse(payload, wire_len)?),
        })
    }
}

/// A handshake initiation (5.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Initiation<'a> {
    /// Zero, but for WARP.
    pub reserved: [u8; 3],
    /// The initiator's index for the session to be.
    pub sender: SessionIndex,
    /// The initiator's ephemeral public key, in the clear.
    pub ephemeral: &'a [u8; 32],
    /// The initiator's static public key, encrypted for the responder, and its tag.
    pub encrypted_static: &'a [u8; 48],
    /// TAI64N, encrypted for the responder, and its tag.
    pub encrypted_timestamp: &'a [u8; 28],
    /// Keyed by the responder's public key (5.4.4).
    pub mac1: &'a [u8; 16],
    /// Keyed by a cookie; zeros without one (5.4.4).
    pub mac2: &'a [u8; 16],
}

const _: () = assert!(4 + 4 + 32 + 48 + 28 + 16 + 16 == INITIATION_LEN);

impl<'a> Initiation<'a> {
    /// Reads one; `None` where the type byte is another's.
    pub fn parse(bytes: &'a [u8; INITIATION_LEN]) -> Option<Self> {
        let mut r = Reader(bytes);
        Some(Self {
            reserved: r.header(Kind::Initiation)?,
            sender: r.index()?,
            ephemeral: r.take()?,
            encrypted_static: r.take()?,
            encrypted_timestamp: r.take()?,
            mac1: r.take()?,
            mac2: r.take()?,
        })
    }

    /// Writes it.
    pub fn emit(&self, out: &mut [u8; INITIATION_LEN]) {
        Writer(out)
            .header(Kind::Initiation, self.reserved)
            .put(&self.sender.0.to_le_bytes())
            .put(self.ephemeral)
            .put(self.encrypted_static)
            .put(self.encrypted_timestamp)
            .put(self.mac1)
            .put(self.mac2);
    }

    /// Whether the initiator had a cookie.
    pub fn has_mac2(&self) -> bool {
        *self.mac2 != [0; 16]
    }
}

/// A handshake response (5.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// Zero, but for WARP.
    pub reserved: [u8; 3],
    /// The responder's index for the session.
    pub sender: SessionIndex,
    /// The initiator's index, from its initiation.
    pub receiver: SessionIndex,
    /// The responder's ephemeral public key, in the clear.
    pub ephemeral: &'a [u8; 32],
    /// The tag over nothing: it proves the pre-shared key.
    pub encrypted_nothing: &'a [u8; 16],
    /// Keyed by the initiator's public key.
    pub mac1: &'a [u8; 16],
    /// Keyed by a cookie; zeros without one.
    pub mac2: &'a [u8; 16],
}

const _: () = assert!(4 + 4 + 4 + 32 + 16 + 16 + 16 == RESPONSE_LEN);

impl<'a> Response<'a> {
    /// Reads one; `None` where the type byte is another's.
    pub fn parse(bytes: &'a [u8; RESPONSE_LEN]) -> Option<Self> {
        let mut r = Reader(bytes);
        Some(Self {
            reserved: r.header(Kind::Response)?,
            sender: r.index()?,
            receiver: r.index()?,
            ephemeral: r.take()?,
            encrypted_nothing: r.take()?,
            mac1: r.take()?,
            mac2: r.take()?,
        })
    }

    /// Writes it.
    pub fn emit(&self, out: &mut [u8; RESPONSE_LEN]) {
        Writer(out)
            .header(Kind::Response, self.reserved)
            .put(&self.sender.0.to_le_bytes())
            .put(&self.receiver.0.to_le_bytes())
            .put(self.ephemeral)
            .put(self.encrypted_nothing)
            .put(self.mac1)
            .put(self.mac2);
    }
}

/// A cookie reply (5.4.7): "under load, prove your address, then try again".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookieReply<'a> {
    /// Zero, but for WARP.
    pub reserved: [u8; 3],
    /// The sender's index of the message that it answers.
    pub receiver: SessionIndex,
    /// The nonce of XChaCha20Poly1305.
    pub nonce: &'a [u8; 24],
    /// The cookie, encrypted under the replier's public key, and its tag.
    pub encrypted_cookie: &'a [u8; 32],
}

const _: () = assert!(4 + 4 + 24 + 32 == COOKIE_REPLY_LEN);

impl<'a> CookieReply<'a> {
    /// Reads one; `None` where the type byte is another's.
    pub fn parse(bytes: &'a [u8; COOKIE_REPLY_LEN]) -> Option<Self> {
        let mut r = Reader(bytes);
        Some(Self {
            reserved: r.header(Kind::CookieReply)?,
            receiver: r.index()?,
            nonce: r.take()?,
            encrypted_cookie: r.take()?,
        })
    }

    /// Writes it.
    pub fn emit(&self, out: &mut [u8; COOKIE_REPLY_LEN]) {
        Writer(out)
            .header(Kind::CookieReply, self.reserved)
            .put(&self.receiver.0.to_le_bytes())
            .put(self.nonce)
            .put(self.encrypted_cookie);
    }
}

/// What a data message says in the clear (5.4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    /// Zero, but for WARP.
    pub reserved: [u8; 3],
    /// The receiver's index of the session.
    pub receiver: SessionIndex,
    /// The session's message counter, from 0 in each direction.
    pub counter: u64,
    /// The UDP payload's length on the wire, in bytes.
    pub len: u32,
}

const _: () = assert!(4 + 4 + 8 == DATA_HEADER_LEN && DATA_HEADER_LEN + 16 == KEEPALIVE_LEN);

impl Data {
    /// Reads the clear header; `None` where it is cut or the type byte is another's.
    pub fn parse(bytes: &[u8], wire_len: u32) -> Option<Self> {
        let mut r = Reader(bytes);
        Some(Self {
            reserved: r.header(Kind::Data)?,
            receiver: r.index()?,
            counter: u64::from_le_bytes(*r.take()?),
            len: wire_len,
        })
    }

    /// Writes the clear header.
    pub fn emit(&self, out: &mut [u8; DATA_HEADER_LEN]) {
        Writer(out)
            .header(Kind::Data, self.reserved)
            .put(&self.receiver.0.to_le_bytes())
            .put(&self.counter.to_le_bytes());
    }

    /// Whether it carries nothing.
    pub fn is_keepalive(&self) -> bool {
        self.len == Kind::Data.payload_len()
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(head)
    }

    fn header(&mut self, kind: Kind) -> Option<[u8; 3]> {
        let [byte, reserved @ ..] = *self.take::<4>()?;
        (byte == kind.type_byte()).then_some(reserved)
    }

    fn index(&mut self) -> Option<SessionIndex> {
        self.take().map(|b| SessionIndex(u32::from_le_bytes(*b)))
    }
}

/// Writes front to back. The field sums asserted above say that everything fits.
struct Writer<'a>(&'a mut [u8]);

impl<'a> Writer<'a> {
    fn put(self, bytes: &[u8]) -> Self {
        let Some((head, rest)) = self.0.split_at_mut_checked(bytes.len()) else {
            return Self(&mut []);
        };
        head.copy_from_slice(bytes);
        Self(rest)
    }

    fn header(self, kind: Kind, [a, b, c]: [u8; 3]) -> Self {
        self.put(&[kind.type_byte(), a, b, c])
    }
}

#[cfg(test)]
#[path = "wireguard_tests.rs"]
mod tests;

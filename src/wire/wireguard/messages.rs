//! The four messages' fields: bytes ↔ borrowed types, both ways, with the sizes proven when this compiles.

use super::{
    COOKIE_REPLY_LEN, DATA_HEADER_LEN, INITIATION_LEN, KEEPALIVE_LEN, Kind, RESPONSE_LEN, Variant, classify,
};
use crate::types::SessionIndex;

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

//! WireGuard's four messages: what a payload looks like, and the protocol's constants.
//!
//! In: a UDP payload, whole or cut. Out: its class ([`classify`]) or its fields ([`Message`]). Nothing is allocated
//! and nothing is decrypted. Sections are those of the WireGuard paper (Donenfeld, NDSS 2017, revised
//! 2020); lengths and order are the kernel's drivers/net/wireguard/messages.h.

mod messages;

pub use messages::{CookieReply, Data, Initiation, Message, Response};

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

#[cfg(test)]
mod tests;

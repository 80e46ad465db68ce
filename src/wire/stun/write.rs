//! Making STUN messages in a buffer that the caller owns and bounds.

use std::net::{IpAddr, SocketAddr};

use super::{Change, Class, HEADER, TransactionId, attribute, xor};

/// A message under way. What does not fit is not written, and said so; nothing is allocated.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
    id: TransactionId,
}

impl<'a> Writer<'a> {
    /// Begins a message of at most `buffer.len()` bytes; `None` where not even a header fits.
    pub fn new(buffer: &'a mut [u8], class: Class, method: u16, id: TransactionId) -> Option<Self> {
        let spread = (method & 0x000F) | (method & 0x0070) << 1 | (method & 0x0F80) << 2;
        let header = buffer.get_mut(..HEADER)?;
        header[..2].copy_from_slice(&(spread | class.bits()).to_be_bytes());
        header[2..4].fill(0);
        header[4..].copy_from_slice(&id.0);
        Some(Self {
            buffer,
            length: HEADER,
            id,
        })
    }

    /// Adds an attribute; false where it does not fit.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> bool {
        let padded = value.len().next_multiple_of(4);
        let Ok(length) = u16::try_from(value.len()) else {
            return false;
        };
        let Some(room) = self.buffer.get_mut(self.length..self.length + 4 + padded) else {
            return false;
        };
        let (head, body) = room.split_at_mut(4);
        head[..2].copy_from_slice(&kind.to_be_bytes());
        head[2..].copy_from_slice(&length.to_be_bytes());
        body.fill(0);
        if let Some(place) = body.get_mut(..value.len()) {
            place.copy_from_slice(value);
        }
        self.length += 4 + padded;
        true
    }

    /// Adds an address as it is.
    pub fn address(&mut self, kind: u16, address: SocketAddr) -> bool {
        let mut value = [0; 20];
        value[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(v4) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&v4.octets());
                self.attribute(kind, &value[..8])
            }
            IpAddr::V6(v6) => {
                value[1] = 2;
                value[4..].copy_from_slice(&v6.octets());
                self.attribute(kind, &value)
            }
        }
    }

    /// Adds an address that is masked, so that no ALG on the way recognises and rewrites it.
    pub fn xor_address(&mut self, kind: u16, address: SocketAddr) -> bool {
        let masked = xor(address, &self.id);
        self.address(kind, masked)
    }

    /// Asks for an answer from elsewhere.
    pub fn change_request(&mut self, change: Change) -> bool {
        let flags = u8::from(change.ip) << 2 | u8::from(change.port) << 1;
        self.attribute(attribute::CHANGE_REQUEST, &[0, 0, 0, flags])
    }

    /// Asks for an answer to another port.
    pub fn response_port(&mut self, port: u16) -> bool {
        let [high, low] = port.to_be_bytes();
        self.attribute(attribute::RESPONSE_PORT, &[high, low, 0, 0])
    }

    /// Adds ERROR-CODE without a reason's text.
    pub fn error(&mut self, code: u16) -> bool {
        let class = u8::try_from(code / 100).unwrap_or(5);
        let number = u8::try_from(code % 100).unwrap_or(0);
        self.attribute(attribute::ERROR_CODE, &[0, 0, class, number])
    }

    /// Ends it; its length in the buffer.
    pub fn finish(self) -> usize {
        let length = u16::try_from(self.length - HEADER).unwrap_or(0);
        if let Some(field) = self.buffer.get_mut(2..4) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        self.length
    }
}

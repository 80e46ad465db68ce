//! What a STUN server answers: pure, without state, without allocation.
//!
//! In: a request, where it came from and at which of our sockets. Out: an answer in the caller's buffer, and which
//! socket sends it whither. An answer over UDP is never longer than its request, because a request's source may be a
//! lie: attributes are left out from the least important on, and a request too short for any answer gets none.

use std::net::{IpAddr, SocketAddr};

use crate::wire::stun::{BINDING, Change, Class, Message, TransactionId, Writer, attribute};

/// What SOFTWARE says; `nat --port-quota` opens many flows to nobody who does not say this.
pub const SOFTWARE: &str = concat!("wgnat reflect ", env!("CARGO_PKG_VERSION"));
/// What SOFTWARE begins with, whatever the version.
pub const SOFTWARE_PREFIX: &str = "wgnat reflect ";

/// The longest answer: every attribute over IPv6.
pub const LONGEST: usize = 20 + 4 * 24 + 4 + SOFTWARE.len().next_multiple_of(4);

/// One of the sockets: the first or second address, the first or second port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The second address rather than the first.
    pub ip: bool,
    /// The second port rather than the first.
    pub port: bool,
}

/// The addresses and ports of one family, as clients know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The first address and, where there is one, the second.
    pub ips: (IpAddr, Option<IpAddr>),
    /// The first port and, where there is one, the second.
    pub ports: (u16, Option<u16>),
}

impl Grid {
    /// The address of a socket, where there is such a socket.
    pub fn at(&self, slot: Slot) -> Option<SocketAddr> {
        let ip = if slot.ip { self.ips.1? } else { self.ips.0 };
        let port = if slot.port { self.ports.1? } else { self.ports.0 };
        Some(SocketAddr::new(ip, port))
    }

    /// Every socket that there is.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        let all = [(false, false), (false, true), (true, false), (true, true)];
        let grid = *self;
        all.into_iter()
            .map(|(ip, port)| Slot { ip, port })
            .filter(move |slot| grid.at(*slot).is_some())
    }

    /// OTHER-ADDRESS as seen from a socket: both differ where both can; on one address, the other port.
    fn other(&self, slot: Slot) -> Option<SocketAddr> {
        let other = |ip: bool, port: bool| {
            self.at(Slot {
                ip: slot.ip ^ ip,
                port: slot.port ^ port,
            })
        };
        other(true, true).or_else(|| other(false, true))
    }

    /// The socket that CHANGE-REQUEST asks for.
    fn changed(&self, slot: Slot, change: Change) -> Option<Slot> {
        let changed = Slot {
            ip: slot.ip ^ change.ip,
            port: slot.port ^ change.port,
        };
        self.at(changed).map(|_| changed)
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// By UDP: its source may be forged, and the answer is at most as long as it.
    Udp,
    /// By UDP, from clients that are trusted not to be forged: the answer is told in full.
    UdpInFull,
    /// By TCP, whose handshake proves the source.
    Tcp,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send the first `length` bytes of the buffer.
    Send {
        /// From this socket.
        via: Slot,
        /// There.
        to: SocketAddr,
        /// So many bytes.
        length: usize,
        /// It is an error response.
        error: bool,
    },
    /// Do nothing.
    Ignore(Ignored),
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// It is no STUN Binding request.
    NotARequest,
    /// No answer is as short as it.
    TooShort,
    /// RESPONSE-PORT 0.
    NoPort,
}

/// Answers `request`, which came from `from` to our socket `slot`, into `out`.
pub fn answer(
    grid: &Grid,
    slot: Slot,
    from: SocketAddr,
    by: Transport,
    request: &[u8],
    out: &mut [u8],
) -> Reply {
    let message = match Message::parse(request) {
        Ok(m) if m.class == Class::Request && m.method == BINDING => m,
        _ => return Reply::Ignore(Ignored::NotARequest),
    };
    let longest = match by {
        Transport::Udp => request.len(),
        Transport::UdpInFull | Transport::Tcp => LONGEST,
    };
    let longest = longest.min(out.len());
    let Some(out) = out.get_mut(..longest) else {
        return Reply::Ignore(Ignored::TooShort);
    };
    let change = message.change_request().unwrap_or_default();
    let asks_elsewhere = change != Change::default() || message.response_port().is_some();
    let via = grid.changed(slot, change);
    let unknown = message.attributes().map(|(kind, _)| kind).find(|kind| {
        let cannot = match *kind {
            // Neither makes sense on a stream, and a change to where there is no socket is not supported.
            attribute::CHANGE_REQUEST => via.is_none() || (by == Transport::Tcp && asks_elsewhere),
            attribute::RESPONSE_PORT => by == Transport::Tcp,
            // Who may say where an answer goes may aim it at anybody: refused, as since RFC 5389.
            attribute::RESPONSE_ADDRESS => true,
            attribute::PADDING | attribute::USERNAME | attribute::MESSAGE_INTEGRITY => false,
            attribute::XOR_MAPPED_ADDRESS | attribute::MAPPED_ADDRESS => false,
            _ => true,
        };
        *kind < 0x8000 && cannot
    });
    let (via, to) = match (unknown, message.response_port()) {
        (Some(kind), _) => return refuse(out, slot, from, message.id, kind),
        (None, Some(0)) => return Reply::Ignore(Ignored::NoPort),
        (None, Some(port)) => (via, SocketAddr::new(from.ip(), port)),
        (None, None) => (via, from),
    };
    let via = via.unwrap_or(slot);
    match success(grid, slot, via, from, message.id, out) {
        Some(length) => Reply::Send {
            via,
            to,
            length,
            error: false,
        },
        None => Reply::Ignore(Ignored::TooShort),
    }
}

/// The most important attribute first: what does not fit is left out.
fn success(
    grid: &Grid,
    slot: Slot,
    via: Slot,
    from: SocketAddr,
    id: TransactionId,
    out: &mut [u8],
) -> Option<usize> {
    let mut writer = Writer::new(out, Class::Success, BINDING, id)?;
    let (other, origin) = (grid.other(slot), grid.at(via));
    if id.is_classic() {
        if !writer.address(attribute::MAPPED_ADDRESS, from) {
            return None;
        }
        if let Some(origin) = origin {
            writer.address(attribute::SOURCE_ADDRESS, origin);
        }
        if let Some(other) = other {
            writer.address(attribute::CHANGED_ADDRESS, other);
        }
        return Some(writer.finish());
    }
    if !writer.xor_address(attribute::XOR_MAPPED_ADDRESS, from) {
        return None;
    }
    if let Some(other) = other {
        writer.address(attribute::OTHER_ADDRESS, other);
    }
    if let Some(origin) = origin {
        writer.address(attribute::RESPONSE_ORIGIN, origin);
    }
    writer.attribute(attribute::SOFTWARE, SOFTWARE.as_bytes());
    // For telling an ALG on the way that rewrites addresses which it recognises.
    writer.address(attribute::MAPPED_ADDRESS, from);
    Some(writer.finish())
}

/// 420 Unknown Attribute (RFC 8489, section 6.3.1.1).
fn refuse(out: &mut [u8], slot: Slot, from: SocketAddr, id: TransactionId, kind: u16) -> Reply {
    let made = Writer::new(out, Class::Error, BINDING, id).and_then(|mut writer| {
        let fits = writer.error(420);
        writer.attribute(attribute::UNKNOWN_ATTRIBUTES, &kind.to_be_bytes());
        fits.then(|| writer.finish())
    });
    match made {
        Some(length) => Reply::Send {
            via: slot,
            to: from,
            length,
            error: true,
        },
        None => Reply::Ignore(Ignored::TooShort),
    }
}

#[cfg(test)]
#[path = "reflector_tests.rs"]
mod tests;

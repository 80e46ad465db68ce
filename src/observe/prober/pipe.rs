//! The way to one peer: UDP, or a WebSocket.

use std::net::{IpAddr, SocketAddr};

use super::udp::Udp;
use super::websocket::Ws;
use crate::probe::handshake::IcmpSeen;

/// What came.
pub enum Received {
    /// A datagram, in the buffer, of this length.
    Datagram(usize),
    /// An ICMP error.
    Icmp(IcmpSeen),
    /// A datagram was too large: for this host's interface, or (`from`) for a router on the way.
    TooBig { mtu: u32, from: Option<IpAddr> },
    /// The way is closed, and why.
    Closed(String),
}

/// Why a datagram could not be sent.
pub struct SendError {
    /// The error's number.
    pub errno: i32,
    /// In words.
    pub error: String,
}

/// The way.
pub enum Pipe {
    /// A connected UDP socket.
    Udp(Udp),
    /// A WebSocket.
    Websocket(Box<Ws>),
}

impl Pipe {
    /// This side's address.
    pub fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp(udp) => udp.local(),
            Self::Websocket(ws) => ws.local(),
        }
    }

    /// Whether messages travel as datagrams of their own, so that each has a size on the way.
    pub fn is_datagrams(&self) -> bool {
        matches!(self, Self::Udp(_))
    }

    /// From now on nothing is fragmented.
    pub fn never_fragment(&self) {
        if let Self::Udp(udp) = self {
            udp.never_fragment();
        }
    }

    /// The next thing that comes. Nothing is lost where the wait is given up.
    pub async fn receive(&mut self, buffer: &mut [u8]) -> Received {
        match self {
            Self::Udp(udp) => udp.receive(buffer).await,
            Self::Websocket(ws) => ws.receive(buffer).await,
        }
    }

    /// Sends a datagram.
    pub async fn send(&mut self, datagram: &[u8]) -> Result<(), SendError> {
        match self {
            Self::Udp(udp) => udp.send(datagram).await,
            Self::Websocket(ws) => ws.send(datagram).await,
        }
    }
}

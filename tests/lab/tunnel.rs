//! A tunnel between a lab's client and its server, the usual start of a WireGuard test.

use super::SOON;
use super::{Keys, Lab, Namespace, Peer, WgDevice, ask};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// The client's address in the tunnel.
pub const CLIENT_IN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));
/// The server's address in the tunnel.
pub const SERVER_IN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));
/// The server's WireGuard port.
pub const PORT: u16 = 51820;

/// wg0 on both sides. The client knows the server's endpoint, the server learns the client's.
#[derive(Debug)]
pub struct Tunnel {
    /// wg0 on the client, 10.99.0.2 and fd99::2.
    pub client: WgDevice,
    /// wg0 on the server, 10.99.0.1 and fd99::1.
    pub server: WgDevice,
}

impl Tunnel {
    /// Describes both devices, with right keys, and starts neither: a test may spoil them first.
    pub fn prepare(lab: &Lab) -> Self {
        let (client_keys, server_keys) = (Keys::generate(), Keys::generate());
        let mut client = WgDevice::new(lab.client(), "wg0", client_keys);
        let mut server = WgDevice::new(lab.server(), "wg0", server_keys);
        let endpoint = SocketAddr::new(lab.server_ip(), PORT);
        client.addresses = vec!["10.99.0.2/24".to_owned(), "fd99::2/64".to_owned()];
        client.peers = vec![Peer::new(server.keys.public(), "10.99.0.0/24,fd99::/64").at(endpoint)];
        server.addresses = vec!["10.99.0.1/24".to_owned(), "fd99::1/64".to_owned()];
        server.port = Some(PORT);
        server.peers = vec![Peer::new(client.keys.public(), "10.99.0.2/32,fd99::2/128")];
        Self { client, server }
    }

    /// Both devices started. No packet has been sent.
    #[track_caller]
    pub fn start(lab: &Lab) -> Self {
        let mut tunnel = Self::prepare(lab);
        tunnel.start_both();
        tunnel
    }

    /// Both devices started, and a handshake made by the client.
    #[track_caller]
    pub fn up(lab: &Lab) -> Self {
        let tunnel = Self::start(lab);
        tunnel.knock();
        tunnel.client.await_handshake(SOON);
        tunnel.server.await_handshake(SOON);
        tunnel
    }

    /// Starts both devices.
    #[track_caller]
    pub fn start_both(&mut self) {
        self.server.start();
        self.client.start();
    }

    /// Sends one small datagram from the client into the tunnel, which makes the client begin a handshake if it has none.
    pub fn knock(&self) {
        knock(self.client.namespace(), SERVER_IN);
    }

    /// Sends one small datagram from the server into the tunnel.
    pub fn knock_back(&self) {
        knock(self.server.namespace(), CLIENT_IN);
    }
}

/// Sends a datagram of four bytes to the discard port. A failure to send is a fault's business, not this function's.
pub fn knock(from: &Namespace, to: IpAddr) {
    knock_of(from, to, 4);
}

/// Sends a datagram of `size` bytes to the discard port.
pub fn knock_of(from: &Namespace, to: IpAddr, size: usize) {
    from.run(|| {
        let any: SocketAddr = if to.is_ipv4() {
            "0.0.0.0:0".parse()
        } else {
            "[::]:0".parse()
        }
        .expect("valid");
        if let Ok(socket) = std::net::UdpSocket::bind(any) {
            let _ = socket.send_to(&vec![0; size], SocketAddr::new(to, 9));
        }
    });
}

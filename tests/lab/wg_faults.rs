//! Faults of WireGuard's configuration and of its hosts. Network faults are in faults.rs.

use super::SOON;
use super::{Keys, Lab, Namespace, Peer, PresharedKey, Tunnel, WgDevice, tunnel};
use std::net::{SocketAddr, UdpSocket};

impl Tunnel {
    /// The client has another public key for the server than the server's. Before the start, or followed by `apply()`.
    pub fn give_client_wrong_server_key(&mut self) {
        Keys::generate()
            .public()
            .clone_into(&mut self.client.peers[0].public_key);
    }

    /// The server does not know the client's key.
    pub fn make_client_unknown(&mut self) {
        Keys::generate()
            .public()
            .clone_into(&mut self.server.peers[0].public_key);
    }

    /// Both sides have a pre-shared key, and they differ.
    pub fn make_psk_differ(&mut self) {
        self.client.peers[0].psk = Some(PresharedKey::generate());
        self.server.peers[0].psk = Some(PresharedKey::generate());
    }

    /// Both sides have the same pre-shared key.
    pub fn share_psk(&mut self) {
        let key = PresharedKey::generate();
        self.client.peers[0].psk = Some(key.clone());
        self.server.peers[0].psk = Some(key);
    }

    /// The route to the server's endpoint leads into the client's tunnel. After the start.
    #[track_caller]
    pub fn route_endpoint_into_tunnel(&self, lab: &Lab) {
        let allowed = format!("10.99.0.0/24,fd99::/64,{}/32", lab.server_ip());
        self.client.wg(&[
            "set",
            "wg0",
            "peer",
            &self.client.peers[0].public_key,
            "allowed-ips",
            &allowed,
        ]);
        self.client
            .namespace()
            .ip(&[&format!("route add {}/32 dev wg0", lab.server_ip())]);
    }

    /// The client has no route to the server's endpoint.
    #[track_caller]
    pub fn cut_route(&self, lab: &Lab) {
        let lost = if lab.has_router() {
            "default"
        } else {
            "198.51.100.0/24"
        };
        self.client.namespace().ip(&[&format!("route del {lost}")]);
    }

    /// A second host with the client's own key, wg0 on `client2`, started. The lab needs `second_client()`.
    #[track_caller]
    pub fn clone_client(&self, lab: &Lab) -> WgDevice {
        let mut twin = WgDevice::new(lab.host("client2"), "wg0", self.client.keys.clone());
        twin.addresses.clone_from(&self.client.addresses);
        twin.peers.clone_from(&self.client.peers);
        twin.start();
        twin
    }

    /// Makes the server remember a time 27 s ahead of the client's clock, as after a clock that stepped back: it drops the
    /// client's initiations as replays until then.
    ///
    /// The initiation is boringtun's, whose TAI64N base lies 27 s above that of wireguard-go and the kernel.
    #[track_caller]
    pub fn put_client_clock_back(&self, lab: &Lab) {
        let initiation = initiation(&self.client.keys, self.server.keys.public());
        let before = self.server.dump().peer().rx;
        lab.client().run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
            socket
                .send_to(&initiation, SocketAddr::new(lab.server_ip(), tunnel::PORT))
                .expect("it can be sent");
        });
        super::wait_until(SOON, "the server to accept an initiation", || {
            self.server.dump().peer().rx >= before + 148
        });
    }
}

/// Sends `count` initiations to the server in a burst, all of one key that it does not know. Some thousands put
/// wireguard-go under load for a second, in which it answers with cookies.
pub fn flood(lab: &Lab, server: &WgDevice, count: usize) {
    flood_from(lab.client(), lab, server, count);
}

/// [`flood`], from any host.
pub fn flood_from(from: &Namespace, lab: &Lab, server: &WgDevice, count: usize) {
    let at = SocketAddr::new(lab.server_ip(), tunnel::PORT);
    flood_at(from, at, server.keys.public(), count);
}

/// [`flood`], of whoever is at `at` and holds that public key.
pub fn flood_at(from: &Namespace, at: SocketAddr, public: &str, count: usize) {
    let initiation = initiation(&Keys::generate(), public);
    from.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        socket.connect(at).expect("there is a route");
        for _ in 0..count {
            let _ = socket.send(&initiation);
        }
    });
}

/// A valid handshake initiation from `from` to the holder of a public key, as boringtun makes it.
pub fn initiation(from: &Keys, to: &str) -> Vec<u8> {
    use base64::Engine;
    use boringtun::noise::{Tunn, TunnResult};
    use boringtun::x25519::{PublicKey, StaticSecret};
    let to = base64::engine::general_purpose::STANDARD
        .decode(to)
        .expect("a public key in base64");
    let to: [u8; 32] = to.try_into().expect("a public key has 32 bytes");
    let secret = StaticSecret::from(*from.private_bytes());
    let mut tunn = Tunn::new(secret, PublicKey::from(to), None, None, 1, None);
    let mut buffer = [0; 148];
    match tunn.format_handshake_initiation(&mut buffer, false) {
        TunnResult::WriteToNetwork(packet) => packet.to_vec(),
        other => panic!("boringtun made no initiation: {other:?}"),
    }
}

/// A peer that no one has, for devices that need a second one.
pub fn absent_peer(endpoint: SocketAddr, allowed_ips: &str) -> Peer {
    Peer::new(Keys::generate().public(), allowed_ips).at(endpoint)
}

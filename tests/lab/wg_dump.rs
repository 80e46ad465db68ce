//! What `wg show DEVICE dump` says, without its secrets.

use std::net::SocketAddr;

/// One device's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceDump {
    /// Base64; `(none)` without a private key.
    pub public_key: String,
    /// The UDP port that it listens on.
    pub listen_port: u16,
    /// Its peers, in no particular order.
    pub peers: Vec<PeerDump>,
}

/// One peer's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerDump {
    /// Base64.
    pub public_key: String,
    /// Where the device would send.
    pub endpoint: Option<SocketAddr>,
    /// As `wg` prints them.
    pub allowed_ips: String,
    /// Unix seconds; None if there was never one.
    pub latest_handshake: Option<u64>,
    /// Bytes received, handshakes included.
    pub rx: u64,
    /// Bytes sent, handshakes included.
    pub tx: u64,
    /// Seconds; None when off.
    pub keepalive: Option<u16>,
}

impl DeviceDump {
    /// Parses the dump. None if it is not one; the text is not shown, for it holds private keys.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let device: Vec<&str> = lines.next()?.split('\t').collect();
        let [_private, public, port, _fwmark] = device[..] else {
            return None;
        };
        let peers = lines.map(PeerDump::parse).collect::<Option<_>>()?;
        Some(Self {
            public_key: public.to_owned(),
            listen_port: port.parse().ok()?,
            peers,
        })
    }

    /// The only peer. Panics if there is none or more than one.
    #[track_caller]
    pub fn peer(&self) -> &PeerDump {
        assert!(
            self.peers.len() == 1,
            "expected one peer, found {}",
            self.peers.len()
        );
        &self.peers[0]
    }

    /// The peer with this public key.
    #[track_caller]
    pub fn peer_by_key(&self, public: &str) -> &PeerDump {
        let found = self.peers.iter().find(|p| p.public_key == public);
        found.unwrap_or_else(|| panic!("the device has no peer {public}"))
    }
}

impl PeerDump {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [public, _psk, endpoint, allowed, handshake, rx, tx, keepalive] = fields[..] else {
            return None;
        };
        Some(Self {
            public_key: public.to_owned(),
            endpoint: if endpoint == "(none)" {
                None
            } else {
                Some(endpoint.parse().ok()?)
            },
            allowed_ips: allowed.to_owned(),
            latest_handshake: Some(handshake.parse().ok()?).filter(|t| *t != 0),
            rx: rx.parse().ok()?,
            tx: tx.parse().ok()?,
            keepalive: if keepalive == "off" {
                None
            } else {
                Some(keepalive.parse().ok()?)
            },
        })
    }
}

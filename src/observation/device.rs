//! WireGuard devices and peers, as a source read them. Private and preshared keys are never in here.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::types::{Cidr, IfIndex, PublicKey};

/// One WireGuard device at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceSnapshot {
    /// The interface's name.
    pub name: String,
    /// The interface's index in the observed namespace, where known.
    pub if_index: Option<IfIndex>,
    /// Which implementation runs it, as far as its answers show.
    pub implementation: Implementation,
    /// Its public key; `None` where it has no private key or the source does not tell.
    pub public_key: Option<PublicKey>,
    /// The UDP port it listens on; `None` where not set or not told.
    pub listen_port: Option<u16>,
    /// The firewall mark of its outer packets; 0 for none.
    pub fwmark: u32,
    /// Its peers.
    pub peers: Vec<PeerSnapshot>,
    /// What could not be read of this device, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Which WireGuard runs a device. It decides how its counters are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Implementation {
    /// The Linux kernel's: handshake bytes are counted.
    Kernel,
    /// wireguard-go: handshake bytes are counted.
    WireguardGo,
    /// Cloudflare's boringtun and its forks: only inner payload is counted.
    Boringtun,
    /// Mullvad's gotatun.
    Gotatun,
    /// Something else that speaks the UAPI.
    Unknown,
}

impl Implementation {
    /// Whether rx and tx bytes include handshake messages (148 an initiation, 92 a response, 64 a cookie
    /// reply); `None` where not known. Measured; see the facts in docs.
    pub const fn counts_handshake_bytes(self) -> Option<bool> {
        match self {
            Self::Kernel | Self::WireguardGo => Some(true),
            Self::Boringtun => Some(false),
            Self::Gotatun | Self::Unknown => None,
        }
    }

    /// The name for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::Unknown => "unknown",
        }
    }
}

/// One peer of a device at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerSnapshot {
    /// The peer's static public key.
    pub public_key: PublicKey,
    /// Whether a preshared key is set (never which).
    pub has_preshared_key: bool,
    /// Where its packets go now.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake completed; `None` for never.
    pub last_handshake: Option<Timestamp>,
    /// Bytes received, as this implementation counts them.
    pub rx_bytes: u64,
    /// Bytes sent, as this implementation counts them.
    pub tx_bytes: u64,
    /// Persistent keepalive in seconds; `None` for off.
    pub keepalive: Option<u16>,
    /// AllowedIPs.
    pub allowed_ips: Vec<Cidr>,
}

/// A peer as a wg-quick file or the command line names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredPeer {
    /// Where it was read (a file and line, or an option).
    pub origin: String,
    /// The interface that the file is for (its name without `.conf`).
    pub device: Option<String>,
    /// This side's public key, computed from the private key.
    pub local_public_key: Option<PublicKey>,
    /// The peer's public key.
    pub public_key: PublicKey,
    /// Whether a preshared key is set.
    pub has_preshared_key: bool,
    /// `host:port` as written.
    pub endpoint: Option<String>,
    /// What the endpoint's name resolves to now.
    pub resolved: Vec<SocketAddr>,
    /// Persistent keepalive in seconds; `None` for off.
    pub keepalive: Option<u16>,
    /// AllowedIPs.
    pub allowed_ips: Vec<Cidr>,
    /// The MTU that the file sets.
    pub mtu: Option<u32>,
}

/// A reason that the kernel's WireGuard gave in the kernel's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLine {
    /// The device's name.
    pub device: String,
    /// The reason.
    pub reason: KernelReason,
    /// The outer address that it is about, where the line names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
}

/// Why the kernel's WireGuard dropped or did not send something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelReason {
    /// A handshake message whose first MAC is not made with this device's key, or that is denied under load.
    InvalidMac,
    /// An initiation of an unknown key, a replay, or one of too many.
    InvalidInitiation,
    /// A response that does not authenticate: another preshared key, or no attempt of ours.
    InvalidResponse,
    /// The queue of handshakes is full.
    HandshakeQueueFull,
    /// A cookie reply is sent instead of an answer.
    SendingCookie,
    /// A decrypted packet's source is not in the peer's AllowedIPs.
    UnallowedSource,
    /// No peer's AllowedIPs hold a destination.
    NoPeerFor,
    /// A peer has no endpoint.
    NoEndpoint,
    /// There is no route to an endpoint.
    NoRoute,
    /// A handshake was given up.
    GaveUp,
}

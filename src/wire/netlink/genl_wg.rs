//! Generic netlink: the number of a family, and the kernel's WireGuard devices (include/uapi/linux/wireguard.h).
//!
//! In: payloads of messages (what follows the netlink header). Out: a [`DeviceSnapshot`]. Why attribute by attribute:
//! decoded whole, a message would leave copies of keys in memory that nobody wipes; here the private key is taken once,
//! into a place that is wiped, and of the preshared key only whether it is zero. The caller wipes its receive buffer.
//!
//! A peer with many AllowedIPs is cut by the kernel and continues in the next message with its key alone; the parts
//! are joined here. Bounds: 65,536 peers, 262,144 AllowedIPs; the rest is counted and said in the device's problems.

use std::net::IpAddr;

use netlink_packet_core::{Emitable, NlaBuffer, NlasIterator, Parseable};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlMessage};
use netlink_packet_wireguard::{
    WireguardAllowedIpAttr, WireguardAttribute, WireguardCmd, WireguardMessage, WireguardPeerAttribute,
};

use crate::observation::device::{DeviceSnapshot, Implementation, PeerSnapshot};
use crate::time::Timestamp;
use crate::types::{Cidr, IfIndex, PrivateKey, PublicKey};

/// `GENL_ID_CTRL`: the family that tells of families (include/uapi/linux/genetlink.h).
pub const CONTROL_FAMILY: u16 = 0x10;
/// WireGuard's family.
pub const FAMILY: &str = "wireguard";

const MAX_PEERS: usize = 65_536;
const MAX_ALLOWED_IPS: usize = 262_144;

/// Size of `struct genlmsghdr`.
const HEADER: usize = 4;

// include/uapi/linux/genetlink.h
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

// include/uapi/linux/wireguard.h
const WGDEVICE_A_IFINDEX: u16 = 1;
const WGDEVICE_A_PRIVATE_KEY: u16 = 3;
const WGDEVICE_A_PUBLIC_KEY: u16 = 4;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_FWMARK: u16 = 7;
const WGDEVICE_A_PEERS: u16 = 8;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_PRESHARED_KEY: u16 = 2;
const WGPEER_A_ALLOWEDIPS: u16 = 9;

fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn emit<F: GenlFamily + Emitable + std::fmt::Debug>(payload: F) -> Vec<u8> {
    let message = GenlMessage::from_payload(payload);
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

/// Asks the control family for all families, as a dump: asked for one by name, the kernel may load a module for it.
pub fn families_request() -> Vec<u8> {
    emit(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: Vec::new(),
    })
}

/// The number of family `name`, where this message tells it.
pub fn parse_family(payload: &[u8], name: &str) -> Option<u16> {
    let mut id = None;
    let mut named = false;
    for attribute in attributes(payload.get(HEADER..)?) {
        let value = attribute.value();
        match attribute.kind() {
            CTRL_ATTR_FAMILY_ID => id = value.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b)),
            CTRL_ATTR_FAMILY_NAME => named = value.strip_suffix(&[0]).unwrap_or(value) == name.as_bytes(),
            _ => {}
        }
    }
    id.filter(|_| named)
}

/// Asks for the device with interface `index` (`WG_CMD_GET_DEVICE`, to be sent as a dump).
pub fn device_request(index: IfIndex) -> Vec<u8> {
    emit(WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::IfIndex(index.0)],
    })
}

/// Joins the messages of one device's dump.
pub struct DeviceReader {
    device: DeviceSnapshot,
    private: Option<Box<PrivateKey>>,
    seen: bool,
    allowed_ips: usize,
    peers_dropped: u64,
    allowed_ips_dropped: u64,
    unread: u64,
}

impl DeviceReader {
    /// For the device that rtnetlink calls `name`.
    pub fn new(name: &str, index: IfIndex) -> Self {
        Self {
            device: DeviceSnapshot {
                name: name.to_owned(),
                if_index: Some(index),
                implementation: Implementation::Kernel,
                public_key: None,
                listen_port: None,
                fwmark: 0,
                peers: Vec::new(),
                problems: Vec::new(),
            },
            private: None,
            seen: false,
            allowed_ips: 0,
            peers_dropped: 0,
            allowed_ips_dropped: 0,
            unread: 0,
        }
    }

    /// Takes the next message of the dump.
    pub fn message(&mut self, payload: &[u8]) {
        for attribute in attributes(payload.get(HEADER..).unwrap_or_default()) {
            let value = attribute.value();
            match attribute.kind() {
                WGDEVICE_A_IFINDEX => self.seen = true,
                WGDEVICE_A_PRIVATE_KEY => {
                    // All zeros is none (wg_get_device_dump leaves it out then).
                    let key = value.first_chunk::<32>().filter(|key| **key != [0; 32]);
                    self.private = key.map(|key| Box::new(PrivateKey::from_bytes(*key)));
                }
                WGDEVICE_A_PUBLIC_KEY => {
                    self.device.public_key = value.try_into().ok().map(PublicKey);
                }
                WGDEVICE_A_LISTEN_PORT => {
                    let port = value.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b));
                    self.device.listen_port = port.filter(|p| *p != 0);
                }
                WGDEVICE_A_FWMARK => {
                    let mark = value.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b));
                    self.device.fwmark = mark.unwrap_or(0);
                }
                WGDEVICE_A_PEERS => attributes(value).for_each(|peer| self.peer(peer.value())),
                _ => {}
            }
        }
    }

    /// The device's private key, where the dump told it. It is wiped when dropped.
    pub fn take_private_key(&mut self) -> Option<Box<PrivateKey>> {
        self.private.take()
    }

    /// Ends the dump; `None` where no message told of a device.
    pub fn finish(mut self) -> Option<DeviceSnapshot> {
        for (count, what) in [
            (self.peers_dropped, "peers beyond the first 65,536 were left out"),
            (
                self.allowed_ips_dropped,
                "AllowedIPs beyond the first 262,144 were left out",
            ),
            (self.unread, "peers or AllowedIPs could not be read"),
        ] {
            if count > 0 {
                self.device.problems.push(format!("{count} {what}"));
            }
        }
        self.seen.then_some(self.device)
    }

    fn peer(&mut self, bytes: &[u8]) {
        let key = attributes(bytes)
            .find(|a| a.kind() == WGPEER_A_PUBLIC_KEY)
            .and_then(|a| a.value().try_into().ok());
        let Some(public_key) = key.map(PublicKey) else {
            self.unread += 1;
            return;
        };
        let continues = self
            .device
            .peers
            .last()
            .is_some_and(|p| p.public_key == public_key);
        if !continues {
            if self.device.peers.len() >= MAX_PEERS {
                self.peers_dropped += 1;
                return;
            }
            self.device.peers.push(PeerSnapshot {
                public_key,
                has_preshared_key: false,
                endpoint: None,
                last_handshake: None,
                rx_bytes: 0,
                tx_bytes: 0,
                keepalive: None,
                allowed_ips: Vec::new(),
            });
        }
        let Some(peer) = self.device.peers.last_mut() else {
            return;
        };
        for attribute in attributes(bytes) {
            match attribute.kind() {
                WGPEER_A_PUBLIC_KEY => {}
                // All zeros is none (paper, section 5.4).
                WGPEER_A_PRESHARED_KEY => peer.has_preshared_key = attribute.value().iter().any(|b| *b != 0),
                WGPEER_A_ALLOWEDIPS => {
                    for entry in attributes(attribute.value()) {
                        match parse_allowed_ip(entry.value()) {
                            Some(_) if self.allowed_ips >= MAX_ALLOWED_IPS => self.allowed_ips_dropped += 1,
                            Some(prefix) => {
                                self.allowed_ips += 1;
                                peer.allowed_ips.push(prefix);
                            }
                            None => self.unread += 1,
                        }
                    }
                }
                _ => match WireguardPeerAttribute::parse(&attribute) {
                    Ok(parsed) => take(peer, parsed),
                    Err(_) => self.unread += 1,
                },
            }
        }
    }
}

fn take(peer: &mut PeerSnapshot, attribute: WireguardPeerAttribute) {
    match attribute {
        WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(endpoint),
        WireguardPeerAttribute::PersistentKeepalive(seconds) => {
            peer.keepalive = Some(seconds).filter(|s| *s != 0);
        }
        WireguardPeerAttribute::LastHandshake(time) => {
            let nanos = u32::try_from(time.nano_seconds).unwrap_or(0);
            let at = Timestamp::from_parts(time.seconds, nanos);
            peer.last_handshake = Some(at).filter(|t| *t > Timestamp::EPOCH);
        }
        WireguardPeerAttribute::RxBytes(bytes) => peer.rx_bytes = bytes,
        WireguardPeerAttribute::TxBytes(bytes) => peer.tx_bytes = bytes,
        _ => {}
    }
}

fn parse_allowed_ip(bytes: &[u8]) -> Option<Cidr> {
    let (mut address, mut prefix): (Option<IpAddr>, Option<u8>) = (None, None);
    // The decoder takes it for granted that a value is not empty.
    for attribute in attributes(bytes).filter(|a| !a.value().is_empty()) {
        match WireguardAllowedIpAttr::parse(&attribute) {
            Ok(WireguardAllowedIpAttr::IpAddr(ip)) => address = Some(ip),
            Ok(WireguardAllowedIpAttr::Cidr(bits)) => prefix = Some(bits),
            _ => {}
        }
    }
    Cidr::new(address?, prefix?)
}

#[cfg(test)]
#[path = "genl_wg_tests.rs"]
mod tests;

//! (being written)

/// State.
#[derive(Debug, Default)]
pub struct Handshakes {}

use crate::observation::packet::{IcmpError, WirePacket};
use crate::time::Timestamp;

impl Handshakes {
    /// Takes a message in.
    pub fn apply_packet(&mut self, _at: Timestamp, _packet: &WirePacket) {}
    /// Takes an ICMP error in.
    pub fn apply_icmp(&mut self, _at: Timestamp, _error: &IcmpError) {}
}

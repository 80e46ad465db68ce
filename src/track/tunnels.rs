//! (being written)

/// State.
#[derive(Debug, Default)]
pub struct Tunnels {}

use super::Due;
use crate::observation::device::{ConfiguredPeer, DeviceSnapshot};
use crate::observation::{Request, Source};
use crate::time::Timestamp;

impl Tunnels {
    /// Takes all devices of one source in.
    pub fn apply_devices(&mut self, _source: Source, _at: Timestamp, _devices: &[DeviceSnapshot]) {}
    /// Takes configured peers in.
    pub fn apply_configured(&mut self, _at: Timestamp, _peers: &[ConfiguredPeer]) {}
    /// Route look-ups that would tell something.
    pub fn route_requests(&mut self) -> Vec<Request> {
        Vec::new()
    }
    /// The next event worth waiting for.
    pub fn due(&self, _handshakes: &super::handshake::Handshakes, _now: Timestamp) -> Option<Due> {
        None
    }
}

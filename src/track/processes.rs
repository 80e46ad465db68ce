//! (being written)

/// State.
#[derive(Debug, Default)]
pub struct ProcessState {}

use crate::observation::Request;
use crate::observation::socket::ProcessTable;
use crate::time::Timestamp;

impl ProcessState {
    /// Takes processes in.
    pub fn apply(&mut self, _at: Timestamp, _table: &ProcessTable) {}
    /// Inodes whose owner would tell something.
    pub fn owner_requests(&mut self, _sockets: &super::sockets::SocketState) -> Vec<Request> {
        Vec::new()
    }
}

//! (being written)

/// State.
#[derive(Debug, Default)]
pub struct SocketState {}

use crate::observation::socket::SocketTally;
use crate::time::Timestamp;

impl SocketState {
    /// Takes a folded table in.
    pub fn apply(&mut self, _at: Timestamp, _tally: &SocketTally) {}
}

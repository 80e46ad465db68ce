//! Active tests as pure state machines: what to send, what an answer proves, when to give up.
//!
//! In: datagrams, errors and the time. Out: datagrams to send, the next moment to be called at, and events. All have the
//! same verbs: `handle_input`, `handle_timeout`, `poll_transmit`, `poll_timeout`, `poll_event`. No socket, no clock, no
//! randomness: a seed is an argument. `observe::prober` gives them sockets.

pub mod ask;
pub mod entropy;
pub mod handshake;
pub mod link;
pub mod mtu;
pub mod pacing;

pub mod limiter;
pub mod natdisc;
pub mod quota;
pub mod reflector;
pub mod size_search;
pub mod stack;

use crate::observation::probe::{Fact, ToldMtu};
use crate::time::Timestamp;

/// A machine that works inside the tunnel: it sends and receives inner packets.
pub trait Inside {
    /// An inner packet came.
    fn handle_input(&mut self, now: Timestamp, inner: Vec<u8>);

    /// It is due, or something was sent.
    fn handle_timeout(&mut self, now: Timestamp);

    /// Somebody says how large an outer packet may be.
    fn handle_too_big(&mut self, _now: Timestamp, _told: ToldMtu) {}

    /// The next inner packet to send; an empty one is a keepalive.
    fn poll_transmit(&mut self) -> Option<Vec<u8>>;

    /// When to be called at the latest.
    fn poll_timeout(&mut self, now: Timestamp) -> Option<Timestamp>;

    /// What came of it, once; then it is over.
    fn poll_event(&mut self) -> Option<Fact>;
}

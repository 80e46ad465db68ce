//! Active tests as pure state machines: what to send, what an answer proves, when to give up.
//!
//! In: datagrams, errors and the time. Out: datagrams to send, the next moment to be called at, and events. All have the
//! same verbs: `handle_input`, `handle_timeout`, `poll_transmit`, `poll_timeout`, `poll_event`. No socket, no clock, no
//! randomness: a seed is an argument. `observe::prober` gives them sockets.

pub mod entropy;
pub mod handshake;
pub mod pacing;

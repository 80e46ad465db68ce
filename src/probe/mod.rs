//! Active tests as pure state machines: `handle_input`, `handle_timeout`, `poll_transmit`, `poll_timeout`, `poll_event`.
//!
//! In: datagrams, time and the answers of the edge, as values. Out: datagrams to send and results. No I/O, no clock: a
//! driver in `observe` gives them sockets, and a test gives them a network.

pub mod limiter;
pub mod natdisc;
pub mod quota;
pub mod reflector;
pub mod size_search;

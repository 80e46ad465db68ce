//! Active tests as pure state machines.
//!
//! In: what came back, and time, as values. Out: what to send next, and results. No I/O, no clock: a driver in
//! `observe` gives them sockets.

pub mod size_search;

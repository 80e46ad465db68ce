//! Folds dumps of hundreds of thousands of items into bounded tallies, one pass, no allocation per item.
//!
//! In: message payloads as the kernel gives them. Out: [`crate::observation::socket::SocketTally`] and
//! [`crate::observation::conntrack::CtTally`]. Pure: no I/O, no clock.

pub mod conntrack;
pub mod counted;
mod inbound;
pub mod ports;
mod samples;
mod served;
pub mod sockets;
mod table;

/// (Local or NAT address, destination) pairs that a fold keeps apart at most, about 10 MiB at the worst. What comes
/// when it is full is counted as left out.
pub const TRACKED: usize = 65_536;
/// Of these the busiest that a tally lists; the rest is counted as left out.
pub const REPORTED: usize = 256;

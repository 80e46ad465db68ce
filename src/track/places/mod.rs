//! Two places on the way: the same messages, seen twice.
//!
//! In: a [`PlaceLog`] of each capture. Out: a [`Comparison`]: which messages passed both places, which were lost between
//! them and which way, how an address translation between them maps, and by how much the clocks differ. Messages are the
//! same where what the endpoints chose at random is: an initiation's index and mac1, a response's two indices, a data
//! message's index and counter. Addresses play no part in that, so a NAT between the places does not matter.
//! Nothing is decrypted. Pure; bounded whatever arrives.

mod clocks;
mod compare;
mod link;
mod log;

pub use clocks::Clocks;
pub use compare::Comparison;
pub use link::{Direction, Link, Mapping, Passage, Size};
pub use log::{KEPT, PlaceLog, STREAMS_KEPT};

#[cfg(test)]
mod tests;

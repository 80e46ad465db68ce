//! wgnat: says why a WireGuard tunnel or a NAT is failing on this Linux host, with proof, and what to change.
//!
//! One house, five floors; data only goes up, and a floor knows nothing of the floors above it:
//!
//! ```text
//! output, cmd     text, JSON, markdown; doctor and the other commands        bytes out
//! report          the verdict as plain data                                  pure
//! rules, pooling  one rule a file; evaluate() → findings, folded by cause    pure
//! probe           active tests as state machines                              pure
//! track           World: tunnels, handshakes, sockets, conntrack, routes     pure
//! observe         looks at the host, emits observations                      I/O
//! wire            bytes ↔ types, no I/O, no clock, no panic                  pure
//! sys             system calls; the only unsafe code
//! ```
//!
//! docs/ARCHITECTURE.md shows the rooms and how data walks through them.

// Samples that unit tests share with the tests in tests/ name the crate from outside.
#[cfg(test)]
extern crate self as wgnat;

pub mod agent;
pub mod budgets;
pub mod cli;
pub mod cmd;
pub mod config;
pub mod engine;
pub mod finding;
pub mod logging;
pub mod observation;
pub mod observe;
pub mod output;
pub mod pooling;
pub mod probe;
pub mod redact;
pub mod report;
pub mod rules;
pub mod store;
pub mod sys;
pub mod time;
pub mod track;
pub mod tui;
pub mod types;
pub mod wire;
pub(crate) mod words;

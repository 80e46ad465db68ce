//! The table observers against the running kernel: real sockets and real conntrack in private network namespaces
//! give exactly the tallies that they should. Needs root; `nft` for the rules that make the kernel track.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod conntrack;
mod namespace;
mod sockets;
mod unprivileged;

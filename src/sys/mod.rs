//! The thin edge to the kernel: clocks, namespaces, capabilities, netlink, packet sockets.
//!
//! It knows nothing of WireGuard. The crate's only `unsafe` lives here, each with its `SAFETY` line.

pub mod bpf;
pub mod caps;
pub mod cbpf;
pub mod clock;
pub mod errqueue;
pub mod files;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod packet;
pub mod pmtu;
pub mod random;
pub mod udp;

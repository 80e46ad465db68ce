//! Bytes and text ↔ types: one file a format, no I/O, no clock, no panic; each constant cites its source.

#[cfg(test)]
pub(crate) mod boring;
pub mod frame;
pub mod icmp;
pub mod ip;
pub mod netlink;
pub mod proc_net;
pub mod procfs;
pub mod uapi;
pub mod wg_quick;
pub mod nf_conntrack_stat;
pub mod wireguard;

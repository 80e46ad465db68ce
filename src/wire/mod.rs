//! Bytes and text ↔ types: one file a format, no I/O, no clock, no panic; each constant cites its source.

#[cfg(test)]
pub(crate) mod boring;
pub mod frame;
pub mod icmp;
pub mod ip;
pub mod netlink;
pub mod pcap;
pub mod wireguard;

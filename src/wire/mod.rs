//! Bytes and text ↔ types: one file a format, no I/O, no clock, no panic; each constant cites its source.

pub mod netlink;
pub mod pcap;

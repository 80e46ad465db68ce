//! Bytes and text ↔ types: one file a format, no I/O, no clock, no panic; each constant cites its source.

pub mod netlink;
pub mod proc_net;
pub mod procfs;
pub mod runtime_name;
pub mod uapi;
pub mod wg_quick;

//! Netlink payloads.

pub mod route;

//! Netlink payloads.

//! Netlink payloads.

pub mod genl_wg;
pub mod route;

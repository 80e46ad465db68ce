//! Netlink payloads: what follows the 16-byte message header.

pub mod addr;
pub mod attr;
pub mod conntrack;
pub mod genl_wg;
pub mod nf_tables;
pub mod route;
pub mod sock_alive;
pub mod sock_diag;

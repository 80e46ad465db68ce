//! Reads settings from `/proc/sys`, by their dotted names; those under `net` are the calling thread's namespace's.
//!
//! The kernel resolves `/proc/sys/net` by the reading thread's namespace (net/sysctl_net.c), so nothing else is
//! needed for `--netns`.

use std::str::FromStr;

use crate::types::PortRange;
use crate::wire::procfs;

/// The number that the setting `name` has; `None` where there is none or it is not readable.
pub fn number<T: FromStr>(name: &str) -> Option<T> {
    text(name)?.trim().parse().ok()
}

/// `net.ipv4.ip_local_port_range`.
pub fn local_port_range() -> Option<PortRange> {
    procfs::port_range(&text("net.ipv4.ip_local_port_range")?)
}

/// `net.ipv4.ip_local_reserved_ports`.
pub fn reserved_ports() -> Option<Vec<PortRange>> {
    procfs::port_list(&text("net.ipv4.ip_local_reserved_ports")?)
}

fn text(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()
}

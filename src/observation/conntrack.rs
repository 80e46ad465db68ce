//! Conntrack: statistics, and the table folded to what diagnosis needs.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::socket::LeftOut;
use crate::types::{PortRange, Proto};

/// Count, limit and counters (ctnetlink `IPCTNL_MSG_CT_GET_STATS` and `…_GET_STATS_CPU`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtStats {
    /// Entries in this namespace.
    pub count: u32,
    /// The limit (`nf_conntrack_max`).
    pub max: Option<u32>,
    /// Counters per CPU: 32 bits wide, they wrap.
    pub cpus: Vec<CtCpuStats>,
}

/// New entries as events told them, since listening began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtEvents {
    /// Entries that are new.
    pub new: u64,
    /// How often the kernel dropped events because the buffer was full; how many is not told.
    pub overruns: u64,
}

/// One CPU's cumulative counters. What each means today differs from its name; see the facts in docs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtCpuStats {
    /// A tuple that NAT proposed was already taken: port pressure.
    pub found: u32,
    /// Packets that fit no connection.
    pub invalid: u32,
    /// Entries made by ctnetlink (never by packets).
    pub insert: u32,
    /// Confirming an entry failed: a clash that was not resolved.
    pub insert_failed: u32,
    /// Packets dropped: clash, or table full.
    pub drop: u32,
    /// Unassured entries evicted to make room.
    pub early_drop: u32,
    /// Packets that a tracker found in error.
    pub error: u32,
    /// Look-ups begun again.
    pub search_restart: u32,
    /// Races that were merged.
    pub clash_resolve: u32,
    /// Insertions refused because a hash chain was too long.
    pub chain_toolong: u32,
}

/// By how much a counter of 32 bits moved; `None` where it must have been reset, since none moves by half its range
/// between two looks.
pub fn moved32(before: u32, after: u32) -> Option<u64> {
    let moved = after.wrapping_sub(before);
    (moved <= u32::MAX / 2).then_some(moved.into())
}

/// The table at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CtTally {
    /// Entries seen.
    pub entries: u64,
    /// Of these TCP.
    pub tcp: u64,
    /// Of these UDP.
    pub udp: u64,
    /// Of these any other protocol.
    pub other: u64,
    /// Entries that have seen no reply (`IPS_SEEN_REPLY` unset).
    pub unreplied: u64,
    /// Entries that are not evicted early (`IPS_ASSURED`).
    pub assured: u64,
    /// TCP entries in TIME_WAIT or CLOSE.
    pub tcp_closing: u64,
    /// TCP entries ESTABLISHED.
    pub tcp_established: u64,
    /// ESTABLISHED entries whose remaining time-out shows that they have been idle for over an hour; `None`
    /// where the time-out setting is not known.
    pub tcp_established_idle: Option<u64>,
    /// Entries towards port 53.
    pub dns: u64,
    /// Source-translated entries by (NAT address, protocol, destination), fullest first; bounded.
    pub snat: Vec<SnatTally>,
    /// What did not fit into `snat`.
    pub snat_left_out: LeftOut,
    /// The kernel changed the table during the dump, or it was cut: the numbers are close, not exact.
    pub inexact: bool,
}

/// Ports that NAT's search tries in a row, each row from a random port, before it gives up: 248 in all (`NF_NAT_MAX_ATTEMPTS`,
/// net/netfilter/nf_nat_core.c, since 5.0).
pub const ROWS: [u32; 5] = [128, 64, 32, 16, 8];

/// Port use of one NAT address towards one destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnatTally {
    /// The translated source address.
    pub nat_address: IpAddr,
    /// The transport.
    pub proto: Proto,
    /// The destination, as seen after translation.
    pub destination: SocketAddr,
    /// The zone of connection tracking: each has all ports for itself. 0 unless a rule sets one.
    #[serde(default, skip_serializing_if = "is_default_zone")]
    pub zone: u16,
    /// NAT ports in use: a tuple holds one once, so this is the count of entries.
    pub ports: u32,
    /// The lowest NAT port in use.
    pub min_port: u16,
    /// The highest NAT port in use.
    pub max_port: u16,
    /// Entries whose NAT port equals the original source port.
    pub preserved: u32,
    /// The lowest and highest NAT port of the entries whose source port was rewritten; `None` where none was.
    #[serde(default)]
    pub rewritten: Option<PortRange>,
    /// Entries in TIME_WAIT, CLOSE or another closing state.
    pub closing: u32,
    /// Entries that have seen no reply.
    pub unreplied: u32,
    /// How the ports in use lie together, where that was looked at: for each of [`ROWS`], the ports at which a row of that many
    /// begins that are all in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<[u32; 5]>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_default_zone(zone: &u16) -> bool {
    *zone == 0
}

#[cfg(test)]
mod tests {
    use super::moved32;

    #[test]
    fn counters_wrap_and_are_reset() {
        for (before, after, expected) in [
            (5, 9, Some(4)),
            (u32::MAX - 1, 3, Some(5)),
            (5000, 3, None),
            (0, 0, Some(0)),
        ] {
            assert_eq!(moved32(before, after), expected);
        }
    }
}

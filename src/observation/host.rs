//! The host itself: facts, settings, links, routes and counters.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::RouteQuery;
use crate::time::Timestamp;
use crate::types::{Cidr, IfIndex, NetnsId, PortRange};

/// Facts that do not change during a look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostFacts {
    /// The host name.
    pub hostname: String,
    /// The kernel's release (`uname -r`).
    pub kernel: String,
    /// When the host booted.
    pub boot_at: Option<Timestamp>,
    /// The observed network namespace.
    pub netns: Option<NetnsId>,
    /// What `--netns` named, where it was given.
    pub netns_name: Option<String>,
    /// CPUs online.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The Fly machine that this is, by its environment.
    pub fly: Option<FlyMachine>,
    /// Effective capabilities that matter here, by name (`CAP_NET_ADMIN`, …).
    pub capabilities: Vec<String>,
}

/// A Fly machine: its labels (`FLY_APP_NAME`, `FLY_REGION`, `FLY_MACHINE_ID`) and its place in the private network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlyMachine {
    /// The app.
    pub app: String,
    /// The region.
    pub region: String,
    /// The machine.
    pub machine: String,
    /// The process group (`FLY_PROCESS_GROUP`), where it is said.
    #[serde(default)]
    pub group: Option<String>,
    /// The address in the organisation's private network, 6PN (`FLY_PRIVATE_IP`).
    #[serde(default)]
    pub private: Option<Ipv6Addr>,
    /// What the environment says that it leaves by (`FLY_PUBLIC_IP`); newer machines have none.
    #[serde(default)]
    pub public: Option<IpAddr>,
    /// The system's name servers (/etc/resolv.conf); empty where it has not been read.
    #[serde(default)]
    pub name_servers: Vec<IpAddr>,
}

/// Settings of the observed namespace; `None` is "could not be read" (or this kernel has none).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sysctls {
    /// `net.ipv4.ip_local_port_range`.
    pub local_port_range: Option<PortRange>,
    /// `net.ipv4.ip_local_reserved_ports`, as ranges.
    pub reserved_ports: Vec<PortRange>,
    /// `net.ipv4.tcp_tw_reuse`: 0 off, 1 on, 2 loopback only.
    pub tcp_tw_reuse: Option<u32>,
    /// `net.ipv4.tcp_tw_reuse_delay`, milliseconds.
    pub tcp_tw_reuse_delay: Option<u32>,
    /// `net.ipv4.tcp_fin_timeout`, seconds.
    pub tcp_fin_timeout: Option<u32>,
    /// `net.ipv4.tcp_max_tw_buckets`.
    pub tcp_max_tw_buckets: Option<u32>,
    /// `net.ipv4.ip_forward`.
    pub ip_forward: Option<bool>,
    /// `net.netfilter.nf_conntrack_max`.
    pub conntrack_max: Option<u32>,
    /// `net.netfilter.nf_conntrack_buckets`.
    pub conntrack_buckets: Option<u32>,
    /// Other numbers by their dotted names (conntrack time-outs, `rp_filter`, …).
    pub others: BTreeMap<String, i64>,
}

/// Links, addresses, routes and rules at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteTables {
    /// Network interfaces.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<Address>,
    /// Routes of every table (the `local` table left out), bounded; see `routes_left_out`.
    pub routes: Vec<Route>,
    /// Routes that did not fit.
    pub routes_left_out: u64,
    /// Policy rules (`ip rule`).
    pub rules: Vec<PolicyRule>,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// Its kind (`wireguard`, `tun`, `veth`, …), where rtnetlink tells.
    pub kind: Option<String>,
    /// `IFF_UP`: set up by the administrator.
    pub admin_up: bool,
    /// `IFF_LOWER_UP`: the carrier is there.
    pub carrier: bool,
    /// `IFF_LOOPBACK`.
    pub loopback: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// Counters (`IFLA_STATS64`).
    pub stats: LinkStats,
}

/// An interface's cumulative counters (include/uapi/linux/if_link.h, `rtnl_link_stats64`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the kernel's names
pub struct LinkStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub rx_length_errors: u64,
    pub rx_frame_errors: u64,
    pub tx_carrier_errors: u64,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The interface.
    pub index: IfIndex,
    /// The address.
    pub address: IpAddr,
    /// Its prefix length.
    pub prefix: u8,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub destination: Cidr,
    /// The table (254 is `main`).
    pub table: u32,
    /// `unicast`, `unreachable`, `prohibit`, `blackhole`, `throw` or another kernel name.
    pub kind: String,
    /// The interface, where one.
    pub out: Option<IfIndex>,
    /// The next hop, where one.
    pub gateway: Option<IpAddr>,
    /// Its metric.
    pub priority: u32,
    /// An MTU that the route sets.
    pub mtu: Option<u32>,
}

/// A policy rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// IPv6 rather than IPv4.
    pub v6: bool,
    /// Its priority.
    pub priority: u32,
    /// The table that it leads to.
    pub table: u32,
    /// The mark that it asks for.
    pub fwmark: Option<u32>,
    /// `not`: the rule holds for what does not match.
    pub invert: bool,
    /// `suppress_prefixlength`.
    pub suppress_prefix_len: Option<u32>,
}

/// The kernel's answer to a [`RouteQuery`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAnswer {
    /// The question.
    pub query: RouteQuery,
    /// The way, or why there is none.
    pub way: RouteWay,
}

/// A way out, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteWay {
    /// The packet would leave here.
    Via {
        /// The interface.
        out: IfIndex,
        /// The next hop, where one.
        gateway: Option<IpAddr>,
        /// The source address that the kernel would choose.
        source: Option<IpAddr>,
        /// The route's or path's known MTU.
        mtu: Option<u32>,
        /// The destination is this host itself (`RTN_LOCAL`).
        local: bool,
    },
    /// No route: the errno that the kernel answered (ENETUNREACH 101, EHOSTUNREACH 113, EACCES 13, EINVAL 22).
    None {
        /// The errno.
        errno: i32,
    },
}

/// Cumulative protocol counters by `Group.Name` (`Ip.OutNoRoutes`, `Udp.NoPorts`, `TcpExt.TCPSynRetrans`, …).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counters(pub BTreeMap<String, u64>);

//! The laboratory: real network namespaces with real netfilter, real WireGuard (wireguard-go), real load and real faults.
//!
//! In: what a test asks for. Out: namespaces that look to `wgnat` like hosts. Why: a diagnosis is only true if it is true
//! of the kernel; nothing in here imitates one. README.md beside this file says how to use it.

// Every test binary compiles the whole lab and uses a part of it.
#![allow(dead_code, unused_imports)]
// The lab lives at the edge: it reads clocks, and enters namespaces by system calls.
#![allow(unsafe_code, clippy::disallowed_methods, clippy::disallowed_types)]
// A panic is how a test fails, in its helpers too, and what they print is for the person who reads the failure.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout
)]

pub mod addresses;
pub mod builder;
pub mod child;
pub mod conntrack;
pub mod ctfill;
pub mod delay;
pub mod dns;
pub mod dnsmasq;
pub mod double;
pub mod exec;
pub mod faults;
pub mod gateway;
pub mod http;
pub mod keys;
pub mod load;
pub mod miniupnpd;
pub mod mounts;
pub mod natrace;
pub mod nats;
pub mod needs;
pub mod netns;
pub mod prober;
pub mod relay;
pub mod sabotage;
pub mod snmp;
pub mod stun;
pub mod sweep;
pub mod tcp;
pub mod terminal;
pub mod tls;
pub mod topology;
pub mod tunnel;
pub mod udp;
pub mod wait;
pub mod wg_dump;
pub mod wg_faults;
pub mod wgnat;
pub mod wireguard;

pub use builder::{LabBuilder, Nat};
pub use child::{LoadProcess, Work};
pub use conntrack::CtStats;
pub use ctfill::CtFill;
pub use delay::Delay;
pub use dns::{DnsReply, DnsServer};
pub use dnsmasq::{Dnsmasq, Machine};
pub use exec::{Output, run};
pub use faults::{Fault, Hook, Inflicted, Message, Reject, Toward};
pub use http::BatchServer;
pub use keys::{Keys, PresharedKey};
pub use load::{Churn, ChurnPlan, Held, UdpFlows, exhaust, fill_time_wait, hold};
pub use miniupnpd::Miniupnpd;
pub use netns::Namespace;
pub use relay::UdpRelay;
pub use stun::StunServer;
pub use tcp::{Serve, TcpServer};
pub use terminal::Terminal;
pub use topology::Lab;
pub use tunnel::Tunnel;
pub use udp::{UdpReflector, ask, external_of};
pub use wait::{SOON, Watch, wait_until};
pub use wg_dump::{DeviceDump, PeerDump};
pub use wgnat::Doctor;
pub use wireguard::{Peer, WgDevice};

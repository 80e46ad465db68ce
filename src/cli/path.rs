//! The options of `wgnat path`.

use std::path::PathBuf;

use clap::Args;

use crate::config::duration;
use crate::observation::target::Target;
use crate::report::exit::FailOn;
use crate::time::Span;

/// `wgnat path`.
#[derive(Debug, Args)]
#[command(after_help = "\
Targets: HOST (ICMP echo), udp:HOST:PORT, tcp:HOST:PORT, tls:HOST:PORT, http(s)://HOST/PATH, dns:NAME (each of the system's \
name servers) and dns:NAME@SERVER. An IPv6 address with a port stands in brackets. A certificate is not checked: what is measured is time. \
Without CAP_NET_RAW there is no --hops, and ICMP echo where the group is within net.ipv4.ping_group_range. Exit codes: 0 ok, 1 warning, \
2 critical, 3 unknown (nothing could be measured, or the invocation is wrong).")]
pub struct Path {
    /// What to measure; all at once
    #[arg(value_name = "TARGET", required_unless_present = "fly_mesh")]
    pub targets: Vec<Target>,
    /// Attempts for each target
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// From one attempt to the next
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = duration::parse)]
    pub interval: Span,
    /// How long an attempt may take
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    pub timeout: Span,
    /// Search for the largest packet that passes to each target (by ICMP echo)
    #[arg(long)]
    pub mtu: bool,
    /// Trace the routers on the way to each target; needs CAP_NET_RAW
    #[arg(long)]
    pub hops: bool,
    /// Compare with what an earlier `wgnat path --json` measured
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Compare with what is usual by an agent's history: its --store
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
    /// How much of that history
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse, requires = "store")]
    pub since: Span,
    /// On Fly: measure every started machine of the organisation, and tell how each region fares
    #[arg(long)]
    pub fly_mesh: bool,
    /// Measure from another network namespace: a name (ip netns), a path or a process id
    #[arg(long, value_name = "NAME|PATH|PID", env = "WGNAT_NETNS")]
    pub netns: Option<String>,
    /// From which severity on the exit code is not 0 [default: warning]
    #[arg(long, value_enum, value_name = "SEVERITY", env = "WGNAT_FAIL_ON")]
    pub fail_on: Option<FailOn>,
}

//! The options of `wgnat nat`.

use clap::Args;

use crate::config::duration;
use crate::report::exit::FailOn;
use crate::time::Span;

/// `wgnat nat`.
#[derive(Debug, Args)]
#[command(after_help = "\
Only the servers that you name are asked, and the default gateway; there is no built-in server. Without two addresses and two
ports (RFC 5780's OTHER-ADDRESS) a server leaves tests out, and the result says which; `wgnat reflect` has all. Exit codes:
0 ok (info findings at most), 1 warning, 2 critical, 3 unknown (no server answered).")]
pub struct Nat {
    /// Ask this STUN server (may be repeated; port 3478 unless told)
    #[arg(long, required = true, value_name = "HOST[:PORT]", value_parser = crate::observe::nat::resolve::check, env = "WGNAT_STUN", value_delimiter = ',')]
    pub stun: Vec<String>,
    /// Also measure how long an idle mapping lives, up to this long (2m10s unless told): takes as long, and up to thrice where it finds an end
    #[arg(long, value_name = "TIME", value_parser = duration::parse, num_args = 0..=1, default_missing_value = "130s")]
    pub lifetime: Option<Span>,
    /// Open up to this many flows, 100 a second, to a `wgnat reflect` of yours: tells port blocks, quota and overloading
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=i64::from(crate::observe::nat::quota::MOST)))]
    pub port_quota: Option<u32>,
    /// After a quota was met, wait up to this long for room, which tells how long the NAT holds a port
    #[arg(long, value_name = "TIME", value_parser = duration::parse, requires = "port_quota")]
    pub port_hold: Option<Span>,
    /// Ask again and again for this long, and tell changes of the external address
    #[arg(long, value_name = "TIME", value_parser = duration::parse, conflicts_with_all = ["lifetime", "port_quota"])]
    pub watch: Option<Span>,
    /// Ask from another network namespace: a name (ip netns), a path or a process id
    #[arg(long, value_name = "NAME|PATH|PID", env = "WGNAT_NETNS")]
    pub netns: Option<String>,
    /// From which severity on the exit code is not 0 [default: warning]
    #[arg(long, value_enum, value_name = "SEVERITY", env = "WGNAT_FAIL_ON")]
    pub fail_on: Option<FailOn>,
}

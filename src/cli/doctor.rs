//! The options of `wgnat doctor`.

use std::path::PathBuf;

use clap::Args;

use super::Peers;
use crate::config::{duration, share};
use crate::observation::target::Target;
use crate::report::exit::FailOn;
use crate::time::Span;

/// `wgnat doctor`.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Exit codes: 0 ok (info findings at most), 1 warning, 2 critical, 3 unknown (nothing could be observed, or the
invocation is wrong). doctor only looks: it changes no setting and sends no packet, but where you name something to ask: with
--wg-config it asks the system's resolver for the endpoints' names; peers that are named (--wg-config, --fly, --peer-public-key)
are sent a few handshakes where no device here holds the key, unless --no-probe is given; --stun, --target and
--fly-checks send to whom you name.")]
pub struct Doctor {
    /// Watch at least this long; 0 takes one look [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, env = "WGNAT_DURATION")]
    pub duration: Option<Span>,
    /// Where a verdict hangs on an event that is due, wait for it, at most this long in all [default: 20s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, env = "WGNAT_MAX_DURATION")]
    pub max_duration: Option<Span>,
    /// Observe another network namespace: a name (ip netns), a path or a process id
    #[arg(long, value_name = "NAME|PATH|PID", env = "WGNAT_NETNS")]
    pub netns: Option<String>,
    /// Also look at the sockets, conntrack and NAT of every other network namespace of this host (needs CAP_SYS_ADMIN)
    #[arg(long, conflicts_with_all = ["netns", "replay", "record", "anonymise"], env = "WGNAT_ALL_NETNS")]
    pub all_netns: bool,
    /// Also look at the peers of this wg-quick file, and try handshakes with them where no device here holds its key (may be
    /// repeated)
    #[arg(long, value_name = "FILE")]
    pub wg_config: Vec<PathBuf>,
    /// Whom else to try handshakes with
    #[command(flatten)]
    pub peers: Peers,
    /// Send no handshakes, whoever is named
    #[arg(long, conflicts_with_all = ["fly", "fly_config", "peer_public_key"], env = "WGNAT_NO_PROBE")]
    pub no_probe: bool,
    /// Also ask this STUN server what the NAT in front does (may be repeated): sends some dozens of datagrams to it
    #[arg(long, value_name = "HOST[:PORT]", value_parser = crate::observe::nat::resolve::check, env = "WGNAT_STUN", value_delimiter = ',', conflicts_with = "replay")]
    pub stun: Vec<String>,
    /// Also measure how long an idle mapping of that NAT lives, up to this long (2m10s unless told): the watch is longer by as
    /// much, and up to thrice where an end is found; Ctrl-C tells what is known by then
    #[arg(long, value_name = "TIME", value_parser = duration::parse, num_args = 0..=1, default_missing_value = "130s", env = "WGNAT_NAT_LIFETIME", conflicts_with = "replay")]
    pub nat_lifetime: Option<Span>,
    /// What the NAT in front allows: fly-static-egress, aws-nat-gateway, gcp-cloud-nat (made from mid-2026 on:
    /// gcp-cloud-nat-2026), gcp-cloud-nat-dynamic, azure-lb, azure-nat-gateway, cgn, or FLOWS[/destination|address|host[/HOLD]]
    #[arg(long, value_name = "PROFILE", value_parser = crate::budgets::parse, env = "WGNAT_NAT_PROFILE", conflicts_with = "replay")]
    pub nat_profile: Option<crate::observation::nat::Budget>,
    /// On a Fly machine: also ask the system's name servers for .internal names, and measure the way to other machines of the
    /// organisation (up to 16) over the private network, with its MTU
    #[arg(long, env = "WGNAT_FLY_CHECKS", conflicts_with = "replay")]
    pub fly_checks: bool,
    /// Also look at this fly.toml: health checks, limits, metrics, process groups [default: ./fly.toml, where there is one]
    #[arg(long, value_name = "FILE", env = "WGNAT_FLY_TOML", conflicts_with = "replay")]
    pub fly_toml: Option<PathBuf>,
    /// Do not look at ./fly.toml
    #[arg(long, conflicts_with = "fly_toml")]
    pub no_fly_toml: bool,
    /// Write every observation to this file, for --replay
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,
    /// Diagnose the observations of this file instead of this host
    #[arg(long, value_name = "FILE", conflicts_with_all = ["netns", "wg_config", "fly", "fly_config", "peer_public_key", "private_key_file", "preshared_key_file"])]
    pub replay: Option<PathBuf>,
    /// Replace addresses, names and keys consistently, in the report and in --record
    #[arg(long)]
    pub anonymise: bool,
    /// Also measure the path to this target (as `wgnat path` takes it; may be repeated)
    #[arg(long, value_name = "TARGET", conflicts_with = "replay")]
    pub target: Vec<Target>,
    /// Do not count connects and closes in the kernel with eBPF, which names who runs out of ports and whose connections are
    /// too short to be seen otherwise, where CAP_BPF and CAP_PERFMON are held
    #[arg(long, env = "WGNAT_NO_BPF")]
    pub no_bpf: bool,
    /// Accepted for old scripts: connects are counted unless --no-bpf says otherwise
    #[arg(long, hide = true, conflicts_with_all = ["replay", "no_bpf"])]
    pub count_connects: bool,
    /// Count new connections by conntrack's events: exact, but each costs 7 to 11 µs, and listening alone slows a busy router
    #[arg(long, conflicts_with = "replay", env = "WGNAT_CONNTRACK_EVENTS")]
    pub conntrack_events: bool,
    /// What reading the conntrack table may cost on average, in per cent of a core over a minute; the first reading is made in
    /// any case [default: 1%]
    #[arg(long, value_name = "PERCENT", value_parser = share::parse, env = "WGNAT_CPU_BUDGET")]
    pub cpu_budget: Option<f64>,
    /// From which severity on the exit code is not 0 [default: warning]
    #[arg(long, value_enum, value_name = "SEVERITY", env = "WGNAT_FAIL_ON")]
    pub fail_on: Option<FailOn>,
}

//! The options of `wgnat agent`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::observation::target::Target;

/// `wgnat agent`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The agent only looks: it changes no setting and sends no packet, but that with --wg-config it asks the system's resolver for
the endpoints' names, and that it asks the servers and measures the paths that --stun and --target name. Signals: SIGHUP reads the configuration anew, SIGTERM and SIGINT end it. Exit codes: 0 ended as it was told to,
3 it could not begin.")]
pub struct Agent {
    /// Serve HTTP here; beyond loopback a token is needed [default: 127.0.0.1:9986]
    #[arg(long, value_name = "ADDR:PORT", env = "WGNAT_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Keep history in this file (SQLite); made where it is not there
    #[arg(long, value_name = "FILE", env = "WGNAT_STORE")]
    pub store: Option<PathBuf>,
    /// Observe another network namespace: a name (ip netns), a path or a process id
    #[arg(long, value_name = "NAME|PATH|PID", env = "WGNAT_NETNS")]
    pub netns: Option<String>,
    /// Also look at the peers of this wg-quick file (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub wg_config: Vec<PathBuf>,
    /// Also look at this fly.toml
    #[arg(long, value_name = "FILE", env = "WGNAT_FLY_TOML")]
    pub fly_toml: Option<PathBuf>,
    /// Percent of one core to keep to: observers look more seldom where they need more [default: 1]
    #[arg(long, value_name = "PERCENT", env = "WGNAT_CPU_BUDGET")]
    pub cpu_budget: Option<f64>,
    /// Ask for the bearer token in this file, for all but /metrics, /healthz and /readyz
    #[arg(long, value_name = "FILE", env = "WGNAT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Serve everything beyond loopback without a token
    #[arg(long, conflicts_with = "token_file")]
    pub allow_unauthenticated: bool,
    /// Run as this user, once what needs root is open
    #[arg(long, value_name = "NAME", env = "WGNAT_USER")]
    pub user: Option<String>,
    /// Give up what is not needed (capabilities, files, system calls): as far as the kernel allows, not at all, or not without
    /// [default: auto]
    #[arg(long, value_enum, value_name = "HOW", env = "WGNAT_CONFINE")]
    pub confine: Option<Confine>,
    /// Do not count connects in the kernel with eBPF
    #[arg(long, env = "WGNAT_NO_BPF")]
    pub no_bpf: bool,
    /// Ask this STUN server what the NAT in front does, every 15 minutes (may be repeated): some dozens of datagrams each time
    #[arg(long, value_name = "HOST[:PORT]", value_parser = crate::observe::nat::resolve::check, env = "WGNAT_STUN", value_delimiter = ',')]
    pub stun: Vec<String>,
    /// What the NAT in front allows: a known NAT's name, or FLOWS[/destination|address|host[/HOLD]]; see doctor --help
    #[arg(long, value_name = "PROFILE", value_parser = crate::budgets::parse, env = "WGNAT_NAT_PROFILE")]
    pub nat_profile: Option<crate::observation::nat::Budget>,
    /// Measure the path to this target every minute (as `wgnat path` takes it; may be repeated)
    #[arg(long, value_name = "TARGET", env = "WGNAT_TARGET", value_delimiter = ',')]
    pub target: Vec<Target>,
    /// Read the configuration and what it names, say what is wrong with it, and end
    #[arg(long)]
    pub check_config: bool,
}

/// Whether the agent confines itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confine {
    /// As far as the kernel allows; what is not in force is said.
    #[default]
    Auto,
    /// Not at all.
    Off,
    /// Wholly, or it does not begin.
    Require,
}

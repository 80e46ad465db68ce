//! The options of `wgnat top`.

use std::path::PathBuf;

use clap::Args;

/// `wgnat top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys: ? shows them all, q ends. top only looks, as doctor does. Needs a terminal; without root it shows what it can and
says what is missing. Exit codes: 0, and 3 where there is no terminal or the invocation is wrong.")]
pub struct Top {
    /// Observe another network namespace: a name (ip netns), a path or a process id
    #[arg(long, value_name = "NAME|PATH|PID", env = "WGNAT_NETNS")]
    pub netns: Option<String>,
    /// Also look at the peers of this wg-quick file (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub wg_config: Vec<PathBuf>,
    /// Do not count connects and closes in the kernel with eBPF, which gives exact rates and owners of closed connections
    /// where CAP_BPF and CAP_PERFMON are held
    #[arg(long, env = "WGNAT_NO_BPF")]
    pub no_bpf: bool,
}

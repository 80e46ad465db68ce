//! The options of `wgnat report`.

use std::path::PathBuf;

use clap::Args;

use super::Peers;
use crate::config::duration;
use crate::observation::target::Target;
use crate::report::exit::FailOn;
use crate::time::Span;

/// `wgnat report`.
#[derive(Debug, Args)]
#[command(after_help = "\
From the agent's history (--store) where there is one, which is only read; else from a look as doctor takes it. The last report is
remembered beside the history, or in the user's state directory, so that the next one can say what is new, worse, better and gone.
Exit codes: 0 ok (info findings at most), 1 warning, 2 critical, by what holds at the end; 3 unknown (no agent has watched lately,
nothing could be observed, a webhook could not be delivered while all else is well, or the invocation is wrong).")]
pub struct ReportArgs {
    /// Read the agent's history from this file
    #[arg(long, value_name = "FILE", env = "WGNAT_STORE")]
    pub store: Option<PathBuf>,
    /// How far back to look in history [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = since, env = "WGNAT_SINCE")]
    pub since: Option<Span>,
    /// Take a fresh sample, also where there is a history
    #[arg(long)]
    pub fresh: bool,
    /// Say nothing where nothing changed since the last report; the exit code is the same
    #[arg(long)]
    pub only_changes: bool,
    /// Remember the last report in this file [default: beside the history, or in the state directory]
    #[arg(long, value_name = "FILE", env = "WGNAT_STATE")]
    pub state: Option<PathBuf>,
    /// Compare with the last report, and do not remember this one in its place
    #[arg(long)]
    pub no_remember: bool,
    /// Write the report to this file, which is replaced as a whole, in place of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Post a summary to this URL, as Slack's incoming webhooks take it; WGNAT_WEBHOOK does not show in the list of processes
    #[arg(long, value_name = "URL", env = "WGNAT_WEBHOOK", hide_env_values = true)]
    pub webhook: Option<String>,
    /// Sign what is posted with the secret in this file (HMAC-SHA256 over time and body)
    #[arg(long, value_name = "FILE", env = "WGNAT_WEBHOOK_SECRET_FILE")]
    pub webhook_secret_file: Option<PathBuf>,
    /// Trust the certificates in this file (PEM) instead of the system's
    #[arg(long, value_name = "FILE", env = "WGNAT_WEBHOOK_CA_FILE")]
    pub webhook_ca_file: Option<PathBuf>,
    /// Also write an archive to share (tar.gz; - is standard output): report, events, a look's observations, versions; anonymised
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// Do not anonymise the bundle: it then holds addresses, names and public keys as they are
    #[arg(long, requires = "bundle")]
    pub bundle_raw: bool,
    /// A fresh sample watches at least this long; 0 takes one look [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, env = "WGNAT_DURATION")]
    pub duration: Option<Span>,
    /// Where a verdict hangs on an event that is due, it waits for it, at most this long in all [default: 20s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, env = "WGNAT_MAX_DURATION")]
    pub max_duration: Option<Span>,
    /// It observes another network namespace: a name (ip netns), a path or a process id
    #[arg(long, value_name = "NAME|PATH|PID", env = "WGNAT_NETNS")]
    pub netns: Option<String>,
    /// It also looks at the peers of this wg-quick file (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub wg_config: Vec<PathBuf>,
    /// Whom else it is to try handshakes with
    #[command(flatten)]
    pub peers: Peers,
    /// It sends no handshakes, whoever is named
    #[arg(long, conflicts_with_all = ["fly", "fly_config", "peer_public_key"], env = "WGNAT_NO_PROBE")]
    pub no_probe: bool,
    /// It also asks this STUN server what the NAT in front does (may be repeated)
    #[arg(long, value_name = "HOST[:PORT]", value_parser = crate::observe::nat::resolve::check, env = "WGNAT_STUN", value_delimiter = ',')]
    pub stun: Vec<String>,
    /// It also measures the path to this target (as `wgnat path` takes it; may be repeated)
    #[arg(long, value_name = "TARGET")]
    pub target: Vec<Target>,
    /// It does not count connects and closes in the kernel with eBPF
    #[arg(long, env = "WGNAT_NO_BPF")]
    pub no_bpf: bool,
    /// From which severity on the exit code is not 0 [default: warning]
    #[arg(long, value_enum, value_name = "SEVERITY", env = "WGNAT_FAIL_ON")]
    pub fail_on: Option<FailOn>,
}

/// A stretch of time that is about something.
fn since(text: &str) -> Result<Span, String> {
    let span = duration::parse(text)?;
    if span < Span::from_secs(1) {
        return Err(format!(
            "{text:?} is no time to look back: expected 1s at least, such as 24h"
        ));
    }
    Ok(span)
}

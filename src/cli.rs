//! The command line: one table of commands and flags, from which help, completions and the manual page come.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{duration, share};
use crate::observation::target::Target;
use crate::output::Format;
use crate::report::exit::FailOn;
use crate::time::Span;

/// Why a WireGuard tunnel or a NAT is failing on this Linux host, with proof, and what to change.
#[derive(Debug, Parser)]
#[command(name = "wgnat", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Read settings from this file (TOML; wgnat.sample.toml shows every key)
    #[arg(long, global = true, value_name = "FILE", env = "WGNAT_CONFIG")]
    pub config: Option<PathBuf>,
    /// How results are written
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = "WGNAT_FORMAT")]
    pub format: Option<Format>,
    /// Short for --format json
    #[arg(long, global = true, conflicts_with = "format")]
    pub json: bool,
    /// When to colour; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, value_name = "WHEN", env = "WGNAT_COLOR")]
    pub color: Option<ColorWhen>,
    /// Say more on standard error (-v what is done, -vv details, -vvv packets)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// How log lines are written
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        env = "WGNAT_LOG_FORMAT"
    )]
    pub log_format: Option<LogFormat>,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands that there are.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Diagnose this host: watch it for a few seconds, then say what is wrong, why, and what to change
    Doctor(Box<Doctor>),
    /// Watch this host for good: serve metrics, findings and a page over HTTP, and keep history
    Agent(Agent),
    /// Say what holds, what changed since the last report and how numbers moved, from the agent's history; for cron
    Report(Box<ReportArgs>),
    /// Watch this host live, full-screen: destinations, processes, conntrack, peers and findings as they come
    Top(Top),
    /// Say what is wrong with the WireGuard in a capture file (pcap or pcapng), and show its handshakes
    Analyze(Analyze),
    /// Say what the NAT in front of this host does, by asking STUN servers that you name
    Nat(Nat),
    /// Serve what `wgnat nat` asks: a STUN server with two addresses and two ports (RFC 5780)
    Reflect(Reflect),
    /// Measure loss, latency, jitter, MTU and hops to several targets at once, side by side
    Path(Path),
    /// Try real WireGuard handshakes with peers, without a device: round trips, loss, and what each answer proves
    Probe(Box<Probe>),
    /// Say what a finding means, how it is detected and how to fix it; without a code, list all findings
    Explain(Explain),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff)
    Man,
}

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
    pub peers: DoctorPeers,
    /// Also ask this STUN server what the NAT in front does (may be repeated): sends some dozens of datagrams to it
    #[arg(long, value_name = "HOST[:PORT]", value_parser = crate::observe::nat::resolve::check, env = "WGNAT_STUN", value_delimiter = ',', conflicts_with = "replay")]
    pub stun: Vec<String>,
    /// What the NAT in front allows: fly-static-egress, aws-nat-gateway, gcp-cloud-nat, gcp-cloud-nat-dynamic, azure-lb,
    /// azure-nat-gateway, cgn, or FLOWS[/destination|address|host[/HOLD]]
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
    #[arg(long, value_name = "FILE", conflicts_with_all = ["netns", "wg_config"])]
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

/// Peers that `wgnat doctor` tries handshakes with, beside those of wg-quick files.
#[derive(Clone, Debug, Default, Args)]
pub struct DoctorPeers {
    /// Also try handshakes with the gateways of flyctl's WireGuard state under the home directory
    #[arg(long, conflicts_with = "replay")]
    pub fly: bool,
    /// The same, from this file
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub fly_config: Option<PathBuf>,
    /// Also try handshakes with this peer: of those named otherwise only this one, or with --endpoint and --private-key-file
    #[arg(long, value_name = "KEY", conflicts_with = "replay")]
    pub peer_public_key: Option<String>,
    /// Where that peer is
    #[arg(
        long,
        value_name = "HOST:PORT",
        requires = "peer_public_key",
        requires = "private_key_file"
    )]
    pub endpoint: Option<String>,
    /// The private key to try them with, in place of the files' own (base64; - is standard input)
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub private_key_file: Option<PathBuf>,
    /// The preshared key to try them with
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub preshared_key_file: Option<PathBuf>,
    /// Send no handshakes, whoever is named
    #[arg(long, conflicts_with_all = ["fly", "fly_config", "peer_public_key"], env = "WGNAT_NO_PROBE")]
    pub no_probe: bool,
}

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
    /// It also tries handshakes with the gateways of flyctl's WireGuard state under the home directory
    #[arg(long)]
    pub fly: bool,
    /// The same, from this file
    #[arg(long, value_name = "FILE")]
    pub fly_config: Option<PathBuf>,
    /// It also tries handshakes with this peer: of those named otherwise only this one, or with --endpoint and --private-key-file
    #[arg(long, value_name = "KEY")]
    pub peer_public_key: Option<String>,
    /// Where that peer is
    #[arg(
        long,
        value_name = "HOST:PORT",
        requires = "peer_public_key",
        requires = "private_key_file"
    )]
    pub endpoint: Option<String>,
    /// The private key to try them with, in place of the files' own (base64; - is standard input)
    #[arg(long, value_name = "FILE")]
    pub private_key_file: Option<PathBuf>,
    /// The preshared key to try them with
    #[arg(long, value_name = "FILE")]
    pub preshared_key_file: Option<PathBuf>,
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

/// `wgnat analyze`.
#[derive(Debug, Args)]
#[command(after_help = "\
WireGuard is found on any port, by the shape of its messages and by how they continue each other. Without --keys nothing is opened;
with a responder's key, who calls it and by which clock. A record of doctor --record may stand for a capture.

Several files are read as one capture, in the order of time; two that hold the same messages as two places on the way:
then what lies between them is judged too, which messages it loses, which way, and how it translates. Exit codes: 0 ok (info findings at most), 1 warning,
2 critical, 3 unknown (no WireGuard found, or a file could not be read).")]
pub struct Analyze {
    /// Capture files: pcap or pcapng; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Open what these keys open: a wg-quick file, Wireshark's key log, or lines of base64 keys (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// The files are two places on the way, even if they have no message in common (exactly two files)
    #[arg(long, conflicts_with = "same_place")]
    pub two_places: bool,
    /// The files are parts of one capture, even if they hold the same messages
    #[arg(long)]
    pub same_place: bool,
    /// From which severity on the exit code is not 0 [default: warning]
    #[arg(long, value_enum, value_name = "SEVERITY", env = "WGNAT_FAIL_ON")]
    pub fail_on: Option<FailOn>,
}

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
    /// Also measure how long an idle mapping lives, up to this long (2m10s unless told): takes as long
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

/// `wgnat probe`.
#[derive(Debug, Args)]
#[command(after_help = "\
A probe with a key that a live tunnel uses makes the peer send that tunnel's packets to the prober. So keys that are in use on this host
are refused; give the peer a key of its own for probing. docs/probe.md says how. Initiations go to one address at most 50 times a second,
and 12 times once it answers with a cookie (under load). Exit codes: 0 ok (info findings at most), 1 warning, 2 critical, 3 unknown (nothing could be
probed, or the invocation is wrong).")]
pub struct Probe {
    /// Probe the peers of this wg-quick file with its key (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub wg_config: Vec<PathBuf>,
    /// Probe the gateways of flyctl's WireGuard state under the home directory
    #[arg(long)]
    pub fly: bool,
    /// The same, from this file
    #[arg(long, value_name = "FILE")]
    pub fly_config: Option<PathBuf>,
    /// Probe this peer: of those named otherwise, or with --endpoint and --private-key-file
    #[arg(long, value_name = "KEY")]
    pub peer_public_key: Option<String>,
    /// Where that peer is
    #[arg(
        long,
        value_name = "HOST:PORT",
        requires = "peer_public_key",
        requires = "private_key_file"
    )]
    pub endpoint: Option<String>,
    /// The private key to probe with (base64; - is standard input), in place of the files' and devices' own
    #[arg(long, value_name = "FILE")]
    pub private_key_file: Option<PathBuf>,
    /// The preshared key to probe with
    #[arg(long, value_name = "FILE")]
    pub preshared_key_file: Option<PathBuf>,
    /// Handshakes to try with each peer
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// Time between two of them
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    pub interval: Span,
    /// How long to wait for each answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    pub timeout: Span,
    /// How messages travel to flyctl's gateways
    #[arg(long, value_enum, value_name = "TRANSPORT", default_value = "udp")]
    pub transport: ProbeTransport,
    /// When it answers, also ping this address inside the tunnel (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    pub ping: Vec<std::net::IpAddr>,
    /// Ask for this name inside the tunnel; the server is flyctl's or the file's own unless given (may be repeated)
    #[arg(long, value_name = "NAME[@SERVER]")]
    pub dns: Vec<String>,
    /// Connect to this port inside the tunnel (may be repeated)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub tcp: Vec<SocketAddr>,
    /// Search for the largest packet through the tunnel, with pings to the first --ping address
    #[arg(long)]
    pub mtu: bool,
    /// Search for how long a NAT on the way keeps an idle mapping, and the keepalive to set; takes minutes, and a --tcp server
    /// inside the tunnel whose repetitions are the clock
    #[arg(long, requires = "tcp")]
    pub mapping_lifetime: bool,
    /// This side's address inside the tunnel, in place of the file's own (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    pub source: Vec<std::net::IpAddr>,
    /// Probe also with keys that are in use on this host: the live tunnel breaks until it sends again
    #[arg(long)]
    pub steal_session: bool,
    /// Write every observation to this file, for --replay
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,
    /// Judge the observations of this file instead of probing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["wg_config", "fly", "fly_config", "peer_public_key"])]
    pub replay: Option<PathBuf>,
    /// Replace addresses, names and keys consistently, in the report and in --record
    #[arg(long)]
    pub anonymise: bool,
    /// From which severity on the exit code is not 0 [default: warning]
    #[arg(long, value_enum, value_name = "SEVERITY", env = "WGNAT_FAIL_ON")]
    pub fail_on: Option<FailOn>,
    /// It is a part of `wgnat doctor`, which has more to say than what probes tell.
    #[arg(skip)]
    pub beside_a_diagnosis: bool,
}

/// `wgnat reflect`.
#[derive(Debug, Args)]
#[command(after_help = "\
With two addresses of a family it serves all of RFC 5780 for that family; with one, the tests that need no second address.
No answer over UDP is longer than its request, so that nobody can use the server to flood another: `wgnat nat` makes its
requests long enough. Other clients do not; --answer-short-requests serves them too.")]
pub struct Reflect {
    /// Serve at this address; give two of a family for all tests (may be repeated) [default: 127.0.0.1 and 127.0.0.2]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub address: Vec<String>,
    /// The two ports, or one
    #[arg(long, value_name = "PORT[,PORT]", value_delimiter = ',', num_args = 1..=2, default_values_t = [3478, 3479], value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Vec<u16>,
    /// What clients know an --address by, where it is translated on the way in (in the order of --address)
    #[arg(long, value_name = "ADDR", value_delimiter = ',')]
    pub public: Vec<std::net::IpAddr>,
    /// Answer requests that are shorter than their answer, too: up to about five times the bytes go to whoever the request
    /// claims to be from
    #[arg(long)]
    pub answer_short_requests: bool,
    /// Requests per second that are answered for each source prefix (/24, /56); 0 for no limit
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub rate_limit: u32,
    /// Requests that a prefix may send at once
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub burst: u32,
    /// Serve Prometheus metrics here; beyond loopback only if you say so
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Threads that serve each UDP socket
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub threads: u8,
}

/// How messages travel to flyctl's gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProbeTransport {
    /// Over UDP.
    Udp,
    /// Over a WebSocket in TLS.
    Websocket,
    /// Over one and then the other: which works, and which is configured.
    Both,
}

/// `wgnat explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The finding's code, as reports show it
    pub code: Option<String>,
}

//! The command line: one table of commands and flags, from which help, completions and the manual page come.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{duration, share};
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
    Doctor(Doctor),
    /// Say what is wrong with the WireGuard in a capture file (pcap or pcapng), and show its handshakes
    Analyze(Analyze),
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
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 ok (info findings at most), 1 warning, 2 critical, 3 unknown (nothing could be observed, or the
invocation is wrong). doctor only looks: it changes no setting and sends no packet, but that with --wg-config it asks the
system's resolver for the endpoints' names.")]
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
    /// Also look at the peers of this wg-quick file (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub wg_config: Vec<PathBuf>,
    /// Write every observation to this file, for --replay
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub record: Option<PathBuf>,
    /// Diagnose the observations of this file instead of this host
    #[arg(long, value_name = "FILE", conflicts_with_all = ["netns", "wg_config"])]
    pub replay: Option<PathBuf>,
    /// Replace addresses, names and keys consistently, in the report and in --record
    #[arg(long)]
    pub anonymise: bool,
    /// Count each connect and close in the kernel with eBPF while watching: names who runs out of ports, and who opens
    /// connections too short to be seen otherwise; takes some 36 MiB more memory
    #[arg(long, conflicts_with = "replay", env = "WGNAT_COUNT_CONNECTS")]
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

/// `wgnat analyze`.
#[derive(Debug, Args)]
#[command(after_help = "\
WireGuard is found on any port, by the shape of its messages and by how they continue each other. Without --keys nothing is opened;
with a responder's key, who calls it and by which clock. Several files are read as one capture, in the order of time. Exit codes: 0 ok (info findings at most), 1 warning,
2 critical, 3 unknown (no WireGuard found, or a file could not be read).")]
pub struct Analyze {
    /// Capture files: pcap or pcapng; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Open what these keys open: a wg-quick file, Wireshark's key log, or lines of base64 keys (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// From which severity on the exit code is not 0 [default: warning]
    #[arg(long, value_enum, value_name = "SEVERITY", env = "WGNAT_FAIL_ON")]
    pub fail_on: Option<FailOn>,
}

/// `wgnat explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The finding's code, as reports show it
    pub code: Option<String>,
}

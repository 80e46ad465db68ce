//! The command line: one table of commands and flags, from which help, completions and the manual page come.

mod agent;
mod analyze;
mod doctor;
mod explain;
mod nat;
mod path;
mod peers;
mod probe;
mod reflect;
mod report;
mod top;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::Format;

pub use agent::{Agent, Confine};
pub use analyze::Analyze;
pub use doctor::Doctor;
pub use explain::Explain;
pub use nat::Nat;
pub use path::Path;
pub use peers::Peers;
pub use probe::{Probe, ProbeTransport};
pub use reflect::Reflect;
pub use report::ReportArgs;
pub use top::Top;

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

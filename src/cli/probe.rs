//! The options of `wgnat probe`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Peers;
use crate::config::duration;
use crate::report::exit::FailOn;
use crate::time::Span;

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
    /// Whom to try handshakes with
    #[command(flatten)]
    pub peers: Peers,
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

//! The options of `wgnat analyze`.

use std::path::PathBuf;

use clap::Args;

use crate::report::exit::FailOn;

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

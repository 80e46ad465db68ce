//! The options that choose peers to try handshakes with, the same wherever handshakes are tried.

use std::path::PathBuf;

use clap::Args;

/// Whom to try handshakes with, beside the peers of wg-quick files.
#[derive(Clone, Debug, Default, Args)]
pub struct Peers {
    /// Try handshakes with the gateways of flyctl's WireGuard state under the home directory
    #[arg(long)]
    pub fly: bool,
    /// The same, from this file
    #[arg(long, value_name = "FILE")]
    pub fly_config: Option<PathBuf>,
    /// Try handshakes with this peer: of those named otherwise only this one, or with --endpoint and --private-key-file
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
    /// The private key to try them with, in place of their own (base64; - is standard input)
    #[arg(long, value_name = "FILE")]
    pub private_key_file: Option<PathBuf>,
    /// The preshared key to try them with
    #[arg(long, value_name = "FILE")]
    pub preshared_key_file: Option<PathBuf>,
}

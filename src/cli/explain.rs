//! The options of `wgnat explain`.

use clap::Args;

/// `wgnat explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The finding's code, as reports show it
    pub code: Option<String>,
}

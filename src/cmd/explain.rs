//! `wgnat explain [CODE]`.

use super::{print, text_options};
use crate::cli::Explain;
use crate::config::Settings;
use crate::output::explain;
use crate::rules::registry;

/// Runs the command.
pub fn run(args: &Explain, settings: &Settings) -> anyhow::Result<u8> {
    let rules: Vec<_> = registry::catalogue().collect();
    let mut text = Vec::new();
    explain::render(args.code.as_deref(), &rules, &text_options(settings), &mut text)?;
    print(&text)?;
    Ok(0)
}

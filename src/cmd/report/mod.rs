//! `wgnat report`: what holds, what changed since the last time, how numbers moved; for cron.
//!
//! From the agent's history where there is one, else from a look as doctor takes it. The order matters: what was asked for
//! wrongly is said before anything is looked at; the report is told before anything that may fail (a webhook, a bundle), and
//! remembered as the last one only when it was delivered everywhere.

mod bundle;
mod deliver;
mod history;
mod look;
mod state;
mod trends;
pub mod webhook;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use self::bundle::Bundle;
use self::webhook::Webhook;
use super::progress::Progress;
use super::{print, text_options};
use crate::cli::{Global, ReportArgs};
use crate::config::Settings;
use crate::output::{self, Format};
use crate::report::changes::{Before, Ended, compare};
use crate::report::{Report, exit};
use crate::store::EventRow;
use crate::sys::clock;

/// What a report is made of.
struct Made {
    report: Report,
    /// What to compare with where no report is remembered.
    at_start: Option<Before>,
    ended: Vec<Ended>,
    events: Vec<EventRow>,
}

/// Runs the command.
pub fn run(args: &ReportArgs, global: &Global, settings: &Settings) -> anyhow::Result<u8> {
    let mut progress = Progress::new(global.quiet);
    let store = store(args, settings, &mut progress)?;
    let webhook = Webhook::prepare(&settings.report)?;
    let bundle = args.bundle.as_deref().map(Bundle::at).transpose()?;
    if bundle.as_ref().is_some_and(Bundle::is_stdout)
        && args.output.is_none()
        && std::io::stdout().is_terminal()
    {
        bail!("--bundle -: standard output is a terminal: send it to a file, or name one");
    }
    let place = state::place(settings.report.state.as_deref(), store.as_deref(), args);
    let remembered = match &place {
        state::Place::At(path) => state::load(path, &mut progress)?,
        state::Place::Nowhere(why) => {
            progress.note(&format!(
                "this report is compared with none and will not be remembered: {why}"
            ));
            None
        }
    };
    let anonymous = bundle.is_some() && !args.bundle_raw;
    let recorded = if store.is_none() || bundle.is_some() {
        Some(look::take(
            args,
            settings,
            bundle.is_some(),
            anonymous,
            &mut progress,
        )?)
    } else {
        None
    };
    let now = clock::now();
    let (mut made, shared) = match (&store, recorded) {
        (Some(path), recorded) => {
            let last = remembered.as_ref().map(|before| before.at);
            let past = history::read(path, settings.report.since, last, now, settings)?;
            let made = Made {
                report: past.report,
                at_start: Some(past.at_start),
                ended: past.ended,
                events: past.events,
            };
            (made, recorded.map(|looked| looked.shared))
        }
        (None, Some(looked)) => {
            let made = Made {
                report: looked.report,
                at_start: None,
                ended: Vec::new(),
                events: Vec::new(),
            };
            (made, Some(looked.shared))
        }
        (None, None) => bail!("there is neither a history nor a look"),
    };
    let before = remembered.as_ref().or(made.at_start.as_ref());
    let changes = compare(&made.report, before, &made.ended);
    let changed = changes.any();
    made.report.changes = Some(changes);
    let mut code = exit::code(made.report.status, settings.fail_on);
    let mut delivered = true;
    if changed || !args.only_changes {
        let to_stdout = !bundle.as_ref().is_some_and(Bundle::is_stdout);
        tell(&made.report, args.output.as_deref(), to_stdout, settings)?;
        if let Some(webhook) = &webhook
            && let Err(error) = webhook.send(&made.report)
        {
            // Whoever reads the hook has not been told: the changes stay changes.
            delivered = false;
            progress.note(&format!("{error:#}; the next report tells these changes again"));
        }
    }
    if let (Some(bundle), Some(shared)) = (bundle, shared) {
        bundle.write(&made, shared, global.quiet)?;
    }
    if let (state::Place::At(path), true, false) = (&place, delivered, args.no_remember) {
        state::save(path, &made.report)?;
    }
    if !delivered && code == 0 {
        code = exit::UNKNOWN;
    }
    Ok(code)
}

/// The history to read; none where there is none, which is said where one was named.
fn store(args: &ReportArgs, settings: &Settings, progress: &mut Progress) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = settings.agent.store.as_ref().filter(|_| !args.fresh) else {
        return Ok(None);
    };
    match std::fs::metadata(path) {
        Ok(there) if there.is_file() => Ok(Some(path.clone())),
        Ok(there) if there.is_dir() => bail!(
            "history {}: it is a directory: expected the file that an agent's --store names",
            path.display()
        ),
        Ok(_) => bail!("history {}: it is no regular file", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            progress.note(&format!(
                "there is no history {} (yet): taking a fresh sample instead",
                path.display()
            ));
            Ok(None)
        }
        Err(error) => {
            Err(error).with_context(|| format!("history {}: it cannot be looked at", path.display()))
        }
    }
}

/// Writes the report to where it was asked for.
fn tell(report: &Report, output: Option<&Path>, to_stdout: bool, settings: &Settings) -> anyhow::Result<()> {
    let mut options = text_options(settings);
    if output.is_some() && settings.color != crate::cli::ColorWhen::Always {
        options.color = false;
    }
    if output.is_some() || settings.format != Format::Text {
        options.width = 80;
    }
    let mut text = Vec::new();
    output::render(report, settings.format, &options, &mut text)?;
    match output {
        Some(path) => deliver::replace(path, &text, 0o644),
        None if to_stdout => print(&text),
        None => Ok(()),
    }
}

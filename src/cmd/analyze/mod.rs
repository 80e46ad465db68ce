//! `wgnat analyze FILE...`: the same judgement from capture files, far from the host where they were made.

mod feed;
mod input;
mod keys;
mod two;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::progress::Progress;
use super::{observers, tell};
use crate::cli::{Analyze, Global};
use crate::config::Settings;
use crate::observation::{Body, Source, SourceStatus};
use crate::observe::capture_file::Ending;
use crate::report::captured::{self, CaptureRow};
use crate::report::{self, Report, Status};
use crate::rules::{self, Input as RuleInput, registry};
use crate::track::World;
use feed::{Feed, Held};

/// Runs the command.
pub fn run(args: &Analyze, global: &Global, settings: &Settings) -> anyhow::Result<u8> {
    let mut progress = Progress::new(global.quiet);
    let stop = Arc::new(AtomicBool::new(false));
    let on_signal = Arc::clone(&stop);
    let mut inputs = open(args, &stop)?;
    observers::on_interrupt(move || on_signal.store(true, Ordering::Relaxed))?;
    let two = two::wanted(args, &inputs)?;
    let mut report = None;
    if let Some(two) = two {
        report = two::report(args, settings, two, &mut inputs, &mut progress)?;
        if report.is_none() {
            // Nothing in common: parts of one capture, which are read again in the order of time.
            inputs = open(args, &stop)?;
        }
    }
    let report = match report {
        Some(report) => report,
        None => one(args, settings, inputs, &mut progress)?,
    };
    if stop.load(Ordering::Relaxed) {
        progress.note("interrupted: what follows is about what was read until then");
    }
    tell(&report, settings)
}

fn open(args: &Analyze, stop: &Arc<AtomicBool>) -> anyhow::Result<Vec<input::Input>> {
    args.files.iter().map(|path| input::open(path, stop)).collect()
}

/// The report of all files as one capture.
fn one(
    args: &Analyze,
    settings: &Settings,
    mut inputs: Vec<input::Input>,
    progress: &mut Progress,
) -> anyhow::Result<Report> {
    let mut feed = Feed::new(keys::read(&args.keys)?);
    if let Some(record) = inputs.iter().find(|i| i.record.is_some())
        && inputs.len() > 1
    {
        anyhow::bail!(
            "{} is a record of doctor: with another file it can only be read as one of two places (--two-places)",
            record.name
        );
    }
    input::read(&mut inputs, &mut feed);
    let captures: Vec<CaptureRow> = inputs.into_iter().map(row).collect();
    if let [only] = captures.as_slice()
        && feed.held.packets == 0
        && let Some(problem) = &only.problem
    {
        anyhow::bail!("{}: {problem}", only.file);
    }
    let (world, held) = finish(feed, &captures, args);
    for note in notes(&held, world.sessions.unconfirmed) {
        progress.note(&note);
    }
    let catalogue: Vec<_> = registry::captured().collect();
    let input = RuleInput {
        world: &world,
        thresholds: &settings.thresholds,
    };
    let evaluation = rules::evaluate(&catalogue, &input);
    let mut report = report::build::build(&world, evaluation, env!("CARGO_PKG_VERSION"));
    captured::add(&mut report, &world, captures);
    unknown_if_empty(&mut report);
    Ok(report)
}

/// Nothing found is not the same as nothing wrong.
fn unknown_if_empty(report: &mut Report) {
    if report.wireguard.tunnels.is_empty() && report.wireguard.handshakes.is_empty() {
        report.status = Status::Unknown;
    }
}

/// The world at a feed's end, with how well it could be read.
fn finish(mut feed: Feed, captures: &[CaptureRow], args: &Analyze) -> (World, Held) {
    feed.observe(Source::Capture, Body::Status(status(captures, &feed.held)));
    feed.observe(Source::Config, Body::Status(keys::status(&args.keys)));
    feed.finish()
}

fn row(input: input::Input) -> CaptureRow {
    if let Some(record) = input.record {
        return CaptureRow {
            bytes: record.bytes,
            lost: None,
            file: input.name,
            problem: record.problem,
        };
    }
    let problem = match &input.ended {
        None | Some(Ok(Ending::Complete | Ending::Stopped)) => None,
        Some(Ok(Ending::Truncated { offset, have, need })) => Some(format!(
            "cut at its end: the record at byte {offset} has {have} of its {need} bytes"
        )),
        Some(Err(error)) => Some(error.to_string()),
    };
    CaptureRow {
        bytes: input.capture.offset(),
        lost: input.capture.lost(),
        file: input.name,
        problem,
    }
}

/// How well the files could be read, as the capture's state.
fn status(captures: &[CaptureRow], held: &Held) -> SourceStatus {
    let problems: Vec<String> = captures
        .iter()
        .filter_map(|c| Some(format!("{}: {}", c.file, c.problem.as_ref()?)))
        .collect();
    let lost = captures.iter().filter_map(|c| c.lost).sum();
    let status = match (problems.is_empty(), held.packets) {
        (true, 0) => SourceStatus::unavailable("no packets in the capture"),
        (true, _) if lost > 0 => SourceStatus::degraded(format!(
            "the capturing program lost {lost} packets: some silences may be its own"
        )),
        (true, _) => SourceStatus::ok(),
        (false, 0) => SourceStatus::unavailable(problems.join("; ")),
        (false, _) => SourceStatus::degraded(problems.join("; ")),
    };
    SourceStatus { lost, ..status }
}

/// What a reader should know of the packets that were passed over.
fn notes(held: &Held, unconfirmed: u64) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some((count, number)) = held.unknown_link {
        notes.push(format!(
            "{count} frames are of link type {number}, which is not read"
        ));
    }
    for (count, what) in [
        (
            held.later_fragments,
            "later IP fragments were passed over: only first fragments name their message",
        ),
        (
            held.cut_handshakes,
            "handshake messages are cut by the snapshot length: cookies and keys cannot be checked",
        ),
        (
            held.malformed,
            "packets are cut before their UDP payload, or contradict themselves",
        ),
        (
            held.reserved,
            "handshake messages use WireGuard's reserved bytes, as Cloudflare's WARP does: not judged",
        ),
        (
            held.changed_headers,
            "handshakes have other header bytes, as AmneziaWG's do: not judged",
        ),
        (
            held.disco,
            "messages are Tailscale's own (disco): its WireGuard changes addresses on purpose, which is not judged",
        ),
        (
            held.unlikely,
            "datagrams begin like a handshake message and hold no key material: taken for another protocol",
        ),
        (
            unconfirmed,
            "datagrams begin like data and continue no session: too few to tell, or another protocol",
        ),
        (
            held.undated,
            "packets carry no time: taken to have passed with the one before",
        ),
    ] {
        if count > 0 {
            notes.push(format!("{count} {what}"));
        }
    }
    notes
}

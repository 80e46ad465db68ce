//! Two files as two places on the way: each judged by itself, and both together.

use super::feed::{Feed, Held};
use super::{keys, notes, row, status, unknown_if_empty};
use crate::cli::Analyze;
use crate::cmd::progress::Progress;
use crate::config::Settings;
use crate::observation::{Body, Source};
use crate::report::captured::{self, CaptureRow};
use crate::report::{self, Report, places};
use crate::rules::{self, Input as RuleInput, Part, registry};
use crate::track::World;
use crate::track::places::{Comparison, PlaceLog};

use super::input::Input;

/// Why two files are taken for two places.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The user says so.
    Told,
    /// They may be: if they have messages in common.
    Perhaps,
}

/// Whether to try. An error where the user wants what cannot be.
pub fn wanted(args: &Analyze, inputs: &[Input]) -> anyhow::Result<Option<Why>> {
    match (args.two_places, inputs.len()) {
        (true, 2) => Ok(Some(Why::Told)),
        (true, n) => anyhow::bail!("--two-places compares exactly two files, and here {n} are named"),
        // A second reading must be possible, should they turn out to be parts of one capture.
        (false, 2) if !args.same_place && inputs.iter().all(|i| i.is_regular) => Ok(Some(Why::Perhaps)),
        (false, _) => Ok(None),
    }
}

struct Place {
    world: World,
    log: PlaceLog,
    held: Held,
    capture: CaptureRow,
}

/// The report of two places; `None` where nothing says that they are two.
pub fn report(
    args: &Analyze,
    settings: &Settings,
    why: Why,
    inputs: &mut Vec<Input>,
    progress: &mut Progress,
) -> anyhow::Result<Option<Report>> {
    // Two records are of two hosts, whatever they have in common.
    let why = if inputs.iter().all(|i| i.record.is_some()) {
        Why::Told
    } else {
        why
    };
    let mut read = Vec::new();
    for input in inputs.drain(..) {
        read.push(place(args, input)?);
    }
    let Ok([mut first, second]) = <[Place; 2]>::try_from(read) else {
        return Ok(None);
    };
    let comparison = Comparison::of(&first.log, &second.log);
    if why == Why::Perhaps && !comparison.is_of_two_places() {
        return Ok(None);
    }
    let files = [first.capture.file.clone(), second.capture.file.clone()];
    for place in [&first, &second] {
        for note in notes(&place.held, place.world.sessions.unconfirmed) {
            progress.note(&format!("{}: {note}", place.capture.file));
        }
    }
    if !comparison.is_of_two_places() {
        progress.note(
            "the two files have no message in common: nothing says that they are of the same time and tunnel",
        );
    }
    let section = places::section(&comparison, files.clone());
    first.world.places = Some(comparison);
    let evaluation = rules::evaluate_parts(parts(settings, &first.world, &second.world, &files));
    let mut report = report::build::build(&first.world, evaluation, env!("CARGO_PKG_VERSION"));
    captured::add_places(
        &mut report,
        [&first.world, &second.world],
        &files,
        vec![first.capture, second.capture],
    );
    report.places = Some(section);
    unknown_if_empty(&mut report);
    Ok(Some(report))
}

/// What both prove together goes before what each does alone.
fn parts<'a>(
    settings: &'a Settings,
    first: &'a World,
    second: &'a World,
    files: &[String; 2],
) -> Vec<Part<'a>> {
    let input = |world| RuleInput {
        world,
        thresholds: &settings.thresholds,
    };
    let [one, other] = files.clone();
    vec![
        Part {
            rules: registry::compared().collect(),
            input: input(first),
            seen_at: None,
        },
        Part {
            rules: registry::captured().collect(),
            input: input(first),
            seen_at: Some(one),
        },
        Part {
            rules: registry::captured().collect(),
            input: input(second),
            seen_at: Some(other),
        },
    ]
}

fn place(args: &Analyze, mut input: Input) -> anyhow::Result<Place> {
    let mut feed = Feed::with_log(keys::read(&args.keys)?);
    input.read(&mut feed);
    let capture = row(input);
    if feed.held.packets == 0
        && let Some(problem) = &capture.problem
    {
        anyhow::bail!("{}: {problem}", capture.file);
    }
    let captures = std::slice::from_ref(&capture);
    feed.observe(Source::Capture, Body::Status(status(captures, &feed.held)));
    feed.observe(Source::Config, Body::Status(keys::status(&args.keys)));
    let (world, held, log) = feed.finish_with_log();
    Ok(Place {
        world,
        log,
        held,
        capture,
    })
}

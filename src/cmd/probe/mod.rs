//! `wgnat probe`: tries handshakes with peers, judges, tells.

mod held;
mod keys;
pub mod targets;

use anyhow::Context as _;

use super::progress::Progress;
use super::record::{Recorder, replay};
use super::{observers, tell};
use crate::cli::{Global, Probe};
use crate::config::Settings;
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::observe::host;
use crate::observe::prober::Prober;
use crate::observe::{Emit, Observer as _};
use crate::redact::Anonymiser;
use crate::report::{self, probed};
use crate::rules::{self, Input, registry};
use crate::sys::{clock, files, random};
use crate::time::Span;
use crate::track::World;

/// Peers probed at the same time, where the limit of open files allows it.
const AT_ONCE: u64 = 4096;
/// Descriptors for what is not a peer's socket.
const OTHER_FILES: u64 = 64;

/// Runs the command.
pub fn run(args: &Probe, global: &Global, settings: &Settings) -> anyhow::Result<u8> {
    let mut progress = Progress::new(global.quiet);
    let anonymiser = match args.anonymise {
        true => Some(Anonymiser::new(random::key()?)),
        false => None,
    };
    let (world, record_error) = match &args.replay {
        Some(path) => {
            let (judged, note) = replay(path, anonymiser)?;
            if let Some(note) = note {
                progress.note(&note);
            }
            (judged.world, judged.record_error)
        }
        None => live(args, anonymiser, &mut progress)?,
    };
    let catalogue: Vec<_> = registry::probed().collect();
    let input = Input {
        world: &world,
        thresholds: &settings.thresholds,
    };
    let evaluation = rules::evaluate(&catalogue, &input);
    let mut report = report::build::build(&world, evaluation, env!("CARGO_PKG_VERSION"));
    probed::add(&mut report, &world);
    let code = tell(&report, settings)?;
    match record_error {
        Some(error) => Err(error),
        None => Ok(code),
    }
}

/// Where facts go: into the world that is judged, and into a record.
struct Sink {
    world: World,
    anonymiser: Option<Anonymiser>,
    recorder: Option<Recorder>,
}

impl Sink {
    fn see(&mut self, observation: &Observation) {
        let anonymous = self.anonymiser.as_mut().map(|a| a.observation(observation));
        let observation = anonymous.as_ref().unwrap_or(observation);
        self.world.apply(observation);
        if let Some(recorder) = &mut self.recorder {
            recorder.write(observation);
        }
    }

    fn tell(&mut self, source: Source, body: Body) {
        self.see(&Observation {
            at: clock::now(),
            took: Span::ZERO,
            source,
            body,
        });
    }

    /// Which host this is, for the report's head.
    fn host(&mut self) {
        let Ok(mut host) = host::Host::open(None) else {
            return;
        };
        let mut seen = Vec::new();
        let mut send = |at, took, source, body| {
            seen.push(Observation {
                at,
                took,
                source,
                body,
            });
        };
        let status = host.look(&mut Emit::new(Source::Host, &mut send));
        seen.iter().for_each(|o| self.see(o));
        if let Ok(status) = status {
            self.tell(Source::Host, Body::Status(status));
        }
    }
}

fn live(
    args: &Probe,
    anonymiser: Option<Anonymiser>,
    progress: &mut Progress,
) -> anyhow::Result<(World, Option<anyhow::Error>)> {
    // What was asked for wrongly is said before anything is sent.
    let (jobs, notes) = targets::collect(args)?;
    let started = clock::now();
    let recorder = match &args.record {
        Some(path) => Some(Recorder::create(path, started, args.anonymise)?),
        None => None,
    };
    let mut sink = Sink {
        world: World::new(started),
        anonymiser,
        recorder,
    };
    sink.host();
    notes.iter().for_each(|note| progress.note(note));
    let willing = jobs.iter().filter(|job| job.identity.is_ok()).count();
    let open_files = files::raise_limit(AT_ONCE + OTHER_FILES);
    let at_once = open_files.saturating_sub(OTHER_FILES).clamp(1, AT_ONCE);
    let (prober, stopper) = Prober::new();
    observers::on_interrupt(move || stopper.stop())?;
    prober
        .run(jobs, usize::try_from(at_once).unwrap_or(1), &mut |fact| {
            sink.see(&fact)
        })
        .context("cannot start to probe")?;
    let status = match willing {
        0 => SourceStatus::unavailable("no peer could be probed"),
        _ => SourceStatus::ok(),
    };
    let cost_cpu = clock::process_cpu();
    sink.tell(Source::Probe, Body::Status(SourceStatus { cost_cpu, ..status }));
    let end = clock::now().max(sink.world.now);
    let record_error = sink.recorder.take().and_then(|recorder| recorder.end(end).err());
    sink.world.handle_timeout(end);
    Ok((sink.world, record_error))
}

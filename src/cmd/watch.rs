//! Watches this host: starts observers, feeds the world, answers its requests, waits for what is due.

use std::time::Instant;

use super::observers;
use super::progress::Progress;
use super::record::Recorder;
use crate::config::Settings;
use crate::engine::{Engine, Step};
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::observe::supervisor::Opener;
use crate::redact::Anonymiser;
use crate::rules::{self, Input};
use crate::sys::clock;
use crate::time::{Span, Timestamp};
use crate::track::World;

/// How long an observer's first look may take where the user wants one look only, and how long its last look may
/// take in any case. A hung WireGuard daemon costs its own time-out (1 s), so this is beyond it.
const LOOK_LIMIT: Span = Span::from_secs(3);

/// Connects are counted for this share of the watch at least.
const COUNTED_SHARE: f64 = 0.8;

/// How often the progress line is redrawn, and findings are told in advance.
const TICK: Span = Span::from_millis(250);

/// Events lie a little after the moment they are due at.
const DUE_MARGIN: Span = Span::from_millis(300);

/// What came of watching or replaying.
pub struct Judged {
    /// The state to judge.
    pub world: World,
    /// The same with true names, where those in `world` were replaced while it was watched.
    pub original: Option<World>,
    /// What replaced them.
    pub anonymiser: Option<Anonymiser>,
    /// Why the record is incomplete, where it is.
    pub record_error: Option<anyhow::Error>,
}

/// How to watch.
pub struct Plan<'a> {
    /// When watching begins, as the record says too.
    pub started: Timestamp,
    /// The settings.
    pub settings: &'a Settings,
    /// The observers to start.
    pub observers: Vec<(Source, Opener)>,
    /// Where to record to.
    pub recorder: Option<Recorder>,
    /// Replaces names in what is shown and recorded.
    pub anonymiser: Option<Anonymiser>,
    /// A first look may take so long and is waited for: what it measures was asked for.
    pub first_look: Span,
}

/// Watches until the time is over and nothing is due any more, or until interrupted.
pub fn watch(plan: Plan<'_>, progress: &mut Progress) -> anyhow::Result<Judged> {
    let mut watch = Watch::start(plan);
    observers::on_interrupt(watch.engine.interrupter())?;
    watch.until_done(progress);
    watch.finish(progress)
}

struct Watch<'a> {
    engine: Engine,
    world: World,
    /// With `--anonymise`: what is judged and shown. Requests need the true addresses, so both are kept.
    shown: Option<(Anonymiser, World)>,
    recorder: Option<Recorder>,
    settings: &'a Settings,
    first_look: Span,
    started: Instant,
}

impl<'a> Watch<'a> {
    fn start(plan: Plan<'a>) -> Self {
        let started = clock::instant();
        Self {
            engine: Engine::start(plan.observers),
            world: World::new(plan.started),
            shown: plan.anonymiser.map(|a| (a, World::new(plan.started))),
            recorder: plan.recorder,
            settings: plan.settings,
            first_look: plan.first_look,
            started,
        }
    }

    /// The patient look: at least `duration`, then as long as a verdict hangs on something that is due.
    fn until_done(&mut self, progress: &mut Progress) {
        let Settings {
            duration,
            max_duration,
            ..
        } = *self.settings;
        // A host that is starved looks slowly, and what was not looked at must not pass for healthy.
        let patience = if duration.is_zero() {
            LOOK_LIMIT
        } else {
            max_duration.max(duration + LOOK_LIMIT)
        };
        let patience = patience.max(self.first_look);
        let mut until = duration;
        while !self.engine.interrupted() {
            let watched = clock::instant() - self.started;
            // Where loading the programs took long, what they count from then on wants its time too.
            if let Some((_, counted)) = self.world.connects.newest() {
                let since = counted.since.since(self.world.started);
                until = until.max((since + duration.mul_f64(COUNTED_SHARE)).min(max_duration));
            }
            let out_of_patience = watched >= patience.max(until + LOOK_LIMIT);
            if watched >= until && (self.engine.has_looked() || out_of_patience) {
                self.world.handle_timeout(clock::now());
                match self.world.due().map(|due| (self.until(due.at), due.what)) {
                    Some((at, what)) if at > watched && at <= max_duration && !duration.is_zero() => {
                        let more = (at - watched).as_secs_f32();
                        progress.note(&format!("waiting {more:.1} s more for {what}"));
                        until = at;
                    }
                    _ => return,
                }
            }
            if progress_due(watched) {
                progress.draw(watched, until);
            }
            let left = if watched < until { until - watched } else { TICK };
            let could = self.engine.can_tell();
            match self.engine.wait(left.min(TICK)) {
                Step::Over => return,
                Step::Seen(observation) => self.see(&observation),
                Step::Moved => {}
                Step::Quiet => self.foretell(progress),
            }
            if !could && self.engine.can_tell() {
                self.foretell(progress);
            }
        }
    }

    /// A wall-clock moment as a distance from the start.
    fn until(&self, at: Timestamp) -> Span {
        (at - self.world.started) + DUE_MARGIN
    }

    fn see(&mut self, observation: &Observation) {
        self.world.apply(observation);
        match &mut self.shown {
            Some((anonymiser, shown)) => {
                let anonymous = anonymiser.observation(observation);
                shown.apply(&anonymous);
                // What was asked for decides what is forgotten: a replay does the same.
                shown.requests_after(&anonymous);
                record(&mut self.recorder, &anonymous);
            }
            None => record(&mut self.recorder, observation),
        }
        for request in self.world.requests_after(observation) {
            self.engine.ask(request);
        }
    }

    /// Tells on a terminal what is certain already.
    fn foretell(&mut self, progress: &mut Progress) {
        if progress.is_terminal() && self.engine.can_tell() {
            self.world.handle_timeout(clock::now());
            let rules: Vec<_> = rules::registry::rules().collect();
            let input = Input {
                world: &self.world,
                thresholds: &self.settings.thresholds,
            };
            progress.findings(&rules::evaluate(&rules, &input).findings);
        }
    }

    fn report(&mut self, source: Source, status: SourceStatus) {
        self.see(&Observation {
            at: clock::now(),
            took: Span::ZERO,
            source,
            body: Body::Status(status),
        });
    }

    /// Takes in what is seen while one of `these` is still at its last look, within the limit.
    fn while_running(&mut self, these: impl Fn(Source) -> bool) {
        let stopped = clock::instant();
        while self.engine.running().any(&these) {
            let left = LOOK_LIMIT.saturating_sub(clock::instant() - stopped);
            match self.engine.wait(left) {
                Step::Seen(observation) => self.see(&observation),
                Step::Moved => {}
                Step::Quiet | Step::Over => break,
            }
        }
    }

    /// The last look of each observer; one that hangs is left behind and said to be.
    fn finish(mut self, progress: &mut Progress) -> anyhow::Result<Judged> {
        // The tap ends last: what the others count in their last look has passed it before it ends.
        self.engine.stop_all_but(Source::Capture);
        self.while_running(|source| source != Source::Capture);
        self.engine.stop();
        self.while_running(|source| source == Source::Capture);
        let hanging: Vec<Source> = self.engine.running().collect();
        for source in hanging {
            let hung = format!(
                "did not end its look within {} s: something it asks hangs",
                LOOK_LIMIT.as_secs()
            );
            self.report(source, SourceStatus::unavailable(hung));
        }
        let lookups = self.engine.lookups_left();
        if lookups > 0 && self.world.sources.sees(Source::Routes) {
            let left = format!("the kernel was not asked in time for {lookups} of the ways to peers");
            self.report(Source::Routes, SourceStatus::degraded(left));
        }
        progress.clear();
        // The clock may have been set back since the world's time was last told.
        let end = clock::now().max(self.world.now);
        let record_error = self.recorder.take().and_then(|recorder| recorder.end(end).err());
        self.world.handle_timeout(end);
        let (world, original, anonymiser) = match self.shown {
            Some((anonymiser, mut shown)) => {
                shown.handle_timeout(end);
                (shown, Some(self.world), Some(anonymiser))
            }
            None => (self.world, None, None),
        };
        Ok(Judged {
            world,
            original,
            anonymiser,
            record_error,
        })
    }
}

fn record(recorder: &mut Option<Recorder>, observation: &Observation) {
    if let Some(recorder) = recorder {
        recorder.write(observation);
    }
}

/// The first quarter second belongs to the observers.
fn progress_due(watched: Span) -> bool {
    watched >= TICK
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

//! Watches this host for a while: as long as asked, and as long as a verdict hangs on something that is due.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

pub use super::engine::Judged;
use super::engine::{Engine, LOOK_LIMIT, Start};
use super::observers;
use super::progress::Progress;
use super::record::Recorder;
use crate::config::Settings;
use crate::observation::Source;
use crate::observe::supervisor::{Event, Opener};
use crate::redact::Anonymiser;
use crate::rules::{self, Input};
use crate::sys::clock;
use crate::time::{Span, Timestamp};

/// Connects are counted for this share of the watch at least.
const COUNTED_SHARE: f64 = 0.8;

/// How often the progress line is redrawn, and findings are told in advance.
const TICK: Span = Span::from_millis(250);

/// Events lie a little after the moment they are due at.
const DUE_MARGIN: Span = Span::from_millis(300);

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
}

/// Watches until the time is over and nothing is due any more, or until interrupted.
pub fn watch(plan: Plan<'_>, progress: &mut Progress) -> anyhow::Result<Judged> {
    let (mut watch, events) = Watch::start(plan);
    observers::on_interrupt(watch.engine.interrupter())?;
    watch.until_done(&events, progress);
    let judged = watch.engine.finish(&events);
    progress.clear();
    Ok(judged)
}

struct Watch<'a> {
    engine: Engine,
    settings: &'a Settings,
    started: Instant,
}

impl<'a> Watch<'a> {
    fn start(plan: Plan<'a>) -> (Self, Receiver<Event>) {
        let started = clock::instant();
        let (engine, events) = Engine::start(Start {
            started: plan.started,
            observers: plan.observers,
            recorder: plan.recorder,
            anonymiser: plan.anonymiser,
        });
        let watch = Self {
            engine,
            settings: plan.settings,
            started,
        };
        (watch, events)
    }

    /// The patient look: at least `duration`, then as long as a verdict hangs on something that is due.
    fn until_done(&mut self, events: &Receiver<Event>, progress: &mut Progress) {
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
        let mut until = duration;
        while !self.engine.interrupted() {
            let watched = clock::instant() - self.started;
            // Where loading the programs took long, what they count from then on wants its time too.
            if let Some((_, counted)) = self.engine.world.connects.newest() {
                let since = counted.since.since(self.engine.world.started);
                until = until.max((since + duration.mul_f64(COUNTED_SHARE)).min(max_duration));
            }
            let out_of_patience = watched >= patience.max(until + LOOK_LIMIT);
            if watched >= until && (self.engine.has_looked() || out_of_patience) {
                self.engine.world.handle_timeout(clock::now());
                match self.engine.world.due().map(|due| (self.until(due.at), due.what)) {
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
            match events.recv_timeout(left.min(TICK)) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(event) => {
                    let looked = self.engine.can_foretell();
                    self.engine.take(event);
                    if !looked && self.engine.can_foretell() {
                        self.foretell(progress);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.foretell(progress),
            }
        }
    }

    /// A wall-clock moment as a distance from the start.
    fn until(&self, at: Timestamp) -> Span {
        (at - self.engine.world.started) + DUE_MARGIN
    }

    /// Tells on a terminal what is certain already.
    fn foretell(&mut self, progress: &mut Progress) {
        if progress.is_terminal() && self.engine.can_foretell() {
            self.engine.world.handle_timeout(clock::now());
            let rules: Vec<_> = rules::registry::rules().collect();
            let input = Input {
                world: &self.engine.world,
                thresholds: &self.settings.thresholds,
            };
            progress.findings(&rules::evaluate(&rules, &input).findings);
        }
    }
}

/// The first quarter second belongs to the observers.
fn progress_due(watched: Span) -> bool {
    watched >= TICK
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;

//! Watches this host: starts observers, feeds the world, answers its requests, waits for what is due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use super::observers;
use super::progress::Progress;
use super::record::Recorder;
use crate::config::Settings;
use crate::observation::{Body, Observation, Request, Source, SourceStatus};
use crate::observe::supervisor::{Event, Opener, Supervisor};
use crate::redact::Anonymiser;
use crate::rules::{self, Input};
use crate::sys::clock;
use crate::time::{Span, Timestamp};
use crate::track::World;

/// How long an observer's first look may take where the user wants one look only, and how long its last look may
/// take in any case. A hung WireGuard daemon costs its own time-out (1 s), so this is beyond it.
const LOOK_LIMIT: Span = Span::from_secs(3);

/// Route look-ups under way at once; an observer's queue has twice the places.
const LOOKUPS: usize = 512;

/// How often the progress line is redrawn, and findings are told in advance.
const TICK: Span = Span::from_millis(250);

/// Events lie a little after the moment they are due at.
const DUE_MARGIN: Span = Span::from_millis(300);

/// What came of watching or replaying.
pub struct Judged {
    /// The state to judge.
    pub world: World,
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
}

/// Watches until the time is over and nothing is due any more, or until interrupted.
pub fn watch(plan: Plan<'_>, progress: &mut Progress) -> anyhow::Result<Judged> {
    let (mut watch, events) = Watch::start(plan);
    observers::on_interrupt(watch.supervisor.interrupter())?;
    watch.until_done(&events, progress);
    watch.finish(&events, progress)
}

struct Watch<'a> {
    world: World,
    /// With `--anonymise`: what is judged and shown. Requests need the true addresses, so both are kept.
    shown: Option<(Anonymiser, World)>,
    recorder: Option<Recorder>,
    supervisor: Supervisor,
    no_first_look: BTreeSet<Source>,
    running: BTreeSet<Source>,
    /// Requests under way, by who is to answer them.
    unanswered: BTreeMap<Source, usize>,
    /// Route look-ups to be asked for; the tracker bounds them for each device.
    lookups: VecDeque<Request>,
    /// Route look-ups that nobody took.
    not_asked: usize,
    settings: &'a Settings,
    started: Instant,
}

impl<'a> Watch<'a> {
    fn start(plan: Plan<'a>) -> (Self, Receiver<Event>) {
        let started = clock::instant();
        let sources: BTreeSet<Source> = plan.observers.iter().map(|(source, _)| *source).collect();
        let (supervisor, events) = Supervisor::start(plan.observers);
        let watch = Self {
            world: World::new(plan.started),
            shown: plan.anonymiser.map(|a| (a, World::new(plan.started))),
            recorder: plan.recorder,
            supervisor,
            no_first_look: sources.clone(),
            running: sources,
            unanswered: BTreeMap::new(),
            lookups: VecDeque::new(),
            not_asked: 0,
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
        while !self.supervisor.interrupted() {
            let watched = clock::instant() - self.started;
            let out_of_patience = watched >= patience.max(until + LOOK_LIMIT);
            if watched >= until && (self.has_looked() || out_of_patience) {
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
            match events.recv_timeout(left.min(TICK)) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(event) => {
                    let looked = self.can_foretell();
                    self.take(event);
                    if !looked && self.can_foretell() {
                        self.foretell(progress);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.foretell(progress),
            }
        }
    }

    fn has_looked(&self) -> bool {
        self.no_first_look.is_empty() && self.all_answered()
    }

    fn all_answered(&self) -> bool {
        self.unanswered.values().all(|n| *n == 0)
    }

    /// Whether there is enough to tell findings by. Counting connects takes a while to begin, and has counted none then.
    fn can_foretell(&self) -> bool {
        self.all_answered() && self.no_first_look.iter().all(|s| *s == Source::Bpf)
    }

    /// A wall-clock moment as a distance from the start.
    fn until(&self, at: Timestamp) -> Span {
        (at - self.world.started) + DUE_MARGIN
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Seen(observation) => self.see(&observation),
            Event::FirstLook(source) => self.looked(source),
            Event::Answered(source) => {
                let open = self.unanswered.entry(source).or_default();
                *open = open.saturating_sub(1);
                self.ask_lookups();
            }
            Event::Ended(source) => {
                self.looked(source);
                self.running.remove(&source);
            }
            Event::Interrupted => {}
        }
    }

    /// Says when the last source has looked once: from then on a change is seen as one.
    fn looked(&mut self, source: Source) {
        if self.no_first_look.remove(&source) && self.no_first_look.is_empty() {
            tracing::info!("watching: every source has looked once");
        }
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
            self.ask(request);
        }
    }

    fn ask(&mut self, request: Request) {
        match &request {
            Request::RouteLookup(_) => {
                self.lookups.push_back(request);
                self.ask_lookups();
            }
            Request::OwnersOf(_) => {
                if self.supervisor.ask(Source::Processes, request) {
                    *self.unanswered.entry(Source::Processes).or_default() += 1;
                }
            }
        }
    }

    /// A hub has more peers than an observer's queue has places.
    fn ask_lookups(&mut self) {
        let under_way = self.unanswered.entry(Source::Routes).or_default();
        while *under_way < LOOKUPS
            && let Some(request) = self.lookups.pop_front()
        {
            if self.supervisor.ask(Source::Routes, request) {
                *under_way += 1;
            } else {
                self.not_asked += 1;
            }
        }
    }

    /// Tells on a terminal what is certain already.
    fn foretell(&mut self, progress: &mut Progress) {
        if progress.is_terminal() && self.can_foretell() {
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

    /// The last look of each observer; one that hangs is left behind and said to be.
    fn finish(mut self, events: &Receiver<Event>, progress: &mut Progress) -> anyhow::Result<Judged> {
        self.supervisor.stop();
        let stopped = clock::instant();
        while !self.running.is_empty() {
            let left = LOOK_LIMIT.saturating_sub(clock::instant() - stopped);
            match events.recv_timeout(left) {
                Ok(event) => self.take(event),
                Err(_) => break,
            }
        }
        for source in std::mem::take(&mut self.running) {
            let hung = format!(
                "did not end its look within {} s: something it asks hangs",
                LOOK_LIMIT.as_secs()
            );
            self.report(source, SourceStatus::unavailable(hung));
        }
        let under_way = self.unanswered.get(&Source::Routes).copied().unwrap_or(0);
        let lookups = self.lookups.len() + self.not_asked + under_way;
        if lookups > 0 && self.world.sources.sees(Source::Routes) {
            let left = format!("the kernel was not asked in time for {lookups} of the ways to peers");
            self.report(Source::Routes, SourceStatus::degraded(left));
        }
        progress.clear();
        // The clock may have been set back since the world's time was last told.
        let end = clock::now().max(self.world.now);
        let record_error = self.recorder.take().and_then(|recorder| recorder.end(end).err());
        let mut world = match self.shown {
            Some((_, shown)) => shown,
            None => self.world,
        };
        world.handle_timeout(end);
        Ok(Judged { world, record_error })
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

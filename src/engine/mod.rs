//! Runs the observers for a command: what they see, in order; what the core asks of them; who has looked and who has ended.
//!
//! In: openers. Out: one [`Step`] a call of [`Engine::wait`]. Whoever calls feeds its own world and passes the world's
//! requests back by [`Engine::ask`]. doctor, top and the agent differ only in what they do between two steps.

pub mod restarts;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use self::restarts::Restarts;
use crate::observation::{Body, Observation, Request, Source, SourceStatus};
use crate::observe::supervisor::{Event, Opener, Supervisor};
use crate::sys::clock;
use crate::time::Span;

/// Route look-ups under way at once; an observer's queue has twice the places.
const LOOKUPS: usize = 512;

/// Route look-ups waiting for those; the core bounds its questions far below, but asks again when ways change.
const LOOKUPS_WAITING: usize = 32_768;

/// A look that lasts longer than this hangs. The dearest, a table of conntrack that is read at leisure, takes seconds.
const STUCK_AFTER: Span = Span::from_secs(60);

/// Whoever asks others waits for them: a search for a mapping's lifetime of ten minutes takes the longest.
const STUCK_ASKING: Span = Span::from_secs(1800);

/// What one wait brought.
pub enum Step {
    /// Something seen: take it into the world, and pass on what the world then asks for.
    Seen(Box<Observation>),
    /// An observer looked for the first time, answered, ended or began anew; or the user interrupts.
    Moved,
    /// Nothing within the time.
    Quiet,
    /// Every observer has ended for good.
    Over,
}

/// The observers at work.
pub struct Engine {
    supervisor: Supervisor,
    events: Receiver<Event>,
    no_first_look: BTreeSet<Source>,
    running: BTreeSet<Source>,
    /// Requests under way, by who is to answer them.
    unanswered: BTreeMap<Source, usize>,
    /// Route look-ups to be asked for; the tracker bounds them for each device.
    lookups: VecDeque<Request>,
    /// Route look-ups that nobody took.
    not_asked: usize,
    /// Who is started anew, and when; `None` where whoever ends has ended.
    restarts: Option<Restarts>,
    replaced: BTreeMap<Source, Opener>,
    /// Whom nobody replaces: they end for good.
    leaving: BTreeSet<Source>,
    stuck: BTreeSet<Source>,
    /// CPU time of each observer, over all its starts.
    costs: BTreeMap<Source, (Span, Span)>,
}

impl Engine {
    /// Starts `observers`; one that ends has ended.
    pub fn start(observers: Vec<(Source, Opener)>) -> Self {
        let sources = observers.iter().map(|(source, _)| *source).collect();
        Self::of(sources, Supervisor::start(observers))
    }

    fn of(sources: BTreeSet<Source>, (supervisor, events): (Supervisor, Receiver<Event>)) -> Self {
        Self {
            supervisor,
            events,
            no_first_look: sources.clone(),
            running: sources,
            unanswered: BTreeMap::new(),
            lookups: VecDeque::new(),
            not_asked: 0,
            restarts: None,
            replaced: BTreeMap::new(),
            leaving: BTreeSet::new(),
            stuck: BTreeSet::new(),
            costs: BTreeMap::new(),
        }
    }

    /// As [`Engine::start`], for good: one that fails (cannot be opened, panics, or looks in vain a few times in a row) is
    /// started anew, later each time.
    pub fn start_for_good(observers: Vec<(Source, Opener)>) -> Self {
        let sources = observers.iter().map(|(source, _)| *source).collect();
        Self {
            restarts: Some(Restarts::default()),
            ..Self::of(sources, Supervisor::start_for_good(observers))
        }
    }

    /// Waits for the next thing to happen, at most `span`.
    pub fn wait(&mut self, span: Span) -> Step {
        let now = clock::instant();
        for source in self.restarts.iter_mut().flat_map(|r| r.due(now)) {
            tracing::warn!(source = source.name(), "starting the observer anew");
            let opener = self.replaced.remove(&source);
            if self.supervisor.restart(source, opener) {
                self.running.insert(source);
            }
        }
        let next = self.restarts.as_ref().and_then(Restarts::next);
        let left = next.map_or(span, |at| span.min(at.saturating_duration_since(now)));
        match self.events.recv_timeout(left) {
            Ok(event) => self.take(event),
            // The sender lives in the supervisor, so this is for the reader only.
            Err(RecvTimeoutError::Disconnected) => Step::Over,
            Err(RecvTimeoutError::Timeout) if left < span => Step::Moved,
            Err(RecvTimeoutError::Timeout) => Step::Quiet,
        }
    }

    fn take(&mut self, event: Event) -> Step {
        match event {
            // The last look of whoever is to end tells of what nobody wants to know any more.
            Event::Seen(seen)
                if self.replaced.contains_key(&seen.source) || self.leaving.contains(&seen.source) =>
            {
                return Step::Moved;
            }
            Event::Seen(observation) => {
                if let Body::Status(status) = &observation.body {
                    self.heard(observation.source, status);
                }
                return Step::Seen(observation);
            }
            Event::FirstLook(source) => self.looked(source),
            Event::Answered(source) => {
                let open = self.unanswered.entry(source).or_default();
                *open = open.saturating_sub(1);
                self.ask_lookups();
            }
            Event::Ended(source) => {
                self.looked(source);
                self.running.remove(&source);
                // Whatever it was asked and did not answer it never will.
                self.unanswered.remove(&source);
                let now = clock::instant();
                if let Some(restarts) = &mut self.restarts {
                    if self.leaving.remove(&source) {
                        restarts.forget(source);
                    } else if self.replaced.contains_key(&source) {
                        restarts.at_once(source, now);
                    } else {
                        restarts.ended(source, now);
                    }
                }
            }
            Event::Interrupted => {}
        }
        Step::Moved
    }

    fn heard(&mut self, source: Source, status: &SourceStatus) {
        let (past, newest) = self.costs.entry(source).or_default();
        if status.cost_cpu < *newest {
            // Another thread than before.
            *past += *newest;
        }
        *newest = status.cost_cpu;
        self.stuck.remove(&source);
        if let Some(restarts) = &mut self.restarts {
            restarts.looked(source, clock::instant());
        }
    }

    /// Says when the last source has looked once: from then on a change is seen as one.
    fn looked(&mut self, source: Source) {
        if self.no_first_look.remove(&source) && self.no_first_look.is_empty() {
            tracing::info!("watching: every source has looked once");
        }
    }

    /// Passes on what the core would like to know.
    pub fn ask(&mut self, request: Request) {
        match &request {
            Request::RouteLookup(_) => {
                if self.lookups.len() < LOOKUPS_WAITING {
                    self.lookups.push_back(request);
                } else {
                    self.not_asked += 1;
                }
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

    /// Whether every observer has looked once and every request is answered.
    pub fn has_looked(&self) -> bool {
        self.no_first_look.is_empty() && self.all_answered()
    }

    /// Whether there is enough to tell findings by. Counting connects takes a while to begin, and has counted none then.
    /// Whoever asks others waits for their answers.
    pub fn can_tell(&self) -> bool {
        let takes_long = |s: &Source| *s == Source::Bpf || s.on_request();
        self.all_answered() && self.no_first_look.iter().all(takes_long)
    }

    fn all_answered(&self) -> bool {
        self.unanswered.values().all(|n| *n == 0)
    }

    /// Observers that have not ended.
    pub fn running(&self) -> impl Iterator<Item = Source> + '_ {
        self.running.iter().copied()
    }

    /// Route look-ups that were asked for and have no answer yet, or never will.
    pub fn lookups_left(&self) -> usize {
        let under_way = self.unanswered.get(&Source::Routes).copied().unwrap_or(0);
        self.lookups.len() + self.not_asked + under_way
    }

    /// Makes the observer of `source` look at once, and fully.
    pub fn look(&self, source: Source) {
        self.supervisor.look(source);
    }

    /// See [`Supervisor::set_pace`].
    pub fn set_pace(&self, times: f32) {
        self.supervisor.set_pace(times);
    }

    /// Observers that have not come back from their look, each said once until it is heard of again.
    pub fn newly_stuck(&mut self) -> Vec<(Source, Span)> {
        let stuck = self.supervisor.stuck(STUCK_AFTER);
        let new = |(source, busy): &(Source, Span)| {
            (!source.on_request() || *busy > STUCK_ASKING) && self.stuck.insert(*source)
        };
        stuck.into_iter().filter(new).collect()
    }

    /// Ends the observer of `source`, and starts `opener` in its place when it has ended.
    pub fn replace(&mut self, source: Source, opener: Opener) {
        self.leaving.remove(&source);
        self.replaced.insert(source, opener.clone());
        if self.running.contains(&source) {
            self.supervisor.stop_one(source);
        } else {
            self.replaced.remove(&source);
            if let Some(restarts) = &mut self.restarts {
                restarts.forget(source);
            }
            self.supervisor.restart(source, Some(opener));
            self.running.insert(source);
        }
    }

    /// Ends the observer of `source` for good; where there is none, nothing happens.
    pub fn end(&mut self, source: Source) {
        self.replaced.remove(&source);
        if let Some(restarts) = &mut self.restarts {
            restarts.forget(source);
        }
        if self.running.contains(&source) {
            self.leaving.insert(source);
            self.supervisor.stop_one(source);
        }
    }

    /// How often each observer was started anew.
    pub fn restarted(&self) -> BTreeMap<Source, u64> {
        self.restarts.as_ref().map(Restarts::counts).unwrap_or_default()
    }

    /// CPU time that each observer has used.
    pub fn costs(&self) -> BTreeMap<Source, Span> {
        let cost = |(source, (past, newest)): (&Source, &(Span, Span))| (*source, *past + *newest);
        self.costs.iter().map(cost).collect()
    }

    /// A way to say, from a signal's thread, that the user wants it to end now.
    pub fn interrupter(&self) -> impl Fn() + Send + use<> {
        self.supervisor.interrupter()
    }

    /// A way to wake whoever waits, without an end.
    pub fn waker(&self) -> impl Fn() + Send + use<> {
        self.supervisor.waker()
    }

    /// Whether the user wants it to end now.
    pub fn interrupted(&self) -> bool {
        self.supervisor.interrupted()
    }

    /// Tells all to look fully a last time and end; nobody is started anew from now on.
    pub fn stop(&mut self) {
        self.restarts = None;
        self.supervisor.stop();
    }

    /// As [`Engine::stop`], but for the observer of `last`, which goes on.
    pub fn stop_all_but(&mut self, last: Source) {
        self.restarts = None;
        self.supervisor.stop_all_but(last);
    }
}

#[cfg(test)]
mod tests;

//! The running observers and the world that they feed: what every command that watches a live host is built on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::mpsc::Receiver;

use super::record::Recorder;
use crate::observation::{Body, Observation, Request, Source, SourceStatus};
use crate::observe::supervisor::{Event, Opener, Supervisor};
use crate::redact::Anonymiser;
use crate::sys::clock;
use crate::time::{Span, Timestamp};
use crate::track::World;

/// How long an observer's first look may take where the user wants one look only, and how long its last look may
/// take in any case. A hung WireGuard daemon costs its own time-out (1 s), so this is beyond it.
pub const LOOK_LIMIT: Span = Span::from_secs(3);

/// Route look-ups under way at once; an observer's queue has twice the places.
const LOOKUPS: usize = 512;

/// What came of watching or replaying.
pub struct Judged {
    /// The state to judge.
    pub world: World,
    /// Why the record is incomplete, where it is.
    pub record_error: Option<anyhow::Error>,
}

/// What to run.
pub struct Start {
    /// When watching begins, as the record says too.
    pub started: Timestamp,
    /// The observers to start.
    pub observers: Vec<(Source, Opener)>,
    /// Where to record to.
    pub recorder: Option<Recorder>,
    /// Replaces names in what is shown and recorded.
    pub anonymiser: Option<Anonymiser>,
}

/// Observers under way and what they have told.
pub struct Engine {
    /// The state, with true names.
    pub world: World,
    /// With `--anonymise`: what is judged and shown. Requests need the true addresses, so both are kept.
    shown: Option<(Anonymiser, World)>,
    recorder: Option<Recorder>,
    pub(super) supervisor: Supervisor,
    no_first_look: BTreeSet<Source>,
    pub(super) running: BTreeSet<Source>,
    /// Requests under way, by who is to answer them.
    unanswered: BTreeMap<Source, usize>,
    /// Route look-ups to be asked for; the tracker bounds them for each device.
    lookups: VecDeque<Request>,
    /// Route look-ups that nobody took.
    not_asked: usize,
}

impl Engine {
    /// Starts the observers. What they tell arrives on the channel and is to be passed to [`Engine::take`].
    pub fn start(start: Start) -> (Self, Receiver<Event>) {
        let sources: BTreeSet<Source> = start.observers.iter().map(|(source, _)| *source).collect();
        let (supervisor, events) = Supervisor::start(start.observers);
        let engine = Self {
            world: World::new(start.started),
            shown: start.anonymiser.map(|a| (a, World::new(start.started))),
            recorder: start.recorder,
            supervisor,
            no_first_look: sources.clone(),
            running: sources,
            unanswered: BTreeMap::new(),
            lookups: VecDeque::new(),
            not_asked: 0,
        };
        (engine, events)
    }

    /// A way to say, from a signal's thread, that the user wants it to end now.
    pub fn interrupter(&self) -> impl Fn() + Send + use<> {
        self.supervisor.interrupter()
    }

    /// Whether the user wants it to end now.
    pub fn interrupted(&self) -> bool {
        self.supervisor.interrupted()
    }

    /// Whether every source has looked once and everything that was asked for is answered.
    pub fn has_looked(&self) -> bool {
        self.no_first_look.is_empty() && self.all_answered()
    }

    /// How many sources have not looked yet.
    pub fn awaited(&self) -> usize {
        self.no_first_look.len()
    }

    fn all_answered(&self) -> bool {
        self.unanswered.values().all(|n| *n == 0)
    }

    /// Whether there is enough to tell findings by. Counting connects takes a while to begin, and has counted none then.
    pub fn can_foretell(&self) -> bool {
        self.all_answered() && self.no_first_look.iter().all(|s| *s == Source::Bpf)
    }

    /// Takes in what an observer told, and asks for what would tell more.
    pub fn take(&mut self, event: Event) {
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

    pub(super) fn see(&mut self, observation: &Observation) {
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

    fn report(&mut self, source: Source, status: SourceStatus) {
        self.see(&Observation {
            at: clock::now(),
            took: Span::ZERO,
            source,
            body: Body::Status(status),
        });
    }

    /// The last look of each observer; one that hangs is left behind and said to be.
    pub fn finish(mut self, events: &Receiver<Event>) -> Judged {
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
        // The clock may have been set back since the world's time was last told.
        let end = clock::now().max(self.world.now);
        let record_error = self.recorder.take().and_then(|recorder| recorder.end(end).err());
        let mut world = match self.shown {
            Some((_, shown)) => shown,
            None => self.world,
        };
        world.handle_timeout(end);
        Judged { world, record_error }
    }
}

fn record(recorder: &mut Option<Recorder>, observation: &Observation) {
    if let Some(recorder) = recorder {
        recorder.write(observation);
    }
}

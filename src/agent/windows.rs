//! The world, seen through windows: what is older than a window is forgotten as a whole.
//!
//! In: observations, for as long as the agent lives. Out: a near [`World`] of one to two minutes, and a far one of
//! `long_window` (by default fifteen minutes) to twice that. Why: every tracker and rule was made, and proved, for a look that begins and ends; "while watched"
//! must not come to mean "last month". Each window is two worlds, one begun half-way through the other's life; when the
//! younger has watched long enough it takes the place of the older, which is dropped. So memory is bounded over days by
//! what a look may hold, whatever a tracker keeps.
//!
//! A newborn world is given the newest state that each source told (devices, routes, settings), so that it is never
//! blind, and what moves is measured from there on. Not from a source that sees nothing any more: what it told then is no
//! longer how things are.

use std::collections::{BTreeSet, HashMap};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use super::ledger::Sight;
use crate::observation::connect::ConnectTally;
use crate::observation::target::Target;
use crate::observation::{Body, Observation, Request, Source, SourceState};
use crate::time::{Span, Timestamp};
use crate::track::World;

/// A near world has watched for this long at least, once the agent has.
pub const NEAR: Span = Span::from_secs(60);

/// An observation may be this much older than the newest: looks take a while, and queues are served in turn.
const LATE: Span = Span::from_secs(10);
/// No observation for this long although the host's settings are read every few seconds: the host slept, or its clock jumped.
const GAP: Span = Span::from_secs(120);

/// Findings about what happens seldom: they are judged by the far world.
const FAR_CODES: &[&str] = &[
    "nat-external-changed",
    // These compare with what was usual, and paths are measured once a minute.
    "path-jitter",
    "path-latency",
    "wg-clock-replay",
    "wg-duplicate-key",
    "wg-handshake-loss",
    "wg-nat-rebinding",
    "wg-roamed",
    "wg-roaming-unstable",
];

/// Whether `code` is judged by the far world.
pub fn is_far(code: &str) -> bool {
    FAR_CODES.contains(&code)
}

/// The clock was set, or the host slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Set back by this.
    Back(Span),
    /// Nothing was seen for this long, or it was set forward.
    Forward(Span),
}

/// Both windows.
#[derive(Debug)]
pub struct Windows {
    near: Window,
    far: Window,
    seeds: Seeds,
    newest: Timestamp,
}

impl Windows {
    /// Watching begins at `started`; the far world has watched for `far` at least, once the agent has.
    pub fn new(started: Timestamp, far: Span) -> Self {
        Self {
            near: Window::new(NEAR, started),
            far: Window::new(far, started),
            seeds: Seeds::default(),
            newest: started,
        }
    }

    /// What has been for a minute or two.
    pub fn near(&self) -> &World {
        &self.near.old.world
    }

    /// What has been for `long_window` to twice that. It has no sockets, processes or connection tables.
    pub fn far(&self) -> &World {
        &self.far.old.world
    }

    /// From now on the far world watches for this long. A shorter one takes effect at once, a longer one as time passes.
    pub fn set_far(&mut self, far: Span) {
        self.far.span = far;
    }

    /// Which sources see, as each said last; what a world saw before its source went blind is no sight.
    pub fn sight(&self) -> Sight {
        let mut sight = Sight::default();
        for (source, blind) in self.seeds.states() {
            let set = if blind { &mut sight.blind } else { &mut sight.sees };
            set.insert(source);
        }
        sight
    }

    /// Takes an observation in. Look-ups that would tell more come back, and whether the clock was set.
    pub fn apply(&mut self, observation: Observation) -> (Vec<Request>, Option<Step>) {
        let at = observation.at;
        let step = self.step(at);
        self.newest = if step.is_some() { at } else { self.newest.max(at) };
        let observation = Arc::new(observation);
        self.seeds.remember(&observation);
        if step.is_some() {
            // What was measured before and after cannot be compared.
            self.near.begin_anew(at, &self.seeds);
            self.far.begin_anew(at, &self.seeds);
            return (Vec::new(), step);
        }
        let mut requests = self.near.apply(&observation, &self.seeds);
        if belongs_far(&observation.body) {
            requests.extend(self.far.apply(&observation, &self.seeds));
        }
        dedup(&mut requests);
        (requests, step)
    }

    /// Forgets what `source` told: it is no longer asked, or something else. What was seen of the host itself stays with the
    /// worlds that saw it.
    pub fn forget(&mut self, source: Source) {
        self.seeds.0.retain(|(of, ..), _| *of != source);
        for window in [&mut self.near, &mut self.far] {
            for watched in window.worlds() {
                watched.world.forget(source);
            }
        }
    }

    fn step(&self, at: Timestamp) -> Option<Step> {
        let (back, forward) = (self.newest - at, at - self.newest);
        if back > LATE {
            Some(Step::Back(back))
        } else if forward > GAP {
            Some(Step::Forward(forward))
        } else {
            None
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for window in [&mut self.near, &mut self.far] {
            window.turn(now, &self.seeds);
            window.old.world.handle_timeout(now);
        }
    }
}

/// Large tables say nothing about what is judged from afar.
fn belongs_far(body: &Body) -> bool {
    !matches!(
        body,
        Body::Sockets(_) | Body::Processes(_) | Body::Connects(_) | Body::ConntrackTally(_)
    )
}

fn dedup(requests: &mut Vec<Request>) {
    let mut seen = std::collections::HashSet::new();
    requests.retain(|request| seen.insert(request.clone()));
}

#[derive(Debug)]
struct Window {
    span: Span,
    old: Watched,
    /// From half-way through the older one's life on.
    young: Option<Watched>,
}

impl Window {
    fn new(span: Span, started: Timestamp) -> Self {
        Self {
            span,
            old: Watched::new(started),
            young: None,
        }
    }

    fn worlds(&mut self) -> impl Iterator<Item = &mut Watched> {
        std::iter::once(&mut self.old).chain(&mut self.young)
    }

    fn begin_anew(&mut self, now: Timestamp, seeds: &Seeds) {
        self.young = None;
        self.old = newborn(now, seeds);
    }

    fn turn(&mut self, now: Timestamp, seeds: &Seeds) {
        let newest = self.young.as_ref().unwrap_or(&self.old);
        if now - newest.world.started >= self.span
            && let Some(grown) = self.young.replace(newborn(now, seeds))
        {
            self.old = grown;
        }
    }

    fn apply(&mut self, observation: &Observation, seeds: &Seeds) -> Vec<Request> {
        self.turn(observation.at, seeds);
        self.worlds()
            .flat_map(|watched| watched.apply(observation))
            .collect()
    }
}

/// A world that begins now and knows how things are.
fn newborn(now: Timestamp, seeds: &Seeds) -> Watched {
    let mut newborn = Watched::new(now);
    seeds.give(&mut newborn, now);
    newborn
}

/// A world, and from where on it counts what the kernel has counted since the agent began.
#[derive(Debug)]
struct Watched {
    world: World,
    connects: Option<ConnectTally>,
}

impl Watched {
    fn new(started: Timestamp) -> Self {
        Self {
            world: World::new(started),
            connects: None,
        }
    }

    fn apply(&mut self, observation: &Observation) -> Vec<Request> {
        match &observation.body {
            Body::Connects(tally) => {
                let body = Body::Connects(match &self.connects {
                    Some(base) => tally.since(base, self.world.started),
                    None => tally.clone(),
                });
                let observation = Observation { body, ..*observation };
                self.world.apply(&observation);
            }
            _ => self.world.apply(observation),
        }
        self.world.requests_after(observation)
    }
}

/// The newest of each kind that each source told; of paths, of each target, of which a configuration names few.
#[derive(Debug, Default)]
struct Seeds(HashMap<(Source, Discriminant<Body>, Option<Target>), Arc<Observation>>);

impl Seeds {
    fn remember(&mut self, observation: &Arc<Observation>) {
        // These tell what happened, not how things are.
        if matches!(
            observation.body,
            Body::Packet(_)
                | Body::IcmpError(_)
                | Body::Checked(_)
                | Body::Initiations(_)
                | Body::RouteAnswer(_)
        ) {
            return;
        }
        let target = match &observation.body {
            Body::Path(sample) => Some(sample.target.clone()),
            _ => None,
        };
        let key = (observation.source, discriminant(&observation.body), target);
        self.0.insert(key, Arc::clone(observation));
    }

    /// Every source that said how it fares, and whether it sees nothing.
    fn states(&self) -> impl Iterator<Item = (Source, bool)> {
        self.0.values().filter_map(|seed| match &seed.body {
            Body::Status(status) => Some((seed.source, status.state == SourceState::Unavailable)),
            _ => None,
        })
    }

    fn give(&self, watched: &mut Watched, now: Timestamp) {
        let blind: BTreeSet<_> = self
            .states()
            .filter(|(_, blind)| *blind)
            .map(|(s, _)| s)
            .collect();
        let mut seeds: Vec<_> = self.0.values().collect();
        seeds.sort_by_key(|seed| seed.at);
        for seed in seeds {
            if let Body::Connects(tally) = &seed.body {
                watched.connects = Some(tally.clone());
                continue;
            }
            let told = matches!(seed.body, Body::Status(_)) || !blind.contains(&seed.source);
            if !told || now - seed.at > keeps(&seed.body) {
                continue;
            }
            // What a clock that was set back has dated into the future is as of now.
            let at = seed.at.min(now);
            if at == seed.at {
                watched.world.apply(seed);
            } else {
                watched.world.apply(&Observation {
                    at,
                    ..Observation::clone(seed)
                });
            }
        }
    }
}

/// How long what was measured may pass for how things are, where nothing newer came: longer than the longest interval, slowed
/// down by the longest pace.
const fn keeps(body: &Body) -> Span {
    match body {
        Body::Path(_) => Span::from_secs(2 * 3600),
        Body::Nat(_) => Span::from_secs(2 * 86_400),
        _ => Span::MAX,
    }
}

#[cfg(test)]
mod tests;

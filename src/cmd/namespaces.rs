//! Every other network namespace of the host, watched beside it (`--all-netns`): sockets, conntrack and NAT rules.
//!
//! A few threads go round the namespaces once a second. A thread enters one, opens what it needs, looks, closes everything
//! and leaves: a namespace lives as long as anything holds it, so none is held between two looks, and one that ends is seen to
//! end. Each has a world of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use crate::config::Thresholds;
use crate::observation::{Body, Observation, Source, SourceState, SourceStatus};
use crate::observe::conntrack::{ConntrackObserver, Memory};
use crate::observe::dump_plan::Budget;
use crate::observe::host::Host;
use crate::observe::nat_rules::NatRulesObserver;
use crate::observe::sockets::SocketObserver;
use crate::observe::{Emit, ObserveError, Observer};
use crate::report::namespaces::{Judged, NamespaceRow, NamespaceState};
use crate::rules::{self, Area, Input};
use crate::sys::clock;
use crate::sys::netns::{self, Listed, Netns};
use crate::time::Span;
use crate::track::World;

/// Namespaces watched at most, in the order of their names; how many are left out is said.
const MAX: usize = 256;

/// Threads that go round.
const THREADS: usize = 4;

/// How often each namespace is looked at.
const INTERVAL: Span = Span::from_secs(1);

/// A socket table that takes more CPU time than this is read at first and at last only.
const DEAR: Span = Span::from_millis(20);

/// CPU time that all conntrack tables together may take at once beside the first reading of each.
const BURST: Span = Span::from_secs(1);

/// How long the last looks may take.
const LAST_LOOK: Span = Span::from_secs(10);

/// The watch.
pub struct Namespaces {
    stop: Vec<Sender<()>>,
    done: Receiver<Vec<Space>>,
    started: usize,
    left_out: usize,
    unreadable: usize,
}

/// What came of it.
pub struct Watched {
    /// Of each namespace.
    pub judged: Vec<Judged>,
    /// How the watch as a whole fared, as a source.
    pub status: SourceStatus,
}

impl Namespaces {
    /// Starts to watch all but the calling thread's own. Threads that cannot be started watch nothing, which is said.
    pub fn start(cpu_budget: f64) -> Self {
        let listing = netns::list(MAX);
        let count = u32::try_from(listing.found.len().max(1)).unwrap_or(u32::MAX);
        let budget = Budget {
            share: cpu_budget / f64::from(count),
            burst: BURST / count,
            eager: true,
        };
        let mut parts: Vec<Vec<Space>> = (0..THREADS).map(|_| Vec::new()).collect();
        for (n, listed) in listing.found.into_iter().enumerate() {
            if let Some(part) = parts.get_mut(n % THREADS) {
                part.push(Space::new(listed, budget));
            }
        }
        let first = Arc::new(AtomicUsize::new(
            parts.iter().filter(|part| !part.is_empty()).count(),
        ));
        let (finished, done) = channel();
        let mut stop = Vec::new();
        let mut started = 0;
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (sender, receiver) = channel();
            let finished = finished.clone();
            let names: Vec<Listed> = part.iter().map(|s| s.listed.clone()).collect();
            let spawned = std::thread::Builder::new()
                .name("namespaces".to_owned())
                .stack_size(512 * 1024)
                .spawn({
                    let (finished, first) = (finished.clone(), Arc::clone(&first));
                    move || {
                        let _ = finished.send(go_round(part, &receiver, &first));
                    }
                });
            started += 1;
            match spawned {
                Ok(_) => stop.push(sender),
                Err(error) => {
                    let failed = names.into_iter().map(|listed| Space {
                        trouble: Some((
                            NamespaceState::Unavailable,
                            format!("cannot start a thread: {error}"),
                        )),
                        ..Space::new(listed, budget)
                    });
                    let _ = finished.send(failed.collect());
                }
            }
        }
        Self {
            stop,
            done,
            started,
            left_out: listing.left_out,
            unreadable: listing.unreadable,
        }
    }

    /// Looks a last time and judges.
    pub fn finish(mut self, thresholds: &Thresholds) -> Watched {
        // Each thread sees its channel close.
        self.stop.clear();
        let mut spaces = Vec::new();
        let begun = clock::instant();
        let mut missing = self.started;
        while missing > 0 {
            let left = LAST_LOOK.saturating_sub(clock::instant().duration_since(begun));
            match self.done.recv_timeout(left) {
                Ok(part) => {
                    spaces.extend(part);
                    missing -= 1;
                }
                Err(_) => break,
            }
        }
        spaces.sort_by(|a, b| a.listed.name.cmp(&b.listed.name));
        let status = self.status(&spaces, missing);
        let judged = spaces.into_iter().map(|space| space.judge(thresholds)).collect();
        Watched { judged, status }
    }

    fn status(&self, spaces: &[Space], hung: usize) -> SourceStatus {
        let mut reasons = Vec::new();
        let of = |state| {
            let names: Vec<String> = spaces
                .iter()
                .filter_map(|s| match &s.trouble {
                    Some((found, why)) if *found == state => Some(format!("{} ({why})", s.listed.name)),
                    _ => None,
                })
                .collect();
            (!names.is_empty()).then(|| some(&names))
        };
        if let Some(gone) = of(NamespaceState::Gone) {
            reasons.push(format!("gone while it was watched: {gone}"));
        }
        if let Some(blind) = of(NamespaceState::Unavailable) {
            reasons.push(format!("not seen: {blind}"));
        }
        if hung > 0 {
            reasons.push("some did not end their last look in time".to_owned());
        }
        if self.left_out > 0 {
            reasons.push(format!(
                "{} more than the first {MAX} were not watched",
                self.left_out
            ));
        }
        if self.unreadable > 0 {
            reasons.push(format!(
                "the namespaces of {} processes cannot be told (needs CAP_SYS_PTRACE)",
                self.unreadable
            ));
        }
        let seen = spaces.iter().any(|s| s.trouble.is_none());
        let cost = spaces.iter().map(|s| s.cost).sum();
        let status = match reasons.is_empty() {
            true => SourceStatus::ok(),
            false if !seen && !spaces.is_empty() => SourceStatus::unavailable(reasons.join("; ")),
            false => SourceStatus::degraded(reasons.join("; ")),
        };
        SourceStatus {
            cost_cpu: cost,
            ..status
        }
    }
}

/// The first few, and how many more.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let first = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Looks at each once a second until told to stop, then fully, and gives them back. `first` counts the threads that have not
/// been round once.
fn go_round(mut spaces: Vec<Space>, stop: &Receiver<()>, first: &AtomicUsize) -> Vec<Space> {
    let home = Netns::open("/proc/thread-self/ns/net");
    let mut round = false;
    loop {
        let begun = clock::instant();
        for space in &mut spaces {
            space.look(&home, false);
        }
        if !round {
            round = true;
            if first.fetch_sub(1, Ordering::Relaxed) == 1 {
                tracing::info!("namespaces: each has been looked at once");
            }
        }
        let left = INTERVAL.saturating_sub(clock::instant().duration_since(begun));
        match stop.recv_timeout(left) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for space in &mut spaces {
        space.look(&home, true);
    }
    spaces
}

/// A namespace under watch.
struct Space {
    listed: Listed,
    world: World,
    conntrack: Option<Memory>,
    budget: Budget,
    /// CPU time of the last reading of its sockets.
    sockets_cost: Span,
    looked: bool,
    trouble: Option<(NamespaceState, String)>,
    cost: Span,
    costs: BTreeMap<Source, Span>,
}

impl Space {
    fn new(listed: Listed, budget: Budget) -> Self {
        Self {
            listed,
            world: World::new(clock::now()),
            conntrack: None,
            budget,
            sockets_cost: Span::ZERO,
            looked: false,
            trouble: None,
            cost: Span::ZERO,
            costs: BTreeMap::new(),
        }
    }

    fn look(&mut self, home: &Result<Netns, netns::NetnsError>, last: bool) {
        if self.trouble.is_some() {
            return;
        }
        let cpu = clock::thread_cpu();
        if let Err(trouble) = self.enter_and_look(last) {
            self.trouble = Some(trouble);
        }
        // Not to be left in it: it would live as long as this thread.
        let back = home.as_ref().map(Netns::enter);
        if !matches!(back, Ok(Ok(()))) && self.trouble.is_none() {
            let why = "its thread did not get back to its own namespace".to_owned();
            self.trouble = Some((NamespaceState::Degraded, why));
        }
        self.looked = true;
        self.cost += clock::thread_cpu().saturating_sub(cpu);
    }

    fn enter_and_look(&mut self, last: bool) -> Result<(), (NamespaceState, String)> {
        let netns = self.open()?;
        netns
            .enter()
            .map_err(|error| (NamespaceState::Unavailable, error.to_string()))?;
        drop(netns);
        let ends = last || !self.looked;
        if ends {
            let name = self.listed.shell_name();
            self.observe(Source::Host, false, || Host::open(Some(name)));
            self.observe(Source::NatRules, false, NatRulesObserver::open);
        }
        if ends || self.sockets_cost < DEAR {
            let cpu = clock::thread_cpu();
            self.observe(Source::Sockets, false, SocketObserver::open);
            self.sockets_cost = clock::thread_cpu().saturating_sub(cpu);
        }
        let memory = self.conntrack.take().unwrap_or_else(|| Memory::new(self.budget));
        let observer = self.observe(Source::Conntrack, last, || {
            ConntrackObserver::open_remembering(memory)
        });
        self.conntrack = observer.map(ConntrackObserver::into_memory);
        Ok(())
    }

    /// Opens it where it is, or where it has moved: another process may be in it.
    fn open(&mut self) -> Result<Netns, (NamespaceState, String)> {
        let gone = |looked| match looked {
            true => (
                NamespaceState::Gone,
                "what was seen until then is told".to_owned(),
            ),
            false => (NamespaceState::Gone, "before it was looked at".to_owned()),
        };
        let same = |netns: &Netns, listed: &Listed| netns.id() == Some(listed.id);
        match Netns::open(&self.listed.path.to_string_lossy()) {
            Ok(netns) if same(&netns, &self.listed) => return Ok(netns),
            Err(error) if error.is_denied() => {
                return Err((NamespaceState::Unavailable, error.to_string()));
            }
            _ => {}
        }
        let again = netns::list(MAX)
            .found
            .into_iter()
            .find(|l| l.id == self.listed.id);
        let Some(again) = again else {
            return Err(gone(self.looked));
        };
        self.listed.path = again.path;
        match Netns::open(&self.listed.path.to_string_lossy()) {
            Ok(netns) if same(&netns, &self.listed) => Ok(netns),
            _ => Err(gone(self.looked)),
        }
    }

    /// Opens an observer, looks once, takes in what it saw, and gives it back.
    fn observe<O: Observer>(
        &mut self,
        source: Source,
        fully: bool,
        open: impl FnOnce() -> Result<O, ObserveError>,
    ) -> Option<O> {
        let cpu = clock::thread_cpu();
        let world = &mut self.world;
        let mut send = |at, took, source, body| {
            world.apply(&Observation {
                at,
                took,
                source,
                body,
            });
        };
        let (observer, looked) = match open() {
            Ok(mut observer) => {
                let mut emit = Emit::new(source, &mut send);
                let looked = if fully {
                    observer.look_fully(&mut emit)
                } else {
                    observer.look(&mut emit)
                };
                (Some(observer), looked)
            }
            Err(error) => (None, Err(error)),
        };
        let mut status = looked.unwrap_or_else(|error| SourceStatus::unavailable(error.to_string()));
        let cost = self.costs.entry(source).or_default();
        *cost += clock::thread_cpu().saturating_sub(cpu);
        status.cost_cpu = *cost;
        send(clock::now(), Span::ZERO, source, Body::Status(status));
        observer
    }

    fn judge(self, thresholds: &Thresholds) -> Judged {
        let catalogue: Vec<_> = rules::registry::rules()
            .filter(|rule| matches!(rule.area, Area::Ports | Area::Conntrack))
            .collect();
        let evaluation = rules::evaluate(
            &catalogue,
            &Input {
                world: &self.world,
                thresholds,
            },
        );
        let (state, reason) = match self.trouble {
            Some((state, reason)) => (state, Some(reason)),
            None => match self.world.sources.get(Source::Sockets) {
                Some(status) if status.state == SourceState::Ok => (NamespaceState::Ok, None),
                Some(status) => (NamespaceState::Degraded, status.reason.clone()),
                None => (NamespaceState::Degraded, Some("not looked at in time".to_owned())),
            },
        };
        Judged {
            row: NamespaceRow {
                name: self.listed.name,
                inode: self.listed.id.0,
                state,
                reason,
                conntrack: self.world.conntrack.newest().map(|stats| stats.count),
                tcp_sockets: self
                    .world
                    .sockets
                    .newest()
                    .map(|(_, tally)| tally.tcp.total().into()),
                findings: 0,
            },
            evaluation,
        }
    }
}

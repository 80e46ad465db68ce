//! Gives the machines of [`crate::probe`] sockets and a clock: many peers at once, on one thread.
//!
//! Needs: nothing but the right to open UDP sockets (and TCP for WebSockets). Costs: one socket and a few KiB a peer, four
//! scalar multiplications an initiation. Each peer is a task; one [`Pacing`] for all keeps the rate towards one address
//! bounded. An interrupt ends all tasks; what they have told so far stands.

pub mod beside;
mod clock;
mod inside;
mod pipe;
mod task;
mod udp;
mod websocket;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::LocalSet;

use crate::observation::probe::{Fact, ProbeFact, Skipped, Target};
use crate::observation::{Body, Observation, Source};
use crate::probe::ask::Question;
use crate::probe::handshake::Plan;
use crate::probe::pacing::Pacing;
use crate::time::Span;
use crate::wire::noise::initiator::Identity;
use clock::Clock;

/// Facts under way; tasks wait when it is full.
const QUEUE: usize = 1024;

/// A peer to probe. It holds keys and so has no `Debug`.
pub struct Job {
    /// Who it is.
    pub target: Target,
    /// The host's name, for TLS.
    pub host: String,
    /// The keys; `Err` says why it is not probed.
    pub identity: Result<Identity, Skipped>,
    /// 32 random bytes.
    pub seed: [u8; 32],
    /// How to shake hands.
    pub plan: Plan,
    /// What to ask through the tunnel.
    pub inner: InnerPlan,
}

/// What to ask through the tunnel, where a session comes up.
#[derive(Clone, Debug, Default)]
pub struct InnerPlan {
    /// This side's addresses in the tunnel.
    pub sources: Vec<IpAddr>,
    /// The questions, in order.
    pub questions: Vec<Question>,
    /// Search for the largest packet to this address.
    pub mtu: Option<IpAddr>,
    /// Search for the lifetime of the NAT's mapping with this server's repetitions.
    pub lifetime: Option<SocketAddr>,
    /// How long each answer may take.
    pub timeout: Span,
}

impl InnerPlan {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.mtu.is_none() && self.lifetime.is_none()
    }
}

/// What tasks share.
struct Shared {
    clock: Clock,
    pacing: RefCell<Pacing>,
    facts: mpsc::Sender<Observation>,
    stopped: watch::Receiver<bool>,
    /// One permit a peer's socket.
    sockets: Semaphore,
}

impl Shared {
    async fn tell(&self, target: u32, fact: Fact) {
        let observation = Observation {
            at: self.clock.now(),
            took: Span::ZERO,
            source: Source::Probe,
            body: Body::Probe(ProbeFact { target, fact }),
        };
        // The receiver outlives the tasks, but for a run that is stopped.
        let _ = self.facts.send(observation).await;
    }
}

/// Jobs in the order of their numbers, those of one pair of keys together: these go one after the other, for a responder
/// takes rising timestamps only, and has one endpoint for a key.
fn by_keys(jobs: Vec<Job>) -> Vec<Vec<(u32, Job)>> {
    let mut places = BTreeMap::new();
    let mut groups: Vec<Vec<(u32, Job)>> = Vec::new();
    for (number, job) in (0..).zip(jobs) {
        let keys = (job.target.local_public_key, job.target.public_key);
        let place = *places.entry(keys).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push((number, job)),
            None => groups.push(vec![(number, job)]),
        }
    }
    groups
}

/// Stops a run from another thread.
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Ends it soon.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// A run that can be stopped.
pub struct Prober {
    stopped: watch::Receiver<bool>,
}

impl Prober {
    /// One, and what stops it.
    pub fn new() -> (Self, Stopper) {
        let (sender, stopped) = watch::channel(false);
        (Self { stopped }, Stopper(sender))
    }

    /// Probes all of `jobs`, at most `at_once` at the same time, and hands each fact to `emit`. Returns when all is said, or
    /// soon after it was stopped.
    pub fn run(self, jobs: Vec<Job>, at_once: usize, emit: &mut dyn FnMut(Observation)) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (facts, mut told) = mpsc::channel(QUEUE);
        let mut stopped = self.stopped.clone();
        let shared = Rc::new(Shared {
            clock: Clock::start(),
            pacing: RefCell::default(),
            facts,
            stopped: self.stopped,
            sockets: Semaphore::new(at_once.max(1)),
        });
        let tasks = LocalSet::new();
        for jobs in by_keys(jobs) {
            let shared = Rc::clone(&shared);
            tasks.spawn_local(async move {
                let mut stamp = None;
                for (number, job) in jobs {
                    stamp = task::run(number, job, &shared, stamp).await;
                }
            });
        }
        drop(shared);
        let collect = async {
            loop {
                tokio::select! {
                    fact = told.recv() => match fact {
                        Some(fact) => emit(fact),
                        None => break,
                    },
                    Ok(()) = stopped.changed() => break,
                }
            }
            while let Ok(fact) = told.try_recv() {
                emit(fact);
            }
        };
        tasks.block_on(&runtime, collect);
        Ok(())
    }
}

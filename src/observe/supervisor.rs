//! Starts each observer on a thread, wakes it, measures it, stops it, and survives one that hangs or panics.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Emit, ObserveError, Observer};
use crate::observation::{Body, Observation, Request, Source, SourceStatus};
use crate::sys::clock;

/// Observations under way; when it is full observers wait, and the kernel counts what they miss.
const QUEUE: usize = 4096;

/// Makes an observer, on the thread that will run it; again where it is started anew.
pub type Opener = Arc<dyn Fn() -> Result<Box<dyn Observer>, ObserveError> + Send + Sync>;

/// [`Supervisor::set_pace`] counts in hundredths.
const FULL_PACE: u32 = 100;

/// So many looks in a row may fail before an observer that is to look for good is given up, to be opened anew: what it opened
/// may be broken for good (a socket, a number that the kernel gave out), while what it looks at is there.
const FAILURES: u32 = 3;

/// Nothing can be waited for: try again after this, and do not spin.
const CANNOT_WAIT: Duration = Duration::from_millis(100);

enum Command {
    Ask(Request),
    Look,
    Stop,
}

struct Running {
    source: Source,
    commands: SyncSender<Command>,
    wake: Arc<EventFd>,
    /// Milliseconds of the monotonic clock at which the look under way began; 0 between looks.
    busy_since: Arc<AtomicU64>,
}

/// The running observers.
pub struct Supervisor {
    running: Vec<Running>,
    /// How each is opened, also where its thread could not be started.
    openers: BTreeMap<Source, Opener>,
    events: SyncSender<Event>,
    interrupted: Arc<AtomicBool>,
    pace: Arc<AtomicU32>,
    /// An observer whose looks keep failing ends.
    for_good: bool,
}

/// What arrives from the observers.
pub enum Event {
    /// Something seen.
    Seen(Box<Observation>),
    /// An observer has done its first look (or cannot look at all).
    FirstLook(Source),
    /// A request has been answered (or could not be).
    Answered(Source),
    /// An observer has ended.
    Ended(Source),
    /// Wakes whoever waits for events, who then sees [`Supervisor::interrupted`].
    Interrupted,
}

impl Supervisor {
    /// Starts them all. A thread that cannot be started is reported as an unavailable source.
    pub fn start(openers: Vec<(Source, Opener)>) -> (Self, Receiver<Event>) {
        Self::begin(openers, false)
    }

    /// As [`Supervisor::start`], for whoever starts anew what has ended: an observer ends when its looks keep failing.
    pub fn start_for_good(openers: Vec<(Source, Opener)>) -> (Self, Receiver<Event>) {
        Self::begin(openers, true)
    }

    fn begin(openers: Vec<(Source, Opener)>, for_good: bool) -> (Self, Receiver<Event>) {
        let (events, receiver) = sync_channel(QUEUE);
        let mut supervisor = Self {
            running: Vec::new(),
            openers: BTreeMap::new(),
            events,
            interrupted: Arc::default(),
            pace: Arc::new(AtomicU32::new(FULL_PACE)),
            for_good,
        };
        for (source, opener) in openers {
            supervisor.start_one(source, opener);
        }
        (supervisor, receiver)
    }

    fn start_one(&mut self, source: Source, opener: Opener) {
        self.openers.insert(source, Arc::clone(&opener));
        let pace = Arc::clone(&self.pace);
        match start_one(source, opener, self.events.clone(), pace, self.for_good) {
            Ok(one) => self.running.push(one),
            Err(error) => {
                let status = SourceStatus::unavailable(format!("cannot start a thread: {error}"));
                let _ = self
                    .events
                    .try_send(Event::Seen(Box::new(status_observation(source, status))));
                let _ = self.events.try_send(Event::Ended(source));
            }
        }
    }

    /// Starts the observer of `source` anew, after its [`Event::Ended`]; by `opener`, or as it was started before. False
    /// where it was never started and there is no opener.
    pub fn restart(&mut self, source: Source, opener: Option<Opener>) -> bool {
        self.running.retain(|one| one.source != source);
        match opener.or_else(|| self.openers.get(&source).cloned()) {
            Some(opener) => {
                self.start_one(source, opener);
                true
            }
            None => false,
        }
    }

    /// Makes every observer wait `times` as long between two looks as it would like to.
    pub fn set_pace(&self, times: f32) {
        // Beyond a thousandfold nobody would look any more.
        let hundredths = (times.clamp(1.0, 1000.0) * 100.0).round();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        self.pace.store(hundredths as u32, Ordering::Relaxed);
    }

    /// Tells the observer of `source` to look a last time and end.
    pub fn stop_one(&self, source: Source) {
        self.stop_those(|one| one == source);
    }

    /// Observers whose look under way has lasted longer than `limit`, and for how long.
    pub fn stuck(&self, limit: Duration) -> Vec<(Source, Duration)> {
        let now = clock::monotonic();
        let busy = |one: &Running| match one.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => now.saturating_sub(Duration::from_millis(since)),
        };
        self.running
            .iter()
            .map(|one| (one.source, busy(one)))
            .filter(|(_, busy)| *busy > limit)
            .collect()
    }

    /// A way to say, from a signal's thread, that the user wants it to end now.
    pub fn interrupter(&self) -> impl Fn() + Send + use<> {
        let events = self.events.clone();
        let interrupted = Arc::clone(&self.interrupted);
        move || {
            interrupted.store(true, Ordering::Relaxed);
            // Where the queue is full nobody sleeps on it.
            let _ = events.try_send(Event::Interrupted);
        }
    }

    /// A way to wake whoever waits for events, who then sees what has changed.
    pub fn waker(&self) -> impl Fn() + Send + use<> {
        let events = self.events.clone();
        move || {
            let _ = events.try_send(Event::Interrupted);
        }
    }

    /// Whether the user wants it to end now.
    pub fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Passes `request` to the observer of `source`.
    ///
    /// True where it will be answered by an [`Event::Answered`].
    pub fn ask(&self, source: Source, request: Request) -> bool {
        self.running
            .iter()
            .find(|one| one.source == source)
            .is_some_and(|one| one.send(Command::Ask(request)))
    }

    /// Makes the observer of `source` look at once, and fully.
    pub fn look(&self, source: Source) {
        for one in self.running.iter().filter(|one| one.source == source) {
            one.send(Command::Look);
        }
    }

    /// Tells all to look fully a last time and end; their [`Event::Ended`] follow.
    pub fn stop(&self) {
        self.stop_those(|_| true);
    }

    /// As [`Supervisor::stop`], but for the observer of `last`.
    pub fn stop_all_but(&self, last: Source) {
        self.stop_those(|source| source != last);
    }

    fn stop_those(&self, chosen: impl Fn(Source) -> bool) {
        for one in self.running.iter().filter(|one| chosen(one.source)) {
            one.send(Command::Stop);
        }
    }
}

impl Running {
    /// False where the observer has ended or hangs (its queue is full): it must not block us.
    fn send(&self, command: Command) -> bool {
        let sent = self.commands.try_send(command).is_ok();
        if sent {
            let _ = self.wake.write(1);
        }
        sent
    }
}

fn start_one(
    source: Source,
    opener: Opener,
    events: SyncSender<Event>,
    pace: Arc<AtomicU32>,
    for_good: bool,
) -> std::io::Result<Running> {
    let (commands, receiver) = sync_channel(1024);
    let wake = Arc::new(EventFd::from_value_and_flags(
        0,
        EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
    )?);
    let busy_since = Arc::new(AtomicU64::new(0));
    let (theirs, busy) = (Arc::clone(&wake), Arc::clone(&busy_since));
    std::thread::Builder::new()
        .name(source.name().to_owned())
        .stack_size(512 * 1024)
        .spawn(move || {
            let last_events = events.clone();
            let idle = Arc::clone(&busy);
            let run = AssertUnwindSafe(move || {
                Worker {
                    source,
                    events,
                    wake: theirs,
                    busy_since: busy,
                    pace,
                    for_good,
                }
                .run(&opener, &receiver)
            });
            let ran = catch_unwind(run);
            idle.store(0, Ordering::Relaxed);
            if ran.is_err() {
                let status =
                    SourceStatus::unavailable("the observer failed inside (a bug: please report it)");
                let _ = last_events.send(Event::Seen(Box::new(status_observation(source, status))));
            }
            let _ = last_events.send(Event::Ended(source));
        })?;
    Ok(Running {
        source,
        commands,
        wake,
        busy_since,
    })
}

fn status_observation(source: Source, mut status: SourceStatus) -> Observation {
    // What other threads of the observer used is in it already.
    status.cost_cpu += clock::thread_cpu();
    Observation {
        at: clock::now(),
        took: Duration::ZERO,
        source,
        body: Body::Status(status),
    }
}

struct Worker {
    source: Source,
    events: SyncSender<Event>,
    wake: Arc<EventFd>,
    busy_since: Arc<AtomicU64>,
    pace: Arc<AtomicU32>,
    for_good: bool,
}

impl Worker {
    fn run(&self, opener: &Opener, commands: &Receiver<Command>) {
        let mut observer = match opener() {
            Ok(observer) => observer,
            Err(error) => {
                self.report(SourceStatus::unavailable(error.to_string()));
                let _ = self.events.send(Event::FirstLook(self.source));
                return;
            }
        };
        let mut failures = u32::from(self.look(observer.as_mut(), false).is_broken());
        let _ = self.events.send(Event::FirstLook(self.source));
        let mut rested = clock::instant() + observer.rest();
        let mut next = clock::instant() + self.paced(observer.interval());
        loop {
            let woken = if clock::instant() < rested {
                self.wait(None, rested.min(next))
            } else {
                self.wait(observer.wakeup(), next)
            };
            let mut look = woken || clock::instant() >= next;
            let mut fully = false;
            loop {
                match commands.try_recv() {
                    Ok(Command::Ask(request)) => self.answer(observer.as_mut(), &request),
                    Ok(Command::Look) => (look, fully) = (true, true),
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                        self.look(observer.as_mut(), true);
                        return;
                    }
                    Err(TryRecvError::Empty) => break,
                }
            }
            if look {
                failures = match self.look(observer.as_mut(), fully) {
                    Looked::Broken => failures + 1,
                    Looked::Well => 0,
                };
                if self.for_good && failures >= FAILURES {
                    return;
                }
                rested = clock::instant() + observer.rest();
                next = clock::instant() + self.paced(observer.interval());
            }
        }
    }

    fn paced(&self, interval: Duration) -> Duration {
        interval.saturating_mul(self.pace.load(Ordering::Relaxed)) / FULL_PACE
    }

    /// Waits for a command, for the observer's own descriptor, or until `until`. True when the latter is readable.
    fn wait(&self, own: Option<BorrowedFd<'_>>, until: Instant) -> bool {
        let left = until.saturating_duration_since(clock::instant());
        // Rounded up, or the last millisecond would be spun away.
        let millis = u16::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let mut fds = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(own.unwrap_or(self.wake.as_fd()), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return false,
            Err(_) => {
                std::thread::sleep(left.min(CANNOT_WAIT));
                return false;
            }
        }
        if fds[0].any() == Some(true) {
            let _ = self.wake.read();
        }
        own.is_some() && fds[1].any() == Some(true)
    }

    fn look(&self, observer: &mut dyn Observer, fully: bool) -> Looked {
        let mut send = |at, took, source, body| {
            self.send(Observation {
                at,
                took,
                source,
                body,
            })
        };
        let mut emit = Emit::new(self.source, &mut send);
        let since = u64::try_from(clock::monotonic().as_millis()).unwrap_or(u64::MAX);
        self.busy_since.store(since.max(1), Ordering::Relaxed);
        let looked = if fully {
            observer.look_fully(&mut emit)
        } else {
            observer.look(&mut emit)
        };
        self.busy_since.store(0, Ordering::Relaxed);
        match looked {
            Ok(status) => {
                self.report(status);
                Looked::Well
            }
            Err(error) => {
                self.report(SourceStatus::unavailable(error.to_string()));
                if error.may_pass_by_opening() {
                    Looked::Broken
                } else {
                    Looked::Well
                }
            }
        }
    }

    fn answer(&self, observer: &mut dyn Observer, request: &Request) {
        let mut send = |at, took, source, body| {
            self.send(Observation {
                at,
                took,
                source,
                body,
            })
        };
        if let Err(error) = observer.ask(request, &mut Emit::new(self.source, &mut send)) {
            self.report(SourceStatus::degraded(error.to_string()));
        }
        let _ = self.events.send(Event::Answered(self.source));
    }

    fn report(&self, status: SourceStatus) {
        self.send(status_observation(self.source, status));
    }

    fn send(&self, observation: Observation) {
        // The receiver is gone only when the command has ended.
        let _ = self.events.send(Event::Seen(Box::new(observation)));
    }
}

/// What came of a look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// It saw, or there is an answer why it cannot.
    Well,
    /// It failed in a way that may be its own.
    Broken,
}

impl Looked {
    fn is_broken(self) -> bool {
        self == Self::Broken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_is_not_lost_where_the_queue_is_full() {
        let (supervisor, receiver) = Supervisor::start(Vec::new());
        while supervisor.events.try_send(Event::Ended(Source::Host)).is_ok() {}
        assert!(!supervisor.interrupted());
        supervisor.interrupter()();
        assert!(supervisor.interrupted());
        drop(receiver);
    }
}

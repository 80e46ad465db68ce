//! What the agent's threads share: the newest verdict, events, who may ask, and whether the agent is well.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

use super::access::Access;
use super::ledger::Entry;
use super::wire_log::WireLog;
use crate::agent::dashboard::{self, Past, Recent, View};
use crate::output::json;
use crate::output::prometheus::{self, Exposition, Family};
use crate::report::Report;
use crate::report::agent::{AgentStats, Requests};
use crate::store::Reader;
use crate::sys::clock;
use crate::time::{Span, Timestamp};

/// Events kept for a slow reader; what is older it misses, and is told so.
const EVENTS: usize = 256;

/// The loop turns at least every few seconds; when it has not for this long, it hangs.
const WELL_WITHIN: Span = Span::from_secs(30);

/// One verdict with all that is told of it. Texts are made when they are first asked for, and once.
pub struct Snapshot {
    /// The report.
    pub report: Report,
    /// How the agent fares.
    pub stats: AgentStats,
    /// Findings over time.
    pub findings: Vec<Entry>,
    families: OnceLock<Vec<Family>>,
    texts: [OnceLock<Arc<str>>; 4],
    pages: [OnceLock<Arc<str>>; View::COUNT],
}

impl Snapshot {
    /// Of these.
    pub fn new(report: Report, stats: AgentStats, findings: Vec<Entry>) -> Self {
        Self {
            report,
            stats,
            findings,
            families: OnceLock::new(),
            texts: [const { OnceLock::new() }; 4],
            pages: [const { OnceLock::new() }; View::COUNT],
        }
    }

    /// The metrics.
    pub fn families(&self) -> &[Family] {
        self.families
            .get_or_init(|| prometheus::families(&self.report, &self.stats))
    }

    /// The metrics as text.
    pub fn metrics(&self, exposition: Exposition) -> Arc<str> {
        let [prometheus, open, ..] = &self.texts;
        let place = match exposition {
            Exposition::Prometheus => prometheus,
            Exposition::OpenMetrics => open,
        };
        let text = place.get_or_init(|| prometheus::render(self.families(), exposition).into());
        Arc::clone(text)
    }

    /// `wgnat.report/1`.
    pub fn report_json(&self) -> Arc<str> {
        let [.., report, _] = &self.texts;
        Arc::clone(report.get_or_init(|| {
            serde_json::to_string(&json::v1::Report::from(&self.report))
                .unwrap_or_default()
                .into()
        }))
    }

    /// The page at `/`, with what `past` tells of the time before.
    pub fn page(&self, view: View, past: impl FnOnce() -> Past) -> Arc<str> {
        let make = || dashboard::page(self, &past(), view).into();
        match self.pages.get(view.index()) {
            Some(page) => Arc::clone(page.get_or_init(make)),
            None => make(),
        }
    }

    /// `/api/v1/findings`.
    pub fn findings_json(&self) -> Arc<str> {
        let [.., findings] = &self.texts;
        Arc::clone(findings.get_or_init(|| {
            serde_json::to_string(&Findings::from(self))
                .unwrap_or_default()
                .into()
        }))
    }
}

/// `/api/v1/findings`: what holds, what has just gone, and what is over.
#[derive(Serialize)]
struct Findings {
    generated_at: String,
    status: &'static str,
    findings: Vec<FindingRow>,
}

#[derive(Serialize)]
struct FindingRow {
    state: &'static str,
    explained: bool,
    cleared_at: Option<String>,
    /// Since when nobody can tell whether it still holds, where the state is `unknown`.
    not_checked_since: Option<String>,
    /// The sources that would tell.
    missing: Vec<String>,
    finding: json::v1::Finding,
}

impl From<&Snapshot> for Findings {
    fn from(snapshot: &Snapshot) -> Self {
        let row = |entry: &Entry| FindingRow {
            not_checked_since: entry.unseen.as_ref().map(|u| u.since.millis().to_string()),
            missing: entry
                .unseen
                .as_ref()
                .map(|u| u.missing.clone())
                .unwrap_or_default(),
            state: entry.state(),
            explained: entry.explained,
            cleared_at: entry.cleared_at.map(|at| at.millis().to_string()),
            finding: json::v1::Finding::from(&entry.finding),
        };
        Self {
            generated_at: snapshot.report.generated_at.millis().to_string(),
            status: snapshot.report.status.name(),
            findings: snapshot.findings.iter().map(row).collect(),
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Its number; rises by one.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// `finding`, `report`, `collector`, `clock`, `config` or `store`.
    pub kind: &'static str,
    /// What: an object whose fields depend on the kind.
    pub data: Value,
}

/// What the agent's threads share.
pub struct Shared {
    current: RwLock<Option<Arc<Snapshot>>>,
    access: RwLock<Arc<Access>>,
    events: broadcast::Sender<Arc<Event>>,
    next_event: AtomicU64,
    turned: AtomicU64,
    ready: AtomicBool,
    requests: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    wire: Mutex<WireLog>,
    /// The history, where there is one.
    pub history: Option<Reader>,
    /// Where there is none: the last hour.
    recent: Mutex<Recent>,
}

impl Shared {
    /// Nothing has been seen yet.
    pub fn new(access: Access, history: Option<Reader>, wire: WireLog) -> Self {
        Self {
            current: RwLock::new(None),
            access: RwLock::new(Arc::new(access)),
            events: broadcast::channel(EVENTS).0,
            next_event: AtomicU64::new(1),
            turned: AtomicU64::new(millis()),
            ready: AtomicBool::new(false),
            requests: Mutex::default(),
            wire: Mutex::new(wire),
            history,
            recent: Mutex::default(),
        }
    }

    /// The newest verdict; `None` before the first.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes the place of the verdict before.
    pub fn publish(&self, snapshot: Snapshot) {
        if self.history.is_none() {
            self.recent().add(&snapshot);
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Arc::new(snapshot));
    }

    /// What is known of the time before `snapshot`, for the page. Reads the history: it may have to wait for a disk.
    pub fn past(&self, snapshot: &Snapshot, view: View) -> Past {
        match &self.history {
            Some(reader) => Past::read(snapshot, view, reader),
            None => Past::remembered(snapshot, view, &self.recent()),
        }
    }

    /// Keeps `event` for the page, where no history does.
    pub fn remember(&self, event: &Event) {
        if self.history.is_none() {
            self.recent().note(event);
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who may ask.
    pub fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these may ask.
    pub fn set_access(&self, access: Access) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
    }

    /// Tells everybody who listens; the event comes back for the history.
    pub fn tell(&self, at: Timestamp, kind: &'static str, data: Value) -> Arc<Event> {
        let id = self.next_event.fetch_add(1, Ordering::Relaxed);
        let event = Arc::new(Event { id, at, kind, data });
        // Nobody listening is no error.
        let _ = self.events.send(Arc::clone(&event));
        event
    }

    /// Every event from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    /// The last of what passed on the wire.
    pub fn wire(&self) -> MutexGuard<'_, WireLog> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent's loop has turned.
    pub fn turned(&self) {
        self.turned.store(millis(), Ordering::Relaxed);
    }

    /// Whether the agent's loop turns.
    pub fn is_well(&self) -> bool {
        let ago = millis().saturating_sub(self.turned.load(Ordering::Relaxed));
        Span::from_millis(ago) < WELL_WITHIN
    }

    /// The first verdict is there.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Counts an answer.
    pub fn answered(&self, route: &'static str, class: &'static str) {
        *self.requests().entry((route, class)).or_default() += 1;
    }

    /// Answers so far.
    pub fn answers(&self) -> Requests {
        let requests = self.requests();
        requests.iter().map(|((r, c), n)| (*r, *c, *n)).collect()
    }

    fn requests(&self) -> MutexGuard<'_, BTreeMap<(&'static str, &'static str), u64>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis() -> u64 {
    u64::try_from(clock::monotonic().as_millis()).unwrap_or(u64::MAX)
}

//! `wgnat agent`: the observers at work for good, judged every few seconds, told over HTTP, kept in history.
//!
//! In: observers, settings. Out: verdicts in [`shared::Shared`], records in [`crate::store`]. The loop is one thread; HTTP
//! and history have one each, and neither can hold it up.

pub mod access;
pub mod confine;
pub mod dashboard;
pub mod http;
mod kept;
pub mod ledger;
mod pace;
pub mod shared;
mod totals;
pub mod windows;
pub mod wire_log;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde_json::json;

use self::access::Access;
use self::confine::{Confinement, Reach};
use self::http::Server;
use self::ledger::{Change as LedgerChange, Entry, Former, Ledger, What, identity};
use self::pace::Budget;
use self::shared::{Shared, Snapshot};
use self::totals::Counting;
use self::windows::{Step as ClockStep, Windows};
use crate::config::Settings;
use crate::engine::{Engine, Step};
use crate::finding::Finding;
use crate::observation::{Body, Observation, Source, SourceState, SourceStatus};
use crate::observe::supervisor::Opener;
use crate::output::json;
use crate::report::agent::{AgentStats, BudgetStats, StoreStats};
use crate::report::unseen::Unseen;
use crate::report::{self, Report, kept as kept_finding};
use crate::rules::evaluate::Missed;
use crate::rules::upstream::flows::{Flows, flows};
use crate::rules::{self, Evaluation, Input, Rule};
use crate::store::{self, FindingRecord, FindingRow, Record, Writer};
use crate::sys::clock;
use crate::time::{Span, Timestamp};

/// The loop turns at least this often.
const TURN: Span = Span::from_secs(1);
/// The first verdict waits for every source's first look, but no longer than this.
const FIRST_WITHIN: Span = Span::from_secs(2);
/// Numbers go to history this often.
const SAMPLE_EVERY: Span = Span::from_secs(10);
/// How a source fares is said this often at most.
const SAY_EVERY: Span = Span::from_secs(10);
/// A finding that goes on is written down again this often.
const REFRESH_EVERY: Span = Span::from_secs(60);

/// An end waits for these two and for nobody else, so it comes within a second.
const _: () = assert!(http::END_WITHIN.as_millis() + store::LAST_BATCH.as_millis() < 1000);

/// A finding that was open when the agent before ended, no longer ago than this, goes on.
const GOES_ON: Span = Span::from_secs(600);

/// What a new reading of the configuration gives.
pub struct Reloaded {
    /// The settings.
    pub settings: Settings,
    /// Who may ask.
    pub access: Access,
    /// The observers that depend on the configuration.
    pub changes: Vec<Change>,
}

/// An observer that the configuration says something of.
pub struct Change {
    /// Of which source.
    pub source: Source,
    /// The observer; `None` where there is to be none.
    pub opener: Option<Opener>,
    /// What it is to reach.
    pub reach: Reach,
}

/// What the agent is made of.
pub struct Plan {
    /// When it began.
    pub started: Timestamp,
    /// The settings.
    pub settings: Settings,
    /// The observers.
    pub observers: Vec<(Source, Opener)>,
    /// Shared with HTTP.
    pub shared: Arc<Shared>,
    /// The server.
    pub server: Server,
    /// The history.
    pub store: Option<Writer>,
    /// Findings that were open when the agent before ended.
    pub open_findings: Vec<FindingRow>,
    /// What the process is confined to.
    pub confinement: Confinement,
    /// Reads the configuration anew.
    pub reload: Box<dyn Fn() -> anyhow::Result<Reloaded>>,
}

/// What the signals' thread says.
pub trait Signals {
    /// Calls these on SIGTERM or SIGINT, and on SIGHUP.
    fn install(
        self,
        stop: impl Fn() + Send + 'static,
        reload: impl Fn() + Send + 'static,
    ) -> anyhow::Result<()>;
}

/// Runs until it is told to stop.
pub fn run(plan: Plan, signals: impl Signals, told: &mut dyn Notify) -> anyhow::Result<()> {
    let mut agent = Agent::start(plan);
    let reload = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (asked, waker) = (Arc::clone(&reload), agent.engine.waker());
    let told_at = Arc::new(OnceLock::new());
    let (told_to_end, interrupt) = (Arc::clone(&told_at), agent.engine.interrupter());
    let stop = move || {
        let _ = told_to_end.set(clock::instant());
        interrupt();
    };
    signals.install(stop, move || {
        asked.store(true, std::sync::atomic::Ordering::Relaxed);
        waker();
    })?;
    while !agent.engine.interrupted() {
        if reload.swap(false, std::sync::atomic::Ordering::Relaxed) {
            told.reloading();
            agent.reload();
            told.ready();
        }
        let was_ready = agent.shared.is_ready();
        agent.turn();
        if !was_ready && agent.shared.is_ready() {
            told.ready();
        }
        if agent.server.is_alive() {
            told.alive();
        } else {
            anyhow::bail!("the HTTP server has ended: the agent ends too, to be started anew");
        }
    }
    let told_at = told_at.get().copied().unwrap_or_else(clock::instant);
    told.stopping();
    agent.stop(told_at);
    Ok(())
}

/// Tells the service manager.
pub trait Notify {
    /// The first verdict is there, or a reload is over.
    fn ready(&mut self);
    /// A reload begins.
    fn reloading(&mut self);
    /// The loop turned.
    fn alive(&mut self);
    /// It ends.
    fn stopping(&mut self);
}

/// A finding as history keeps it; `report::kept` reads it.
#[derive(serde::Serialize)]
struct KeptFinding<'a> {
    #[serde(flatten)]
    finding: json::v1::Finding,
    explained: bool,
    /// The sources by which it was found.
    seen_by: Vec<&'static str>,
    /// Why nobody can tell whether it still holds, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<&'a Unseen>,
}

/// What was said of how a source fares.
#[derive(Default)]
struct Told {
    state: Option<SourceState>,
    /// When each state was said last.
    at: BTreeMap<&'static str, Instant>,
}

struct Agent {
    engine: Engine,
    windows: Windows,
    ledger: Ledger,
    counting: Counting,
    budget: Budget,
    shared: Arc<Shared>,
    server: Server,
    store: Option<Writer>,
    settings: Settings,
    reload: Box<dyn Fn() -> anyhow::Result<Reloaded>>,
    confinement: Confinement,
    started: Timestamp,
    begun: Instant,
    next_evaluation: Instant,
    next_sample: Instant,
    next_refresh: Instant,
    /// What was last said of each source.
    states: BTreeMap<Source, Told>,
    store_state: &'static str,
    /// Whether it was said which host this is.
    told_host: bool,
    stats: AgentStats,
}

impl Agent {
    fn start(plan: Plan) -> Self {
        let begun = clock::instant();
        let mut ledger = Ledger::default();
        for row in plan.open_findings {
            let Some(kept) = kept_finding::read(&row.data) else {
                continue;
            };
            let finding = Finding {
                first_seen: row.first_seen,
                last_seen: row.last_seen,
                count: row.count,
                ..kept.finding
            };
            let left = if plan.started - row.last_seen < GOES_ON {
                Former::JustNow
            } else {
                Former::LongAgo
            };
            ledger.take_up(finding, kept.explained, kept.seen_by, left, plan.started);
        }
        let stats = AgentStats {
            started: plan.started,
            pace: 1.0,
            config_ok: true,
            config_at: plan.started,
            confined: plan.confinement.in_force().to_vec(),
            ..AgentStats::default()
        };
        Self {
            engine: Engine::start_for_good(plan.confinement.wrap(plan.observers)),
            windows: Windows::new(plan.started, long_window(&plan.settings)),
            ledger,
            counting: Counting::default(),
            budget: Budget::new(plan.settings.agent.cpu_budget, begun, clock::process_cpu()),
            shared: plan.shared,
            server: plan.server,
            store: plan.store,
            settings: plan.settings,
            reload: plan.reload,
            confinement: plan.confinement,
            started: plan.started,
            begun,
            next_evaluation: begun,
            next_sample: begun,
            next_refresh: begun + REFRESH_EVERY,
            states: BTreeMap::new(),
            store_state: "off",
            told_host: false,
            stats,
        }
    }

    /// Takes what comes, and judges when it is time.
    fn turn(&mut self) {
        let now = clock::instant();
        let left = self.next_evaluation.saturating_duration_since(now);
        // Before the first verdict each first look counts.
        let left = if self.shared.is_ready() {
            left.min(TURN)
        } else {
            Span::from_millis(20)
        };
        if let Step::Seen(observation) = self.engine.wait(left) {
            self.see(*observation);
        }
        self.shared.turned();
        let now = clock::instant();
        let due = if self.shared.is_ready() {
            now >= self.next_evaluation
        } else {
            self.engine.can_tell() || now - self.begun >= FIRST_WITHIN
        };
        if due {
            self.look_after(now);
            self.evaluate();
            // Its own cost decides too: a host with thousands of failing peers is not judged every second.
            let rest = self.stats.evaluation.saturating_mul(20);
            let every = self.settings.agent.evaluate_every.mul_f32(self.stats.pace.sqrt());
            self.next_evaluation = clock::instant() + every.max(rest);
        }
    }

    fn see(&mut self, observation: Observation) {
        self.counting.apply(&observation);
        self.shared.wire().note(&observation);
        if let Body::Status(status) = &observation.body {
            self.note_state(observation.source, status, observation.at);
        }
        let (requests, step) = self.windows.apply(observation);
        for request in requests {
            self.engine.ask(request);
        }
        if let Some(step) = step {
            self.clock_stepped(step);
        }
    }

    fn note_state(&mut self, source: Source, status: &SourceStatus, at: Timestamp) {
        let now = clock::instant();
        let state = state_name(status.state);
        let told = self.states.entry(source).or_default();
        // Of one that flaps not each time is said; of one that fails seldom it is said at once.
        let lately = told.at.get(state).is_some_and(|when| now - *when < SAY_EVERY);
        if told.state == Some(status.state) || lately {
            return;
        }
        told.state = Some(status.state);
        told.at.insert(state, now);
        let reason = status.reason.as_deref().unwrap_or("");
        let name = source.name();
        if status.state == SourceState::Ok {
            tracing::info!(collector = name, "sees all");
        } else {
            tracing::warn!(collector = name, state = ?status.state, "{reason}");
        }
        self.tell(
            at,
            "collector",
            json!({ "collector": name, "state": state, "reason": status.reason }),
        );
    }

    fn clock_stepped(&mut self, step: ClockStep) {
        let now = clock::now();
        let text = match step {
            ClockStep::Back(span) => {
                self.ledger.set_back(now);
                self.counting.set_back();
                format!("the clock was set back by {} s", span.as_secs())
            }
            ClockStep::Forward(span) => {
                format!(
                    "nothing was seen for {} s by the clock: it was set, or the host slept",
                    span.as_secs()
                )
            }
        };
        self.shared.wire().begin_anew(now);
        tracing::warn!("{text}; what is measured over time begins anew");
        self.stats.clock_steps += 1;
        self.tell(now, "clock", json!({ "text": text }));
        if let Some(store) = &self.store {
            store.write(Record::Stepped);
        }
    }

    /// Keeps to the budget, says who hangs.
    fn look_after(&mut self, now: Instant) {
        if let Some(pace) = self.budget.pace(now, clock::process_cpu()) {
            self.engine.set_pace(pace);
            self.stats.pace = pace;
        }
        for (source, span) in self.engine.newly_stuck() {
            let status = SourceStatus::degraded(format!(
                "its look has not come back for {} s: something it asks hangs",
                span.as_secs()
            ));
            self.see(Observation {
                at: clock::now(),
                took: Span::ZERO,
                source,
                body: Body::Status(status),
            });
        }
    }

    fn evaluate(&mut self) {
        let cpu = clock::thread_cpu();
        let now = clock::now().max(self.windows.near().now);
        self.windows.handle_timeout(now);
        let (near, far) = (self.windows.near(), self.windows.far());
        let thresholds = &self.settings.thresholds;
        let near_input = Input {
            world: near,
            thresholds,
        };
        let far_input = Input {
            world: far,
            thresholds,
        };
        let catalogue: Vec<_> = rules::registry::rules().collect();
        let mut evaluation = rules::evaluate::evaluate_by(&catalogue, |rule| {
            if windows::is_far(rule.code) {
                &far_input
            } else {
                &near_input
            }
        });
        self.stats.budget = near.nat.budget().map(|budget| BudgetStats {
            profile: budget.profile.clone(),
            limit: budget.flows,
            fullest: flows(&near_input, budget)
                .values()
                .map(Flows::held)
                .max()
                .unwrap_or(0),
        });
        let changes = self.ledger.update(&mut evaluation, &self.windows.sight(), now);
        evaluation = with_unseen(&catalogue, evaluation, self.ledger.unseen());
        let mut report = report::build::build_windows(near, far, evaluation, env!("CARGO_PKG_VERSION"));
        let in_force = self.stats.confined.iter().filter(|(_, holds)| *holds);
        report.confined = Some(in_force.map(|(name, _)| *name).collect());
        self.counting.settle(&report);
        self.stats.evaluation = clock::thread_cpu().saturating_sub(cpu);
        self.stats.evaluations += 1;
        self.publish(report, changes, now);
    }

    fn publish(&mut self, report: Report, changes: Vec<LedgerChange>, now: Timestamp) {
        self.note_store(now);
        let stats = self.stats_now();
        let status = report.status.name();
        // Once it is known; the history may be read on another host.
        let host = (!self.told_host).then(|| report.host.clone()).flatten();
        let findings: Vec<Entry> = self.ledger.entries().map(|(_, entry)| entry.clone()).collect();
        let snapshot = Snapshot::new(report, stats, findings);
        let due = clock::instant();
        if let Some(store) = &self.store
            && due >= self.next_sample
        {
            self.next_sample = due + SAMPLE_EVERY;
            store.write(Record::Samples {
                at: now,
                points: kept::points(snapshot.families()),
            });
        }
        if due >= self.next_refresh {
            self.next_refresh = due + REFRESH_EVERY;
            for (key, entry) in self.ledger.entries().filter(|(_, e)| e.cleared_at.is_none()) {
                self.keep(&key.1, entry);
            }
        }
        self.shared.publish(snapshot);
        if let Some(host) = host {
            self.told_host = true;
            let version = env!("CARGO_PKG_VERSION");
            self.tell(
                now,
                "agent",
                json!({ "what": "watching", "version": version, "host": host }),
            );
        }
        for change in changes {
            self.changed(&change);
        }
        self.shared.tell(
            now,
            "report",
            json!({ "generated_at": now.millis(), "status": status }),
        );
        if !self.shared.is_ready() {
            self.shared.set_ready(true);
            let took = (clock::instant() - self.begun).as_millis();
            tracing::info!("ready after {took} ms");
        }
    }

    fn changed(&mut self, change: &LedgerChange) {
        let finding = &change.entry.finding;
        let (code, what) = (finding.code, change.what.name());
        let (severity, subject) = (finding.severity.name(), identity(&finding.subject));
        tracing::info!(code, severity, subject, "finding {what}: {}", finding.title);
        self.keep(&change.key.1, &change.entry);
        let mut data = json!({
            "what": what,
            "code": code,
            "severity": severity,
            "explained": change.entry.explained,
            "subject": subject,
            "title": finding.title,
            "first_seen": change.entry.first_seen,
            "count": change.entry.count,
        });
        if let (What::Unseen, Some(unseen)) = (change.what, &change.entry.unseen) {
            data["missing"] = json!(unseen.missing);
        }
        self.tell(change.at, "finding", data);
    }

    /// Writes a finding down as it is now.
    fn keep(&self, subject: &str, entry: &Entry) {
        let Some(store) = &self.store else { return };
        let finding = &entry.finding;
        let data = KeptFinding {
            finding: finding.into(),
            explained: entry.explained,
            seen_by: entry.seen_by.iter().map(|source| source.name()).collect(),
            unseen: entry.unseen.as_ref(),
        };
        store.write(Record::Finding(Box::new(FindingRecord {
            code: finding.code.to_owned(),
            subject: subject.to_owned(),
            severity: finding.severity.name().to_owned(),
            title: finding.title.clone(),
            first_seen: entry.first_seen,
            last_seen: entry.last_seen,
            count: entry.count,
            cleared_at: entry.cleared_at,
            data: serde_json::to_string(&data).unwrap_or_default(),
        })));
    }

    fn tell(&self, at: Timestamp, kind: &'static str, data: serde_json::Value) {
        let event = self.shared.tell(at, kind, data);
        self.shared.remember(&event);
        if let Some(store) = &self.store {
            store.write(Record::Event {
                at,
                kind,
                data: event.data.to_string(),
            });
        }
    }

    fn note_store(&mut self, now: Timestamp) {
        let Some(store) = &self.store else { return };
        let StoreStats { state, reason, .. } = store.stats();
        if state != self.store_state {
            self.store_state = state;
            self.tell(now, "store", json!({ "state": state, "reason": reason }));
        }
    }

    fn stats_now(&self) -> AgentStats {
        let mut totals = self.counting.totals();
        totals.findings = self.ledger.begun().collect();
        AgentStats {
            cpu: clock::process_cpu(),
            resident_bytes: resident_bytes(),
            costs: self.engine.costs().into_iter().collect(),
            restarts: self.engine.restarted().into_iter().collect(),
            requests: self.shared.answers(),
            store: self.store.as_ref().map_or_else(
                || StoreStats {
                    state: "off",
                    ..StoreStats::default()
                },
                Writer::stats,
            ),
            totals,
            top_destinations: self.settings.agent.top_destinations,
            top_peers: self.settings.agent.top_peers,
            started: self.started,
            ..self.stats.clone()
        }
    }

    /// A bad file changes nothing and says why.
    fn reload(&mut self) {
        let now = clock::now();
        match (self.reload)() {
            Ok(reloaded) => {
                let fixed = reloaded.settings.agent.needs_restart(&self.settings.agent);
                for key in &fixed {
                    tracing::warn!("agent.{key} has changed: it takes effect when the agent is started anew");
                }
                self.shared.set_access(reloaded.access);
                let other_way = reloaded.settings.agent.active != self.settings.agent.active;
                for change in reloaded.changes {
                    // Files and names may have changed unseen; whoever asks others asks anew only where that was changed.
                    if matches!(change.source, Source::Config | Source::FlyToml) || other_way {
                        self.take_over(change);
                    }
                }
                self.budget.set(reloaded.settings.agent.cpu_budget);
                self.windows.set_far(long_window(&reloaded.settings));
                self.settings = reloaded.settings;
                (self.stats.config_ok, self.stats.config_at) = (true, now);
                tracing::info!("the configuration was read anew");
                self.tell(now, "config", json!({ "ok": true, "needs_restart": fixed }));
                self.next_evaluation = clock::instant();
            }
            Err(error) => {
                self.stats.config_ok = false;
                tracing::error!("the configuration was not taken over, nothing has changed: {error:#}");
                self.tell(
                    now,
                    "config",
                    json!({ "ok": false, "error": format!("{error:#}") }),
                );
            }
        }
    }

    /// Puts another observer, or none, in the place of what ran.
    fn take_over(&mut self, change: Change) {
        let source = change.source;
        self.windows.forget(source);
        self.counting.forget(source);
        self.states.remove(&source);
        self.confinement.set_reach(source, change.reach);
        match change.opener {
            Some(opener) => {
                let confined = self.confinement.wrap_one(source, opener);
                self.engine.replace(source, confined);
            }
            None => self.engine.end(source),
        }
    }

    /// Ends at once: observers hold nothing that must be put in order, history does.
    fn stop(self, told_at: Instant) {
        let now = clock::now();
        self.tell(now, "agent", json!({ "what": "stopping" }));
        self.shared.set_ready(false);
        if !self.server.stop() {
            tracing::warn!("HTTP: it did not end in time, and ends with the process");
        }
        if let Some(store) = self.store
            && !store.stop()
        {
            tracing::warn!("history: the last seconds were not written in time");
        }
        let took = clock::instant() - told_at;
        tracing::info!("ended within {} ms of being told to", took.as_millis());
    }
}

/// For how long the far world watches at least: never less than its rules look back.
fn long_window(settings: &Settings) -> Span {
    settings.agent.long_window.max(settings.thresholds.roaming_window)
}

/// With what held and cannot be looked for now: it is told as it was, and that this is so.
fn with_unseen(
    catalogue: &[&Rule],
    evaluation: Evaluation,
    unseen: impl Iterator<Item = Finding>,
) -> Evaluation {
    let unseen: Vec<Finding> = unseen.collect();
    if unseen.is_empty() {
        return evaluation;
    }
    let folded = evaluation.suppressed.into_iter().map(|s| s.finding);
    let all = evaluation.findings.into_iter().chain(folded).chain(unseen);
    let missed = Missed {
        not_checked: evaluation.not_checked,
        in_part: evaluation.in_part,
    };
    rules::evaluate::fold_again(catalogue, all.collect(), missed)
}

const fn state_name(state: SourceState) -> &'static str {
    match state {
        SourceState::Ok => "ok",
        SourceState::Degraded => "degraded",
        SourceState::Unavailable => "unavailable",
    }
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * u64::try_from(page).ok()?)
}

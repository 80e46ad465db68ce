//! Observer of connection tracking: count, limit and counters at each look, by ctnetlink; and the table itself, folded,
//! when [`DumpPlan`] says so, and when asked to look fully.
//!
//! In: nothing. Out: [`Body::ConntrackStats`], [`Body::ConntrackTally`]. ctnetlink needs CAP_NET_ADMIN in the
//! namespace; without it the statistics come from `/proc`, which all may read. Asking creates nothing: the kernel
//! tracks connections only where a rule asks for it. Costs some 20 µs a look, and what the plan's budget allows for the
//! table; a table that costs more than may be spent at once is read in slices, on a socket of its own, over as many looks as
//! it takes.

use std::path::Path;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::conntrack_events::EventCounter;
use super::dump_plan::{Budget, Decision, DumpPlan, Reading, Why};
use super::pace::Pace;
use super::tally::conntrack::{CtFold, WATCHED};
use super::{Emit, ObserveError, Observer, sysctl};
use crate::observation::conntrack::{CtCpuStats, CtStats, CtTally, SnatTally};
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::sys::netlink::{DUMP, Dump, Netlink, NetlinkError, REQUEST};
use crate::time::Span;
use crate::wire::netlink::conntrack::{self as wire, CpuStats};
use crate::wire::nf_conntrack_stat;

/// How often to ask for statistics: microseconds each.
const INTERVAL: Span = Span::from_secs(1);
/// Limit of each wait for the kernel.
const ANSWER_WITHIN: Span = Span::from_secs(5);
/// A paced dump should be done within this; one that somebody waits for is not paced.
const DUMP_WITHIN: Span = Span::from_secs(2);
/// A dump that used more CPU time than this is not made again for being asked to look fully.
const TOO_DEAR: Span = Span::from_secs(1);
/// A reading that took longer than this is not of one moment.
const ONE_MOMENT: Span = Span::from_secs(10);
/// With fewer ports in use than this, how they lie tells nothing: the search tries more of them.
const CLOSER_FROM: u32 = 256;

/// There for all to read where there is conntrack. `/proc/net` is the namespace of the process; the observer's
/// thread may be in another.
const STAT: &str = "/proc/thread-self/net/stat/nf_conntrack";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// The observer.
pub struct ConntrackObserver {
    way: Way,
    memory: Memory,
    slices: Option<Slices>,
    /// Where they were asked for.
    events: Option<EventCounter>,
}

/// What an observer knows of its table, for another that goes on in its place.
#[derive(Debug)]
pub struct Memory {
    plan: DumpPlan,
    /// CPU time that the last dump used.
    dumped: Option<Span>,
    /// The rows of the last table whose ports are worth a closer look.
    closer: Vec<SnatTally>,
}

impl Memory {
    /// Of a table that was not looked at yet.
    pub fn new(budget: Budget) -> Self {
        Self {
            plan: DumpPlan::new(budget),
            dumped: None,
            closer: Vec::new(),
        }
    }
}

/// A table that is being read in slices.
struct Slices {
    netlink: Netlink,
    dump: Dump,
    fold: CtFold,
    begun: std::time::Instant,
    cpu: Span,
}

enum Way {
    Netlink(Netlink),
    /// Only `/proc`, and why.
    Proc(String),
}

impl ConntrackObserver {
    /// Opens it in the calling thread's namespace, for a command that somebody waits for.
    pub fn open() -> Result<Self, ObserveError> {
        Self::open_with(Budget::default())
    }

    /// Opens it in the calling thread's namespace.
    pub fn open_with(budget: Budget) -> Result<Self, ObserveError> {
        Self::open_remembering(Memory::new(budget))
    }

    /// What another needs to go on in its place.
    pub fn into_memory(self) -> Memory {
        self.memory
    }

    /// Opens it in the calling thread's namespace, to go on where another ended.
    pub fn open_remembering(memory: Memory) -> Result<Self, ObserveError> {
        let new = |way| Self {
            way,
            memory,
            slices: None,
            events: None,
        };
        let proc_sys = Path::new("/proc/sys/net");
        if proc_sys.exists() && !Path::new(COUNT).exists() && !Path::new(STAT).exists() {
            // Asked now, the kernel might load the module: look, do not touch.
            return Err(ObserveError::Absent {
                what: "this kernel or namespace has no connection tracking (nf_conntrack is not there)"
                    .to_owned(),
            });
        }
        if would_load(|path| Path::new(path).exists()) {
            let reason = "the module nf_conntrack_netlink is not loaded, and looking does not load it: only count, limit and \
                          counters are seen (`modprobe nf_conntrack_netlink` shows the table)";
            return Ok(new(Way::Proc(reason.to_owned())));
        }
        let way = match open().and_then(|mut netlink| ask_stats(&mut netlink).map(|_| netlink)) {
            Ok(netlink) => Way::Netlink(netlink),
            Err(error) if error.is_denied() => Way::Proc(
                "reading the conntrack table needs CAP_NET_ADMIN; only count, limit and counters are seen"
                    .to_owned(),
            ),
            // nfnetlink knows no such subsystem.
            Err(error) if error.errno() == Some(libc::EINVAL) => Way::Proc(
                "this kernel has no ctnetlink (nf_conntrack_netlink); only count, limit and counters are seen".to_owned(),
            ),
            Err(error) => Way::Proc(format!("{error}; only count, limit and counters are seen")),
        };
        Ok(new(way))
    }

    /// As it is, and counts new entries by events, which cost: see [`super::conntrack_events`].
    pub fn counting_events(mut self) -> Result<Self, ObserveError> {
        if matches!(self.way, Way::Netlink(_)) {
            self.events = Some(EventCounter::start()?);
        }
        Ok(self)
    }

    fn stats(&mut self) -> Result<CtStats, ObserveError> {
        let stats = match &mut self.way {
            Way::Netlink(netlink) => ask_stats(netlink)?,
            Way::Proc(reason) => read_stats().ok_or_else(|| ObserveError::Absent {
                what: format!("{STAT} is not readable, and {reason}"),
            })?,
        };
        Ok(CtStats {
            max: stats
                .max
                .or_else(|| sysctl::number("net.netfilter.nf_conntrack_max")),
            ..stats
        })
    }

    /// Emits the folded table of about `entries`, which should be read `within` this. Entries that could not be read come back.
    fn dump(&mut self, entries: u32, within: Span, emit: &mut Emit<'_>) -> Result<u64, NetlinkError> {
        let Way::Netlink(netlink) = &mut self.way else {
            return Ok(0);
        };
        let (begun, cpu) = (clock::instant(), clock::thread_cpu());
        let folded = match fold_table(netlink, new_fold(&self.memory.closer), entries, within) {
            Err(NetlinkError::Overrun { .. } | NetlinkError::Malformed { .. }) => {
                // A new socket: the old one's dump is still under way.
                *netlink = open()?;
                fold_table(netlink, new_fold(&self.memory.closer), entries, within)
            }
            other => other,
        };
        let cost = clock::thread_cpu().saturating_sub(cpu);
        self.memory.plan.spent(cost);
        let (tally, malformed) = folded?;
        self.told(tally, clock::instant().duration_since(begun), cost, emit);
        Ok(malformed)
    }

    fn told(&mut self, tally: CtTally, took: Span, cost: Span, emit: &mut Emit<'_>) {
        let nat = !tally.snat.is_empty();
        self.memory.dumped = Some(cost);
        let crowded = tally
            .snat
            .iter()
            .take(WATCHED)
            .filter(|row| row.ports >= CLOSER_FROM);
        self.memory.closer = crowded.cloned().collect();
        let reading = Reading {
            entries: tally.entries,
            nat,
            unclear: self.memory.closer.iter().any(|row| row.runs.is_none()),
            cpu: cost,
        };
        self.memory.plan.read(clock::monotonic(), reading);
        emit.emit(clock::now(), took, Body::ConntrackTally(tally));
    }

    /// Begins to read the table in slices.
    fn begin(&mut self) -> Result<(), NetlinkError> {
        let mut netlink = open()?;
        self.slices = Some(Slices {
            dump: netlink.begin(wire::GET, DUMP, &wire::REQUEST)?,
            netlink,
            fold: new_fold(&self.memory.closer),
            begun: clock::instant(),
            cpu: Span::ZERO,
        });
        Ok(())
    }

    /// Reads on for as long as the budget allows; the table is told when its end has come.
    fn read_on(&mut self, emit: &mut Emit<'_>) -> Result<u64, NetlinkError> {
        let Some(mut slices) = self.slices.take() else {
            return Ok(0);
        };
        let began = clock::thread_cpu();
        let allowance = self.memory.plan.allowance().unwrap_or_default();
        let mut used = Span::ZERO;
        let mut finished = false;
        while !finished && used < allowance {
            let Slices {
                netlink, dump, fold, ..
            } = &mut slices;
            let step = netlink.step(dump, |_, payload| fold.add(payload));
            used = clock::thread_cpu().saturating_sub(began);
            finished = step.inspect_err(|_| self.memory.plan.spent(used))?;
        }
        self.memory.plan.spent(used);
        slices.cpu += used;
        if !finished {
            self.slices = Some(slices);
            return Ok(0);
        }
        let took = clock::instant().duration_since(slices.begun);
        let malformed = slices.fold.malformed();
        let tally = slices
            .fold
            .finish(slices.dump.end().interrupted || took > ONE_MOMENT);
        self.told(tally, took, slices.cpu, emit);
        Ok(malformed)
    }

    fn look_at(&mut self, table: bool, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let begun = clock::instant();
        let stats = self.stats()?;
        let entries = stats.count;
        let now = clock::monotonic();
        let decision = match (&self.way, &self.slices, table) {
            (Way::Proc(_), ..) => Decision::Rest,
            (_, Some(_), false) => {
                self.memory.plan.refill(now);
                Decision::Rest
            }
            _ => self.memory.plan.look(now, &stats),
        };
        emit.emit(
            clock::now(),
            clock::instant().duration_since(begun),
            Body::ConntrackStats(stats),
        );
        if let Some(events) = &self.events {
            emit.emit(clock::now(), Span::ZERO, Body::ConntrackEvents(events.counted()));
        }
        if let Way::Proc(reason) = &self.way {
            return Ok(SourceStatus::degraded(reason.clone()));
        }
        let read = if table {
            self.slices = None;
            // Somebody waits for this one.
            self.dump(entries, Span::ZERO, emit)
        } else {
            match decision {
                Decision::Whole(why) => {
                    tracing::debug!("reading the conntrack table: {why:?}");
                    let urgent = why == Why::Closer;
                    self.dump(entries, if urgent { Span::ZERO } else { DUMP_WITHIN }, emit)
                }
                Decision::Slices(why) => {
                    tracing::debug!("reading the conntrack table in slices: {why:?}");
                    self.begin().and_then(|()| self.read_on(emit))
                }
                Decision::Rest => self.read_on(emit),
            }
        };
        match read {
            Ok(0) => Ok(SourceStatus::ok()),
            Ok(malformed) => Ok(SourceStatus {
                lost: malformed,
                ..SourceStatus::degraded("the kernel gave conntrack entries in a form that is not known")
            }),
            Err(error) => {
                self.way = Way::Netlink(open()?);
                Ok(SourceStatus::degraded(format!(
                    "{error}; the conntrack table is not seen"
                )))
            }
        }
    }
}

impl ConntrackObserver {
    /// The status, with how counting events fares.
    fn with_events(&self, looked: Result<SourceStatus, ObserveError>) -> Result<SourceStatus, ObserveError> {
        let Some(events) = &self.events else {
            return looked;
        };
        let status = SourceStatus {
            cost_cpu: events.cost(),
            ..looked?
        };
        let why = if events.failed() {
            "counting new connections by events ended with an error".to_owned()
        } else if sysctl::number("net.netfilter.nf_conntrack_events") == Some(0) {
            "there are no events to count: net.netfilter.nf_conntrack_events is 0, and looking does not set it".to_owned()
        } else {
            match events.counted().overruns {
                0 => return Ok(status),
                n => format!(
                    "events were lost {n} times because they came too fast: new connections are more than counted"
                ),
            }
        };
        let reason = status
            .reason
            .iter()
            .cloned()
            .chain([why])
            .collect::<Vec<_>>()
            .join("; ");
        Ok(SourceStatus {
            lost: status.lost + events.counted().overruns,
            cost_cpu: status.cost_cpu,
            ..SourceStatus::degraded(reason)
        })
    }
}

impl Observer for ConntrackObserver {
    fn source(&self) -> Source {
        Source::Conntrack
    }

    fn interval(&self) -> Span {
        INTERVAL
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let looked = self.look_at(false, emit);
        self.with_events(looked)
    }

    fn look_fully(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let affordable = self.memory.dumped.is_none_or(|cost| cost < TOO_DEAR);
        let looked = self.look_at(affordable, emit);
        self.with_events(looked)
    }
}

/// Whether a question to ctnetlink would make the kernel load a module (nfnetlink_rcv_msg, net/netfilter/nfnetlink.c).
/// Only of a module is there `initstate`, and what builds on a module is none that is built in.
fn would_load(exists: impl Fn(&str) -> bool) -> bool {
    exists("/proc/modules")
        && exists("/sys/module/nf_conntrack/initstate")
        && !exists("/sys/module/nf_conntrack_netlink")
}

fn open() -> Result<Netlink, NetlinkError> {
    Netlink::open(NETLINK_NETFILTER, "conntrack", ANSWER_WITHIN)
}

fn ask_stats(netlink: &mut Netlink) -> Result<CtStats, NetlinkError> {
    let mut stats = CtStats::default();
    netlink.request(wire::GET_STATS, REQUEST, &wire::REQUEST, |_, payload| {
        let read = wire::stats(payload);
        (stats.count, stats.max) = (read.entries.unwrap_or(0), read.max);
    })?;
    netlink.request(wire::GET_STATS_CPU, DUMP, &wire::REQUEST, |_, payload| {
        stats.cpus.push(wire::cpu_stats(payload).into());
    })?;
    Ok(stats)
}

fn read_stats() -> Option<CtStats> {
    let text = std::fs::read_to_string(STAT).ok();
    let (entries, cpus) = text.as_deref().and_then(nf_conntrack_stat::parse).unzip();
    Some(CtStats {
        count: sysctl::number("net.netfilter.nf_conntrack_count").or(entries)?,
        max: None,
        cpus: cpus.into_iter().flatten().map(CtCpuStats::from).collect(),
    })
}

/// An empty fold that looks closer at the ports of these rows.
fn new_fold(closer: &[SnatTally]) -> CtFold {
    let timeout = sysctl::number("net.netfilter.nf_conntrack_tcp_timeout_established");
    CtFold::new(timeout).watching(closer)
}

fn fold_table(
    netlink: &mut Netlink,
    mut fold: CtFold,
    entries: u32,
    within: Span,
) -> Result<(CtTally, u64), NetlinkError> {
    let mut interrupted = false;
    // An empty table's dump would still walk every bucket.
    if entries > 0 {
        let (begun, cpu) = (clock::instant(), clock::thread_cpu());
        let mut pace = Pace::new(entries, within);
        let end = netlink.request_paced(
            wire::GET,
            DUMP,
            &wire::REQUEST,
            |_, payload| fold.add(payload),
            |_| {
                let busy = clock::thread_cpu().saturating_sub(cpu);
                if let Some(pause) = pace.pause(busy, clock::instant().duration_since(begun)) {
                    std::thread::sleep(pause);
                }
            },
        )?;
        interrupted = end.interrupted;
    }
    let malformed = fold.malformed();
    Ok((fold.finish(interrupted), malformed))
}

impl From<CpuStats> for CtCpuStats {
    fn from(c: CpuStats) -> Self {
        Self {
            found: c.found,
            invalid: c.invalid,
            insert: c.insert,
            insert_failed: c.insert_failed,
            drop: c.drop,
            early_drop: c.early_drop,
            error: c.error,
            search_restart: c.search_restart,
            clash_resolve: c.clash_resolve,
            chain_toolong: c.chain_toolong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_not_loaded_by_looking() {
        const MODULES: &str = "/proc/modules";
        const TRACKER: &str = "/sys/module/nf_conntrack/initstate";
        const CTNETLINK: &str = "/sys/module/nf_conntrack_netlink";
        for (there, expected) in [
            (&[MODULES, TRACKER][..], true),
            (&[MODULES, TRACKER, CTNETLINK], false),
            (&[MODULES], false), // built in
            (&[], false),        // a kernel without modules
        ] {
            assert_eq!(would_load(|path| there.contains(&path)), expected, "{there:?}");
        }
    }
}

//! Observer of connection tracking: count, limit and counters at each look, by ctnetlink; and the table itself,
//! folded, at the first look and when asked to look fully.
//!
//! In: nothing. Out: [`Body::ConntrackStats`], [`Body::ConntrackTally`]. ctnetlink needs CAP_NET_ADMIN in the
//! namespace; without it the statistics come from `/proc`, which all may read. Asking creates nothing: the kernel
//! tracks connections only where a rule asks for it.

use std::path::Path;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::pace::Pace;
use super::tally::conntrack::CtFold;
use super::{Emit, ObserveError, Observer, sysctl};
use crate::observation::conntrack::{CtCpuStats, CtStats, CtTally};
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::sys::netlink::{DUMP, Netlink, NetlinkError, REQUEST};
use crate::time::Span;
use crate::wire::netlink::conntrack::{self as wire, CpuStats};
use crate::wire::nf_conntrack_stat;

/// How often to ask for statistics: microseconds each.
const INTERVAL: Span = Span::from_secs(1);
/// Limit of each wait for the kernel.
const ANSWER_WITHIN: Span = Span::from_secs(5);
/// A paced dump should be done within this.
const DUMP_WITHIN: Span = Span::from_secs(2);
/// A dump that used more CPU time than this is not made again.
const TOO_DEAR: Span = Span::from_secs(1);

/// There for all to read where there is conntrack. `/proc/net` is the namespace of the process; the observer's
/// thread may be in another.
const STAT: &str = "/proc/thread-self/net/stat/nf_conntrack";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// The observer.
pub struct ConntrackObserver {
    way: Way,
    /// CPU time that the last dump used.
    dumped: Option<Span>,
}

enum Way {
    Netlink(Netlink),
    /// Only `/proc`, and why.
    Proc(String),
}

impl ConntrackObserver {
    /// Opens it in the calling thread's namespace.
    pub fn open() -> Result<Self, ObserveError> {
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
            return Ok(Self {
                way: Way::Proc(reason.to_owned()),
                dumped: None,
            });
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
        Ok(Self { way, dumped: None })
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

    /// Emits the folded table of about `entries`. Entries that could not be read come back.
    fn dump(&mut self, entries: u32, emit: &mut Emit<'_>) -> Result<u64, NetlinkError> {
        let Way::Netlink(netlink) = &mut self.way else {
            return Ok(0);
        };
        let timeout = sysctl::number("net.netfilter.nf_conntrack_tcp_timeout_established");
        let (begun, cpu) = (clock::instant(), clock::thread_cpu());
        let folded = match fold_table(netlink, timeout, entries) {
            Err(NetlinkError::Overrun { .. } | NetlinkError::Malformed { .. }) => {
                // A new socket: the old one's dump is still under way.
                *netlink = open()?;
                fold_table(netlink, timeout, entries)
            }
            other => other,
        };
        let (tally, malformed) = folded?;
        emit.emit(
            clock::now(),
            clock::instant().duration_since(begun),
            Body::ConntrackTally(tally),
        );
        self.dumped = Some(clock::thread_cpu().saturating_sub(cpu));
        Ok(malformed)
    }

    fn look_at(&mut self, table: bool, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        let begun = clock::instant();
        let stats = self.stats()?;
        let entries = stats.count;
        emit.emit(
            clock::now(),
            clock::instant().duration_since(begun),
            Body::ConntrackStats(stats),
        );
        if let Way::Proc(reason) = &self.way {
            return Ok(SourceStatus::degraded(reason.clone()));
        }
        if !table {
            return Ok(SourceStatus::ok());
        }
        match self.dump(entries, emit) {
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

impl Observer for ConntrackObserver {
    fn source(&self) -> Source {
        Source::Conntrack
    }

    fn interval(&self) -> Span {
        INTERVAL
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        self.look_at(self.dumped.is_none(), emit)
    }

    fn look_fully(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        self.look_at(self.dumped.is_none_or(|cost| cost < TOO_DEAR), emit)
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

fn fold_table(
    netlink: &mut Netlink,
    established_timeout: Option<u32>,
    entries: u32,
) -> Result<(CtTally, u64), NetlinkError> {
    let mut fold = CtFold::new(established_timeout);
    let mut interrupted = false;
    // An empty table's dump would still walk every bucket.
    if entries > 0 {
        let (begun, cpu) = (clock::instant(), clock::thread_cpu());
        let mut pace = Pace::new(entries, DUMP_WITHIN);
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

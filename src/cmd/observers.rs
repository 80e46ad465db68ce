//! Which observers a command starts.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::input;
use crate::observation::device::ConfiguredPeer;
use crate::observation::host::FlyMachine;
use crate::observation::nat::Budget as NatBudget;
use crate::observation::target::Target;
use crate::observation::{Request, Source, SourceStatus};
use crate::observe::dump_plan::Budget;
use crate::observe::path::fly::Checks;
use crate::observe::path::observer::PathObserver;
use crate::observe::path::{Plan, plan};
use crate::observe::prober::beside::{Beside, Once};
use crate::observe::supervisor::Opener;
use crate::observe::{
    Emit, ObserveError, Observer, bpf, capture, configured, conntrack, counters, host, kernel_log, keys, nat,
    nat_rules, processes, routes, sockets, wg_netlink, wg_uapi,
};
use crate::time::Span;
use crate::wire::wg_quick;

/// No wg-quick file is larger: it has room for some five thousand peers.
const WG_QUICK_LIMIT: usize = 1024 * 1024;

/// Every observer of a live host. Capture comes first, so that nothing that the others provoke is missed.
pub fn all(netns_name: Option<String>, configured: Vec<ConfiguredPeer>) -> Vec<(Source, Opener)> {
    let vault = Arc::<keys::vault::Vault>::default();
    let (kernel, userspace) = (Arc::clone(&vault), Arc::clone(&vault));
    let (outbox, inbox) = match keys::inbox::channel() {
        Ok((outbox, inbox)) => (Some(outbox), Ok(inbox)),
        Err(errno) => (None, Err(errno)),
    };
    let mut observers = vec![
        (
            Source::Capture,
            opener(move || {
                let tap = capture::Capture::with_data()?;
                Ok(match &outbox {
                    Some(outbox) => tap.passing_on(outbox.clone()),
                    None => tap,
                })
            }),
        ),
        (Source::Host, opener(move || host::Host::open(netns_name.clone()))),
        (
            Source::WireguardNetlink,
            opener(move || wg_netlink::WgNetlink::open(Arc::clone(&kernel))),
        ),
        (
            Source::WireguardUapi,
            opener(move || wg_uapi::WgUapi::open(Arc::clone(&userspace))),
        ),
        (
            Source::Keys,
            opener(move || {
                let inbox = inbox.clone().map_err(|errno| ObserveError::System {
                    doing: "making an eventfd".to_owned(),
                    source: errno.into(),
                })?;
                Ok(keys::Keys::new(inbox, Arc::clone(&vault)))
            }),
        ),
        (Source::KernelLog, opener(kernel_log::KernelLog::open)),
        (Source::Routes, opener(routes::Routes::open)),
        (Source::Sockets, opener(sockets::SocketObserver::open)),
        (Source::Conntrack, opener(conntrack::ConntrackObserver::open)),
        (Source::NatRules, opener(nat_rules::NatRulesObserver::open)),
        (Source::Processes, opener(processes::Processes::open)),
        (Source::Bpf, opener(bpf::Bpf::open)),
        (Source::Counters, opener(counters::Counters::open)),
    ];
    if !configured.is_empty() {
        observers.push((Source::Config, named(configured)));
    }
    observers
}

/// For who watches for good: what costs every system call is attached only while ports are short.
pub fn count_steadily(observers: &mut [(Source, Opener)]) {
    for (_, counting) in observers.iter_mut().filter(|(source, _)| *source == Source::Bpf) {
        *counting = opener(bpf::Bpf::open_steady);
    }
}

/// Makes those that look by the clock look no more often than each `least`: for who watches for good, and judges seldom.
pub fn unhurried(observers: &mut [(Source, Opener)], least: Span) {
    for (source, open) in observers {
        if matches!(
            source,
            Source::WireguardNetlink
                | Source::WireguardUapi
                | Source::Sockets
                | Source::Conntrack
                | Source::Counters
                | Source::Bpf
        ) {
            let inner = Arc::clone(open);
            *open = Arc::new(move || {
                Ok(Box::new(Unhurried {
                    inner: inner()?,
                    least,
                }))
            });
        }
    }
}

/// See [`unhurried`].
struct Unhurried {
    inner: Box<dyn Observer>,
    least: Span,
}

impl Observer for Unhurried {
    fn source(&self) -> Source {
        self.inner.source()
    }

    fn interval(&self) -> Span {
        self.inner.interval().max(self.least)
    }

    fn wakeup(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wakeup()
    }

    fn rest(&self) -> Span {
        self.inner.rest()
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        self.inner.look(emit)
    }

    fn look_fully(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        self.inner.look_fully(emit)
    }

    fn ask(&mut self, request: &Request, emit: &mut Emit<'_>) -> Result<(), ObserveError> {
        self.inner.ask(request, emit)
    }
}

/// Replaces the observer of conntrack by one that spends at most `budget` on its table, and counts new connections by events
/// where that is asked for.
pub fn set_conntrack(observers: &mut [(Source, Opener)], budget: Budget, events: bool) {
    for (_, open) in observers
        .iter_mut()
        .filter(|(source, _)| *source == Source::Conntrack)
    {
        *open = opener(move || {
            let observer = conntrack::ConntrackObserver::open_with(budget)?;
            if events {
                observer.counting_events()
            } else {
                Ok(observer)
            }
        });
    }
}

/// The observer of peers that a wg-quick file names.
pub fn named(configured: Vec<ConfiguredPeer>) -> Opener {
    opener(move || Ok(configured::Configured::new(configured.clone())))
}

/// The same with what the user says of the NAT in front.
pub fn named_with(configured: Vec<ConfiguredPeer>, budget: Option<NatBudget>) -> Opener {
    opener(move || Ok(configured::Configured::new(configured.clone()).with_budget(budget.clone())))
}

/// The observer of the NAT in front, by way of these STUN servers; with a lifetime to measure, and what ends that.
pub fn nat(stun: Vec<String>, lifetime: Option<(Span, nat::Stop)>) -> Opener {
    opener(move || {
        let observer = nat::NatObserver::named(&stun)?;
        Ok(match lifetime.clone() {
            Some((longest, stop)) => observer.measuring(longest, stop),
            None => observer,
        })
    })
}

/// The observer that tries handshakes with peers, once.
pub fn beside(once: Once) -> Opener {
    opener(move || Ok(Beside::new(once.clone())))
}

/// Attempts for each target, beside the other observers: enough for a share of losses, done within doctor's shortest watch.
pub(super) const ATTEMPTS: u32 = 10;

/// The observer of the paths to `targets`, where some are named, and of the private network of the machine `fly`.
pub fn paths(targets: &[Target], fly: Option<FlyMachine>, netns: Option<&str>) -> Option<(Source, Opener)> {
    if targets.is_empty() && fly.is_none() {
        return None;
    }
    let servers = plan::name_servers(netns);
    let aims = plan::aims(targets.to_vec(), &servers);
    let checks = fly.map(|own| Checks { servers, own });
    let plan = Plan {
        aims,
        count: ATTEMPTS,
        interval: Span::from_millis(200),
        timeout: Span::from_secs(1),
        mtu: false,
        hops: false,
    };
    let open = move || Ok(PathObserver::new(plan.clone()).with_fly(checks.clone()));
    Some((Source::Paths, opener(open)))
}

pub(super) fn opener<O: Observer + 'static>(
    open: impl Fn() -> Result<O, ObserveError> + Send + Sync + 'static,
) -> Opener {
    Arc::new(move || Ok(Box::new(open()?)))
}

/// Reads wg-quick files. An error names the file, the line and the key; what was passed over is logged.
pub fn read_wg_configs(files: &[PathBuf]) -> anyhow::Result<Vec<ConfiguredPeer>> {
    let mut peers = Vec::new();
    for path in files {
        let doing = || format!("wg-quick file {}", path.display());
        let text = input::text(path, WG_QUICK_LIMIT).with_context(doing)?;
        let config = wg_quick::Config::parse(&text).with_context(doing)?;
        for note in &config.notes {
            tracing::info!("{}: {note}", path.display());
        }
        let device = path.file_stem().and_then(|stem| stem.to_str());
        peers.extend(config.configured_peers(&path.display().to_string(), device));
    }
    Ok(peers)
}

/// What ends a measurement of minutes on SIGINT and SIGTERM, with what is known by then.
pub fn stop_on_interrupt() -> anyhow::Result<nat::Stop> {
    let stop = nat::Stop::new().context("cannot make an eventfd")?;
    let wish = stop.clone();
    on_interrupt(move || wish.stop())?;
    Ok(stop)
}

/// Calls `interrupt` on SIGINT and SIGTERM; a second one ends the process at once.
pub fn on_interrupt(interrupt: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot watch for signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for (count, signal) in signals.forever().enumerate() {
                if count > 0 {
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                interrupt();
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

//! `wgnat nat`: asks STUN servers what the NAT in front of this host does, judges, tells.

use super::progress::Progress;
use super::{observers, tell as tell_report};
use crate::cli::{Global, Nat};
use crate::config::Settings;
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::observe::nat::{self, Wanted, resolve};
use crate::report;
use crate::rules::{self, Input, registry};
use crate::sys::clock;
use crate::sys::netns::Netns;
use crate::time::Span;
use crate::track::World;

/// Between two discoveries of a watch: each asks the servers some thirty times.
const WATCH_PAUSE: Span = Span::from_secs(5);

/// Runs the command.
pub fn run(args: &Nat, global: &Global, settings: &Settings) -> anyhow::Result<u8> {
    let mut progress = Progress::new(global.quiet);
    if let Some(name) = &args.netns {
        Netns::open(name)?.enter()?;
    }
    // Minutes of waiting must not be lost to whoever has seen enough of it.
    let stop = args
        .lifetime
        .map(|_| observers::stop_on_interrupt())
        .transpose()?;
    let wanted = Wanted {
        servers: servers(&args.stun, &mut progress)?,
        lifetime: args.lifetime,
        flows: args.port_quota,
        hold: args.port_hold,
        stop,
    };
    let mut world = World::new(clock::now());
    let mut tell = |took: Span, body: Body| {
        world.apply(&Observation {
            at: clock::now(),
            took,
            source: Source::Nat,
            body,
        });
    };
    let started = clock::instant();
    let cpu = clock::process_cpu();
    let mut facts = nat::discover(&wanted)?;
    let until = args.watch.map(|time| started + time);
    while let Some(left) = until.and_then(|u| u.checked_duration_since(clock::instant())) {
        tell(clock::instant() - started, Body::Nat(facts));
        tracing::info!("asked; once more after a pause");
        std::thread::sleep(left.min(WATCH_PAUSE));
        facts = nat::discover(&wanted)?;
    }
    let status = SourceStatus {
        cost_cpu: clock::process_cpu().saturating_sub(cpu),
        ..nat::status(&facts)
    };
    let unseen = status.state == crate::observation::SourceState::Unavailable;
    tell(clock::instant() - started, Body::Nat(facts));
    tell(Span::ZERO, Body::Status(status));
    let catalogue: Vec<_> = registry::nat().collect();
    let input = Input {
        world: &world,
        thresholds: &settings.thresholds,
    };
    let evaluation = rules::evaluate(&catalogue, &input);
    let mut report = report::build::build(&world, evaluation, env!("CARGO_PKG_VERSION"));
    if unseen {
        report.status = report::Status::Unknown;
    }
    tell_report(&report, settings)
}

/// Resolves the servers. One that cannot be resolved is told and left out; none is an error.
pub fn servers(names: &[String], progress: &mut Progress) -> anyhow::Result<Vec<nat::Server>> {
    let mut servers = Vec::new();
    let mut failed = None;
    for name in names {
        match resolve::resolve(name) {
            Ok(found) => servers.extend(found),
            Err(error) => {
                progress.note(&error.to_string());
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if servers.is_empty() => Err(error.into()),
        _ => Ok(servers),
    }
}

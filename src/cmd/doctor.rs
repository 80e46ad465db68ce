//! `wgnat doctor`: looks, judges, tells.

use anyhow::ensure;

use super::namespaces::Namespaces;
use super::progress::Progress;
use super::record::{Recorder, replay};
use super::watch::{Judged, Plan, watch};
use super::{fly_toml, observers, tell};
use crate::cli::{Doctor, Global};
use crate::config::Settings;
use crate::observation::Source;
use crate::observe::dump_plan::Budget;
use crate::observe::host;
use crate::redact::Anonymiser;
use crate::report;
use crate::rules::{self, Input};
use crate::sys::netns::Netns;
use crate::sys::{clock, random};

/// Runs the command.
pub fn run(args: &Doctor, global: &Global, settings: &Settings) -> anyhow::Result<u8> {
    let mut progress = Progress::new(global.quiet);
    let anonymiser = if args.anonymise {
        Some(Anonymiser::new(random::key()?))
    } else {
        None
    };
    // Before the watch, so that both see the same time; its threads start in this namespace.
    let namespaces = args.all_netns.then(|| Namespaces::start(settings.cpu_budget));
    let judged = match &args.replay {
        Some(path) => {
            let (judged, note) = replay(path, anonymiser)?;
            if let Some(note) = note {
                progress.note(&note);
            }
            judged
        }
        None => live(args, settings, anonymiser, &mut progress)?,
    };
    let Judged { world, record_error } = judged;
    let catalogue: Vec<_> = rules::registry::rules().collect();
    let input = Input {
        world: &world,
        thresholds: &settings.thresholds,
    };
    let evaluation = rules::evaluate(&catalogue, &input);
    let mut report = report::build::build(&world, evaluation, env!("CARGO_PKG_VERSION"));
    if let Some(namespaces) = namespaces {
        let watched = namespaces.finish(&settings.thresholds);
        report.collectors.push((Source::Namespaces, watched.status));
        report.add_namespaces(watched.judged);
    }
    let code = tell(&report, settings)?;
    match record_error {
        Some(error) => Err(error),
        None => Ok(code),
    }
}

fn live(
    args: &Doctor,
    settings: &Settings,
    anonymiser: Option<Anonymiser>,
    progress: &mut Progress,
) -> anyhow::Result<Judged> {
    // What was asked for wrongly is said before anything is started.
    let configured = observers::read_wg_configs(&settings.wg_config)?;
    let fly_toml = match &settings.fly_toml {
        Some(path) => Some(fly_toml::named(path, settings.agent.listen)?),
        None if args.no_fly_toml => None,
        None => fly_toml::here(settings.agent.listen),
    };
    if let Some(Err(why)) = &fly_toml {
        progress.note(&format!("not looked at: {why}"));
    }
    let fly = settings.fly_checks.then(host::this_machine).flatten();
    ensure!(
        fly.is_some() || !args.fly_checks,
        "--fly-checks: this is no Fly machine: expected FLY_MACHINE_ID, and FLY_PRIVATE_IP in fdaa::/16, in the environment"
    );
    let netns = args.netns.as_deref().map(Netns::open).transpose()?;
    let started = clock::now();
    let recorder = match &args.record {
        Some(path) => Some(Recorder::create(path, started, args.anonymise)?),
        None => None,
    };
    if let Some(netns) = &netns {
        // Before any thread is started: each inherits the namespace of the one that starts it.
        netns.enter()?;
    }
    let paths = observers::paths(&args.target, fly, args.netns.as_deref());
    let mut observers = observers::all(args.netns.clone(), configured.clone());
    observers.extend(paths);
    observers.extend(fly_toml.map(fly_toml::observer));
    if settings.nat_profile.is_some() {
        observers.retain(|(source, _)| *source != Source::Config);
        let opener = observers::named_with(configured, settings.nat_profile.clone());
        observers.push((Source::Config, opener));
    }
    if !settings.stun.is_empty() {
        observers.push((Source::Nat, observers::nat(settings.stun.clone())));
    }
    observers::set_conntrack(
        &mut observers,
        Budget::once(settings.cpu_budget),
        args.conntrack_events,
    );
    if args.no_bpf || settings.duration.is_zero() {
        // It counts from its start on, so one look would show nothing.
        observers.retain(|(source, _)| *source != Source::Bpf);
    }
    watch(
        Plan {
            started,
            settings,
            observers,
            recorder,
            anonymiser,
        },
        progress,
    )
}

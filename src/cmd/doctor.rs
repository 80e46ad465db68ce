//! `wgnat doctor`: looks, judges, tells.

use anyhow::ensure;

use super::namespaces::Namespaces;
use super::progress::Progress;
use super::record::{Recorder, replay};
use super::watch::{Judged, Plan, watch};
use super::{fly_toml, observers, probe, tell};
use crate::cli::{Doctor, Global, Probe, ProbeTransport};
use crate::config::Settings;
use crate::observation::Source;
use crate::observe::dump_plan::Budget;
use crate::observe::host;
use crate::observe::nat;
use crate::observe::prober::Prober;
use crate::observe::prober::beside::Once;
use crate::redact::Anonymiser;
use crate::report::{self, Report, probed};
use crate::rules::{self, Evaluation, Input, Part, registry};
use crate::sys::netns::Netns;
use crate::sys::{clock, random};
use crate::time::{Span, Timestamp};
use crate::track::World;

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
        None => {
            let recorder = |started| match &args.record {
                Some(path) => Recorder::create(path, started, args.anonymise).map(Some),
                None => Ok(None),
            };
            live(args, settings, anonymiser, recorder, &mut progress)?
        }
    };
    let Judged {
        world, record_error, ..
    } = judged;
    let mut report = report_of(&world, settings);
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

/// What is to be said of what was seen and tried.
pub(super) fn report_of(world: &World, settings: &Settings) -> Report {
    let evaluation = evaluate(world, settings);
    let mut report = report::build::build(world, evaluation, env!("CARGO_PKG_VERSION"));
    probed::add_beside(&mut report, world);
    report
}

/// What a probe proves goes before what is seen of the same peer.
fn evaluate(world: &World, settings: &Settings) -> Evaluation {
    let input = Input {
        world,
        thresholds: &settings.thresholds,
    };
    let live: Vec<_> = registry::rules().collect();
    if world.probes.is_empty() {
        return rules::evaluate(&live, &input);
    }
    let part = |rules| Part {
        rules,
        input,
        seen_at: None,
    };
    rules::evaluate_parts(vec![part(registry::probed().collect()), part(live)])
}

/// Peers to try beside the watch, and what tries them.
fn tries(args: &Doctor, settings: &Settings, progress: &mut Progress) -> anyhow::Result<Option<Once>> {
    if args.no_probe {
        return Ok(None);
    }
    let (jobs, notes) = probe::targets::beside(&as_probe(args, settings))?;
    notes.iter().for_each(|note| progress.note(note));
    if jobs.is_empty() {
        return Ok(None);
    }
    let (prober, stopper) = Prober::new();
    observers::on_interrupt(move || stopper.stop())?;
    Ok(Some(Once::new(prober, jobs)))
}

/// The peers that are named as `wgnat probe` takes them, tried as often as the watch has time for.
fn as_probe(args: &Doctor, settings: &Settings) -> Probe {
    let one_look = settings.duration.is_zero();
    // With the time of the first two initiations, which are sent in any case, silence ends within it.
    let (interval, longest) = match one_look {
        true => (Span::from_millis(200), Span::from_secs(1)),
        false => (Span::from_secs(1), Span::from_secs(5)),
    };
    Probe {
        wg_config: settings.wg_config.clone(),
        peers: args.peers.clone(),
        count: if one_look { 2 } else { 3 },
        interval,
        timeout: longest.min(settings.max_duration.max(Span::from_secs(1))),
        transport: ProbeTransport::Udp,
        ping: Vec::new(),
        dns: Vec::new(),
        tcp: Vec::new(),
        mtu: false,
        mapping_lifetime: false,
        source: Vec::new(),
        steal_session: false,
        record: None,
        replay: None,
        anonymise: args.anonymise,
        fail_on: None,
        beside_a_diagnosis: true,
    }
}

/// Looks at this host; `recorder` makes the record of a look that begins then.
pub(super) fn live(
    args: &Doctor,
    settings: &Settings,
    anonymiser: Option<Anonymiser>,
    recorder: impl FnOnce(Timestamp) -> anyhow::Result<Option<Recorder>>,
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
    let recorder = recorder(started)?;
    if let Some(netns) = &netns {
        // Before any thread is started: each inherits the namespace of the one that starts it.
        netns.enter()?;
    }
    let tries = tries(args, settings, progress)?;
    let paths = observers::paths(&args.target, fly, args.netns.as_deref());
    let mut observers = observers::all(args.netns.clone(), configured.clone());
    observers.extend(paths);
    observers.extend(fly_toml.map(fly_toml::observer));
    if settings.nat_profile.is_some() {
        observers.retain(|(source, _)| *source != Source::Config);
        let opener = observers::named_with(configured, settings.nat_profile.clone());
        observers.push((Source::Config, opener));
    }
    if let Some(once) = tries {
        observers.push((Source::Probe, observers::beside(once)));
    }
    ensure!(
        args.nat_lifetime.is_none() || !settings.stun.is_empty(),
        "--nat-lifetime: there is no server to measure it with: expected --stun HOST[:PORT], or stun in [doctor]"
    );
    if !settings.stun.is_empty() {
        let stop = args.nat_lifetime.map(|_| observers::stop_on_interrupt());
        let lifetime = args.nat_lifetime.zip(stop.transpose()?);
        observers.push((Source::Nat, observers::nat(settings.stun.clone(), lifetime)));
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
            first_look: args.nat_lifetime.map_or(Span::ZERO, nat::longest),
        },
        progress,
    )
}

//! `wgnat path`: measures named targets side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use super::progress::Progress;
use super::{input, observers, tell};
use crate::cli::{Global, Path};
use crate::config::Settings;
use crate::observation::path::{PathPast, PathSample, Rtts};
use crate::observation::target::Target;
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::observe::host;
use crate::observe::path::{self, Aim, Plan, plan};
use crate::report::{self, Status};
use crate::rules::{self, Input, registry};
use crate::store;
use crate::sys::clock;
use crate::sys::netns::Netns;
use crate::time::{Span, Timestamp};
use crate::track::World;

/// No report of a thousand targets with their hops is larger.
const BASELINE_LIMIT: usize = 16 * 1024 * 1024;

/// Targets at once: beyond, the measuring host's own queue is what is measured.
const MAX_TARGETS: usize = 1024;

/// Runs the command.
pub fn run(args: &Path, global: &Global, settings: &Settings) -> anyhow::Result<u8> {
    let mut progress = Progress::new(global.quiet);
    let past = match &args.baseline {
        None => Vec::new(),
        Some(file) => baseline(file)?,
    };
    if let Some(netns) = &args.netns {
        Netns::open(netns)?.enter()?;
    }
    let aims = aims(args, &mut progress)?;
    let usual = match &args.store {
        None => Vec::new(),
        Some(file) => usual(file, args.since, &aims, &mut progress)?,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let on_signal = Arc::clone(&stop);
    observers::on_interrupt(move || on_signal.store(true, Ordering::Relaxed))?;
    let started = clock::now();
    let mut world = World::new(started);
    let mut apply = |at: Timestamp, took: Span, source, body| {
        world.apply(&Observation {
            at,
            took,
            source,
            body,
        });
    };
    for one in past.into_iter().chain(usual) {
        apply(started, Span::ZERO, Source::Paths, Body::PathPast(one));
    }
    let plan = Plan {
        aims,
        count: args.count,
        interval: args.interval,
        timeout: args.timeout,
        mtu: args.mtu,
        hops: args.hops,
    };
    let measured = path::measure(&plan, &|| stop.load(Ordering::Relaxed)).context("cannot measure paths")?;
    let samples: Vec<PathSample> = measured.iter().map(|(_, _, sample)| sample.clone()).collect();
    for (at, took, sample) in measured {
        apply(at, took, Source::Paths, Body::Path(Box::new(sample)));
    }
    let now = clock::now();
    if let Ok(facts) = host::facts(args.netns.clone()) {
        apply(now, Span::ZERO, Source::Host, Body::Host(facts));
        apply(now, Span::ZERO, Source::Host, Body::Status(SourceStatus::ok()));
    }
    apply(
        now,
        Span::ZERO,
        Source::Paths,
        Body::Status(path::status(&samples)),
    );
    world.handle_timeout(now);
    let catalogue: Vec<_> = registry::paths().collect();
    let evaluation = rules::evaluate(
        &catalogue,
        &Input {
            world: &world,
            thresholds: &settings.thresholds,
        },
    );
    let mut report = report::build::build(&world, evaluation, env!("CARGO_PKG_VERSION"));
    if samples.iter().all(|sample| sample.sent == 0) {
        report.status = Status::Unknown;
    }
    tell(&report, settings)
}

fn aims(args: &Path, progress: &mut Progress) -> anyhow::Result<Vec<Aim>> {
    let servers = plan::name_servers(args.netns.as_deref());
    let mut aims = plan::aims(args.targets.clone(), &servers);
    if args.fly_mesh {
        let own = std::env::var("FLY_MACHINE_ID").ok();
        let (siblings, unread) = plan::mesh(&servers, own.as_deref())?;
        if unread > 0 {
            progress.note(&format!(
                "{unread} entries in Fly's list of machines could not be read"
            ));
        }
        aims.extend(siblings);
    }
    anyhow::ensure!(
        aims.len() <= MAX_TARGETS,
        "{} targets: expected at most {MAX_TARGETS} at once",
        aims.len()
    );
    Ok(aims)
}

/// What an earlier report measured.
fn baseline(file: &std::path::Path) -> anyhow::Result<Vec<PathPast>> {
    let doing = || format!("baseline {}", file.display());
    let text = input::text(file, BASELINE_LIMIT).with_context(doing)?;
    let report: serde_json::Value = serde_json::from_str(&text).with_context(doing)?;
    anyhow::ensure!(
        report.get("schema").and_then(serde_json::Value::as_str) == Some("wgnat.report/1"),
        "baseline {}: no report by `wgnat path --json` (its schema is not \"wgnat.report/1\")",
        file.display()
    );
    let rows = report.get("paths").and_then(serde_json::Value::as_array);
    let past: Vec<PathPast> = rows.into_iter().flatten().filter_map(past).collect();
    anyhow::ensure!(
        !past.is_empty(),
        "baseline {}: it has no measured paths",
        file.display()
    );
    Ok(past)
}

/// What the history at `file` knows of the targets. It is read beside a running agent and never written.
fn usual(
    file: &std::path::Path,
    since: Span,
    aims: &[Aim],
    progress: &mut Progress,
) -> anyhow::Result<Vec<PathPast>> {
    let history = store::open_readonly(file)?;
    let now = clock::now();
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    for aim in aims {
        let name = aim.target.to_string();
        let usual = store::paths::usual(&history, &name, now.before(since), now)
            .with_context(|| format!("history {}: it could not be read", file.display()))?;
        match usual {
            Some(usual) => known.push(PathPast {
                target: aim.target.clone(),
                sent: 0,
                lost: 0,
                median: Rtts::default(),
                jitter: Rtts::default(),
                usual: Some(usual),
            }),
            None => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        progress.note(&format!(
            "history {}: too little about {} to say what is usual: the agent measures what its `targets` names",
            file.display(),
            unknown.join(", ")
        ));
    }
    Ok(known)
}

fn past(row: &serde_json::Value) -> Option<PathPast> {
    let number = |name: &str| row.get(name).and_then(serde_json::Value::as_u64);
    let rtt = |name: &str| {
        let seconds = row.get("rtt").and_then(|rtt| rtt.get(name)?.as_f64());
        let span = seconds.and_then(|s| Span::try_from_secs_f64(s).ok());
        Rtts(span.into_iter().collect())
    };
    Some(PathPast {
        target: row.get("target")?.as_str()?.parse::<Target>().ok()?,
        sent: u32::try_from(number("sent")?).ok()?,
        lost: u32::try_from(number("lost")?).ok()?,
        median: rtt("median_seconds"),
        jitter: rtt("jitter_seconds"),
        usual: None,
    })
}

//! `wgnat reflect`: serves what `wgnat nat` asks.
//!
//! Each UDP socket has threads of its own that block on it; TCP, metrics and signals share one thread. Nothing is kept
//! about any client: what grows with the load is a fixed table of the rate limit, and counters.

mod metrics;
mod sites;
mod tcp;
mod udp;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use crate::cli::Reflect;
use crate::probe::limiter::Limiter;
use metrics::Counters;
use sites::Site;

/// What all threads share.
pub(super) struct Shared {
    limiter: Limiter,
    counters: Counters,
    /// Answer requests shorter than the answer.
    short: bool,
    stop: AtomicBool,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &Reflect) -> anyhow::Result<u8> {
    let sites = sites::open(args)?;
    let shared = Arc::new(Shared {
        limiter: Limiter::new(args.rate_limit, args.burst),
        counters: Counters::default(),
        short: args.answer_short_requests,
        stop: AtomicBool::new(false),
    });
    for site in &sites {
        tracing::info!("serving {}", site.describe());
    }
    let mut threads = Vec::new();
    for site in &sites {
        for slot in site.grid.slots() {
            for _ in 0..args.threads {
                let (site, shared) = (Arc::clone(site), Arc::clone(&shared));
                let thread = std::thread::Builder::new()
                    .name("reflect-udp".to_owned())
                    .stack_size(256 * 1024)
                    .spawn(move || udp::serve(&site, slot, &shared))
                    .context("cannot start a thread")?;
                threads.push(thread);
            }
        }
    }
    let served = serve(args, &sites, &shared);
    shared.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let _ = thread.join();
    }
    served.map(|()| 0)
}

/// TCP, metrics and signals, on this thread.
fn serve(args: &Reflect, sites: &[Arc<Site>], shared: &Arc<Shared>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        for site in sites {
            tcp::serve(site, shared)?;
        }
        if let Some(address) = args.metrics {
            metrics::serve(address, Arc::clone(shared))?;
        }
        // What waits for the server to be there waits for this line.
        tracing::info!("ready");
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        Ok(())
    })
}

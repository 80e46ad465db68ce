//! The metrics of 200 destinations and 100 peers, as text: what one scrape costs at most.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/common/samples/mod.rs"]
mod samples;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use wgnat::output::prometheus::{Exposition, families, render};
use wgnat::report::agent::AgentStats;
use wgnat::report::{PeerState, Report};
use wgnat::types::PublicKey;

fn report() -> Report {
    let mut report = samples::ports_exhausted();
    report.sockets.destinations = (0_u16..200)
        .map(|n| samples::destination_row(&format!("203.0.113.9:{}", 1000 + n), None, 100, 28_232, "steady"))
        .collect();
    let peers = (0_u8..100).flat_map(|n| {
        let mut peers = samples::wireguard(PeerState::Up).peers;
        for peer in &mut peers {
            peer.public_key = PublicKey([n; 32]);
        }
        peers.into_iter().take(1)
    });
    report.wireguard.peers = peers.collect();
    report
}

fn metrics(c: &mut Criterion) {
    let (report, stats) = (
        report(),
        AgentStats {
            top_destinations: 200,
            top_peers: 100,
            ..AgentStats::default()
        },
    );
    for (name, exposition) in [
        ("prometheus", Exposition::Prometheus),
        ("openmetrics", Exposition::OpenMetrics),
    ] {
        c.bench_function(&format!("metrics/{name}, 200 destinations, 100 peers"), |b| {
            b.iter(|| render(&families(black_box(&report), &stats), exposition));
        });
    }
}

criterion_group!(benches, metrics);
criterion_main!(benches);

//! The pure folds alone: nanoseconds per socket and per conntrack entry, towards few destinations and towards many.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/kernel_tables/namespace.rs"]
mod namespace;

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use namespace::NewEntry;
use wgnat::observe::tally::conntrack::CtFold;
use wgnat::observe::tally::sockets::SocketFold;
use wgnat::types::{PortRange, Proto};

const ITEMS: u32 = 50_000;

/// A number's bytes, spread so that neighbours lie far apart, as in a hash table's order.
fn spread(n: u32) -> [u8; 4] {
    n.wrapping_mul(0x9e37_79b1).to_be_bytes()
}

/// A TIME_WAIT socket as `sock_diag` gives it.
fn time_wait(n: u32, destinations: u32) -> Vec<u8> {
    let [.., p0, p1] = spread(n);
    let mut m = vec![2, 6, 3, 0, p0 | 0x80, p1, 0x01, 0xbb];
    m.extend([10, 0, 0, 2]);
    m.extend([0; 12]);
    m.extend(spread(n % destinations));
    m.extend([0; 24]);
    for word in [n % 60_000, 0, 0, 0, 0] {
        m.extend(word.to_ne_bytes());
    }
    m
}

fn masqueraded(n: u32, destinations: u32) -> Vec<u8> {
    let [_, _, p0, p1] = spread(n);
    let port = u16::from_be_bytes([p0, p1]);
    let server = (IpAddr::from(spread(n % destinations)), 443);
    let nat = (IpAddr::from([198, 51, 100, 1]), port);
    NewEntry::masqueraded((IpAddr::from([10, 0, 0, 2]), port), server, nat).payload()
}

fn folds(c: &mut Criterion) {
    for destinations in [4, ITEMS] {
        let mut group = c.benchmark_group(format!("{ITEMS} items, {destinations} destinations"));
        group.throughput(Throughput::Elements(ITEMS.into()));
        let sockets: Vec<_> = (0..ITEMS).map(|n| time_wait(n, destinations)).collect();
        let mut fold = SocketFold::new(PortRange::LINUX_DEFAULT, &[]);
        group.bench_function("sockets", |b| {
            b.iter(|| {
                sockets.iter().for_each(|m| fold.add(Proto::Tcp, black_box(m)));
                black_box(fold.finish(false))
            });
        });
        let entries: Vec<_> = (0..ITEMS).map(|n| masqueraded(n, destinations)).collect();
        group.bench_function("conntrack", |b| {
            b.iter(|| {
                let mut fold = CtFold::new(Some(432_000));
                entries.iter().for_each(|m| fold.add(black_box(m)));
                black_box(fold.finish(false))
            });
        });
        group.finish();
    }
}

criterion_group!(benches, folds);
criterion_main!(benches);

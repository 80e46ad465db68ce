//! The routers on the way, by trippy-core: its tracing engine knows how to keep a flow on one way (Paris).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use trippy_core::{Builder, Error, MultipathStrategy, Port, PortDirection, PrivilegeMode, Protocol};

use crate::observation::path::HopSample;
use crate::observation::target::Method;
use crate::time::Span;

/// Probes for each distance.
const ROUNDS: usize = 3;
/// Farther than the Internet is wide.
const MAX_TTL: u8 = 32;
/// Routers that are told; beyond, a way loops.
const MAX_ADDRESSES: usize = 8;
/// Where UDP traces go: nobody listens there, so the target refuses (traceroute(8)).
const TRACE_PORT: u16 = 33_434;
/// The first port that UDP traces come from.
const SOURCE_PORT: u16 = 33_100;
/// The engine takes any answer within 512 sequence numbers of its round's first for one of its own, and panics where it
/// sent none such: traces that run at once are kept twice as far apart.
const APART: u16 = 1024;
/// The first trace's first sequence number; TCP traces come from the port of that number.
const FIRST: u16 = 8192;
/// Traces in a row that are told apart, three times as many as run at once.
const TRACES: u16 = 48;

/// Numbers traces, so that no two that run at once take each other's answers for theirs.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// Traces the way to `target` with what its `method` sends, so that the probes go where its packets do.
pub(super) async fn trace(target: SocketAddr, method: &Method) -> Result<Vec<HopSample>, String> {
    let method = method.clone();
    tokio::task::spawn_blocking(move || blocking(target, &method))
        .await
        .map_err(|e| e.to_string())?
}

#[allow(clippy::cast_possible_truncation)] // an identifier
fn blocking(target: SocketAddr, method: &Method) -> Result<Vec<HopSample>, String> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % TRACES;
    let builder = Builder::new(target.ip())
        .trace_identifier(std::process::id() as u16 ^ number.wrapping_mul(257))
        .initial_sequence(FIRST + number * APART)
        .privilege_mode(PrivilegeMode::Privileged)
        .max_rounds(Some(ROUNDS))
        .max_ttl(MAX_TTL)
        .min_round_duration(Span::from_millis(200))
        .max_round_duration(Span::from_millis(1000))
        .grace_duration(Span::from_millis(100))
        .max_samples(1)
        .max_flows(1);
    let builder = match method {
        Method::Icmp => builder.protocol(Protocol::Icmp),
        Method::Udp(_) | Method::Dns(_) => builder
            .protocol(Protocol::Udp)
            .multipath_strategy(MultipathStrategy::Paris)
            .port_direction(PortDirection::new_fixed_both(SOURCE_PORT + number, TRACE_PORT)),
        Method::Tcp(port) | Method::Tls(port) | Method::Http { port, .. } => builder
            .protocol(Protocol::Tcp)
            .port_direction(PortDirection::FixedDest(Port(*port))),
    };
    let tracer = builder.build().map_err(|e| told(&e))?;
    tracer.run().map_err(|e| told(&e))?;
    let state = tracer.snapshot();
    if let Some(error) = state.error() {
        return Err(error.to_owned());
    }
    Ok(state
        .hops()
        .iter()
        .map(|hop| HopSample {
            ttl: hop.ttl(),
            addresses: hop.addrs().take(MAX_ADDRESSES).copied().collect(),
            sent: u32::try_from(hop.total_sent()).unwrap_or(u32::MAX),
            answered: u32::try_from(hop.total_recv()).unwrap_or(u32::MAX),
            rtt: (hop.total_recv() > 0)
                .then(|| Span::try_from_secs_f64(hop.avg_ms() / 1000.0).ok())
                .flatten(),
        })
        .collect())
}

fn told(error: &Error) -> String {
    let words = error.to_string();
    if words.to_ascii_lowercase().contains("permi") || words.contains("privilege") {
        "needs CAP_NET_RAW".to_owned()
    } else {
        words
    }
}

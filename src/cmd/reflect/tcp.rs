//! The TCP side: a bounded number of connections, each for a bounded time.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Shared;
use super::metrics::Counters;
use super::sites::Site;
use crate::probe::reflector::{self, LONGEST, Reply, Slot, Transport};
use crate::sys::clock;
use crate::time::Span;
use crate::wire::stun::{self, HEADER, LARGEST};

/// Connections at once to one socket; the next ones wait in the kernel's backlog.
const CONNECTIONS: usize = 256;
/// A connection's whole life.
const LIFE: Span = Span::from_secs(10);
/// Requests on one connection.
const REQUESTS: usize = 64;

/// Serves every TCP socket of a site.
pub(super) fn serve(site: &Arc<Site>, shared: &Arc<Shared>) -> anyhow::Result<()> {
    for slot in site.grid.slots() {
        let Some(listener) = site.tcp(slot) else {
            continue;
        };
        let listener = listener
            .try_clone()
            .and_then(TcpListener::from_std)
            .context("cannot serve over TCP")?;
        tokio::spawn(accept(listener, slot, Arc::clone(site), Arc::clone(shared)));
    }
    Ok(())
}

async fn accept(listener: TcpListener, slot: Slot, site: Arc<Site>, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, from)) => {
                let (site, shared) = (Arc::clone(&site), Arc::clone(&shared));
                tokio::spawn(async move {
                    let _ = timeout(LIFE, converse(stream, from, slot, &site, &shared)).await;
                    drop(place);
                });
            }
            // Out of descriptors, most likely: others close theirs in a moment.
            Err(_) => tokio::time::sleep(Span::from_millis(50)).await,
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    from: SocketAddr,
    slot: Slot,
    site: &Site,
    shared: &Shared,
) -> std::io::Result<()> {
    let counters = &shared.counters;
    let mut request = [0; LARGEST];
    let mut out = [0; LONGEST];
    for _ in 0..REQUESTS {
        let (head, rest) = request.split_at_mut(HEADER);
        stream.read_exact(head).await?;
        let whole = head.first_chunk().and_then(stun::length).unwrap_or(0);
        let Some(rest) = whole.checked_sub(HEADER).and_then(|n| rest.get_mut(..n)) else {
            Counters::add(&counters.not_requests, 1);
            return Ok(());
        };
        stream.read_exact(rest).await?;
        Counters::add(&counters.tcp_requests, 1);
        Counters::add(&counters.bytes_in, whole as u64);
        let now = u64::try_from(clock::monotonic().as_nanos()).unwrap_or(u64::MAX);
        if !shared.limiter.allows(from.ip(), now) {
            Counters::add(&counters.limited, 1);
            return Ok(());
        }
        let message = request.get(..whole).unwrap_or_default();
        match reflector::answer(&site.grid, slot, from, Transport::Tcp, message, &mut out) {
            Reply::Send { length, error, .. } => {
                let bytes = out.get(..length).unwrap_or_default();
                stream.write_all(bytes).await?;
                Counters::add(&counters.bytes_out, length as u64);
                Counters::add(
                    if error {
                        &counters.refused
                    } else {
                        &counters.answered
                    },
                    1,
                );
            }
            Reply::Ignore(_) => {
                Counters::add(&counters.not_requests, 1);
                return Ok(());
            }
        }
    }
    Ok(())
}

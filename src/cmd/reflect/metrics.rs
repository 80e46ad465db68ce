//! Counters, and `/metrics` for Prometheus.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use super::Shared;

/// What was served.
#[derive(Debug, Default)]
#[allow(missing_docs)] // each name is in `render` with its help
pub(super) struct Counters {
    pub udp_requests: AtomicU64,
    pub tcp_requests: AtomicU64,
    pub answered: AtomicU64,
    pub refused: AtomicU64,
    pub limited: AtomicU64,
    pub too_short: AtomicU64,
    pub not_requests: AtomicU64,
    pub failed: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

impl Counters {
    /// Counts `n` more.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    fn render(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, help: &str, samples: &[(&str, &AtomicU64)]| {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (labels, counter) in samples {
                let _ = writeln!(text, "{name}{labels} {}", counter.load(Ordering::Relaxed));
            }
        };
        family(
            "wgnat_reflect_requests_total",
            "Datagrams and messages received.",
            &[
                ("{transport=\"udp\"}", &self.udp_requests),
                ("{transport=\"tcp\"}", &self.tcp_requests),
            ],
        );
        family(
            "wgnat_reflect_responses_total",
            "Responses sent.",
            &[
                ("{class=\"success\"}", &self.answered),
                ("{class=\"error\"}", &self.refused),
            ],
        );
        family(
            "wgnat_reflect_ignored_total",
            "Requests that got no response.",
            &[
                ("{reason=\"rate_limit\"}", &self.limited),
                ("{reason=\"too_short\"}", &self.too_short),
                ("{reason=\"not_a_request\"}", &self.not_requests),
                ("{reason=\"send_failed\"}", &self.failed),
            ],
        );
        family(
            "wgnat_reflect_bytes_total",
            "Bytes of messages.",
            &[
                ("{direction=\"in\"}", &self.bytes_in),
                ("{direction=\"out\"}", &self.bytes_out),
            ],
        );
        text
    }
}

/// Serves `/metrics` at `address`.
pub(super) fn serve(address: SocketAddr, shared: Arc<Shared>) -> anyhow::Result<()> {
    let doing = || format!("cannot serve metrics at {address}");
    let listener = std::net::TcpListener::bind(address).with_context(doing)?;
    listener.set_nonblocking(true).with_context(doing)?;
    let listener = tokio::net::TcpListener::from_std(listener).with_context(doing)?;
    let metrics = move || {
        let shared = Arc::clone(&shared);
        async move {
            (
                [(CONTENT_TYPE, "text/plain; version=0.0.4")],
                shared.counters.render(),
            )
        }
    };
    let app = Router::new().route("/metrics", get(metrics));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(())
}

//! Peers that a wg-quick file names: resolves their endpoints' names, as WireGuard itself would only at start.
//!
//! Needs nothing but the system's resolver (which may be slow: hence an observer with a thread of its own). Costs one
//! look-up a name at the start and every five minutes after: a name that moves while it is watched is seen to. Where a
//! look-up fails the addresses known before stay, and the status says so.

use std::net::ToSocketAddrs;

use super::{Emit, ObserveError, Observer};
use crate::observation::device::ConfiguredPeer;
use crate::observation::nat::Budget;
use crate::observation::{Body, Source, SourceStatus};
use crate::sys::clock;
use crate::time::Span;

/// How often names are resolved: as often as a dynamic address' record commonly lives.
const RESOLVE_AGAIN: Span = Span::from_secs(300);

/// The observer.
pub struct Configured {
    peers: Vec<ConfiguredPeer>,
    resolved_at: Option<std::time::Instant>,
    budget: Option<Budget>,
    unresolved: Vec<String>,
}

impl Configured {
    /// Of `peers`, as the files name them.
    pub fn new(peers: Vec<ConfiguredPeer>) -> Self {
        Self {
            peers,
            resolved_at: None,
            budget: None,
            unresolved: Vec::new(),
        }
    }

    /// With what the user says of the NAT in front.
    #[must_use]
    pub fn with_budget(mut self, budget: Option<Budget>) -> Self {
        self.budget = budget;
        self
    }

    fn resolve(&mut self) {
        self.unresolved.clear();
        for peer in &mut self.peers {
            let Some(endpoint) = &peer.endpoint else { continue };
            match endpoint.to_socket_addrs() {
                Ok(addresses) => peer.resolved = addresses.collect(),
                Err(error) => self.unresolved.push(format!("{endpoint} ({error})")),
            }
        }
    }
}

impl Observer for Configured {
    fn source(&self) -> Source {
        Source::Config
    }

    fn interval(&self) -> Span {
        RESOLVE_AGAIN
    }

    fn look(&mut self, emit: &mut Emit<'_>) -> Result<SourceStatus, ObserveError> {
        // The last look of a run comes at any time.
        let now = clock::instant();
        let due = self
            .resolved_at
            .is_none_or(|then| now.saturating_duration_since(then) >= RESOLVE_AGAIN);
        if due {
            self.resolved_at = Some(now);
            let at = clock::now();
            if let Some(budget) = &self.budget {
                emit.emit(at, Span::ZERO, Body::NatBudget(budget.clone()));
            }
            self.resolve();
            emit.emit(at, clock::now() - at, Body::ConfiguredPeers(self.peers.clone()));
        }
        Ok(match self.unresolved.as_slice() {
            [] => SourceStatus::ok(),
            names => SourceStatus::degraded(format!("cannot resolve {}", names.join(", "))),
        })
    }
}

//! How the agent itself fares, as plain data: what `/metrics` tells beside the report.

use crate::finding::Severity;
use crate::observation::Source;
use crate::observation::nat::Family;
use crate::observation::path::Failure;
use crate::time::{Span, Timestamp};
use crate::types::PublicKey;

/// The upper bounds of the handshake round trips' histogram: from a LAN to the 5 s after which WireGuard tries again.
pub const RTT_BOUNDS: [Span; 12] = [
    Span::from_millis(1),
    Span::from_micros(2_500),
    Span::from_millis(5),
    Span::from_millis(10),
    Span::from_millis(25),
    Span::from_millis(50),
    Span::from_millis(100),
    Span::from_millis(250),
    Span::from_millis(500),
    Span::from_secs(1),
    Span::from_millis(2_500),
    Span::from_secs(5),
];

/// Lengths of time by class; `counts` has one more than [`RTT_BOUNDS`], for what is longer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How many fell into each class.
    pub counts: [u64; 13],
    /// Their sum.
    pub sum: Span,
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, span: Span) {
        let class = RTT_BOUNDS.iter().position(|bound| span <= *bound);
        if let Some(count) = self.counts.get_mut(class.unwrap_or(RTT_BOUNDS.len())) {
            *count += 1;
        }
        self.sum += span;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What has been counted since the agent began.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Handshake attempts on the wire by outcome (`answered`, `unanswered`, `cookie`, `unreachable`).
    pub handshakes: Vec<(&'static str, u64)>,
    /// Their round trips.
    pub rtt: Histogram,
    /// Endpoint changes by device and peer.
    pub endpoint_changes: Vec<(String, PublicKey, u64)>,
    /// Conntrack's counters by the kernel's names; `None` where they were not read.
    pub conntrack: Option<Vec<(&'static str, u64)>>,
    /// Connects by what came of them, where they are counted: `established`, then causes of failure.
    pub connects: Option<Vec<(&'static str, u64)>>,
    /// Findings that began, by code and severity.
    pub findings: Vec<(&'static str, Severity, u64)>,
    /// Attempts towards each measured target.
    pub paths: Vec<PathTotals>,
    /// Discoveries of the NAT in front; `None` where there was none.
    pub nat: Option<NatTotals>,
}

/// Attempts towards one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathTotals {
    /// As it was named.
    pub target: String,
    /// How it is tried.
    pub method: &'static str,
    /// When it was last measured.
    pub at: Timestamp,
    /// Attempts made.
    pub attempts: u64,
    /// Attempts without a round trip, by [`Failure::CAUSES`].
    pub failures: [u64; Failure::CAUSES.len()],
}

/// Discoveries of the NAT in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatTotals {
    /// When the newest ended.
    pub at: Timestamp,
    /// How many.
    pub discoveries: u64,
    /// Changes of the external address, by family.
    pub changes: Vec<(Family, u64)>,
}

/// Flows through the NAT in front beside what it allows, as the user says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetStats {
    /// What the user says of it.
    pub profile: String,
    /// Flows that it allows at once in each group that it counts together.
    pub limit: u32,
    /// Flows in the fullest group.
    pub fullest: u32,
}

/// How the history fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// `file`, `memory` (the file cannot be written: a full disk, say) or `off`.
    pub state: &'static str,
    /// Why it is not the file.
    pub reason: Option<String>,
    /// Bytes on disk, the log that is to be folded in included.
    pub bytes: u64,
    /// Writes that were given up: the queue was full, or the file refused them.
    pub dropped: u64,
    /// Files that could not be read and were set aside.
    pub set_aside: u64,
}

/// Answers by route and class of status.
pub type Requests = Vec<(&'static str, &'static str, u64)>;

/// How the agent fares.
#[derive(Clone, Debug, Default)]
pub struct AgentStats {
    /// When it began.
    pub started: Timestamp,
    /// CPU time of all its threads.
    pub cpu: Span,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// CPU time of each observer, over all its starts.
    pub costs: Vec<(Source, Span)>,
    /// How often each observer was started anew.
    pub restarts: Vec<(Source, u64)>,
    /// By how much observers are slowed down to keep to the budget; 1 is not at all.
    pub pace: f32,
    /// Evaluations of all rules.
    pub evaluations: u64,
    /// How long the newest took.
    pub evaluation: Span,
    /// Whether the newest reading of the configuration was taken over.
    pub config_ok: bool,
    /// When the configuration was last taken over.
    pub config_at: Timestamp,
    /// Times that the clock was found set.
    pub clock_steps: u64,
    /// What the process has been confined to, by name.
    pub confined: Vec<(&'static str, bool)>,
    /// HTTP answers.
    pub requests: Requests,
    /// The history.
    pub store: StoreStats,
    /// What has been counted.
    pub totals: Totals,
    /// Use of the NAT in front; `None` where its limit is not known.
    pub budget: Option<BudgetStats>,
    /// Destinations shown on their own; the rest is `other`.
    pub top_destinations: usize,
    /// Peers shown on their own; the rest is left out and counted.
    pub top_peers: usize,
}

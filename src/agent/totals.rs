//! What is counted since the agent began, for counters must never go back: worlds are dropped when they grow old.
//!
//! In: observations and reports. Out: [`Totals`]. Each handshake attempt is counted once, when its outcome is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::observation::conntrack::CtStats;
use crate::observation::device::DeviceSnapshot;
use crate::observation::{Body, Observation};
use crate::report::Report;
use crate::report::agent::{Histogram, Totals};
use crate::time::Timestamp;
use crate::track::conntrack::Moved;
use crate::types::PublicKey;

/// Settled attempts remembered, so that each is counted once: far more than a report lists.
const ATTEMPTS: usize = 4096;
/// Peers whose endpoint changes are counted; beyond it changes of further peers are not.
const PEERS: usize = 10_000;
/// Outcomes that will not change any more.
const SETTLED: [&str; 4] = ["answered", "cookie", "unanswered", "unreachable"];

/// The counts.
#[derive(Debug, Default)]
pub struct Counting {
    outcomes: BTreeMap<&'static str, u64>,
    rtt: Histogram,
    counted: BTreeSet<(Timestamp, SocketAddr, SocketAddr)>,
    forgotten: Timestamp,
    endpoints: BTreeMap<(String, PublicKey), (SocketAddr, u64)>,
    conntrack: Option<(CtStats, Moved)>,
    connects: Option<Vec<(&'static str, u64)>>,
}

impl Counting {
    /// Takes an observation in.
    pub fn apply(&mut self, observation: &Observation) {
        match &observation.body {
            Body::Devices(devices) => devices.iter().for_each(|device| self.device(device)),
            Body::ConntrackStats(stats) => {
                let (before, total) = self
                    .conntrack
                    .get_or_insert_with(|| (stats.clone(), Moved::default()));
                *total += Moved::of(before, stats);
                *before = stats.clone();
            }
            Body::Connects(tally) => {
                let sum = |of: fn(&crate::observation::connect::ConnectRow) -> u64| {
                    tally.rows.iter().map(of).sum::<u64>()
                };
                let now = [
                    ("established", sum(|r| r.established)),
                    ("no_port", sum(|r| r.failed.no_port)),
                    ("tuple_taken", sum(|r| r.failed.tuple_taken)),
                    ("refused", sum(|r| r.failed.refused)),
                    ("timed_out", sum(|r| r.failed.timed_out)),
                    ("unreachable", sum(|r| r.failed.unreachable)),
                    ("given_up", sum(|r| r.failed.given_up)),
                    ("other", sum(|r| r.failed.other)),
                ];
                // Rows that were forgotten must not make a counter go back.
                let before = self.connects.get_or_insert_with(|| now.to_vec());
                for ((_, before), (_, now)) in before.iter_mut().zip(now) {
                    *before = (*before).max(now);
                }
            }
            _ => {}
        }
    }

    fn device(&mut self, device: &DeviceSnapshot) {
        for peer in &device.peers {
            let Some(endpoint) = peer.endpoint else { continue };
            let key = (device.name.clone(), peer.public_key);
            if self.endpoints.len() >= PEERS && !self.endpoints.contains_key(&key) {
                continue;
            }
            let (before, changes) = self.endpoints.entry(key).or_insert((endpoint, 0));
            *changes += u64::from(*before != endpoint);
            *before = endpoint;
        }
    }

    /// Counts the attempts of `report` that are settled and were not counted yet.
    pub fn settle(&mut self, report: &Report) {
        for row in &report.wireguard.handshakes {
            let key = (row.at, row.initiator, row.responder);
            let Some(outcome) = SETTLED.into_iter().find(|settled| *settled == row.outcome) else {
                continue;
            };
            if row.at <= self.forgotten || !self.counted.insert(key) {
                continue;
            }
            *self.outcomes.entry(outcome).or_default() += 1;
            if let Some(rtt) = row.rtt {
                self.rtt.add(rtt);
            }
        }
        while self.counted.len() > ATTEMPTS {
            if let Some((at, ..)) = self.counted.pop_first() {
                self.forgotten = self.forgotten.max(at);
            }
        }
    }

    /// The clock was set back: what is new must not be taken for what was forgotten.
    pub fn set_back(&mut self) {
        self.counted.clear();
        self.forgotten = Timestamp::default();
    }

    /// The counts, findings left to be filled in.
    pub fn totals(&self) -> Totals {
        let outcome = |name: &'static str| (name, self.outcomes.get(name).copied().unwrap_or(0));
        Totals {
            handshakes: SETTLED.into_iter().map(outcome).collect(),
            rtt: self.rtt.clone(),
            endpoint_changes: self
                .endpoints
                .iter()
                .map(|((device, key), (_, changes))| (device.clone(), *key, *changes))
                .collect(),
            conntrack: self.conntrack.as_ref().map(|(_, moved)| moved.by_name().to_vec()),
            connects: self.connects.clone(),
            findings: Vec::new(),
        }
    }
}

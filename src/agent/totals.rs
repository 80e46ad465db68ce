//! What is counted since the agent began, for counters must never go back: worlds are dropped when they grow old.
//!
//! In: observations and reports. Out: [`Totals`]. Each handshake attempt is counted once, when its outcome is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::observation::conntrack::CtStats;
use crate::observation::device::DeviceSnapshot;
use crate::observation::nat::NatFacts;
use crate::observation::path::{Failure, PathSample};
use crate::observation::{Body, Observation, Source};
use crate::report::Report;
use crate::report::agent::{Histogram, NatTotals, PathTotals, Totals};
use crate::time::Timestamp;
use crate::track::conntrack::Moved;
use crate::track::natclass::NatState;
use crate::track::paths::MAX_TARGETS;
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
    paths: BTreeMap<String, PathTotals>,
    nat: NatState,
    nat_totals: Option<NatTotals>,
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
            Body::Path(sample) => self.path(observation.at, sample),
            Body::Nat(facts) => self.nat(observation.at, facts),
            _ => {}
        }
    }

    fn path(&mut self, at: Timestamp, sample: &PathSample) {
        let name = sample.target.to_string();
        if self.paths.len() >= MAX_TARGETS && !self.paths.contains_key(&name) {
            return;
        }
        let totals = self.paths.entry(name.clone()).or_insert_with(|| PathTotals {
            target: name,
            method: sample.target.method.name(),
            ..PathTotals::default()
        });
        totals.at = at;
        totals.attempts += u64::from(sample.sent);
        for (failure, n) in &sample.failures {
            let causes = Failure::CAUSES.into_iter().zip(&mut totals.failures);
            for (_, count) in causes.filter(|(cause, _)| *cause == failure.cause()) {
                *count += u64::from(*n);
            }
        }
    }

    fn nat(&mut self, at: Timestamp, facts: &NatFacts) {
        let known = self.nat.changes_total();
        self.nat.apply(at, facts);
        let totals = self.nat_totals.get_or_insert_default();
        totals.at = at;
        totals.discoveries += 1;
        for family in facts.families.iter().map(|f| f.family) {
            if !totals.changes.iter().any(|(known, _)| *known == family) {
                totals.changes.push((family, 0));
            }
        }
        let new = usize::try_from(self.nat.changes_total() - known).unwrap_or(usize::MAX);
        for change in self.nat.changes().rev().take(new) {
            for (_, n) in totals.changes.iter_mut().filter(|(f, _)| *f == change.family) {
                *n += 1;
            }
        }
    }

    /// What `source` told counts no more: it is no longer asked, or something else.
    pub fn forget(&mut self, source: Source) {
        match source {
            Source::Paths => self.paths.clear(),
            Source::Nat => (self.nat, self.nat_totals) = (NatState::default(), None),
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
            paths: self.paths.values().cloned().collect(),
            nat: self.nat_totals.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::nat::{Family, FamilyFacts};
    use crate::observation::path::Rtts;
    use crate::time::Span;

    fn see(counting: &mut Counting, source: Source, body: Body) {
        counting.apply(&Observation {
            at: Timestamp::from_secs(5),
            took: Span::ZERO,
            source,
            body,
        });
    }

    #[test]
    fn attempts_and_failures_of_each_target_add_up() {
        let mut counting = Counting::default();
        for failure in [
            Failure::Timeout,
            Failure::Cut("TLS: what the other side said".to_owned()),
            // The last of them: each has its place.
            Failure::Local("no route".to_owned()),
        ] {
            let sample = PathSample {
                sent: 10,
                rtts: Rtts(vec![Span::from_millis(1); 7]),
                failures: vec![(failure, 3)],
                ..PathSample::unmeasured("tcp:a:1".parse().unwrap())
            };
            see(&mut counting, Source::Paths, Body::Path(Box::new(sample)));
        }
        let totals = counting.totals().paths;
        assert_eq!(totals.len(), 1);
        assert_eq!((totals[0].attempts, totals[0].method), (30, "tcp"));
        for (cause, n) in Failure::CAUSES.into_iter().zip(totals[0].failures) {
            let expected = if ["timeout", "cut", "local"].contains(&cause) {
                3
            } else {
                0
            };
            assert_eq!(n, expected, "{cause}");
        }
        assert_eq!(totals[0].at, Timestamp::from_secs(5));
        // Beyond the bound targets are not counted.
        for n in 0..MAX_TARGETS * 2 {
            let sample = PathSample::unmeasured(format!("h{n}").parse().unwrap());
            see(&mut counting, Source::Paths, Body::Path(Box::new(sample)));
        }
        assert_eq!(counting.totals().paths.len(), MAX_TARGETS);
        counting.forget(Source::Paths);
        assert_eq!(counting.totals().paths, []);
    }

    #[test]
    fn changes_of_the_external_address_are_counted_by_family_for_ever() {
        let mut counting = Counting::default();
        assert_eq!(counting.totals().nat, None);
        for n in 0..100 {
            let mut v4 = FamilyFacts::new(Family::Ipv4);
            v4.external_addresses = vec![[192, 0, 2, n].into()];
            let mut v6 = FamilyFacts::new(Family::Ipv6);
            v6.external_addresses = vec!["2001:db8::1".parse().unwrap()];
            let families = vec![v4, v6];
            see(
                &mut counting,
                Source::Nat,
                Body::Nat(NatFacts {
                    families,
                    ..NatFacts::default()
                }),
            );
        }
        let totals = counting.totals().nat.unwrap();
        assert_eq!(totals.discoveries, 100);
        assert_eq!(totals.changes, [(Family::Ipv4, 99), (Family::Ipv6, 0)]);
    }
}

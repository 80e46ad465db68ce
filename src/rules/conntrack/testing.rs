//! Scenes for the tests of these rules: conntrack as it is observed through [`World::apply`].

use crate::config::Thresholds;
use crate::finding::Finding;
use crate::observation::conntrack::{CtCpuStats, CtStats, CtTally, SnatTally};
use crate::observation::host::Sysctls;
use crate::observation::nat_rules::{NatRules, RulePorts};
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::rules::{Evaluation, Input, Rule, evaluate};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::track::natrules::testing::masquerade;
use crate::types::Proto;

/// A host as it is observed.
pub struct Scene {
    counts: Vec<u32>,
    max: Option<u32>,
    moved: CtCpuStats,
    tally: Option<CtTally>,
    rules: Option<NatRules>,
    buckets: Option<u32>,
    available: bool,
    later: u64,
    once: bool,
}

impl Scene {
    /// Six looks, a second apart, at a nearly empty table with nothing moving.
    pub fn new() -> Self {
        Self {
            counts: vec![1000; 6],
            max: Some(262_144),
            moved: CtCpuStats::default(),
            tally: None,
            rules: None,
            buckets: None,
            available: true,
            later: 0,
            once: false,
        }
    }
    pub fn count(mut self, n: u32) -> Self {
        self.counts = vec![n; 6];
        self
    }
    pub fn counts(mut self, counts: &[u32]) -> Self {
        self.counts = counts.to_vec();
        self
    }
    pub fn max(mut self, max: Option<u32>) -> Self {
        self.max = max;
        self
    }
    /// How far the counters move from each look to the next.
    pub fn moving(mut self, moved: CtCpuStats) -> Self {
        self.moved = moved;
        self
    }
    pub fn tally(mut self, tally: CtTally) -> Self {
        self.tally = Some(tally);
        self
    }
    pub fn snat(self, rows: &[SnatTally]) -> Self {
        self.tally(CtTally {
            entries: 1000,
            snat: rows.to_vec(),
            ..CtTally::default()
        })
    }
    /// A rule that masquerades with these ports.
    pub fn rule(mut self, ports: RulePorts) -> Self {
        self.rules = Some(NatRules {
            rules: vec![masquerade(ports)],
            ..NatRules::default()
        });
        self
    }
    pub fn buckets(mut self, buckets: u32) -> Self {
        self.buckets = Some(buckets);
        self
    }
    /// The counters move from the first look to the second only.
    pub fn moving_once(mut self, moved: CtCpuStats) -> Self {
        self.once = true;
        self.moving(moved)
    }
    /// A look with nothing moved, so many seconds after the table was read.
    pub fn later(mut self, seconds: u64) -> Self {
        self.later = seconds;
        self
    }
    pub fn unavailable(mut self) -> Self {
        self.available = false;
        self
    }

    fn world(&self) -> World {
        let start = Timestamp::from_secs(1_000_000);
        let mut world = World::new(start);
        let mut apply = |after: u64, source, body| {
            // What sees nothing tells nothing.
            if source == Source::Conntrack && !self.available && !matches!(body, Body::Status(_)) {
                return;
            }
            world.apply(&Observation {
                at: start + Span::from_secs(after),
                took: Span::ZERO,
                source,
                body,
            });
        };
        for source in Source::ALL {
            let status = match source == Source::Conntrack && !self.available {
                true => SourceStatus::unavailable("a test"),
                false => SourceStatus::ok(),
            };
            apply(0, source, Body::Status(status));
        }
        let sysctls = Sysctls {
            conntrack_buckets: self.buckets,
            ..Sysctls::default()
        };
        apply(0, Source::Host, Body::Sysctls(sysctls));
        if let Some(rules) = &self.rules {
            apply(0, Source::NatRules, Body::NatRules(rules.clone()));
        }
        // Months of history that no rule may take for news.
        let mut cpu = CtCpuStats {
            found: 900_000,
            insert_failed: 70_000,
            drop: 80_000,
            early_drop: 5000,
            ..CtCpuStats::default()
        };
        let mut newest = cpu;
        for (at, count) in (0..).zip(&self.counts) {
            newest = cpu;
            let stats = CtStats {
                count: *count,
                max: self.max,
                cpus: vec![cpu],
            };
            apply(at, Source::Conntrack, Body::ConntrackStats(stats));
            if self.once && at > 0 {
                continue;
            }
            let by = &self.moved;
            cpu.found = cpu.found.wrapping_add(by.found);
            cpu.insert_failed = cpu.insert_failed.wrapping_add(by.insert_failed);
            cpu.drop = cpu.drop.wrapping_add(by.drop);
            cpu.early_drop = cpu.early_drop.wrapping_add(by.early_drop);
            cpu.clash_resolve = cpu.clash_resolve.wrapping_add(by.clash_resolve);
            cpu.chain_toolong = cpu.chain_toolong.wrapping_add(by.chain_toolong);
        }
        if let Some(tally) = &self.tally {
            apply(5, Source::Conntrack, Body::ConntrackTally(tally.clone()));
        }
        if self.later > 0 {
            let stats = CtStats {
                count: self.counts.last().copied().unwrap_or_default(),
                max: self.max,
                cpus: vec![newest],
            };
            apply(5 + self.later, Source::Conntrack, Body::ConntrackStats(stats));
        }
        world
    }

    pub fn with_input<T>(&self, f: impl Fn(&Input<'_>) -> T) -> T {
        let thresholds = Thresholds::default();
        let world = self.world();
        f(&Input {
            world: &world,
            thresholds: &thresholds,
        })
    }

    pub fn check(&self, rule: &Rule) -> Vec<Finding> {
        self.with_input(rule.check)
    }

    pub fn evaluate(&self) -> Evaluation {
        let rules: Vec<&Rule> = super::RULES.iter().collect();
        self.with_input(|input| evaluate(&rules, input))
    }

    /// The codes that are told, and those that are folded.
    pub fn codes(&self) -> (Vec<&'static str>, Vec<&'static str>) {
        let all = self.evaluate();
        (
            all.findings.iter().map(|f| f.code).collect(),
            all.suppressed.iter().map(|s| s.finding.code).collect(),
        )
    }
}

/// A NAT row: `ports` in use from `min` to `max`, `preserved` of them kept.
pub fn row(ports: u32, min: u16, max: u16, preserved: u32) -> SnatTally {
    SnatTally {
        nat_address: [198, 51, 100, 1].into(),
        proto: Proto::Tcp,
        destination: ([203, 0, 113, 9], 443).into(),
        zone: 0,
        ports,
        min_port: min,
        max_port: max,
        preserved,
        rewritten: None,
        closing: ports / 2,
        unreplied: 0,
        runs: None,
    }
}

/// Counters that move: `found`, `insert_failed`, `drop`.
pub fn moving(found: u32, insert_failed: u32, drop: u32) -> CtCpuStats {
    CtCpuStats {
        found,
        insert_failed,
        drop,
        ..CtCpuStats::default()
    }
}

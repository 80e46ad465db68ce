//! Worlds of measured paths.

use crate::config::Thresholds;
use crate::finding::Finding;
use crate::observation::path::{Failure, PathMtu, PathPast, PathSample, Rtts, Stage, Usual};
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::rules::{Input, Rule};
use crate::time::{Span, Timestamp};
use crate::track::World;

pub fn failures(failure: Failure, times: u32) -> Vec<(Failure, u32)> {
    if times == 0 {
        Vec::new()
    } else {
        vec![(failure, times)]
    }
}

/// A world that is built target by target.
pub struct Paths {
    world: World,
    at: i64,
}

impl Paths {
    pub fn new() -> Self {
        let mut paths = Self {
            world: World::new(Timestamp::EPOCH),
            at: 1,
        };
        paths.apply(Body::Status(SourceStatus::ok()));
        paths
    }

    fn apply(&mut self, body: Body) {
        self.world.apply(&Observation {
            at: Timestamp::from_secs(self.at),
            took: Span::ZERO,
            source: Source::Paths,
            body,
        });
    }

    /// With a sample of `answered` round trips of `ms` milliseconds each, and `failures`.
    pub fn add(self, target: &str, answered: u32, ms: u64, failures: &[(Failure, u32)]) -> Self {
        let rtts = vec![Span::from_millis(ms); usize::try_from(answered).unwrap()];
        self.sample(target, rtts, failures, |_| {})
    }

    /// With these round trips in milliseconds.
    pub fn rtts(self, target: &str, ms: &[u64]) -> Self {
        let rtts = ms.iter().map(|ms| Span::from_millis(*ms)).collect();
        self.sample(target, rtts, &[], |_| {})
    }

    /// With a size search's result.
    pub fn mtu(self, target: &str, mtu: PathMtu) -> Self {
        self.sample(target, vec![Span::from_millis(1)], &[], |sample| {
            sample.mtu = Some(mtu)
        })
    }

    /// With a stage of each round trip.
    pub fn stage(self, target: &str, ms: u64, stage: Stage, of: u64) -> Self {
        let rtts = vec![Span::from_millis(ms); 10];
        self.sample(target, rtts, &[], |sample| {
            sample.stages = vec![(stage, Rtts(vec![Span::from_millis(of); 10]))];
        })
    }

    /// With stages of each round trip.
    pub fn stages(self, target: &str, ms: u64, stages: &[(Stage, u64)]) -> Self {
        let rtts = vec![Span::from_millis(ms); 10];
        self.sample(target, rtts, &[], |sample| {
            let each = |ms: u64| Rtts(vec![Span::from_millis(ms); 10]);
            sample.stages = stages.iter().map(|(stage, of)| (*stage, each(*of))).collect();
        })
    }

    /// With attempts that connect and then hear nothing.
    pub fn silent(self, target: &str, stage: Stage, times: u32) -> Self {
        self.sample(
            target,
            Vec::new(),
            &failures(Failure::Silent(stage), times),
            |sample| {
                sample.stages = vec![(Stage::Connect, Rtts(vec![Span::from_millis(1); 10]))];
            },
        )
    }

    /// With attempts that connect and then wait for the TLS handshake in vain, and a size search's result.
    pub fn silent_and_sized(self, target: &str, times: u32, mtu: PathMtu) -> Self {
        self.answered_and_sized(target, 0, times, mtu)
    }

    /// The same with some attempts that are answered.
    pub fn answered_and_sized(self, target: &str, answered: usize, silent: u32, mtu: PathMtu) -> Self {
        let lost = failures(Failure::Silent(Stage::TlsHandshake), silent);
        let rtts = vec![Span::from_millis(1); answered];
        self.sample(target, rtts, &lost, |sample| sample.mtu = Some(mtu))
    }

    /// With a day's history: p50 and p95 of the round trips and the p50 of the jitter in milliseconds, the share lost.
    pub fn usual(
        mut self,
        target: &str,
        rtt: Option<(u64, u64)>,
        jitter: Option<u64>,
        loss: Option<f64>,
    ) -> Self {
        let millis = |of: Vec<u64>| Rtts(of.into_iter().map(Span::from_millis).collect());
        self.apply(Body::PathPast(PathPast {
            target: target.parse().unwrap(),
            sent: 0,
            lost: 0,
            median: Rtts::default(),
            jitter: Rtts::default(),
            usual: Some(Usual {
                over: Span::from_secs(86_400),
                points: 1440,
                rtt: millis(rtt.map_or_else(Vec::new, |(p50, p95)| vec![p50, p95])),
                jitter: millis(jitter.into_iter().collect()),
                loss,
            }),
        }));
        self
    }

    /// With one of the system's name servers.
    pub fn system(self, server: &str, answered: u32, ms: u64, failures: &[(Failure, u32)]) -> Self {
        let rtts = vec![Span::from_millis(ms); usize::try_from(answered).unwrap()];
        self.sample(&format!("dns:a.example@{server}"), rtts, failures, |sample| {
            sample.system_resolver = true;
        })
    }

    fn sample(
        mut self,
        target: &str,
        rtts: Vec<Span>,
        failures: &[(Failure, u32)],
        change: impl FnOnce(&mut PathSample),
    ) -> Self {
        let mut sample = PathSample::unmeasured(target.parse().unwrap());
        let host = sample.target.host.parse().ok();
        sample.address = match sample.target.method {
            crate::observation::target::Method::Dns(Some(server)) => Some(server.ip()),
            _ => host,
        };
        sample.sent = u32::try_from(rtts.len()).unwrap() + failures.iter().map(|(_, n)| n).sum::<u32>();
        sample.rtts = Rtts(rtts);
        sample.failures = failures.to_vec();
        change(&mut sample);
        self.at += 1;
        self.apply(Body::Path(Box::new(sample)));
        self
    }

    pub fn check(&self, rule: &Rule) -> Vec<Finding> {
        (rule.check)(&Input {
            world: &self.world,
            thresholds: &Thresholds::default(),
        })
    }
}

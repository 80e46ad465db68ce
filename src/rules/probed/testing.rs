//! For tests: one probed peer.

use crate::config::Thresholds;
use crate::finding::Finding;
use crate::observation::probe::{Attempt, Fact, Outcome, ProbeFact, Target, Transport};
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::rules::{Input, Rule};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::types::PublicKey;

pub struct Probed {
    world: World,
    target: u32,
    attempts: u32,
}

pub fn millis(n: u64) -> Span {
    Span::from_millis(n)
}

pub fn secs(n: u64) -> Span {
    Span::from_secs(n)
}

pub fn target() -> Target {
    Target {
        origin: "a test".to_owned(),
        device: None,
        local_public_key: PublicKey([1; 32]),
        public_key: PublicKey([2; 32]),
        has_preshared_key: false,
        endpoint: "192.0.2.1:51820".to_owned(),
        address: "192.0.2.1:51820".parse().ok(),
        transport: Transport::Udp,
        keepalive: None,
        mtu: None,
        configured_transport: None,
    }
}

impl Probed {
    pub fn new() -> Self {
        let mut probed = Self {
            world: World::new(Timestamp::from_secs(100)),
            target: 0,
            attempts: 0,
        };
        probed.see(Body::Status(SourceStatus::ok()));
        probed.fact(Fact::Target(Box::new(target())));
        probed
    }

    /// Another target; what follows is about it.
    pub fn next(&mut self, target: Target) {
        self.target += 1;
        self.attempts = 0;
        self.fact(Fact::Target(Box::new(target)));
    }

    fn see(&mut self, body: Body) {
        self.world.apply(&Observation {
            at: Timestamp::from_secs(100),
            took: Span::ZERO,
            source: Source::Probe,
            body,
        });
    }

    pub fn fact(&mut self, fact: Fact) {
        let target = self.target;
        self.see(Body::Probe(ProbeFact { target, fact }));
    }

    pub fn attempt(&mut self, outcome: Outcome) {
        self.attempts += 1;
        self.fact(Fact::Attempt(Attempt {
            number: self.attempts,
            sent_at: Timestamp::from_secs(100 + i64::from(self.attempts)),
            local: "198.51.100.1:40000".parse().ok(),
            with_cookie: false,
            outcome,
        }));
    }

    pub fn check(&self, rule: &Rule) -> Vec<Finding> {
        (rule.check)(&Input {
            world: &self.world,
            thresholds: &Thresholds::default(),
        })
    }
}

pub fn codes(found: &[Finding]) -> Vec<&str> {
    found.iter().map(|f| f.code).collect()
}

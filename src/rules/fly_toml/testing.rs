//! Worlds with a fly.toml.

use crate::config::Thresholds;
use crate::finding::Finding;
use crate::observation::fly_toml::FlyTomlFacts;
use crate::observation::host::{FlyMachine, HostFacts, Sysctls};
use crate::observation::socket::{ServedPorts, SocketTally};
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::rules::{Input, Rule};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::types::PortRange;
use crate::wire::fly_toml::parse;

/// A world in the making.
pub struct Scene {
    world: World,
    facts: FlyTomlFacts,
}

impl Scene {
    pub fn new(toml: &str) -> Self {
        Self {
            world: World::new(Timestamp::from_secs(1000)),
            facts: FlyTomlFacts {
                path: "fly.toml".to_owned(),
                named: true,
                agent_listen: "127.0.0.1:9986".parse().unwrap(),
                file: parse(toml).unwrap(),
            },
        }
    }

    fn apply(mut self, source: Source, body: Body) -> Self {
        self.world.apply(&Observation {
            at: Timestamp::from_secs(1001),
            took: Span::ZERO,
            source,
            body,
        });
        self
    }

    pub fn agent_listen(mut self, listen: &str) -> Self {
        self.facts.agent_listen = listen.parse().unwrap();
        self
    }

    pub fn budget(self, profile: &str) -> Self {
        let budget = crate::budgets::parse(profile).unwrap();
        self.apply(Source::Config, Body::NatBudget(budget))
    }

    pub fn ports(self, low: u16, high: u16) -> Self {
        let sysctls = Sysctls {
            local_port_range: Some(PortRange { low, high }),
            ..Sysctls::default()
        };
        self.apply(Source::Host, Body::Sysctls(sysctls))
    }

    pub fn on_fly(self, fly: bool, app: &str, group: &str) -> Self {
        let machine = FlyMachine {
            app: app.to_owned(),
            region: "ams".to_owned(),
            machine: "148e".to_owned(),
            group: Some(group.to_owned()),
            private: None,
            public: None,
            name_servers: Vec::new(),
        };
        let host = HostFacts {
            hostname: "test".to_owned(),
            kernel: "6.12.0".to_owned(),
            boot_at: None,
            netns: None,
            netns_name: None,
            cpus: 1,
            memory_bytes: None,
            fly: fly.then_some(machine),
            capabilities: Vec::new(),
        };
        self.apply(Source::Host, Body::Host(host))
    }

    pub fn listening(self, ports: &[u16]) -> Self {
        self.listening_at(ports, &[])
    }

    pub fn listening_at(self, ports: &[u16], loopback_only: &[u16]) -> Self {
        let tally = SocketTally {
            served_ports: Some(ServedPorts {
                ports: ports.to_vec(),
                left_out: 0,
                loopback_only: Some(loopback_only.to_vec()),
            }),
            ..SocketTally::default()
        };
        self.apply(Source::Sockets, Body::Sockets(tally))
    }

    pub fn check(self, rule: &Rule) -> Vec<Finding> {
        let body = Body::FlyToml(Box::new(self.facts.clone()));
        let scene = self
            .apply(Source::FlyToml, Body::Status(SourceStatus::ok()))
            .apply(Source::FlyToml, body);
        let found = (rule.check)(&Input {
            world: &scene.world,
            thresholds: &Thresholds::default(),
        });
        for f in &found {
            assert!(
                !f.title.is_empty() && !f.summary.is_empty() && !f.impact.is_empty() && !f.fixes.is_empty()
            );
            assert!(
                f.fixes.iter().all(|fix| fix.snippet.is_some()),
                "{}: lines to add",
                f.code
            );
        }
        found
    }
}

/// What a rule makes of a file alone.
pub fn found(rule: &Rule, toml: &str) -> Vec<Finding> {
    Scene::new(toml).check(rule)
}

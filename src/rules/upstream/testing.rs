//! Worlds for the tests of this area.

use crate::config::Thresholds;
use crate::finding::Finding;
use crate::observation::host::{Address, Link, LinkStats, RouteTables};
use crate::observation::nat::{Behaviour, Family, FamilyFacts, NatFacts, ServerFacts};
use crate::observation::{Body, Observation, Source, SourceStatus};
use crate::rules::{Input, Rule};
use crate::time::{Span, Timestamp};
use crate::track::World;
use crate::types::IfIndex;

/// An ordinary home: 10.0.0.2 behind 198.51.100.7.
pub fn facts() -> NatFacts {
    let mut family = FamilyFacts::new(Family::Ipv4);
    family.local = Some("10.0.0.2:40000".parse().unwrap());
    family.external = Some("198.51.100.7:40000".parse().unwrap());
    family.external_addresses = vec!["198.51.100.7".parse().unwrap()];
    family.translated = Some(true);
    family.mapping = Behaviour::EndpointIndependent;
    family.filtering = Behaviour::AddressAndPortDependent;
    family.udp_blocked = Some(false);
    NatFacts {
        servers: vec![server("192.0.2.1:3478", true, true)],
        families: vec![family],
        ..NatFacts::default()
    }
}

/// A server that answers over these.
pub fn server(address: &str, udp: bool, tcp: bool) -> ServerFacts {
    ServerFacts {
        name: address.to_owned(),
        address: address.parse().unwrap(),
        udp_rtt: udp.then_some(0.02),
        tcp_rtt: tcp.then_some(0.04),
        software: None,
        other: None,
        problems: Vec::new(),
    }
}

/// What a rule makes of one discovery.
pub fn found(rule: &Rule, facts: NatFacts) -> Vec<Finding> {
    found_after(rule, vec![facts])
}

/// What a rule makes of one discovery whose own address is that of a link of this kind.
pub fn found_over(rule: &Rule, facts: NatFacts, kind: &str) -> Vec<Finding> {
    let mut world = World::new(Timestamp::from_secs(1_000_000));
    let index = IfIndex(3);
    let tables = RouteTables {
        links: vec![Link {
            index,
            name: "x0".to_owned(),
            kind: Some(kind.to_owned()),
            admin_up: true,
            carrier: true,
            loopback: false,
            mtu: 1280,
            stats: LinkStats::default(),
        }],
        addresses: facts
            .families
            .iter()
            .filter_map(|f| f.local)
            .map(|local| Address {
                index,
                address: local.ip(),
                prefix: 32,
            })
            .collect(),
        ..RouteTables::default()
    };
    for (source, body) in [
        (Source::Nat, Body::Status(SourceStatus::ok())),
        (Source::Routes, Body::Routes(tables)),
        (Source::Nat, Body::Nat(facts)),
    ] {
        world.apply(&Observation {
            at: world.started,
            took: Span::ZERO,
            source,
            body,
        });
    }
    (rule.check)(&Input {
        world: &world,
        thresholds: &Thresholds::default(),
    })
}

/// What a rule makes of several, ten minutes apart.
pub fn found_after(rule: &Rule, runs: Vec<NatFacts>) -> Vec<Finding> {
    let start = Timestamp::from_secs(1_000_000);
    let mut world = World::new(start);
    let mut at = start;
    for body in runs
        .into_iter()
        .map(Body::Nat)
        .chain([Body::Status(SourceStatus::ok())])
    {
        world.apply(&Observation {
            at,
            took: Span::ZERO,
            source: Source::Nat,
            body,
        });
        at = at + Span::from_secs(600);
    }
    (rule.check)(&Input {
        world: &world,
        thresholds: &Thresholds::default(),
    })
}

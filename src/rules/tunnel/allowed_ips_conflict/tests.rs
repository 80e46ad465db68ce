use std::net::IpAddr;

use super::super::testing::*;
use super::*;
use crate::finding::{Confidence, Severity};
use crate::observation::RoutePurpose;
use crate::observation::device::Implementation::Kernel;
use crate::observation::device::{ConfiguredPeer, PeerSnapshot};
use crate::observation::host::{RouteTables, RouteWay};
use crate::types::{IfIndex, PublicKey};

const DOCKER0: IfIndex = IfIndex(5);

/// A live peer with these AllowedIPs.
fn live(key: PublicKey, allowed_ips: &[&str]) -> PeerSnapshot {
    PeerSnapshot {
        public_key: key,
        allowed_ips: allowed_ips.iter().map(|p| cidr(p)).collect(),
        endpoint: Some(sock(if key == KEY { PEER } else { "203.0.113.9:51820" })),
        ..peer_with(50_000, 50_000, Some(-10.0))
    }
}

/// A host whose AllowedIPs look-ups are answered by `inner`.
fn host(peers: Vec<PeerSnapshot>, tables: RouteTables, inner: impl Fn(IpAddr) -> RouteWay) -> Host {
    let mut host = Host::new(Kernel);
    host.peers(0.0, peers).tables(0.1, tables);
    host.answer(0.2, |purpose, address| match purpose {
        RoutePurpose::Endpoint { .. } => via(ETH0),
        RoutePurpose::AllowedIp { .. } => inner(address),
    });
    host
}

#[test]
fn addresses_without_a_route_into_the_device() {
    let host = host(
        vec![live(KEY, &["10.0.0.1/32", "10.50.0.0/16"])],
        tables(),
        |address| {
            if address.to_string().starts_with("10.50.") {
                via(ETH0)
            } else {
                via(WG0)
            }
        },
    );
    let finding = host.find(CODE).unwrap();
    assert_eq!(
        (finding.severity, finding.confidence),
        (Severity::Warning, Confidence::Likely)
    );
    assert_eq!(
        finding.fixes[0].command.as_deref(),
        Some("ip route add 10.50.0.0/16 dev wg0")
    );
    assert_eq!(finding.evidence.get("out_interface"), Some(&"eth0".into()));
    assert_eq!(host.codes(), (vec![CODE], vec![]));
}

#[test]
fn the_same_network_on_another_interface() {
    let mut tables = tables();
    tables.links.push(link(DOCKER0, "docker0", 1500));
    tables.routes.push(route("172.17.0.0/16", DOCKER0, None));
    let same = host(vec![live(KEY, &["172.17.0.0/16"])], tables.clone(), |_| {
        via(DOCKER0)
    });
    let finding = same.find(CODE).unwrap();
    assert_eq!(
        finding.evidence.get("winning_route"),
        Some(&"172.17.0.0/16".into())
    );
    assert!(
        finding
            .fixes
            .iter()
            .all(|f| f.command.as_deref().is_none_or(|c| !c.contains("route add"))),
        "taking the route over would cut docker off"
    );
    // A wider prefix with a small network carved out of it is how routing works.
    let carved = host(vec![live(KEY, &["172.16.0.0/12"])], tables, |_| via(DOCKER0));
    assert_eq!(carved.codes(), (vec![], vec![]));
}

#[test]
fn what_is_meant_is_left_alone() {
    // A default route by policy, a routing daemon or another namespace.
    let by_default = host(vec![live(KEY, &["0.0.0.0/0", "::/0"])], tables(), |_| via(ETH0));
    assert_eq!(by_default.codes(), (vec![], vec![]));
    // Policy routing: another table leads into the device.
    let mut policy = tables();
    let mut special = route("0.0.0.0/0", WG0, None);
    special.table = 201;
    policy.routes.push(special);
    let policy = host(vec![live(KEY, &["10.50.0.0/16"])], policy, |_| via(ETH0));
    assert_eq!(policy.codes(), (vec![], vec![]));
    // No route at all and a live session: eBPF or an application feeds it.
    let mut bare = tables();
    bare.routes.retain(|r| r.out != Some(WG0));
    let bare_host = host(vec![live(KEY, &["10.50.0.0/16"])], bare.clone(), |_| via(ETH0));
    assert_eq!(bare_host.codes(), (vec![], vec![]));
    // The same and nothing ever passed: a hint.
    let unused = PeerSnapshot {
        allowed_ips: vec![cidr("10.50.0.0/16")],
        ..peer()
    };
    let unused = host(vec![unused], bare, |_| via(ETH0));
    assert_eq!(unused.find(CODE).unwrap().confidence, Confidence::Possible);
    // The prefix holds the endpoint: routing it into the tunnel would be a loop.
    let around = host(vec![live(KEY, &["198.51.100.0/24"])], tables(), |_| via(ETH0));
    assert_eq!(around.codes(), (vec![], vec![]));
    // Its own address.
    let own = host(vec![live(KEY, &["10.50.0.7/32"])], tables(), |_| RouteWay::Via {
        out: IfIndex(1),
        gateway: None,
        source: None,
        mtu: None,
        local: true,
    });
    assert_eq!(own.codes(), (vec![], vec![]));
    // A route that forbids it was put there by somebody.
    let forbidden = host(vec![live(KEY, &["10.50.0.0/16"])], tables(), |_| RouteWay::None {
        errno: 13,
    });
    assert_eq!(forbidden.codes(), (vec![], vec![]));
    // Tables that were cut cannot prove that a route is missing.
    let mut cut = tables();
    cut.routes_left_out = 1;
    let cut = host(vec![live(KEY, &["10.50.0.0/16"])], cut, |_| via(ETH0));
    assert_eq!(cut.codes(), (vec![], vec![]));
    // The more specific of two peers wins: legitimate.
    let nested = host(
        vec![live(KEY, &["10.0.0.0/24"]), live(OTHER, &["10.0.0.5/32"])],
        tables(),
        |_| via(WG0),
    );
    assert_eq!(nested.codes(), (vec![], vec![]));
}

#[test]
fn two_devices_with_the_same_addresses() {
    let wg1 = IfIndex(11);
    let mut tables = tables();
    tables.links.push(link(wg1, "wg1", 1420));
    tables.routes.push(route("10.50.0.0/16", wg1, None));
    let mut second = device_with(Kernel, vec![live(OTHER, &["10.50.0.0/16"])]);
    second.name = "wg1".to_owned();
    second.if_index = Some(wg1);
    second.listen_port = Some(51821);
    let mut host = Host::new(Kernel);
    let first = device_with(Kernel, vec![live(KEY, &["10.50.0.0/16"])]);
    host.devices(0.0, vec![first, second]).tables(0.1, tables);
    host.answer(0.2, |purpose, _| match purpose {
        RoutePurpose::Endpoint { .. } => via(ETH0),
        RoutePurpose::AllowedIp { .. } => via(wg1),
    });
    assert_eq!(
        host.codes(),
        (vec![CODE], vec![]),
        "about the one that is left out"
    );
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.confidence, Confidence::Possible);
    assert!(finding.title.contains("not through wg0"), "{}", finding.title);
}

#[test]
fn no_route_anywhere() {
    let host = host(vec![live(KEY, &["10.50.0.0/16"])], tables(), |_| RouteWay::None {
        errno: 101,
    });
    let finding = host.find(CODE).unwrap();
    assert!(finding.title.contains("has no route"), "{}", finding.title);
}

fn configured(key: PublicKey, allowed_ips: &[&str], line: u32) -> ConfiguredPeer {
    ConfiguredPeer {
        origin: format!("wg0.conf:{line}"),
        device: Some("wg0".to_owned()),
        local_public_key: None,
        public_key: key,
        has_preshared_key: false,
        endpoint: None,
        resolved: Vec::new(),
        keepalive: None,
        allowed_ips: allowed_ips.iter().map(|p| cidr(p)).collect(),
        mtu: None,
    }
}

#[test]
fn a_prefix_that_two_configured_peers_list() {
    // The device gave it to the one set last.
    let mut host = host(
        vec![live(KEY, &[]), live(OTHER, &["10.0.0.0/24"])],
        tables(),
        |_| via(WG0),
    );
    host.configured(vec![
        configured(KEY, &["10.0.0.0/24"], 5),
        configured(OTHER, &["10.0.0.0/24"], 9),
    ]);
    let evaluation = host.evaluate();
    let found: Vec<_> = evaluation.findings.iter().filter(|f| f.code == CODE).collect();
    assert_eq!(found.len(), 1, "the hint about the empty peer is the same matter");
    assert_eq!(found[0].confidence, Confidence::Certain);
    assert_eq!(
        found[0].evidence.get("held_by"),
        Some(&serde_json::json!([OTHER.to_string()]))
    );
}

#[test]
fn a_configuration_alone_shows_it_too() {
    let mut host = Host::new(Kernel);
    host.devices(0.0, Vec::new()).tables(0.1, tables());
    host.configured(vec![
        configured(KEY, &["10.0.0.0/24", "10.1.0.0/24"], 5),
        configured(OTHER, &["10.0.0.0/24"], 9),
    ]);
    let finding = host.find(CODE).unwrap();
    assert_eq!(
        finding.evidence.get("prefixes"),
        Some(&serde_json::json!(["10.0.0.0/24"]))
    );
}

#[test]
fn an_empty_peer_beside_others_is_a_hint() {
    let called = host(
        vec![live(KEY, &["10.0.0.1/32"]), live(OTHER, &[])],
        tables(),
        |_| via(WG0),
    );
    let finding = called.find(CODE).unwrap();
    assert_eq!(
        (finding.severity, finding.confidence),
        (Severity::Info, Confidence::Possible),
        "a live peer may be there to be probed only"
    );
    let meant = PeerSnapshot {
        keepalive: Some(25),
        ..live(OTHER, &[])
    };
    let meant = host(vec![live(KEY, &["10.0.0.1/32"]), meant], tables(), |_| via(WG0));
    assert_eq!(meant.find(CODE).unwrap().severity, Severity::Warning);
    // The only peer, or one that is configured so.
    let alone = host(vec![live(KEY, &[])], tables(), |_| via(WG0));
    assert_eq!(alone.find(CODE), None);
    let mut so = host(
        vec![live(KEY, &["10.0.0.1/32"]), live(OTHER, &[])],
        tables(),
        |_| via(WG0),
    );
    so.configured(vec![configured(OTHER, &[], 9)]);
    assert_eq!(so.find(CODE), None);
}

use super::super::testing::*;
use super::*;
use crate::observation::Source;
use crate::observation::device::ConfiguredPeer;
use crate::observation::device::Implementation::{Boringtun, Kernel, WireguardGo};
use crate::observation::device::PeerSnapshot;

#[test]
fn nothing_was_ever_tried() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer()).routed(0.1).peer(5.0, peer());
    let finding = host.find(CODE).unwrap();
    assert_eq!(
        (finding.severity, finding.confidence),
        (Severity::Warning, Confidence::Certain)
    );
    assert_eq!(host.codes(), (vec![CODE], vec![]));
    assert_eq!(finding.fixes[0].command.as_deref(), Some("ping -c 3 10.0.0.1"));
    assert_eq!(
        finding.fixes[1].command.as_deref(),
        Some(format!("wg set wg0 peer {KEY} persistent-keepalive 25").as_str())
    );
}

#[test]
fn the_ping_goes_to_an_inner_address_of_the_peer() {
    for (allowed_ips, command) in [
        (vec!["10.0.0.0/24", "10.0.0.1/32"], Some("ping -c 3 10.0.0.1")),
        (vec!["10.7.0.0/24"], Some("ping -c 3 10.7.0.1")),
        // 10.0.0.2 is our own.
        (vec!["10.0.0.2/31"], Some("ping -c 3 10.0.0.3")),
        (vec!["fd00::/64"], Some("ping -c 3 fd00::1")),
        (vec!["0.0.0.0/0"], None),
        (vec![], None),
    ] {
        let peer = PeerSnapshot {
            allowed_ips: allowed_ips.iter().map(|p| cidr(p)).collect(),
            ..peer()
        };
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer).routed(0.1);
        let finding = host.find(CODE).unwrap();
        assert_eq!(finding.fixes[0].command.as_deref(), command, "{allowed_ips:?}");
    }
}

#[test]
fn near_misses() {
    let quiet = |change: &dyn Fn(&mut PeerSnapshot)| {
        let mut peer = peer();
        change(&mut peer);
        let mut host = Host::new(Kernel);
        host.peer(0.0, peer.clone()).routed(0.1).peer(5.0, peer);
        host
    };
    // It can only wait to be called.
    assert_eq!(quiet(&|p| p.endpoint = None).codes(), (vec![], vec![]));
    assert_eq!(
        quiet(&|p| p.last_handshake = Some(at(-9_000.0))).codes(),
        (vec![], vec![])
    );
    // The peer calls; handshakes do not complete.
    assert_eq!(
        quiet(&|p| (p.rx_bytes, p.tx_bytes) = (296, 184)).codes(),
        (vec![], vec![])
    );
    let mut host = quiet(&|_| {});
    host.called(5.1, 1);
    assert_eq!(host.codes(), (vec![], vec![]));
    // An attempt is under way.
    let mut host = quiet(&|_| {});
    host.call(5.1, 1);
    assert_eq!(host.codes(), (vec![], vec![]));
}

#[test]
fn after_it_gave_up() {
    let mut host = Host::blind(WireguardGo);
    host.peer(0.0, peer_with(0, 148, None)).routed(0.1);
    assert_eq!(host.codes(), (vec![], vec![]), "the next may be due");
    host.peer(6.1, peer_with(0, 148, None));
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.evidence.get("attempts_by_counters"), Some(&1.into()));
    assert!(finding.title.contains("gave up"));
}

#[test]
fn boringtun_without_the_wire_tells_too_little() {
    let mut host = Host::blind(Boringtun);
    host.peer(0.0, peer()).routed(0.1).peer(6.1, peer());
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.confidence, Confidence::Possible);
    assert!(
        finding
            .fixes
            .iter()
            .all(|f| f.command.as_deref().is_none_or(|c| !c.contains("wg set"))),
        "wg set on an existing peer makes its worker panic"
    );
    let mut host = Host::new(Boringtun);
    host.peer(0.0, peer()).routed(0.1).peer(6.1, peer());
    assert_eq!(host.find(CODE).unwrap().confidence, Confidence::Certain);
}

#[test]
fn a_device_that_is_down() {
    let mut host = Host::new(Kernel);
    let mut tables = tables();
    tables.links[1].admin_up = false;
    host.peer(0.0, peer()).tables(0.1, tables);
    let finding = host.find(CODE).unwrap();
    assert_eq!(
        finding.fixes[0].command.as_deref(),
        Some("ip link set up dev wg0")
    );
}

#[test]
fn a_firewall_at_home_is_a_candidate_where_its_counter_moves() {
    let mut host = Host::new(WireguardGo);
    host.peer(0.0, peer()).routed(0.1);
    host.counters(0.1, "Ip.OutDiscards", 3)
        .counters(5.0, "Ip.OutDiscards", 9);
    host.peer(5.0, peer());
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.candidates[0].code, Some("wg-local-drop"));
    assert_eq!(finding.evidence.get("ip_out_discards"), Some(&6.into()));
}

fn named() -> ConfiguredPeer {
    ConfiguredPeer {
        origin: "/etc/wireguard/wg1.conf:5".to_owned(),
        device: Some("wg1".to_owned()),
        local_public_key: None,
        public_key: OTHER,
        has_preshared_key: false,
        endpoint: Some("vpn.example:51820".to_owned()),
        resolved: vec![sock("203.0.113.5:51820")],
        keepalive: None,
        allowed_ips: vec![cidr("10.9.0.0/24")],
        mtu: None,
    }
}

#[test]
fn a_configuration_that_was_not_applied() {
    let mut host = Host::new(Kernel);
    host.devices(0.0, Vec::new())
        .tables(0.1, tables())
        .configured(vec![named()]);
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.fixes[0].command.as_deref(), Some("wg-quick up wg1"));
    // Sources that do not see everything must not say that it is missing.
    host.see(
        1.0,
        Source::WireguardUapi,
        crate::observation::Body::Status(crate::observation::SourceStatus::degraded("one hung")),
    );
    assert_eq!(host.codes(), (vec![], vec![]));
}

#[test]
fn it_is_explained_by_a_missing_route() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer()).tables(0.1, tables());
    host.answer(0.2, |_, _| crate::observation::host::RouteWay::None {
        errno: 101,
    });
    let (findings, folded) = host.codes();
    assert_eq!(folded, [CODE]);
    assert_eq!(findings[0], "wg-no-route");
}

#[test]
fn without_a_private_key_nothing_can_be_tried() {
    let mut host = Host::new(Kernel);
    let mut device = device_with(Kernel, vec![peer()]);
    device.public_key = None;
    host.devices(0.0, vec![device]).routed(0.1);
    assert!(host.find(CODE).unwrap().title.contains("no private key"));
    // This one's interface does not always tell the key.
    let mut host = Host::new(WireguardGo);
    let mut device = device_with(WireguardGo, vec![peer()]);
    device.public_key = None;
    host.devices(0.0, vec![device]).routed(0.1);
    assert!(host.find(CODE).unwrap().title.contains("never connected"));
}

#[test]
fn a_keepalive_that_sends_nothing_is_stuck() {
    let keep = || PeerSnapshot {
        keepalive: Some(25),
        ..peer()
    };
    let mut host = Host::new(WireguardGo);
    host.peer(0.0, keep()).routed(0.1).peer(5.0, keep());
    assert_eq!(host.find(CODE), None, "the first may be due");
    host.peer(6.1, keep());
    let finding = host.find(CODE).unwrap();
    assert!(finding.title.contains("nothing leaves"), "{}", finding.title);
    assert_eq!(finding.candidates[0].code, Some("wg-local-drop"));
}

#[test]
fn many_unused_peers_are_one_finding() {
    let peers = |n: u8| -> Vec<PeerSnapshot> {
        (1..=n)
            .map(|key| PeerSnapshot {
                public_key: crate::types::PublicKey([key; 32]),
                endpoint: Some(sock(&format!("198.51.100.{key}:51820"))),
                ..peer()
            })
            .collect()
    };
    let mut host = Host::new(Kernel);
    host.peers(0.0, peers(5)).routed(0.1);
    assert_eq!(host.codes().0, [CODE; 5]);
    let mut host = Host::new(Kernel);
    host.peers(0.0, peers(6)).routed(0.1);
    let finding = host.find(CODE).unwrap();
    assert_eq!(host.codes().0, [CODE]);
    assert_eq!(finding.subject.kind(), "device");
    assert_eq!(finding.evidence.get("peers"), Some(&6.into()));
}

use super::super::testing::*;
use super::*;
use crate::observation::device::Implementation::Kernel;
use crate::observation::device::PeerSnapshot;

fn moved(places: &[&str]) -> Host {
    let mut host = Host::new(Kernel);
    for (secs, place) in (0u32..).zip(places) {
        let peer = PeerSnapshot {
            endpoint: Some(sock(place)),
            ..peer_with(5_000, 5_000, Some(-10.0))
        };
        host.peer(f64::from(secs), peer);
    }
    host
}

#[test]
fn what_changed_is_named() {
    for (places, changed, changes) in [
        (vec![PEER, "198.51.100.7:40000"], "port", 1),
        (vec![PEER, "203.0.113.9:51820"], "address", 1),
        (vec![PEER, "[2001:db8::7]:51820"], "address_family", 1),
        (vec![PEER, "203.0.113.9:51820", PEER], "address", 2),
    ] {
        let host = moved(&places);
        let finding = host.find(CODE).unwrap();
        assert_eq!(finding.severity, Severity::Info);
        assert_eq!(finding.evidence.get("changed"), Some(&changed.into()));
        assert_eq!(finding.evidence.get("changes"), Some(&changes.into()));
        assert_eq!(finding.first_seen, at(1.0));
        assert_eq!(host.codes().0, [CODE]);
    }
}

#[test]
fn staying_and_appearing_are_not_moving() {
    assert_eq!(moved(&[PEER, PEER]).find(CODE), None);
    let mut host = Host::new(Kernel);
    let nowhere = PeerSnapshot {
        endpoint: None,
        ..peer()
    };
    host.peer(0.0, nowhere).peer(1.0, peer_with(148, 92, Some(0.5)));
    assert_eq!(host.find(CODE), None);
}

#[test]
fn the_route_to_the_new_place_is_asked_for() {
    let mut host = moved(&[PEER]);
    assert!(!host.world.requests().is_empty());
    assert!(host.world.requests().is_empty(), "each once");
    let peer = PeerSnapshot {
        endpoint: Some(sock("203.0.113.9:51820")),
        ..peer_with(5_000, 5_000, Some(-10.0))
    };
    host.peer(1.0, peer);
    assert_eq!(host.world.requests().len(), 1);
}

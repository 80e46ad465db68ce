use super::super::testing::*;
use super::*;
use crate::observation::RoutePurpose;
use crate::observation::device::Implementation::WireguardGo;
use crate::observation::device::PeerSnapshot;

fn looped(peer: PeerSnapshot) -> Host {
    let mut host = Host::new(WireguardGo);
    let mut tables = tables();
    tables.routes[0].priority = 100;
    tables.routes.push(route("0.0.0.0/0", WG0, None));
    host.peer(0.0, peer)
        .tables(0.1, tables)
        .answer(0.2, |_, _| via(WG0));
    host
}

fn everything() -> PeerSnapshot {
    PeerSnapshot {
        allowed_ips: vec![cidr("0.0.0.0/0")],
        ..peer_with(0, 3 * 148, None)
    }
}

#[test]
fn the_route_to_the_endpoint_is_the_device() {
    let host = looped(everything());
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.confidence, Confidence::Certain);
    assert_eq!(host.codes(), (vec![CODE], vec!["wg-handshake-timeout"]));
    assert_eq!(host.due(), None, "no answer is to be waited for");
    assert_eq!(
        finding.evidence.get("allowed_ips_covering_endpoint"),
        Some(&"0.0.0.0/0".into())
    );
    assert_eq!(
        finding.fixes[0].command.as_deref(),
        Some("ip route add 198.51.100.7 via 192.0.2.1 dev eth0")
    );
}

#[test]
fn near_misses() {
    // A live session: its packets do get out.
    let host = looped(PeerSnapshot {
        last_handshake: Some(at(-10.0)),
        ..everything()
    });
    assert_eq!(host.find(CODE), None);
    // The initiations were seen to leave through eth0.
    let mut host = looped(everything());
    host.call(0.5, 1);
    assert_eq!(host.find(CODE), None);
    // wg-quick's mark keeps them apart.
    let mut host = Host::new(WireguardGo);
    host.peer(0.0, everything()).tables(0.1, tables());
    host.answer(0.2, |purpose, _| match purpose {
        RoutePurpose::Endpoint { .. } => via(ETH0),
        RoutePurpose::AllowedIp { .. } => via(WG0),
    });
    assert_eq!(host.codes(), (vec!["wg-handshake-timeout"], vec![]));
}

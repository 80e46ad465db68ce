use super::super::testing::*;
use super::*;
use crate::observation::RoutePurpose;
use crate::observation::device::Implementation::Kernel;
use crate::observation::device::PeerSnapshot;

fn host(wg: u32, eth: u32, route_mtu: Option<u32>, endpoint: &str) -> Host {
    let mut host = Host::new(Kernel);
    let mut tables = tables();
    tables.links = vec![link(ETH0, "eth0", eth), link(WG0, "wg0", wg)];
    let peer = PeerSnapshot {
        endpoint: Some(sock(endpoint)),
        ..peer_with(5_000, 5_000, Some(-10.0))
    };
    host.peer(0.0, peer).tables(0.1, tables);
    host.answer(0.2, |purpose, _| match purpose {
        RoutePurpose::Endpoint { .. } => RouteWay::Via {
            out: ETH0,
            gateway: None,
            source: None,
            mtu: route_mtu,
            local: false,
        },
        RoutePurpose::AllowedIp { .. } => via(WG0),
    });
    host
}

const V6: &str = "[2001:db8::7]:51820";

#[test]
fn arithmetic() {
    for (wg, eth, route_mtu, endpoint, fits) in [
        (1420, 1500, None, PEER, None),
        (1440, 1500, None, PEER, None),
        (1441, 1500, None, PEER, Some(1440)),
        (1420, 1500, None, V6, None),
        (1421, 1500, None, V6, Some(1420)),
        // PPPoE, and a route or path MTU below the link's.
        (1420, 1492, None, V6, Some(1412)),
        (1420, 1500, Some(1400), PEER, Some(1340)),
        // A route's MTU above the link's is void.
        (1420, 1400, Some(9000), PEER, Some(1340)),
    ] {
        let host = host(wg, eth, route_mtu, endpoint);
        let finding = host.find(CODE);
        let said = finding
            .as_ref()
            .and_then(|f| f.evidence.get("mtu_that_fits").cloned());
        assert_eq!(said, fits.map(Into::into), "{wg} over {eth}");
        if let (Some(finding), Some(fits)) = (finding, fits) {
            let command = format!("ip link set dev wg0 mtu {fits}");
            assert_eq!(finding.fixes[0].command.as_deref(), Some(command.as_str()));
            assert_eq!(finding.confidence, Confidence::Certain);
        }
    }
}

#[test]
fn one_finding_for_the_narrowest_of_many_peers() {
    let mut host = Host::new(Kernel);
    let second = PeerSnapshot {
        public_key: OTHER,
        endpoint: Some(sock(V6)),
        ..peer_with(5_000, 5_000, Some(-10.0))
    };
    let mut tables = tables();
    tables.links[1].mtu = 1500;
    host.peers(0.0, vec![peer_with(5_000, 5_000, Some(-10.0)), second]);
    host.tables(0.1, tables);
    host.answer(0.2, |purpose, _| match purpose {
        RoutePurpose::Endpoint { .. } => via(ETH0),
        RoutePurpose::AllowedIp { .. } => via(WG0),
    });
    assert_eq!(host.codes(), (vec![CODE], vec![]));
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.evidence.get("mtu_that_fits"), Some(&1420.into()));
}

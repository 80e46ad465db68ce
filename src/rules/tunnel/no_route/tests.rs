use super::super::testing::*;
use super::*;
use crate::observation::RoutePurpose;
use crate::observation::device::Implementation::Kernel;
use crate::observation::device::PeerSnapshot;
use crate::observation::host::RouteTables;

fn host(peer: PeerSnapshot, tables: RouteTables, endpoint: &RouteWay) -> Host {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer).tables(0.1, tables);
    host.answer(0.2, |purpose, _| match purpose {
        RoutePurpose::Endpoint { .. } => endpoint.clone(),
        RoutePurpose::AllowedIp { .. } => via(WG0),
    });
    host.until(5.0);
    host
}

#[test]
fn the_kernels_refusal_is_certain() {
    for (errno, words) in [
        (101, "no route leads there"),
        (113, "unreachable"),
        (13, "prohibits"),
        (22, "blackhole"),
        (97, "address family"),
    ] {
        let host = host(peer(), tables(), &RouteWay::None { errno });
        let finding = host.find(CODE).unwrap();
        assert!(finding.summary.contains(words), "{errno}: {}", finding.summary);
        assert_eq!(finding.confidence, Confidence::Certain);
        assert_eq!(finding.evidence.get("errno"), Some(&errno.into()));
        assert_eq!(host.codes().0, [CODE]);
    }
    // An error that is not about routes.
    let host = host(peer(), tables(), &RouteWay::None { errno: 1 });
    assert_eq!(host.find(CODE), None);
}

#[test]
fn a_dead_interface_on_the_way() {
    for (admin_up, carrier, command) in [
        (false, false, "ip link set up dev eth0"),
        (true, false, "ip route get 198.51.100.7"),
    ] {
        let mut tables = tables();
        tables.links[0].admin_up = admin_up;
        tables.links[0].carrier = carrier;
        let host = host(peer(), tables, &via(ETH0));
        let finding = host.find(CODE).unwrap();
        assert_eq!(finding.fixes[0].command.as_deref(), Some(command));
        assert_eq!(finding.evidence.get("out_interface"), Some(&"eth0".into()));
    }
    let host = host(peer(), tables(), &via(ETH0));
    assert_eq!(host.find(CODE), None, "all is up");
}

#[test]
fn a_live_session_disproves_it() {
    // The device was moved here from the namespace where its socket still is.
    let host = host(
        peer_with(5_000, 5_000, Some(-20.0)),
        tables(),
        &RouteWay::None { errno: 101 },
    );
    assert_eq!(host.codes(), (vec![], vec![]));
}

#[test]
fn a_way_that_was_lost_under_a_live_session() {
    let mut host = host(
        peer_with(5_000, 5_000, Some(-20.0)),
        tables(),
        &RouteWay::None { errno: 101 },
    );
    host.counters(0.5, "Ip.OutNoRoutes", 7)
        .counters(5.5, "Ip.OutNoRoutes", 7);
    assert_eq!(host.find(CODE), None, "nothing was refused");
    host.counters(6.0, "Ip.OutNoRoutes", 9);
    assert_eq!(host.find(CODE).unwrap().confidence, Confidence::Likely);
    // The peer is heard: somebody else's packets were refused.
    host.peer(6.5, peer_with(5_128, 5_000, Some(-20.0)));
    assert_eq!(host.find(CODE), None);
}

#[test]
fn the_mark_is_part_of_the_question_and_of_the_command() {
    let mut host = Host::new(Kernel);
    let mut device = device_with(Kernel, vec![peer()]);
    device.fwmark = 0xca6c;
    host.devices(0.0, vec![device]).tables(0.1, tables());
    host.answer(0.2, |_, _| RouteWay::None { errno: 101 });
    let finding = host.find(CODE).unwrap();
    assert_eq!(
        finding.fixes[0].command.as_deref(),
        Some("ip route get 198.51.100.7 mark 0xca6c")
    );
}

#[test]
fn no_answer_is_no_finding_and_no_source_is_not_checked() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer()).tables(0.1, tables());
    assert_eq!(host.find(CODE), None);
    let host = Host::seeing(Kernel, &[Source::WireguardUapi]);
    let missing = host.evaluate().not_checked;
    assert!(
        missing
            .iter()
            .any(|n| n.code == CODE && n.missing == [Source::Routes])
    );
}

#[test]
fn it_explains_the_silence() {
    let mut host = host(
        peer_with(0, 3 * 148, None),
        tables(),
        &RouteWay::None { errno: 101 },
    );
    host.peer(5.0, peer_with(0, 4 * 148, None));
    assert_eq!(host.codes(), (vec![CODE], vec!["wg-handshake-timeout"]));
}

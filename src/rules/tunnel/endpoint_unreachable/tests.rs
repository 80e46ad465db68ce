use super::super::testing::*;
use super::*;
use crate::observation::device::Implementation::Kernel;

fn refused(from: &str, kind: (u8, u8)) -> Host {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    host.call(0.5, 1).icmp(0.53, from, kind, 1);
    host.peer(1.0, peer_with(0, 148, None));
    host
}

#[test]
fn each_error_has_its_meaning() {
    for (from, kind, title, from_endpoint) in [
        ("198.51.100.7", (3, 3), "nothing listens there", true),
        ("203.0.113.1", (3, 3), "refused on the way", false),
        ("203.0.113.1", (3, 13), "a firewall refuses", false),
        ("198.51.100.7", (3, 10), "a firewall refuses", true),
        ("203.0.113.1", (3, 0), "no way leads there", false),
        (
            "203.0.113.1",
            (3, 1),
            "the host does not answer on its network",
            false,
        ),
        (
            "192.0.2.2",
            (3, 1),
            "the host does not answer on its network",
            false,
        ),
        ("203.0.113.1", (11, 0), "packets go in a circle", false),
    ] {
        let host = refused(from, kind);
        let finding = host.find(CODE).unwrap();
        assert!(
            finding.title.contains(title),
            "{from} {kind:?}: {}",
            finding.title
        );
        assert_eq!(finding.confidence, Confidence::Certain);
        assert_eq!(finding.evidence.get("from_endpoint"), Some(&from_endpoint.into()));
        assert_eq!(host.codes().0, [CODE]);
        assert_eq!(host.due(), None, "nothing more to wait for");
    }
}

#[test]
fn it_explains_the_time_out() {
    let mut host = refused("198.51.100.7", (3, 3));
    host.call(5.7, 2).icmp(5.73, "198.51.100.7", (3, 3), 2);
    host.peer(6.0, peer_with(0, 296, None));
    host.call(10.9, 3).icmp(10.93, "198.51.100.7", (3, 3), 3);
    host.peer(11.5, peer_with(0, 444, None));
    assert_eq!(host.codes(), (vec![CODE], vec!["wg-handshake-timeout"]));
    let finding = host.find(CODE).unwrap();
    assert_eq!((finding.count, finding.last_seen), (3, at(10.93)));
}

#[test]
fn what_came_after_disproves_it() {
    // A good handshake.
    let mut host = refused("198.51.100.7", (3, 3));
    host.call(5.7, 2)
        .answered(5.72, 2)
        .peer(6.0, peer_with(92, 328, Some(5.72)));
    assert_eq!(host.codes(), (vec![], vec![]));
    // Plain silence, twice.
    let mut host = refused("198.51.100.7", (3, 3));
    host.call(5.7, 2)
        .call(10.9, 3)
        .peer(16.5, peer_with(0, 444, None));
    assert_eq!(host.codes(), (vec!["wg-handshake-timeout"], vec![]));
}

#[test]
fn other_errors_are_not_ours() {
    // Fragmentation needed says nothing of reachability.
    assert_eq!(refused("203.0.113.1", (3, 4)).codes().0, Vec::<&str>::new());
}

#[test]
fn without_the_wire_it_is_not_checked() {
    let mut host = Host::blind(Kernel);
    host.peer(0.0, peer_with(0, 0, None)).routed(0.1);
    let missing = host.evaluate().not_checked;
    assert!(
        missing
            .iter()
            .any(|n| n.code == CODE && n.missing == [Source::Capture])
    );
}

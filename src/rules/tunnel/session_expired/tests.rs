use super::super::testing::*;
use super::*;
use crate::observation::device::Implementation::{Boringtun, Kernel};
use crate::observation::device::PeerSnapshot;

fn old(tx: u64) -> PeerSnapshot {
    peer_with(50_000, tx, Some(-400.0))
}

#[test]
fn an_idle_tunnel_is_no_finding() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, old(50_000)).routed(0.1).peer(20.0, old(50_000));
    assert_eq!(host.codes(), (vec![], vec![]));
    assert_eq!(host.due(), None);
}

#[test]
fn a_first_attempt_may_still_succeed_and_one_that_failed_is_it() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, old(50_000)).routed(0.1);
    host.call(1.0, 1).peer(2.0, old(50_148));
    assert_eq!(host.codes(), (vec![], vec![]), "still under way");
    host.peer(6.4, old(50_148));
    let finding = host.find(CODE).unwrap();
    assert_eq!(finding.confidence, Confidence::Certain);
    assert_eq!(finding.evidence.get("unanswered_attempts"), Some(&1.into()));
    assert_eq!(host.codes(), (vec![CODE], vec![]));
    // It answers at last.
    host.call(6.5, 2)
        .answered(6.55, 2)
        .peer(7.0, peer_with(50_092, 50_400, Some(6.55)));
    assert_eq!(host.codes(), (vec![], vec![]));
}

#[test]
fn by_counters_without_the_wire() {
    let mut host = Host::blind(Kernel);
    host.peer(0.0, old(50_000))
        .peer(1.0, old(50_148))
        .peer(6.1, old(50_148));
    assert_eq!(host.codes(), (vec![CODE], vec![]));
}

#[test]
fn a_keepalive_long_due_speaks_where_nothing_else_can() {
    let quiet = |keepalive, age: f64| PeerSnapshot {
        keepalive,
        last_handshake: Some(at(-age)),
        ..old(50_000)
    };
    for (implementation, wire, keepalive, age, found) in [
        (Boringtun, false, Some(25), 400.0, true),
        (Boringtun, false, None, 400.0, false),
        // The wire was watched, and no attempt passed.
        (Boringtun, true, Some(25), 400.0, false),
        // Attempts would have shown in the counters.
        (Kernel, false, Some(25), 400.0, false),
        // It is just being renewed.
        (Boringtun, false, Some(25), 190.0, false),
    ] {
        let mut host = match wire {
            true => Host::new(implementation),
            false => Host::blind(implementation),
        };
        host.peer(0.0, quiet(keepalive, age)).routed(0.1);
        host.peer(5.0, quiet(keepalive, age));
        let finding = host.find(CODE);
        assert_eq!(
            finding.map(|f| f.confidence),
            found.then_some(Confidence::Likely),
            "{implementation:?} {wire} {keepalive:?} {age}"
        );
    }
}

#[test]
fn a_young_session_is_not_expired() {
    let mut host = Host::new(Kernel);
    host.peer(0.0, peer_with(5_000, 5_000, Some(-150.0))).routed(0.1);
    host.call(0.5, 1)
        .call(5.7, 2)
        .peer(11.2, peer_with(5_000, 9_001, Some(-150.0)));
    assert_eq!(host.codes(), (vec!["wg-handshake-timeout"], vec![]));
}

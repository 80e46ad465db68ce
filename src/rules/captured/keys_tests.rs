//! The rules that need keys, on real initiations: for the right key, for another, by a stranger, from the past.

use super::testing::{A, B, Wire, codes};
use super::{clock_replay, unknown_initiator, wrong_peer_key};
use crate::time::Timestamp;
use crate::types::PrivateKey;
use crate::wire::boring;
use crate::wire::key_file::KeyFile;
use crate::wire::key_ring::KeyRing;

/// Shows an initiation to a world that has `ring`.
fn call(wire: &mut Wire, ring: &KeyRing, millis: i64, payload: &[u8]) {
    let at = Timestamp::from_nanos(millis * 1_000_000);
    let verdict = ring.try_on(payload).unwrap();
    let checked = verdict.about(payload, A.parse().unwrap(), B.parse().unwrap());
    wire.0.opened.apply(at, &checked.unwrap());
    wire.packet(millis, (A, B), payload.to_vec());
}

fn ring(private: [u8; 32], listed: Option<Vec<crate::types::PublicKey>>) -> KeyRing {
    let mut ring = KeyRing::default();
    let private = vec![(PrivateKey::from_bytes(private), listed)];
    ring.add(KeyFile {
        private,
        ..KeyFile::default()
    });
    ring
}

#[test]
fn a_stranger_is_named_and_a_peer_is_not() {
    let mut pair = boring::pair();
    let initiation = boring::initiation(&mut pair.initiator);
    let known = PrivateKey::from_bytes(pair.initiator_private).public();
    for (listed, expected) in [(Some(vec![]), 1), (Some(vec![known]), 0), (None, 0)] {
        let mut wire = Wire::new();
        call(&mut wire, &ring(pair.responder_private, listed), 0, &initiation);
        let found = wire.check(&unknown_initiator::RULE, 10_000);
        assert_eq!(found.len(), expected);
        if let Some(f) = found.first() {
            assert_eq!(f.evidence.get("initiator_key"), Some(&known.to_string().into()));
        }
        assert!(wire.check(&wrong_peer_key::RULE, 10_000).is_empty());
    }
}

#[test]
fn another_key_than_the_one_that_answers_is_wrong() {
    let mut pair = boring::pair();
    let good = boring::initiation(&mut pair.initiator);
    let response = boring::answer(&mut pair.responder, &good);
    // Made for the initiator's own key, by the responder: not for whom it reaches.
    let wrong = boring::initiation(&mut boring::pair().responder);
    let keys = ring(pair.responder_private, None);
    let mut wire = Wire::new();
    call(&mut wire, &keys, 0, &good);
    wire.packet(10, (B, A), response);
    assert!(wire.check(&wrong_peer_key::RULE, 1_000).is_empty());
    call(&mut wire, &keys, 60_000, &wrong);
    let found = wire.check(&wrong_peer_key::RULE, 70_000);
    assert_eq!(codes(&found), ["wg-wrong-peer-key"]);
    let owner = PrivateKey::from_bytes(pair.responder_private).public();
    assert_eq!(
        found[0].evidence.get("responder_key"),
        Some(&owner.to_string().into())
    );
}

#[test]
fn a_stamp_from_before_is_a_replay_unless_it_is_the_same_message() {
    let mut pair = boring::pair();
    let (old, new) = (
        boring::initiation(&mut pair.initiator),
        boring::initiation(&mut pair.initiator),
    );
    let keys = ring(pair.responder_private, None);
    let mut wire = Wire::new();
    call(&mut wire, &keys, 0, &old);
    call(&mut wire, &keys, 5_000, &new);
    // On another interface, late.
    call(&mut wire, &keys, 5_001, &old);
    assert!(wire.check(&clock_replay::RULE, 6_000).is_empty());
    let mut wire = Wire::new();
    call(&mut wire, &keys, 0, &new);
    call(&mut wire, &keys, 5_000, &old);
    assert_eq!(
        codes(&wire.check(&clock_replay::RULE, 20_000)),
        ["wg-clock-replay"]
    );
}

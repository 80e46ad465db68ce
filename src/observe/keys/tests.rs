//! Messages by boringtun, through the way that they take from the tap.

use super::inbox::channel;
use super::*;
use crate::observation::SourceState;
use crate::observation::device::{DeviceSnapshot, Implementation};
use crate::observation::packet::{Direction, WirePacket};
use crate::observe::testing::look;
use crate::types::PrivateKey;
use crate::wire::boring;

const HERE: &str = "198.51.100.2:51820";

fn device(key: PublicKey) -> DeviceSnapshot {
    DeviceSnapshot {
        name: "wg0".to_owned(),
        if_index: None,
        implementation: Implementation::WireguardGo,
        public_key: Some(key),
        listen_port: Some(51820),
        fwmark: 0,
        peers: Vec::new(),
        problems: Vec::new(),
    }
}

fn seen(direction: Direction, payload: Vec<u8>) -> Body {
    Body::Packet(WirePacket {
        direction,
        if_index: None,
        source: "192.0.2.1:40000".parse().unwrap(),
        destination: HERE.parse().unwrap(),
        tos: 0,
        payload_len: u32::try_from(payload.len()).unwrap(),
        payload: Bytes(payload),
    })
}

fn checked(bodies: Vec<Body>) -> Vec<CheckedMessage> {
    let only_checked = |body| match body {
        Body::Checked(checked) => checked,
        other => panic!("{other:?}"),
    };
    bodies.into_iter().map(only_checked).collect()
}

#[test]
fn an_initiation_is_opened_when_its_device_has_been_read() {
    let mut pair = boring::pair();
    let (outbox, inbox) = channel().unwrap();
    let vault = Arc::<Vault>::default();
    let mut keys = Keys::new(inbox, Arc::clone(&vault));
    let now = clock::now();
    let ours = PrivateKey::from_bytes(pair.responder_private);
    let theirs = PrivateKey::from_bytes(pair.initiator_private).public();
    let public = ours.public();
    let initiation = boring::initiation(&mut pair.initiator);
    outbox.offer(now, &seen(Direction::In, initiation.clone()));
    // What leaves was made for others, and data has no first MAC.
    outbox.offer(now, &seen(Direction::Out, initiation));
    outbox.offer(now, &seen(Direction::In, vec![4; 16]));
    assert_eq!(checked(look(&mut keys).0), []);
    vault.deposit(Source::WireguardUapi, &[device(public)], [Box::new(ours)]);
    let (bodies, status) = look(&mut keys);
    assert_eq!(status.unwrap(), SourceStatus::ok());
    let [opened] = checked(bodies).try_into().unwrap();
    assert_eq!((opened.reached, opened.made_for), (Some(public), Some(public)));
    let opened = opened.opened.unwrap();
    assert_eq!((opened.initiator, opened.stamp.0.len()), (theirs, 12));
    let text = format!("{opened:?}");
    assert!(!text.contains(&format!("{:?}", pair.responder_private)), "{text}");
}

#[test]
fn a_key_that_cannot_be_read_leaves_the_first_mac() {
    let mut pair = boring::pair();
    let (outbox, inbox) = channel().unwrap();
    let vault = Arc::<Vault>::default();
    let mut keys = Keys::new(inbox, Arc::clone(&vault));
    let initiation = boring::initiation(&mut pair.initiator);
    let public = PrivateKey::from_bytes(pair.responder_private).public();
    let other = PrivateKey::from_bytes([9; 32]).public();
    for (key, made_for) in [(public, Some(public)), (other, Some(public))] {
        vault.deposit(Source::WireguardUapi, &[device(key)], []);
        outbox.offer(clock::now(), &seen(Direction::In, initiation.clone()));
        let (bodies, status) = look(&mut keys);
        let status = status.unwrap();
        assert_eq!(status.state, SourceState::Unavailable);
        assert!(status.reason.unwrap().contains("wg0 cannot be read"));
        let [seen] = checked(bodies).try_into().unwrap();
        assert_eq!((seen.reached, seen.made_for), (Some(key), made_for));
        assert_eq!(seen.opened, None);
    }
}

#[test]
fn a_flood_is_passed_over_and_counted() {
    let mut pair = boring::pair();
    let (outbox, inbox) = channel().unwrap();
    let vault = Arc::<Vault>::default();
    let ours = PrivateKey::from_bytes(pair.responder_private);
    vault.deposit(Source::WireguardUapi, &[device(ours.public())], [Box::new(ours)]);
    let mut keys = Keys::new(inbox, vault);
    let initiation = seen(Direction::In, boring::initiation(&mut pair.initiator));
    let at = Timestamp::from_secs(1_700_000_000);
    for _ in 0..5_000 {
        outbox.offer(at, &initiation);
    }
    let (bodies, status) = look(&mut keys);
    assert_eq!(bodies.len(), A_SECOND_EACH as usize);
    let status = status.unwrap();
    assert_eq!(status.state, SourceState::Degraded);
    assert!(status.reason.unwrap().contains("4992 handshake messages"));
}

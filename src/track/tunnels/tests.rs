use super::*;
use crate::observation::RoutePurpose;
use crate::observation::device::{Implementation, PeerSnapshot};
use crate::types::Cidr;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

fn peer(key: u8, endpoint: &str) -> PeerSnapshot {
    PeerSnapshot {
        public_key: PublicKey([key; 32]),
        has_preshared_key: false,
        endpoint: Some(endpoint.parse().unwrap()),
        last_handshake: None,
        rx_bytes: 0,
        tx_bytes: 0,
        keepalive: None,
        allowed_ips: Vec::new(),
    }
}

fn device(name: &str, peers: Vec<PeerSnapshot>) -> DeviceSnapshot {
    DeviceSnapshot {
        name: name.to_owned(),
        if_index: None,
        implementation: Implementation::Kernel,
        public_key: None,
        listen_port: Some(51820),
        fwmark: 7,
        peers,
        problems: Vec::new(),
    }
}

const A: &str = "198.51.100.7:51820";
const B: &str = "203.0.113.9:51820";

#[test]
fn a_device_that_vanishes_is_kept_as_such() {
    let mut tunnels = Tunnels::default();
    let netlink = Source::WireguardNetlink;
    tunnels.apply_devices(netlink, at(0), &[device("wg0", vec![peer(1, A)])]);
    // Another source does not list it, and has no say.
    tunnels.apply_devices(Source::WireguardUapi, at(1), &[]);
    assert_eq!(tunnels.device("wg0").unwrap().vanished_at, None);
    tunnels.apply_devices(netlink, at(2), &[]);
    tunnels.apply_devices(netlink, at(3), &[]);
    assert_eq!(tunnels.device("wg0").unwrap().vanished_at, Some(at(2)));
    assert!(tunnels.route_requests().is_empty(), "nothing to ask about it");
    tunnels.apply_devices(netlink, at(4), &[device("wg0", vec![peer(1, A)])]);
    assert_eq!(tunnels.device("wg0").unwrap().vanished_at, None);
}

#[test]
fn a_peer_that_is_removed_is_gone_and_one_that_was_not_read_is_not() {
    let mut tunnels = Tunnels::default();
    let uapi = Source::WireguardUapi;
    let present = |tunnels: &Tunnels| tunnels.device("wg0").unwrap().present_peers().count();
    tunnels.apply_devices(uapi, at(0), &[device("wg0", vec![peer(1, A), peer(2, B)])]);
    tunnels.apply_devices(uapi, at(1), &[device("wg0", vec![peer(1, A)])]);
    assert_eq!(present(&tunnels), 1);
    let mut hung = device("wg0", Vec::new());
    hung.problems.push("no answer within 2 s".to_owned());
    tunnels.apply_devices(uapi, at(2), &[hung]);
    assert_eq!(present(&tunnels), 1);
    tunnels.apply_devices(uapi, at(3), &[device("wg0", Vec::new())]);
    assert_eq!(present(&tunnels), 0);
}

#[test]
fn the_wire_belongs_to_a_peer_only_where_it_can_be_told() {
    let mut tunnels = Tunnels::default();
    let mut other = device("wg1", vec![peer(3, B)]);
    other.listen_port = Some(51821);
    let devices = [device("wg0", vec![peer(1, A), peer(2, A), peer(4, B)]), other];
    tunnels.apply_devices(Source::WireguardNetlink, at(0), &devices);
    let owner = |port, remote: &str| {
        tunnels
            .owner_of(port, remote.parse().unwrap())
            .map(|(device, key)| (device.info.name.clone(), key.0[0]))
    };
    assert_eq!(
        owner(Some(51820), A),
        None,
        "two peers of one port at one endpoint"
    );
    assert_eq!(owner(Some(51820), B), Some(("wg0".to_owned(), 4)));
    assert_eq!(owner(Some(51821), B), Some(("wg1".to_owned(), 3)));
    assert_eq!(owner(None, B), None);
    assert_eq!(owner(Some(51820), "192.0.2.1:1"), None);
}

#[test]
fn routes_are_asked_for_once_with_the_mark_and_bounded() {
    let mut tunnels = Tunnels::default();
    let mut many = peer(1, A);
    many.allowed_ips = (0..200u8)
        .filter_map(|n| Cidr::new(std::net::IpAddr::from([10, n, 0, 0]), 16))
        .collect();
    let netlink = Source::WireguardNetlink;
    tunnels.apply_devices(netlink, at(0), &[device("wg0", vec![many.clone()])]);
    let requests = tunnels.route_requests();
    assert_eq!(requests.len(), 1 + 64);
    for request in &requests {
        let Request::RouteLookup(query) = request else {
            panic!("{request:?}");
        };
        match &query.purpose {
            // The device marks its own packets; what programs send is not marked.
            RoutePurpose::Endpoint { .. } => assert_eq!(query.mark, 7),
            RoutePurpose::AllowedIp { prefix, .. } => {
                assert_eq!(query.mark, 0);
                assert!(prefix.contains(query.destination));
            }
        }
    }
    assert!(tunnels.route_requests().is_empty());
    // Another port is the same route, another address is not.
    many.endpoint = Some("198.51.100.7:9".parse().unwrap());
    tunnels.apply_devices(netlink, at(1), &[device("wg0", vec![many.clone()])]);
    assert!(tunnels.route_requests().is_empty());
    many.endpoint = Some(B.parse().unwrap());
    tunnels.apply_devices(netlink, at(2), &[device("wg0", vec![many])]);
    assert_eq!(tunnels.route_requests().len(), 1);
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut tunnels = Tunnels::default();
    let peers: Vec<PeerSnapshot> = (0..MAX_PEERS + 5)
        .map(|n| {
            let mut peer = peer(0, A);
            let bytes = u32::try_from(n).unwrap().to_le_bytes();
            peer.public_key.0[..4].copy_from_slice(&bytes);
            peer
        })
        .collect();
    tunnels.apply_devices(Source::WireguardNetlink, at(0), &[device("wg0", peers)]);
    assert_eq!(tunnels.left_out().peers, 5);
    let devices: Vec<DeviceSnapshot> = (0..MAX_DEVICES + 3)
        .map(|n| device(&format!("wg{n}"), Vec::new()))
        .collect();
    tunnels.apply_devices(Source::WireguardNetlink, at(1), &devices);
    assert_eq!(tunnels.left_out().devices, 3);
    assert_eq!(tunnels.devices().count(), MAX_DEVICES);
}

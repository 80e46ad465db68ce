use std::net::SocketAddr;

use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardDeviceFlags, WireguardPeer, WireguardTimeSpec,
};
use proptest::prelude::*;

use super::*;

const INDEX: IfIndex = IfIndex(7);

fn allowed(text: &str) -> WireguardAllowedIp {
    let prefix: Cidr = text.parse().unwrap();
    let family = if prefix.addr().is_ipv4() {
        WireguardAddressFamily::Ipv4
    } else {
        WireguardAddressFamily::Ipv6
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Cidr(prefix.prefix()),
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(prefix.addr()),
    ])
}

fn peer(key: u8, more: Vec<WireguardPeerAttribute>, prefixes: &[&str]) -> WireguardPeer {
    let mut attributes = vec![WireguardPeerAttribute::PublicKey([key; 32])];
    attributes.extend(more);
    let prefixes = prefixes.iter().map(|p| allowed(p)).collect();
    attributes.push(WireguardPeerAttribute::AllowedIps(prefixes));
    WireguardPeer(attributes)
}

fn message(attributes: Vec<WireguardAttribute>) -> Vec<u8> {
    emit(WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes,
    })
}

fn read(messages: &[Vec<u8>]) -> Option<DeviceSnapshot> {
    let mut reader = DeviceReader::new("wg0", INDEX);
    messages.iter().for_each(|m| reader.message(m));
    reader.finish()
}

/// As the kernel orders them (drivers/net/wireguard/netlink.c, wg_get_device_dump).
fn device_attributes() -> Vec<WireguardAttribute> {
    vec![
        WireguardAttribute::ListenPort(51820),
        WireguardAttribute::Fwmark(0xca6c),
        WireguardAttribute::IfIndex(INDEX.0),
        WireguardAttribute::IfName("wg0".to_owned()),
        WireguardAttribute::PrivateKey([9; 32]),
        WireguardAttribute::PublicKey([8; 32]),
        WireguardAttribute::Flags(WireguardDeviceFlags::empty()),
    ]
}

fn full_peer(endpoint: &str) -> Vec<WireguardPeerAttribute> {
    vec![
        WireguardPeerAttribute::PresharedKey([5; 32]),
        WireguardPeerAttribute::LastHandshake(WireguardTimeSpec {
            seconds: 1_790_000_000,
            nano_seconds: 5,
        }),
        WireguardPeerAttribute::PersistentKeepalive(25),
        WireguardPeerAttribute::TxBytes(148),
        WireguardPeerAttribute::RxBytes(92),
        WireguardPeerAttribute::ProtocolVersion(1),
        WireguardPeerAttribute::Endpoint(endpoint.parse::<SocketAddr>().unwrap()),
    ]
}

#[test]
fn a_device() {
    let mut attributes = device_attributes();
    let idle = vec![
        WireguardPeerAttribute::PresharedKey([0; 32]),
        WireguardPeerAttribute::LastHandshake(WireguardTimeSpec::default()),
        WireguardPeerAttribute::PersistentKeepalive(0),
    ];
    attributes.push(WireguardAttribute::Peers(vec![
        peer(1, full_peer("192.0.2.1:51820"), &["10.0.0.0/8", "fd00::/64"]),
        peer(2, idle, &[]),
    ]));
    let device = read(&[message(attributes)]).unwrap();
    assert_eq!((device.name.as_str(), device.if_index), ("wg0", Some(INDEX)));
    assert_eq!(device.implementation, Implementation::Kernel);
    assert_eq!(
        (device.public_key, device.listen_port, device.fwmark),
        (Some(PublicKey([8; 32])), Some(51820), 0xca6c)
    );
    assert_eq!(device.problems, Vec::<String>::new());
    let text = format!("{device:?}");
    for secret in [[9; 32], [5; 32]] {
        assert!(!text.contains(&PublicKey(secret).to_string()));
    }
    let [first, second] = device.peers.as_slice() else {
        panic!("two peers, got {:?}", device.peers)
    };
    assert_eq!(
        *first,
        PeerSnapshot {
            public_key: PublicKey([1; 32]),
            has_preshared_key: true,
            endpoint: "192.0.2.1:51820".parse().ok(),
            last_handshake: Some(Timestamp::from_parts(1_790_000_000, 5)),
            rx_bytes: 92,
            tx_bytes: 148,
            keepalive: Some(25),
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()],
        }
    );
    assert_eq!(
        (second.last_handshake, second.keepalive, second.has_preshared_key),
        (None, None, false)
    );
}

#[test]
fn a_device_without_key_or_port() {
    let device = read(&[message(vec![
        WireguardAttribute::IfIndex(7),
        WireguardAttribute::ListenPort(0),
    ])])
    .unwrap();
    assert_eq!((device.public_key, device.listen_port), (None, None));
    assert_eq!(read(&[]), None);
    assert_eq!(read(&[vec![]]), None);
}

#[test]
fn a_peer_that_continues_in_the_next_message_is_one_peer() {
    let mut first = device_attributes();
    first.push(WireguardAttribute::Peers(vec![
        peer(1, full_peer("[2001:db8::1]:9"), &["10.1.0.0/16"]),
        peer(2, full_peer("192.0.2.2:9"), &["10.2.0.0/16", "10.3.0.0/16"]),
    ]));
    let second = vec![WireguardAttribute::Peers(vec![peer(
        2,
        vec![],
        &["10.4.0.0/16", "10.5.0.0/16"],
    )])];
    let third = vec![WireguardAttribute::Peers(vec![
        peer(2, vec![], &["10.6.0.0/16"]),
        peer(3, full_peer("192.0.2.3:9"), &["10.7.0.0/16"]),
    ])];
    let device = read(&[message(first), message(second), message(third)]).unwrap();
    let counts: Vec<usize> = device.peers.iter().map(|p| p.allowed_ips.len()).collect();
    assert_eq!(counts, [1, 5, 1]);
    // What only the first part tells is kept.
    assert_eq!(device.peers[1].endpoint, "192.0.2.2:9".parse().ok());
    assert_eq!(
        (device.peers[1].rx_bytes, device.peers[1].keepalive),
        (92, Some(25))
    );
}

#[test]
fn a_broken_attribute_costs_only_itself() {
    let mut attributes = device_attributes();
    let mut broken = peer(1, full_peer("192.0.2.1:51820"), &["10.0.0.0/8"]);
    let no_prefix = WireguardAllowedIp(vec![WireguardAllowedIpAttr::Other(
        netlink_packet_core::DefaultNla::new(3, vec![]),
    )]);
    broken.0.push(WireguardPeerAttribute::AllowedIps(vec![no_prefix]));
    let nameless = WireguardPeer(vec![WireguardPeerAttribute::RxBytes(1)]);
    attributes.push(WireguardAttribute::Peers(vec![broken, nameless]));
    let device = read(&[message(attributes)]).unwrap();
    assert_eq!(device.peers.len(), 1);
    assert_eq!(device.peers[0].allowed_ips.len(), 1);
    assert_eq!(device.problems, ["2 peers or AllowedIPs could not be read"]);
}

#[test]
fn families() {
    let family = |name: &str, id| {
        emit(GenlCtrl {
            cmd: GenlCtrlCmd::NewFamily,
            nlas: vec![
                GenlCtrlAttrs::FamilyName(name.to_owned()),
                GenlCtrlAttrs::FamilyId(id),
            ],
        })
    };
    assert_eq!(parse_family(&family("wireguard", 33), FAMILY), Some(33));
    assert_eq!(parse_family(&family("wireguard2", 33), FAMILY), None);
    assert_eq!(parse_family(&[], FAMILY), None);
    assert_eq!(families_request(), [3, 2, 0, 0]);
    assert_eq!(device_request(INDEX), [0, 1, 0, 0, 8, 0, 1, 0, 7, 0, 0, 0]);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..256)) {
        read(std::slice::from_ref(&payload));
        parse_family(&payload, FAMILY);
    }

    #[test]
    fn a_message_damaged_anywhere_is_survived(at in 0usize..600, with: u8) {
        let mut attributes = device_attributes();
        attributes.push(WireguardAttribute::Peers(vec![
            peer(1, full_peer("192.0.2.1:51820"), &["10.0.0.0/8", "fd00::/64"]),
            peer(2, full_peer("[2001:db8::1]:9"), &["10.0.0.0/8"]),
        ]));
        let mut bytes = message(attributes);
        let at = at % bytes.len();
        bytes[at] = with;
        read(std::slice::from_ref(&bytes));
    }
}

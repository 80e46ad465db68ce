use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::observation::Source;
use crate::observation::connect::{Bursts, ConnectRow, ConnectTally, Denial, Failures, PortCall, PortHolder};
use crate::observation::device::{Implementation, PeerSnapshot};
use crate::observation::packet::{Direction, WirePacket};
use crate::observation::socket::ProcessIdentity;
use crate::time::{Span, Timestamp};
use crate::types::{Cidr, Proto};

fn anonymiser() -> Anonymiser {
    Anonymiser::new([7; 32])
}

fn observation(body: Body) -> Observation {
    Observation {
        at: Timestamp::EPOCH,
        took: Span::ZERO,
        source: Source::WireguardUapi,
        body,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn counted_connects_tell_nobodys_name() {
    let row = ConnectRow {
        process: ProcessIdentity {
            pid: 7,
            start_ticks: 1,
            comm: "acme-billing".into(),
            exe: Some("/srv/acme/billing".into()),
            runtime: None,
        },
        source: ip("192.0.2.77"),
        destination: "198.51.100.99:443".parse().unwrap(),
        attempts: 9,
        established: 8,
        failed: Failures::default(),
        closed_here: 1,
        closed_there: 2,
        reset_there: 3,
        open: 2,
        peak: 5,
        lifetime_total: Span::from_millis(1500),
        syn_retransmits: 0,
        bytes_sent: 0,
        bytes_received: 0,
        bursts: Bursts::default(),
        lifetimes: vec![0, 6],
    };
    let denial = Denial {
        process: row.process.clone(),
        proto: Proto::Udp,
        call: PortCall::Connect,
        errno: 11,
        source: row.source,
        port: None,
        destination: Some(row.destination),
        holder: Some(PortHolder {
            source: row.source,
            destination: Some(row.destination),
            inode: 5,
        }),
        count: 3,
        first: Timestamp::from_secs(6),
        last: Timestamp::from_secs(7),
    };
    let tally = ConnectTally {
        since: Timestamp::from_secs(5),
        rows: vec![row],
        denied: Some(vec![denial]),
        ..ConnectTally::default()
    };
    let other = anonymiser().observation(&observation(Body::Connects(tally.clone())));
    let text = serde_json::to_string(&other).unwrap();
    for secret in ["acme", "billing", "192.0.2.77", "198.51.100.99"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    // As a record has it, it is read back the same; counts are kept.
    let back: Observation = serde_json::from_str(&text).unwrap();
    assert_eq!(back, other);
    let Body::Connects(back) = back.body else { panic!() };
    assert_eq!(
        (back.since, back.rows[0].attempts, back.rows[0].destination.port()),
        (tally.since, 9, 443)
    );
}

#[test]
fn nothing_that_names_somebody_is_left() {
    let device = DeviceSnapshot {
        name: "acme-prod".into(),
        if_index: None,
        implementation: Implementation::WireguardGo,
        public_key: Some(PublicKey([1; 32])),
        listen_port: Some(51820),
        fwmark: 0,
        peers: vec![PeerSnapshot {
            public_key: PublicKey([2; 32]),
            has_preshared_key: true,
            endpoint: Some("192.0.2.77:51820".parse().unwrap()),
            last_handshake: None,
            rx_bytes: 5,
            tx_bytes: 6,
            keepalive: None,
            allowed_ips: vec!["10.20.30.0/24".parse().unwrap()],
        }],
        problems: vec![
            "acme-prod.sock: no answer from 192.0.2.77, key AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=."
                .into(),
        ],
    };
    let mut anonymiser = anonymiser();
    let other = anonymiser.observation(&observation(Body::Devices(vec![device.clone()])));
    let text = serde_json::to_string(&other).unwrap();
    for secret in ["acme", "192.0.2.77", "10.20.30", "AQEBAQEB", "AgICAgIC"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let Body::Devices(devices) = &other.body else {
        panic!()
    };
    assert_eq!(devices[0].name, "if1");
    assert!(
        devices[0].problems[0].starts_with("if1.sock: no answer from 192.0."),
        "{:?}",
        devices[0].problems
    );
    assert_eq!(
        (devices[0].peers[0].rx_bytes, devices[0].listen_port),
        (5, Some(51820))
    );
    assert_eq!(
        anonymiser.observation(&observation(Body::Devices(vec![device]))),
        other,
        "not consistent"
    );
}

#[test]
fn what_only_a_reason_names_is_not_left_either() {
    let mut anonymiser = anonymiser();
    let peer = ConfiguredPeer {
        origin: "/etc/wireguard/acme.conf:3".into(),
        device: Some("acme".into()),
        local_public_key: None,
        public_key: PublicKey([3; 32]),
        has_preshared_key: false,
        endpoint: Some("vpn.acme.test:51820".into()),
        resolved: Vec::new(),
        keepalive: None,
        allowed_ips: Vec::new(),
        mtu: None,
    };
    let Body::ConfiguredPeers(peers) = anonymiser
        .observation(&observation(Body::ConfiguredPeers(vec![peer])))
        .body
    else {
        panic!()
    };
    let endpoint = peers[0].endpoint.clone().unwrap();
    for (reason, expected) in [
        (
            "cannot resolve vpn.acme.test:51820 (no such host)",
            format!("cannot resolve {endpoint} (no such host)"),
        ),
        // The socket of an interface that nothing else in the record names.
        (
            "/run/wireguard/acme~tun.sock: left over: there is no interface \"acme~tun\"",
            "/run/wireguard/if2.sock: left over: there is no interface \"if2\"".into(),
        ),
        (
            "x: its daemon (acme agent, process 812) hangs; y: its daemon (node, process 9) hangs",
            "x: its daemon (process1, process 812) hangs; y: its daemon (node, process 9) hangs".into(),
        ),
    ] {
        let status = observation(Body::Status(SourceStatus::degraded(reason)));
        let Body::Status(status) = anonymiser.observation(&status).body else {
            panic!()
        };
        assert_eq!(status.reason, Some(expected));
    }
    // Base64 that holds a slash.
    let key = PublicKey([0xff; 32]);
    assert!(key.to_string().contains('/'));
    assert!(!anonymiser.text(&format!("key {key}.")).contains("////"));
    assert_eq!(anonymiser.text("a [fe80::5%acme]:7 b").find("fe80"), None);
}

#[test]
fn common_names_stay() {
    let mut names = Names::default();
    for name in ["wg0", "lo", "eth1"] {
        let mut other = name.to_owned();
        names.interface(&mut other);
        assert_eq!(other, name);
    }
    let (mut comm, mut exe) = ("node".to_owned(), "/home/jane/.nvm/bin/node".to_owned());
    names.process(&mut comm, Some(&mut exe));
    assert_eq!((comm.as_str(), exe.as_str()), ("node", "/…/node"));
    let (mut comm, mut exe) = ("payroll".to_owned(), "/srv/payroll".to_owned());
    names.process(&mut comm, Some(&mut exe));
    assert_eq!((comm.as_str(), exe.as_str()), ("process1", "/…/process1"));
}

#[test]
fn a_handshake_message_keeps_its_indices_and_nothing_else() {
    let mut payload: Vec<u8> = (0..148).map(|i| u8::try_from(i).unwrap() | 1).collect();
    payload[..8].copy_from_slice(&[1, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd]);
    payload[132..].fill(0);
    let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let packet = WirePacket {
        direction: Direction::Out,
        if_index: None,
        source: address,
        destination: address,
        tos: 0,
        payload_len: 148,
        payload: Bytes(payload.clone()),
    };
    let other = anonymiser().observation(&observation(Body::Packet(packet)));
    let Body::Packet(packet) = other.body else {
        panic!()
    };
    let bytes = packet.payload.0;
    assert_eq!(bytes[..8], payload[..8]);
    assert!(bytes[8..116].iter().all(|b| *b == 0));
    assert_ne!(bytes[116..132], payload[116..132]);
    assert!(bytes[116..132].iter().any(|b| *b != 0));
    assert!(bytes[132..].iter().all(|b| *b == 0), "no cookie stays no cookie");
}

#[test]
fn ranges_stay_what_they_are() {
    let mut anonymiser = anonymiser();
    for (address, range) in [
        ("10.1.2.3", "10.0.0.0/8"),
        ("172.20.1.2", "172.16.0.0/12"),
        ("192.168.7.9", "192.168.0.0/16"),
        ("100.64.3.4", "100.64.0.0/10"),
        ("169.254.1.1", "169.254.0.0/16"),
        ("fe80::1", "fe80::/10"),
        ("fdaa:0:18::3", "fdaa::/16"),
    ] {
        let mut other = ip(address);
        anonymiser.addresses.ip(&mut other);
        assert!(
            range.parse::<Cidr>().unwrap().contains(other),
            "{address} became {other}"
        );
        assert_ne!(other, ip(address));
    }
    for address in ["127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
        let mut other = ip(address);
        anonymiser.addresses.ip(&mut other);
        assert_eq!(other, ip(address));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn addresses_keep_their_prefix_relations(a: [u8; 4], b: [u8; 4], prefix in 0u8..=32) {
        let mut anonymiser = anonymiser();
        let (a, b) = (IpAddr::from(a), IpAddr::from(b));
        let inside = Cidr::new(a, prefix).unwrap().contains(b);
        let mut network = Cidr::new(a, prefix).unwrap();
        let mut other = b;
        anonymiser.addresses.cidr(&mut network);
        anonymiser.addresses.ip(&mut other);
        // Loopback, multicast and unspecified addresses stand still while their neighbours move.
        let special = |ip: IpAddr| ip.is_loopback() || ip.is_multicast() || ip.is_unspecified();
        let still = special(a) || special(b) || special(Cidr::new(a, prefix).unwrap().addr());
        if !still {
            prop_assert_eq!(network.contains(other), inside);
        }
    }
}

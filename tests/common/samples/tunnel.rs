//! A tunnel, working and silent.

use std::time::Duration;

use super::{addr, all_see, empty, finding, host, key, seconds_ago};
use wgnat::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use wgnat::observation::host::{FlyMachine, HostFacts};
use wgnat::observation::{Source, SourceStatus};
use wgnat::report::{
    DeviceRow, HandshakeRow, MessageCounts, PeerRow, PeerState, Report, Sockets, Status, Wireguard,
};
use wgnat::rules::NotChecked;

pub fn wireguard(state: PeerState) -> Wireguard {
    Wireguard {
        devices: vec![DeviceRow {
            name: "wg0".to_owned(),
            implementation: "kernel",
            public_key: Some(key(1)),
            listen_port: Some(51_820),
            fwmark: 0,
            mtu: Some(1_420),
            up: Some(true),
            problems: Vec::new(),
        }],
        peers: vec![PeerRow {
            device: Some("wg0".to_owned()),
            public_key: key(34),
            endpoint: Some(addr("198.51.100.7:51820")),
            last_handshake: Some(seconds_ago(12)),
            rx_bytes: Some(1_258_291),
            tx_bytes: Some(943_718),
            rx_delta: Some(4_096),
            tx_delta: Some(2_048),
            rtt: Some(Duration::from_millis(23)),
            unanswered: Some(0),
            keepalive: None,
            allowed_ips: vec!["10.9.0.0/24".parse().expect("a prefix")],
            state,
        }],
        handshakes: vec![HandshakeRow {
            at: seconds_ago(12),
            device: Some("wg0".to_owned()),
            public_key: Some(key(34)),
            initiator: addr("10.0.0.2:51820"),
            responder: addr("198.51.100.7:51820"),
            outcome: "answered",
            rtt: Some(Duration::from_millis(23)),
            capture: None,
        }],
        messages: Some(MessageCounts {
            initiation: 1,
            response: 1,
            cookie_reply: 0,
            data: None,
        }),
        ..Wireguard::default()
    }
}

/// Silence whose causes the evidence does not tell apart.
pub fn tunnel_silent() -> Report {
    let candidate = |cause: &str, code, settle: &str| Candidate {
        cause: cause.to_owned(),
        code,
        settle: settle.to_owned(),
    };
    let silent = Finding {
        subject: Subject::Peer {
            device: Some("wg0".to_owned()),
            public_key: Some(key(34)),
            endpoint: Some(addr("198.51.100.7:51820")),
            local: Some(addr("10.0.0.2:51820")),
        },
        summary:
            "4 handshake initiations left within 16 s and nothing came back: no response, no cookie and no \
                  ICMP error. The last good handshake was 12 minutes ago."
                .to_owned(),
        evidence: Evidence::new()
            .with("attempts", 4)
            .with("since", seconds_ago(16).to_string())
            .with("last_handshake", seconds_ago(720).to_string())
            .with("tx_bytes", 592)
            .with("rx_bytes", 0),
        impact: "Nothing passes through the tunnel.".to_owned(),
        candidates: vec![
            candidate(
                "the peer's daemon or host is down",
                None,
                "on the peer: `wg show` lists the interface and its port",
            ),
            candidate(
                "UDP is dropped on the way there or back",
                None,
                "on the peer: `tcpdump -ni any udp port 51820` shows whether the 148-byte initiations arrive",
            ),
            candidate(
                "the peer does not know this key, or has removed it",
                Some("wg-stale-key"),
                &format!("on the peer: `wg show all peers` lists {}", key(1)),
            ),
            candidate(
                "this clock went back",
                Some("wg-clock-replay"),
                "`timedatectl` on both sides",
            ),
        ],
        fixes: vec![Fix {
            title: "Look at the peer first".to_owned(),
            why: "A device that listens tells which of these it is.".to_owned(),
            command: Some("tcpdump -ni any 'udp port 51820 and udp[8:4] = 0x01000000'".to_owned()),
            ..Fix::default()
        }],
        ..finding(
            "wg-handshake-timeout",
            Severity::Critical,
            Confidence::Likely,
            "Peer 198.51.100.7:51820 of wg0 does not answer handshakes",
        )
    };
    let mut wireguard = wireguard(PeerState::Failing);
    for peer in &mut wireguard.peers {
        peer.last_handshake = Some(seconds_ago(720));
        peer.unanswered = Some(4);
        peer.rtt = None;
    }
    for handshake in &mut wireguard.handshakes {
        handshake.outcome = "unanswered";
        handshake.rtt = None;
    }
    Report {
        host: Some(HostFacts {
            fly: Some(FlyMachine {
                app: "orders".to_owned(),
                region: "gru".to_owned(),
                machine: "148e".to_owned(),
                group: None,
                private: None,
                public: None,
                name_servers: Vec::new(),
            }),
            ..host("gru-1")
        }),
        status: Status::Critical,
        collectors: all_see()
            .into_iter()
            .map(|(source, status)| match source {
                Source::Conntrack => (source, SourceStatus::unavailable("this kernel has no conntrack")),
                _ => (source, status),
            })
            .collect(),
        findings: vec![silent],
        not_checked: ["conntrack-full", "conntrack-low", "snat-ports-low"]
            .map(|code| NotChecked {
                code,
                missing: vec![Source::Conntrack],
            })
            .into(),
        wireguard,
        sockets: Sockets {
            ports_available: Some(28_232),
            tcp_total: Some(14),
            time_wait_total: Some(0),
            ..Sockets::default()
        },
        ..empty()
    }
}

//! Reports as the rules would make them, one place for every test of an output.
#![allow(dead_code)] // each test uses some of them

use std::net::SocketAddr;
use std::time::Duration;

use wgnat::finding::{Candidate, Confidence, Evidence, Finding, Fix, ProcessRef, Severity, Subject};
use wgnat::observation::conntrack::{CtTally, SnatTally};
use wgnat::observation::host::{FlyMachine, HostFacts};
use wgnat::observation::{Source, SourceStatus};
use wgnat::report::{
    Conntrack, DestinationRow, DeviceRow, HandshakeRow, MessageCounts, PeerRow, PeerState, ProcessRow,
    Report, SnatRow, Sockets, Status, Wireguard,
};
use wgnat::rules::{NotChecked, Suppressed};
use wgnat::time::Timestamp;
use wgnat::types::{NetnsId, Proto, PublicKey};

/// 2026-03-01T10:00:05Z.
pub const NOW: Timestamp = Timestamp::from_secs(1_772_359_205);

pub fn seconds_ago(n: u64) -> Timestamp {
    NOW.before(Duration::from_secs(n))
}

pub fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address and port")
}

pub fn empty() -> Report {
    Report {
        generated_at: NOW,
        duration: Duration::from_millis(5012),
        version: "0.1.0".to_owned(),
        host: None,
        status: Status::Unknown,
        collectors: Vec::new(),
        findings: Vec::new(),
        suppressed: Vec::new(),
        not_checked: Vec::new(),
        wireguard: Wireguard::default(),
        sockets: Sockets::default(),
        conntrack: None,
        captures: Vec::new(),
    }
}

pub fn host(hostname: &str) -> HostFacts {
    HostFacts {
        hostname: hostname.to_owned(),
        kernel: "6.12.48".to_owned(),
        boot_at: Some(seconds_ago(86_400)),
        netns: Some(NetnsId(4_026_531_840)),
        netns_name: None,
        cpus: 2,
        memory_bytes: Some(4 << 30),
        fly: None,
        capabilities: vec!["CAP_NET_ADMIN".to_owned(), "CAP_NET_RAW".to_owned()],
    }
}

pub fn all_see() -> Vec<(Source, SourceStatus)> {
    Source::ALL
        .into_iter()
        .filter(|s| *s != Source::Config)
        .map(|s| {
            let status = SourceStatus {
                cost_cpu: Duration::from_millis(4),
                ..SourceStatus::ok()
            };
            (s, status)
        })
        .collect()
}

pub fn node() -> ProcessRef {
    ProcessRef {
        pid: 812,
        comm: "node".to_owned(),
        exe: Some("/usr/bin/node".to_owned()),
        runtime: Some("node".to_owned()),
    }
}

pub fn finding(code: &'static str, severity: Severity, confidence: Confidence, title: &str) -> Finding {
    Finding {
        code,
        severity,
        confidence,
        title: title.to_owned(),
        subject: Subject::Host,
        summary: String::new(),
        evidence: Evidence::new(),
        impact: String::new(),
        candidates: Vec::new(),
        fixes: Vec::new(),
        first_seen: seconds_ago(5),
        last_seen: NOW,
        count: 1,
    }
}

fn destination(process: Option<ProcessRef>) -> Subject {
    Subject::Destination {
        proto: Proto::Tcp,
        source: Some(addr("10.0.0.2:0").ip()),
        address: addr("203.0.113.9:443").ip(),
        port: 443,
        process,
    }
}

pub fn destination_row(
    towards: &str,
    process: Option<ProcessRef>,
    held: u32,
    available: u32,
    state: &'static str,
) -> DestinationRow {
    let destination = addr(towards);
    DestinationRow {
        proto: Proto::Tcp,
        source: addr(if destination.is_ipv6() {
            "[fd00::2]:0"
        } else {
            "10.0.0.2:0"
        })
        .ip(),
        destination,
        process,
        held,
        available: Some(available),
        established: held / 10,
        time_wait: held - held / 10,
        syn_sent: 0,
        close_wait: 0,
        opens_per_second: Some(f64::from(held) / 46.0),
        state,
    }
}

/// A program that opens a connection per request has used up its ports; the symptoms are folded beneath.
pub fn ports_exhausted() -> Report {
    let cause = Finding {
        subject: destination(Some(node())),
        summary:
            "node (pid 812) opens 610 connections a second and closes each after one request. 28,231 of \
                  28,232 local ports are held, 27,904 of them in TIME_WAIT."
                .to_owned(),
        evidence: Evidence::new()
            .with("in_use", 28_231)
            .with("available", 28_232)
            .with("time_wait", 27_904)
            .with("opens_per_second", 610.0)
            .maybe("errno_eaddrnotavail", None::<u32>),
        impact: "New connections to it fail with EADDRNOTAVAIL until a port comes free.".to_owned(),
        fixes: vec![
            Fix {
                title: "Reuse connections".to_owned(),
                why: "A pool of 12 carries this load and frees 28,180 ports.".to_owned(),
                snippet: Some(
                    "const agent = new https.Agent({ keepAlive: true, maxSockets: 12 })".to_owned(),
                ),
                expect: Evidence::new().with("in_use", 40),
                ..Fix::default()
            },
            Fix {
                title: "Widen the range: room, not a cure".to_owned(),
                why: "Twice the ports last twice as long.".to_owned(),
                command: Some("sysctl -w net.ipv4.ip_local_port_range='10240 65535'".to_owned()),
                expect: Evidence::new().with("available", 55_296),
                ..Fix::default()
            },
        ],
        ..finding(
            "ports-exhausted",
            Severity::Critical,
            Confidence::Certain,
            "Ports to 203.0.113.9:443 are used up",
        )
    };
    let symptom = |code, title| Suppressed {
        finding: Finding {
            subject: destination(Some(node())),
            summary: "As above.".to_owned(),
            ..finding(code, Severity::Warning, Confidence::Likely, title)
        },
        explained_by: 0,
    };
    let rebinding = Finding {
        subject: Subject::Peer {
            device: Some("wg0".to_owned()),
            public_key: Some(key(34)),
            endpoint: Some(addr("198.51.100.7:51820")),
            local: None,
        },
        summary: format!(
            "The NAT in front of peer {} dropped its mapping: the peer fell silent for 31 s and came back from \
             the same address with another port.",
            key(34)
        ),
        evidence: Evidence::new()
            .with("silence_seconds", 31.0)
            .with("old_port", 40_112)
            .with("new_port", 51_820),
        impact: "What this side sends during a silence is lost.".to_owned(),
        fixes: vec![Fix {
            title: "Keep the mapping alive from the peer's side".to_owned(),
            why: "25 s is below the 31 s after which this NAT forgets.".to_owned(),
            command: Some("wg set wg0 peer PUBLIC_KEY persistent-keepalive 25".to_owned()),
            ..Fix::default()
        }],
        ..finding(
            "wg-nat-rebinding",
            Severity::Warning,
            Confidence::Certain,
            &format!("Peer {} came back on another port after 31 s of silence", key(34)),
        )
    };
    Report {
        host: Some(host("gru-1")),
        status: Status::Critical,
        collectors: all_see(),
        findings: vec![cause, rebinding],
        suppressed: vec![
            symptom("timewait-pileup", "TIME_WAIT holds the ports to 203.0.113.9:443"),
            symptom("connection-churn", "node opens 610 connections a second"),
        ],
        wireguard: wireguard(PeerState::Up),
        sockets: Sockets {
            ports_available: Some(28_232),
            destinations: vec![
                destination_row("203.0.113.9:443", Some(node()), 28_231, 28_232, "exhausted"),
                destination_row("10.0.0.5:5432", Some(node()), 2_541, 28_232, "steady"),
                destination_row("10.0.0.9:6379", None, 12, 28_232, "steady"),
            ],
            processes: vec![ProcessRow {
                process: node(),
                sockets: 340,
                fds: 361,
                fd_limit: Some(1_048_576),
            }],
            tcp_total: Some(30_790),
            time_wait_total: Some(30_190),
        },
        conntrack: Some(conntrack()),
        ..empty()
    }
}

pub fn conntrack() -> Conntrack {
    Conntrack {
        count: Some(18_204),
        max: Some(262_144),
        per_second: Some(120.4),
        counters: Some(vec![("found", 410), ("insert_failed", 3), ("drop", 0)]),
        tally: Some(CtTally {
            entries: 18_204,
            tcp: 17_000,
            udp: 1_200,
            other: 4,
            ..CtTally::default()
        }),
        snat: vec![SnatRow {
            tally: SnatTally {
                nat_address: addr("192.0.2.1:0").ip(),
                proto: Proto::Tcp,
                destination: addr("203.0.113.9:443"),
                ports: 790,
                min_port: 40_000,
                max_port: 40_999,
                preserved: 2,
                closing: 100,
                unreplied: 0,
            },
            range: Some(1_000),
            range_inferred: true,
        }],
    }
}

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
        }],
        handshakes_left_out: 0,
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

pub fn healthy() -> Report {
    Report {
        host: Some(host("quiet")),
        status: Status::Ok,
        collectors: all_see(),
        wireguard: wireguard(PeerState::Up),
        sockets: Sockets {
            ports_available: Some(28_232),
            destinations: vec![destination_row(
                "10.0.0.5:5432",
                Some(node()),
                31,
                28_232,
                "steady",
            )],
            tcp_total: Some(60),
            time_wait_total: Some(11),
            ..Sockets::default()
        },
        conntrack: Some(Conntrack {
            per_second: Some(-0.2),
            counters: Some(vec![("drop", 0)]),
            tally: None,
            snat: Vec::new(),
            ..conntrack()
        }),
        ..empty()
    }
}

/// Nothing may be looked at: every source says what it lacks.
pub fn without_root() -> Report {
    let needs = |capability: &str| SourceStatus::unavailable(format!("needs {capability}"));
    Report {
        host: Some(HostFacts {
            capabilities: Vec::new(),
            ..host("laptop")
        }),
        status: Status::Unknown,
        collectors: vec![
            (Source::WireguardNetlink, needs("CAP_NET_ADMIN")),
            (
                Source::WireguardUapi,
                SourceStatus::unavailable("/var/run/wireguard cannot be read: permission denied"),
            ),
            (Source::Capture, needs("CAP_NET_RAW")),
            (Source::Conntrack, needs("CAP_NET_ADMIN")),
            (
                Source::Routes,
                SourceStatus::unavailable("netlink: operation not permitted"),
            ),
        ],
        not_checked: vec![
            NotChecked {
                code: "wg-handshake-timeout",
                missing: vec![Source::WireguardNetlink, Source::WireguardUapi],
            },
            NotChecked {
                code: "wg-session-expired",
                missing: vec![Source::WireguardNetlink, Source::WireguardUapi],
            },
            NotChecked {
                code: "wg-endpoint-unreachable",
                missing: vec![Source::Capture],
            },
            NotChecked {
                code: "conntrack-full",
                missing: vec![Source::Conntrack],
            },
            NotChecked {
                code: "ports-low",
                missing: vec![Source::Sockets],
            },
        ],
        ..empty()
    }
}

/// Names that are long, wide, or meant to drive the terminal, and the longest addresses.
pub fn hostile_names() -> Report {
    let evil = ProcessRef {
        pid: 4_194_304,
        comm: "\u{1b}]0;owned\u{7}漢字\u{202e}|`*".to_owned(),
        exe: None,
        runtime: None,
    };
    let v6 = "[2001:db8:1111:2222:3333:4444:5555:6666]:51820";
    let low = Finding {
        subject: Subject::Destination {
            proto: Proto::Tcp,
            source: None,
            address: addr(v6).ip(),
            port: 51_820,
            process: Some(evil.clone()),
        },
        summary: format!(
            "{} holds 80 % of the ports to {v6}.\n\n# Not a heading",
            evil.comm
        ),
        evidence: Evidence::new()
            .with("in_use", 22_585)
            .with("used_share", 0.8)
            .with("comm", evil.comm.as_str())
            .with("neighbours", vec![v6, v6, v6, v6, v6, v6])
            .with("first_port", 32_768)
            .with("last_port", 60_999)
            .with("a_name_that_nobody_should_choose", 1)
            .with("one_more", 2),
        impact: "It will run out.".to_owned(),
        fixes: vec![Fix {
            title: "Ask it to stop".to_owned(),
            why: String::new(),
            command: Some(format!(
                "ss -tnp 'dst [2001:db8:1111:2222:3333:4444:5555:6666]' | grep -- '{}' | sort | uniq -c",
                evil.comm
            )),
            ..Fix::default()
        }],
        ..finding(
            "ports-low",
            Severity::Warning,
            Confidence::Possible,
            &format!(
                "{} uses most of the local ports that connections towards {v6} could use",
                evil.comm
            ),
        )
    };
    let mut wireguard = wireguard(PeerState::Handshaking);
    for peer in &mut wireguard.peers {
        peer.device = Some("wg-office-uplink".to_owned());
        peer.endpoint = Some(addr(v6));
        peer.last_handshake = None;
        peer.rx_bytes = None;
    }
    Report {
        host: Some(HostFacts {
            kernel: "6.12.48-a-vendor-with-a-long-suffix+deb13-amd64".to_owned(),
            netns_name: Some("blue|green`\u{1b}[2J".to_owned()),
            ..host(&"very-long-host-name.".repeat(6))
        }),
        status: Status::Warning,
        collectors: vec![
            (
                Source::Capture,
                SourceStatus {
                    lost: 1_200,
                    ..SourceStatus::ok()
                },
            ),
            (
                Source::Processes,
                SourceStatus::degraded("other users' processes need CAP_SYS_PTRACE\u{1b}[2J"),
            ),
        ],
        findings: vec![low],
        wireguard,
        sockets: Sockets {
            ports_available: Some(28_232),
            destinations: vec![destination_row(v6, Some(evil), 22_585, 28_232, "low")],
            ..Sockets::default()
        },
        ..empty()
    }
}

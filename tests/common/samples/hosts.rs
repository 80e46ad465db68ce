//! Hosts as such: a healthy one, one that shows nothing, and one whose names are hostile.

use super::{addr, all_see, conntrack, destination_row, empty, finding, host, node, wireguard};
use wgnat::finding::{Confidence, Evidence, Finding, Fix, ProcessRef, Severity, Subject};
use wgnat::observation::host::HostFacts;
use wgnat::observation::{Source, SourceStatus};
use wgnat::report::{Conntrack, PeerState, Report, Sockets, Status};
use wgnat::rules::NotChecked;
use wgnat::types::Proto;

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
            new: None,
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

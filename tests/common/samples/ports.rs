//! A program that has used up its ports, and the tables around it.

use super::{addr, all_see, empty, finding, host, key, node, wireguard};
use wgnat::finding::{Confidence, Evidence, Finding, Fix, ProcessRef, Severity, Subject};
use wgnat::observation::conntrack::{CtTally, SnatTally};
use wgnat::report::{Conntrack, DestinationRow, PeerState, ProcessRow, Report, SnatRow, Sockets, Status};
use wgnat::rules::Suppressed;
use wgnat::types::{PortRange, Proto};

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
            ..Sockets::default()
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
        new: None,
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
                zone: 0,
                ports: 790,
                min_port: 40_000,
                max_port: 40_999,
                preserved: 2,
                rewritten: Some(PortRange {
                    low: 40_000,
                    high: 40_999,
                }),
                closing: 100,
                unreplied: 0,
                runs: None,
            },
            held: 790,
            range: Some(1_000),
            range_inferred: true,
        }],
    }
}

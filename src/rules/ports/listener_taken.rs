//! `ports-listener-taken`: a service cannot have its port, because a connection that this host opened has it.

use std::net::IpAddr;

use crate::finding::{Candidate, Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::Source;
use crate::observation::connect::{Denial, PortCall, PortHolder};
use crate::rules::shell::here;
use crate::rules::{Area, Input, Rule, process_ref};
use crate::types::{PortRange, Proto};
use crate::words::counted;

/// The rule.
pub const RULE: Rule = Rule {
    code: "ports-listener-taken",
    area: Area::Ports,
    severity: "warning",
    holds_when: "a program cannot bind the port that it wants, because an outgoing connection of this host holds it",
    meaning: "The kernel gives outgoing connections any port of ip_local_port_range, and does not know that a service wants one of them \
later. While the connection lives the service fails to start with EADDRINUSE, “Address already in use”, though nothing listens \
there; that can be hours. It happens when a service restarts, and more often the wider the range is.",
    detection: "A `bind` that fails with EADDRINUSE is counted in the kernel by eBPF, with its process and port, and the port is looked up \
in the socket table right after. Where a listener has it, two services want one port, and this finding is silent. `certain` where the connection was seen to be opened from here, or leads to a port below 1024; `likely` where it leads to another port that the kernel hands out to nobody; else it is `possible`, for a connection that the service itself took before it was restarted looks the same: who calls has such a port, and until it has ended (TIME_WAIT too) it holds the service's port against a service without SO_REUSEADDR.",
    fix: "Reserve the port (`ip_local_reserved_ports`): then no connection is given it by the kernel. It does not end the one that has it.",
    needs: &[&[Source::Bpf], &[Source::Host]],
    explained_by: &[],
    check,
};

fn check(input: &Input<'_>) -> Vec<Finding> {
    let range = input.world.sysctls.as_ref().and_then(|s| s.local_port_range);
    let denied = input.world.connects.denied();
    denied
        .filter_map(|denial| finding(input, denial, range))
        .collect()
}

fn finding(input: &Input<'_>, denial: &Denial, range: Option<PortRange>) -> Option<Finding> {
    let port = denial.port.filter(|_| denial.call == PortCall::Bind)?;
    let holder = denial.holder.as_ref()?;
    let to = holder.destination?;
    // Outside of the range a program chose that port for its connection itself.
    let range = range.filter(|r| r.contains(port))?;
    let world = input.world;
    let confidence = opened_here(input, holder, to.port(), range);
    let left_over = confidence == Confidence::Possible;
    let host = world.host.as_ref();
    let proto = match denial.proto {
        Proto::Tcp => "TCP",
        Proto::Udp => "UDP",
    };
    let reserved = world.sysctls.as_ref().map_or(&[][..], |s| &s.reserved_ports);
    let list: Vec<String> = reserved
        .iter()
        .map(|r| {
            if r.low == r.high {
                r.low.to_string()
            } else {
                format!("{}-{}", r.low, r.high)
            }
        })
        .chain([port.to_string()])
        .collect();
    let flag = if denial.proto == Proto::Tcp { "-t" } else { "-u" };
    Some(Finding {
        code: RULE.code,
        severity: Severity::Warning,
        confidence,
        title: format!(
            "{} cannot have {proto} port {port}: {} holds it",
            denial.process.comm,
            if left_over { "a connection" } else { "an outgoing connection" }
        ),
        subject: Subject::Process(process_ref(&denial.process)),
        summary: format!(
            "{} (pid {}) failed {} to bind {proto} port {port} (EADDRINUSE). No service listens there: {}.",
            denial.process.comm,
            denial.process.pid,
            counted(denial.count, "time", "times"),
            if left_over {
                format!("a connection between {}:{port} and {to} holds it", at(holder))
            } else {
                format!(
                    "the kernel has given that port to the connection from {} to {to}, for it lies inside ip_local_port_range",
                    holder.source
                )
            }
        ),
        evidence: Evidence::new()
            .with("port", port)
            .with("errno_eaddrinuse", denial.count)
            .with("held_towards", to.to_string())
            .with("range_low", range.low)
            .with("range_high", range.high),
        impact: format!("{} does not serve until that connection has ended.", denial.process.comm),
        candidates: if left_over { candidates(port, flag) } else { Vec::new() },
        fixes: left_over.then(reuse_address).into_iter().chain([
            Fix {
                title: format!("Reserve port {port}"),
                why: "From then on the kernel gives it to no connection by itself; what was reserved before stays so. Put it into \
                      /etc/sysctl.d too."
                    .to_owned(),
                command: Some(here(host, &format!("sysctl -w net.ipv4.ip_local_reserved_ports=\"{}\"", list.join(",")))),
                ..Fix::default()
            },
            Fix {
                title: "Find whose connection it is, and end it".to_owned(),
                why: "The first line names the program; restarting it sets the port free. The second ends the connection at once, which \
                      its program sees as an error."
                    .to_owned(),
                command: Some(format!(
                    "{}\n{}",
                    here(host, &format!("ss -Hnap {flag} 'sport = :{port}'")),
                    here(host, &format!("ss -K {flag} 'sport = :{port}' dst {}", to.ip()))
                )),
                ..Fix::default()
            },
        ]).collect(),
        first_seen: denial.first,
        last_seen: denial.last,
        count: u32::try_from(denial.count).unwrap_or(u32::MAX),
    })
}

/// How sure it is that this host opened the connection, and the kernel chose the port.
fn opened_here(input: &Input<'_>, holder: &PortHolder, to: u16, range: PortRange) -> Confidence {
    let counted = input
        .world
        .connects
        .keys()
        .any(|key| Some(key.destination) == holder.destination && key.source == holder.source);
    // Who calls has a port that a kernel chose, this host's or one with Linux's or IANA's range (from 49152).
    let callers = range.contains(to) || PortRange::LINUX_DEFAULT.contains(to) || to >= 49_152;
    match to {
        _ if counted => Confidence::Certain,
        0..1024 => Confidence::Certain,
        _ if !callers => Confidence::Likely,
        _ => Confidence::Possible,
    }
}

fn at(holder: &PortHolder) -> String {
    match holder.source {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn candidates(port: u16, flag: &str) -> Vec<Candidate> {
    let settle = format!(
        "ss -Hnap {flag} 'sport = :{port}': several with different peers, or in TIME_WAIT after the service ended"
    );
    vec![
        Candidate {
            cause: "The service itself took that connection before it was restarted, and binds without SO_REUSEADDR".to_owned(),
            code: None,
            settle,
        },
        Candidate {
            cause: "This host opened the connection, and the kernel gave it the service's port".to_owned(),
            code: None,
            settle: format!("ss -Hnap {flag} 'sport = :{port}': it is another program's"),
        },
    ]
}

fn reuse_address() -> Fix {
    Fix {
        title: "Let the service set SO_REUSEADDR before it binds".to_owned(),
        why: "Then connections that it took before do not keep it from its port. It does not help against a connection that this host \
              opened: for that, the port must be reserved."
            .to_owned(),
        snippet: Some("sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)    # before bind; most servers do".to_owned()),
        ..Fix::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, denial};
    use super::*;
    use crate::observation::connect::PortHolder;

    fn bind(port: Option<u16>, to: Option<&str>) -> Denial {
        Denial {
            call: PortCall::Bind,
            errno: 98,
            port,
            destination: None,
            holder: Some(PortHolder {
                source: [10, 0, 0, 2].into(),
                destination: to.map(|to| to.parse().unwrap()),
                inode: 7,
            }),
            ..denial(4)
        }
    }

    #[test]
    fn fires_only_where_the_kernel_gave_the_port_away() {
        let to = Some("203.0.113.9:443");
        for (name, denial, fires) in [
            ("taken", bind(Some(40_000), to), true),
            ("by another listener", bind(Some(40_000), None), false),
            ("outside of the range", bind(Some(8080), to), false),
            ("any port", bind(None, to), false),
            (
                "nobody knows by whom",
                Denial {
                    holder: None,
                    ..bind(Some(40_000), to)
                },
                false,
            ),
        ] {
            let found = Scene::new().denied(5, denial).check(&RULE);
            assert_eq!(found.len(), usize::from(fires), "{name}");
        }
    }

    #[test]
    fn a_connection_that_the_service_took_itself_looks_the_same() {
        use super::super::testing::opened;
        use Confidence::{Certain, Likely, Possible};
        for (name, to, seen, expected) in [
            ("a well-known port", "203.0.113.9:443", false, Certain),
            ("a service's port", "203.0.113.9:5432", false, Likely),
            ("a caller's, by Linux", "203.0.113.9:40123", false, Possible),
            (
                "a caller's, by other systems",
                "203.0.113.9:61234",
                false,
                Possible,
            ),
            (
                "a high port that was seen to be called",
                "203.0.113.9:40123",
                true,
                Certain,
            ),
        ] {
            let mut scene = Scene::new();
            if seen {
                let mut row = opened(1, 0);
                row.destination = to.parse().unwrap();
                scene = scene.connects(5, row);
            }
            let f = scene
                .denied(5, bind(Some(40_000), Some(to)))
                .check(&RULE)
                .remove(0);
            assert_eq!(
                (f.confidence, f.severity),
                (expected, Severity::Warning),
                "{name}"
            );
            let unsure = expected == Possible;
            assert_eq!(f.candidates.len(), if unsure { 2 } else { 0 }, "{name}");
            assert_eq!(
                f.summary.contains("the kernel has given"),
                !unsure,
                "{name}: {}",
                f.summary
            );
            assert_eq!(f.fixes[0].title.contains("SO_REUSEADDR"), unsure, "{name}");
        }
    }

    #[test]
    fn what_is_reserved_already_stays_so() {
        let scene = Scene::new()
            .reserve(9000, 9001)
            .denied(5, bind(Some(40_000), Some("203.0.113.9:443")));
        let f = scene.check(&RULE).remove(0);
        let command = f.fixes[0].command.as_deref().unwrap_or_default();
        assert!(command.ends_with("=\"9000-9001,40000\""), "{command}");
        assert!(f.summary.contains("203.0.113.9:443"), "{}", f.summary);
    }
}

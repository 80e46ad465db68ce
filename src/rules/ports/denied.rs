//! `ports-exhausted` by system calls that were denied a port: UDP's connect and sends (EAGAIN), and bind before connect
//! (EADDRINUSE). No table of sockets shows either while it happens.

use std::collections::BTreeMap;

use super::exhausted::RULE;
use super::udp_low;
use crate::finding::{Confidence, Evidence, Finding, Fix, Severity, Subject};
use crate::observation::connect::{Denial, PortCall};
use crate::observation::socket::ProcessIdentity;
use crate::rules::{Input, process_ref};
use crate::time::Timestamp;
use crate::track::sockets::usable::Usable;
use crate::types::Proto;
use crate::words::{count, counted};

/// What one process was denied with one transport.
struct Group<'a> {
    process: &'a ProcessIdentity,
    proto: Proto,
    /// The denial that was met most.
    main: &'a Denial,
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

/// Adds to `found`, which is by the table, what denials prove: to the finding on the same trouble, or as one of their own.
pub fn add(input: &Input<'_>, found: &mut Vec<Finding>) {
    for group in groups(input) {
        let same = found.iter_mut().find(|f| same_trouble(&f.subject, &group));
        match same {
            Some(finding) => prove(finding, &group),
            None => found.push(finding(input, &group)),
        }
    }
}

fn groups<'a>(input: &Input<'a>) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(u32, u64, Proto), Group<'a>> = BTreeMap::new();
    // A port that was asked for by its number is another trouble.
    for denial in input.world.connects.denied().filter(|d| d.port.is_none()) {
        let process = &denial.process;
        let group = groups
            .entry((process.pid, process.start_ticks, denial.proto))
            .or_insert(Group {
                process,
                proto: denial.proto,
                main: denial,
                count: 0,
                first: denial.first,
                last: denial.last,
            });
        group.count += denial.count;
        group.first = group.first.min(denial.first);
        group.last = group.last.max(denial.last);
        if denial.count > group.main.count {
            group.main = denial;
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|g| std::cmp::Reverse(g.count));
    groups
}

impl Group<'_> {
    fn errno(&self) -> &'static str {
        match self.main.errno {
            11 => "EAGAIN (“Resource temporarily unavailable”)",
            _ => "EADDRINUSE (“Address already in use”)",
        }
    }

    fn evidence(&self, evidence: Evidence) -> Evidence {
        let name = match self.main.errno {
            11 => "errno_eagain",
            _ => "errno_eaddrinuse",
        };
        evidence
            .with(name, self.count)
            .with("failed_call", self.main.call.name())
    }

    fn who(&self) -> String {
        format!("{} (pid {})", self.process.comm, self.process.pid)
    }

    fn words(&self) -> String {
        let kind = if self.proto == Proto::Udp {
            "UDP port"
        } else {
            "port"
        };
        format!(
            "{} found no free local {kind} {}: {} failed at once with {}.",
            self.who(),
            counted(self.count, "time", "times"),
            self.main.call.name(),
            self.errno()
        )
    }
}

/// UDP ports are the same for all destinations; a bound TCP port is so for its address.
fn same_trouble(subject: &Subject, group: &Group<'_>) -> bool {
    match subject {
        Subject::Destination { proto, source, .. } if *proto == group.proto => {
            let here = group.main.source;
            group.proto == Proto::Udp || here.is_unspecified() || source.is_none_or(|s| s == here)
        }
        _ => false,
    }
}

fn prove(finding: &mut Finding, group: &Group<'_>) {
    finding.confidence = Confidence::Certain;
    finding.summary = format!("{} {}", group.words(), finding.summary);
    finding.evidence = group.evidence(std::mem::take(&mut finding.evidence));
    finding.first_seen = finding.first_seen.min(group.first);
    finding.last_seen = finding.last_seen.max(group.last);
    if let Subject::Destination {
        process: process @ None,
        ..
    } = &mut finding.subject
    {
        *process = Some(process_ref(group.process));
    }
    if group.main.call == PortCall::Bind && group.proto == Proto::Tcp {
        finding.fixes.insert(0, bind_later());
    }
}

fn finding(input: &Input<'_>, group: &Group<'_>) -> Finding {
    let world = input.world;
    let udp = group.proto == Proto::Udp;
    let to = match group.main.call {
        PortCall::Bind => world.connects.main_destination(group.process, group.main.source),
        PortCall::Connect | PortCall::Send => group.main.destination,
    };
    let tally = world.sockets.newest().map(|(_, tally)| tally);
    let taken = tally.map(|t| t.udp_ports_in_range).filter(|_| udp);
    let usable = tally
        .zip(world.sysctls.as_ref())
        .and_then(|(tally, sysctls)| Usable::of(sysctls, tally, group.proto, taken.unwrap_or(0)));
    let mut summary = group.words();
    match (udp, group.main.call) {
        (true, _) => {
            if let (Some(taken), Some(usable)) = (taken, usable) {
                summary.push_str(&format!(
                    " {} of {} local UDP ports are taken, each by one socket, whatever its destination.",
                    count(taken),
                    count(usable.ports)
                ));
            }
        }
        (false, _) if to.is_some() => summary.push_str(
            " It binds an address before it connects, and a port that is bound so serves one connection only, whatever its \
             destination: the kernel does not know yet where it will lead.",
        ),
        (false, _) => summary.push_str(
            " A port that is bound before connect or listen must be free towards all destinations. It was not seen to connect: if it \
             binds in order to listen, ports that it or others hold must be let go.",
        ),
    }
    if let (PortCall::Bind, Some(to)) = (group.main.call, to) {
        summary.push_str(&format!(" Most of its connections lead to {to}."));
    }
    Finding {
        code: RULE.code,
        severity: Severity::Critical,
        confidence: Confidence::Certain,
        title: if udp {
            format!("UDP ports are used up: {} gets none", group.process.comm)
        } else {
            format!("{} finds no free local port to bind", group.process.comm)
        },
        subject: match to {
            Some(to) => Subject::Destination {
                proto: group.proto,
                source: Some(group.main.source).filter(|s| !s.is_unspecified()),
                address: to.ip(),
                port: to.port(),
                process: Some(process_ref(group.process)),
            },
            None => Subject::Process(process_ref(group.process)),
        },
        summary,
        evidence: group.evidence(
            Evidence::new()
                .maybe("in_use", taken)
                .maybe("available", usable.map(|u| u.ports)),
        ),
        impact: if udp {
            "No new UDP socket gets a port, whatever its destination; name resolution is what fails first."
                .to_owned()
        } else {
            format!(
                "New connections of {} fail before they are tried; programs that do not bind first may still connect.",
                group.process.comm
            )
        },
        candidates: Vec::new(),
        fixes: if udp {
            udp_low::fixes(input)
        } else {
            vec![bind_later()]
        },
        first_seen: group.first,
        last_seen: group.last,
        count: u32::try_from(group.count).unwrap_or(u32::MAX),
    }
}

fn bind_later() -> Fix {
    Fix {
        title: "Let the kernel choose the port when it connects, not when it binds".to_owned(),
        why: "With IP_BIND_ADDRESS_NO_PORT (Linux 4.2) bind sets the address only, and connect chooses a port that need be free \
              towards its destination only: each destination then has all ports. nginx (proxy_bind), HAProxy (source) and curl do so \
              by themselves; Go's Dialer.LocalAddr, Envoy's upstream_bind_config and many home-made clients do not. Where the address does not matter, do not bind."
            .to_owned(),
        snippet: Some(
            "# before bind((address, 0)):\nsock.setsockopt(socket.IPPROTO_IP, 24, 1)    # IP_BIND_ADDRESS_NO_PORT\n\
             // Go, net.Dialer.Control:\nunix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)"
                .to_owned(),
        ),
        ..Fix::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Scene, denial, look, opened};
    use super::*;

    fn udp() -> Denial {
        denial(4)
    }

    fn bind() -> Denial {
        Denial {
            proto: Proto::Tcp,
            call: PortCall::Bind,
            errno: 98,
            destination: None,
            ..denial(4)
        }
    }

    #[test]
    fn a_udp_socket_without_a_port_is_proof() {
        let scene = Scene::new().look(4, look().udp(10, 20_000)).denied(5, udp());
        let found = scene.evaluate().findings;
        assert_eq!(found.len(), 1, "{found:?}");
        let f = &found[0];
        assert_eq!(
            (f.code, f.severity, f.confidence),
            ("ports-exhausted", Severity::Critical, Confidence::Certain)
        );
        assert_eq!(f.evidence.get("errno_eagain"), Some(&3.into()));
        assert!(
            f.summary
                .starts_with("node (pid 812) found no free local UDP port 3 times: connect"),
            "{}",
            f.summary
        );
        assert_eq!(f.subject.kind(), "destination");
    }

    #[test]
    fn it_joins_what_the_table_shows() {
        let scene = Scene::new().look(4, look().udp(28_232, 28_232)).denied(5, udp());
        let found = scene.check(&RULE);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].evidence.get("in_use"), Some(&28_232.into()));
        assert_eq!(found[0].evidence.get("errno_eagain"), Some(&3.into()));
        assert!(
            found[0].summary.contains("28,232 of 28,232"),
            "{}",
            found[0].summary
        );
    }

    #[test]
    fn a_bind_before_connect_names_where_its_connections_lead() {
        let scene = Scene::new().connects(5, opened(50, 0)).denied(5, bind());
        let f = scene.check(&RULE).remove(0);
        assert_eq!(f.evidence.get("errno_eaddrinuse"), Some(&3.into()));
        assert_eq!(f.evidence.get("failed_call"), Some(&"bind".into()));
        assert!(f.summary.contains("203.0.113.9:443"), "{}", f.summary);
        assert!(f.fixes[0].why.contains("IP_BIND_ADDRESS_NO_PORT"));
        let alone = Scene::new().denied(5, bind()).check(&RULE).remove(0);
        assert_eq!(alone.subject.kind(), "process");
        assert!(alone.summary.contains("in order to listen"), "{}", alone.summary);
    }

    #[test]
    fn what_is_long_ago_or_asked_for_by_number_is_no_want_of_ports() {
        let asked = Denial {
            port: Some(8080),
            ..bind()
        };
        assert_eq!(Scene::new().denied(5, asked).check(&RULE), Vec::new());
        assert_eq!(Scene::new().denied(100, udp()).check(&RULE), Vec::new());
    }
}

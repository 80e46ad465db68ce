//! doctor with connects counted in the kernel: who ran out of ports, and whose connections live a moment only.

mod lab;
mod truth;

use lab::{ChurnPlan, Lab, LoadProcess, Namespace, Serve, TcpServer, Work, wait_until};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;
use truth::{Look, Verdict};

fn at(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.server_ip(), 8080)
}

fn churn(lab: &Lab, to: SocketAddr, server_closes: bool) -> LoadProcess {
    let plan = ChurnPlan {
        to,
        rate: 100,
        lifetime: Duration::ZERO,
        server_closes,
    };
    LoadProcess::start(lab.client(), "node", None, Work::Churn(plan))
}

/// A doctor at the client and one at the server: the client's connects are not the server's.
#[track_caller]
fn both(lab: &Lab, duration: &str) -> Verdict {
    let client = Look::at(lab, lab.client()).duration(duration).start();
    let server = Look::at(lab, lab.server()).duration(duration).start();
    let server = server.finish();
    assert_eq!(server.collector("bpf")["state"], "ok", "{}", server.everything());
    server.nothing_wrong();
    let client = client.finish();
    assert_eq!(client.collector("bpf")["state"], "ok", "{}", client.everything());
    client
}

#[test]
fn a_process_that_finds_no_port_is_named_with_destination_and_errno() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40049);
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let process = churn(&lab, at(&lab), false);
    wait_until(Duration::from_secs(10), "all ports in TIME_WAIT", || {
        lab.client().sockstat("TCP", "tw") >= 50
    });
    let verdict = both(&lab, "2s");
    verdict
        .says_only(&["ports-exhausted"])
        .is("critical", "certain")
        .about_destination("tcp", at(&lab))
        .field("/subject/process/comm", "node")
        .field("/subject/process/pid", process.pid())
        .evidence("in_use", 50)
        .measures("errno_eaddrnotavail", 20.0..2000.0)
        .tells("", &["node", "EADDRNOTAVAIL"]);
    assert_eq!(verdict.code, 2);
}

#[test]
fn ports_that_bound_sockets_hold_are_missed_by_connect_all_the_same() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40049);
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    // Bound and neither listening nor connected: in no table of sockets.
    let _bound = lab.client().run(|| {
        let bind = |port: u16| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket
                .bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())
                .unwrap();
            socket
        };
        (40000..40040).map(bind).collect::<Vec<_>>()
    });
    let process = churn(&lab, at(&lab), false);
    wait_until(Duration::from_secs(10), "the other ports in TIME_WAIT", || {
        lab.client().sockstat("TCP", "tw") >= 10
    });
    let verdict = both(&lab, "2s");
    verdict
        .finding("ports-exhausted")
        .is("critical", "certain")
        .field("/subject/process/pid", process.pid())
        .evidence("in_use", 10)
        .tells("", &["bound"]);
}

#[test]
fn connections_that_the_client_closes_at_once_have_an_owner() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let process = churn(&lab, at(&lab), false);
    wait_until(Duration::from_secs(10), "connections in TIME_WAIT", || {
        lab.client().sockstat("TCP", "tw") > 50
    });
    let verdict = both(&lab, "3s");
    verdict
        .says_only(&["connection-churn"])
        .is("warning", "certain")
        .field("/subject/process/comm", "node")
        .field("/subject/process/pid", process.pid())
        .evidence("opens_measured_by", "counted")
        .evidence("closed_first_by", "this side")
        .measures("opens_per_second", 60.0..140.0);
}

#[test]
fn connections_that_leave_nothing_behind_are_seen() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::CloseFirst);
    let process = churn(&lab, at(&lab), true);
    wait_until(Duration::from_secs(10), "the server's TIME_WAIT", || {
        lab.server().sockstat("TCP", "tw") > 50
    });
    let verdict = both(&lab, "3s");
    verdict
        .says_only(&["connection-churn"])
        .about_destination("tcp", at(&lab))
        .field("/subject/process/pid", process.pid())
        .evidence("opens_measured_by", "counted")
        .evidence("closed_first_by", "the other side")
        .measures("opens_per_second", 60.0..140.0);
}

#[test]
fn refused_connects_are_no_want_of_ports() {
    let Some(lab) = Lab::pair() else { return };
    let _process = churn(&lab, at(&lab), false);
    let verdict = both(&lab, "2s");
    assert!(
        !verdict.everything().contains("errno_eaddrnotavail"),
        "{}",
        verdict.everything()
    );
    verdict.nothing_wrong();
}

#[test]
fn what_another_namespace_opens_is_not_counted() {
    let Some(lab) = Lab::pair() else { return };
    // Connections of the server to itself, at the same addresses as the client would use.
    let server = lab.server().run(|| TcpListener::bind(("0.0.0.0", 8080)).unwrap());
    let port = server.local_addr().unwrap();
    let plan = ChurnPlan {
        to: SocketAddr::from(([127, 0, 0, 1], port.port())),
        rate: 100,
        lifetime: Duration::ZERO,
        server_closes: false,
    };
    drop(server);
    let _echo = TcpServer::start(lab.server(), plan.to, Serve::Echo);
    let _process = LoadProcess::start(lab.server(), "node", None, Work::Churn(plan));
    let verdict = Look::at(&lab, lab.client()).duration("2s").run();
    assert_eq!(
        verdict.collector("bpf")["state"],
        "ok",
        "{}",
        verdict.everything()
    );
    verdict.nothing_wrong();
}

/// The product as root, without what eBPF needs.
fn without_bpf(lab: &Lab, ns: &Namespace) -> Command {
    let mut command = ns.command("setpriv");
    command.args(["--bounding-set=-bpf,-perfmon,-sys_admin", "--inh-caps=-all", "--"]);
    command.arg(env!("CARGO_BIN_EXE_wgnat"));
    lab.clean_environment(&mut command);
    command
}

#[test]
fn without_the_capabilities_the_reason_is_told_and_all_else_is_as_before() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let plan = ChurnPlan {
        to: at(&lab),
        rate: 100,
        lifetime: Duration::from_millis(50),
        server_closes: false,
    };
    let process = LoadProcess::start(lab.client(), "node", None, Work::Churn(plan));
    wait_until(Duration::from_secs(10), "connections in TIME_WAIT", || {
        lab.client().sockstat("TCP", "tw") > 50
    });
    let verdict = Look::with(without_bpf(&lab, lab.client()))
        .args(&["doctor", "--json", "--duration", "4s"])
        .run();
    let row = verdict.collector("bpf");
    assert_eq!(row["state"], "unavailable", "{}", verdict.everything());
    let reason = row["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("CAP_BPF and CAP_PERFMON"), "{reason}");
    let finding = verdict.says_only(&["connection-churn"]);
    finding
        .is("warning", "likely")
        .field("/subject/process/pid", process.pid());
    assert!(
        !verdict.everything().contains("\"counted\""),
        "{}",
        verdict.everything()
    );
}

//! doctor with connects counted in the kernel: who ran out of ports, and whose connections live a moment only.

mod lab;
mod truth;

use lab::{ChurnPlan, Lab, LoadProcess, Namespace, SOON, Serve, TcpServer, Work, wait_until};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;
use truth::{Look, Verdict};

/// Packets to the server's port vanish.
const SWALLOW: &str =
    "table inet swallow {\n chain in {\n type filter hook input priority 0;\n tcp dport 8080 drop\n }\n}\n";

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
    wait_until(SOON, "all ports in TIME_WAIT", || {
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
        .measures("errno_eaddrnotavail", 2.0..2000.0)
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
    wait_until(SOON, "the other ports in TIME_WAIT", || {
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
    wait_until(SOON, "connections in TIME_WAIT", || {
        lab.client().sockstat("TCP", "tw") > 50
    });
    let verdict = both(&lab, "8s");
    verdict
        .says_only(&["connection-churn"])
        .is("warning", "certain")
        .field("/subject/process/comm", "node")
        .field("/subject/process/pid", process.pid())
        .evidence("opens_measured_by", "counted")
        .evidence("closed_first_by", "this side")
        .measures("opens_per_second", 20.0..600.0);
}

#[test]
fn connections_that_leave_nothing_behind_are_seen() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::CloseFirst);
    let process = churn(&lab, at(&lab), true);
    wait_until(SOON, "the server's TIME_WAIT", || {
        lab.server().sockstat("TCP", "tw") > 50
    });
    let verdict = both(&lab, "8s");
    verdict
        .says_only(&["connection-churn"])
        .about_destination("tcp", at(&lab))
        .field("/subject/process/pid", process.pid())
        .evidence("opens_measured_by", "counted")
        .evidence("closed_first_by", "the other side")
        .measures("opens_per_second", 20.0..600.0);
}

#[test]
fn refused_connects_are_told_as_such_and_are_no_want_of_ports() {
    let Some(lab) = Lab::pair() else { return };
    let process = churn(&lab, at(&lab), false);
    let verdict = both(&lab, "2s");
    assert!(
        !verdict.everything().contains("errno_eaddrnotavail"),
        "{}",
        verdict.everything()
    );
    verdict
        .says_only(&["connect-refused"])
        .is("warning", "certain")
        .about_destination("tcp", at(&lab))
        .field("/subject/process/comm", "node")
        .field("/subject/process/pid", process.pid())
        .measures("errno_econnrefused", 3.0..2000.0)
        .tells("", &["ECONNREFUSED"])
        .fix(&["ss -Htlnp"]);
    assert_eq!(verdict.code, 1);
}

#[test]
fn a_destination_that_swallows_the_first_packets_is_a_time_out() {
    let Some(lab) = Lab::pair() else { return };
    lab.server().nft(SWALLOW);
    // Longer than the first retransmission takes.
    let work = Work::Try {
        to: at(&lab),
        patience: Duration::from_millis(1200),
    };
    let processes: Vec<_> = (0..4)
        .map(|_| LoadProcess::start(lab.client(), "node", None, work))
        .collect();
    let verdict = both(&lab, "4s");
    let finding = verdict.says_only(&["connect-timeout"]);
    finding
        .is("warning", "certain")
        .about_destination("tcp", at(&lab))
        .field("/subject/process/comm", "node")
        .measures("given_up_unanswered", 3.0..100.0)
        .candidates(&["down", "firewall", "queue", "way back"]);
    let pid = finding.value["subject"]["process"]["pid"].as_u64().unwrap_or(0);
    assert!(processes.iter().any(|p| u64::from(p.pid()) == pid), "{pid}");
}

#[test]
fn connects_that_wait_are_likely_to_time_out() {
    let Some(lab) = Lab::pair() else { return };
    lab.server().nft(SWALLOW);
    let work = Work::Try {
        to: at(&lab),
        patience: Duration::from_secs(60),
    };
    let start = |_| LoadProcess::start(lab.client(), "node", None, work);
    // Doctor must be there before they begin: what began before it counts was not seen to begin.
    let client = Look::at(&lab, lab.client()).until_told().start();
    let client = client.await_watching();
    let _processes: Vec<_> = (0..5).map(start).collect();
    let waiting = lab::Watch::start();
    wait_until(SOON, "the last of them to wait for long enough", || {
        waiting.elapsed() > Duration::from_secs(5)
    });
    let verdict = client.enough();
    verdict
        .says_only(&["connect-timeout"])
        .is("warning", "likely")
        .about_destination("tcp", at(&lab))
        .evidence("waiting", 5);
}

#[test]
fn connects_that_come_all_at_once_are_bursts() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let work = Work::Burst {
        to: at(&lab),
        each: 100,
        period: Duration::from_secs(3),
    };
    let process = LoadProcess::start(lab.client(), "node", None, work);
    let verdict = both(&lab, "20s");
    verdict
        .finding("connect-burst")
        .is("warning", "certain")
        .about_destination("tcp", at(&lab))
        .field("/subject/process/pid", process.pid())
        .measures("bursts", 3.0..=30.0)
        .fix(&["random"]);
    // The same connections are many and short, and a starved server answers late.
    verdict.says_at_most(&["connect-burst", "connection-churn", "connect-timeout"]);
}

#[test]
fn a_udp_client_that_finds_no_port_is_named_with_destination_and_errno() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40049);
    let work = Work::UdpConnect { to: at(&lab) };
    let process = LoadProcess::start(lab.client(), "resolver", None, work);
    assert_eq!(process.held, (50, libc::EAGAIN));
    let verdict = both(&lab, "2s");
    verdict
        .says_only(&["ports-exhausted"])
        .is("critical", "certain")
        .about_destination("udp", at(&lab))
        .field("/subject/process/comm", "resolver")
        .field("/subject/process/pid", process.pid())
        .evidence("in_use", 50)
        .evidence("failed_call", "connect")
        .measures("errno_eagain", 1.0..500.0)
        .tells("", &["EAGAIN"]);
    assert_eq!(verdict.code, 2);
}

#[test]
fn a_client_that_binds_before_it_connects_is_named_with_destination_and_errno() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40049);
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let other = SocketAddr::new(lab.server_ip(), 8081);
    let _second = TcpServer::start(lab.server(), other, Serve::Echo);
    // So no destination has all ports, and the table of sockets alone tells nothing.
    let half = LoadProcess::start(lab.client(), "node", None, Work::Hold { to: other, count: 20 });
    assert_eq!(half.held, (20, 0));
    let work = Work::BindFirst {
        from: IpAddr::from(lab.client_at().v4),
        to: at(&lab),
    };
    let process = LoadProcess::start(lab.client(), "proxy", None, work);
    assert_eq!(process.held.1, libc::EADDRINUSE);
    let verdict = both(&lab, "2s");
    let finding = verdict.finding("ports-exhausted");
    finding
        .is("critical", "certain")
        .evidence("failed_call", "bind")
        .measures("errno_eaddrinuse", 1.0..500.0)
        .tells("", &["proxy", "EADDRINUSE"])
        .fix(&["IP_BIND_ADDRESS_NO_PORT"])
        .field("/subject/process/pid", process.pid());
    assert_eq!(verdict.code, 2);
}

#[test]
fn udp_sockets_that_hold_most_ports_are_a_warning() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40099);
    let flows = lab::UdpFlows::open(lab.client(), at(&lab), 80);
    assert_eq!(flows.0.len(), 80);
    let verdict = both(&lab, "1s");
    verdict
        .says_only(&["udp-ports-low"])
        .is("warning", "certain")
        .evidence("in_use", 80)
        .evidence("available", 100)
        .about_destination("udp", at(&lab));
}

#[test]
fn a_service_whose_port_an_outgoing_connection_holds_is_told_so() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40003);
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let hold = Work::Hold {
        to: at(&lab),
        count: 1,
    };
    let _client = LoadProcess::start(lab.client(), "node", None, hold);
    let held = lab.client().run(|| {
        let taken = |port: &u16| TcpListener::bind((IpAddr::from(lab.client_at().v4), *port)).is_err();
        (40000..40004).find(taken)
    });
    let port = held.unwrap_or_else(|| panic!("one of the ports is taken"));
    let work = Work::Listen {
        at: SocketAddr::new(IpAddr::from(lab.client_at().v4), port),
    };
    let service = LoadProcess::start(lab.client(), "mysqld", None, work);
    let verdict = both(&lab, "6s");
    verdict
        .says_only(&["ports-listener-taken"])
        // A caller behind a NAT might have such a port too.
        .is("warning", "likely")
        .field("/subject/kind", "process")
        .field("/subject/process/pid", service.pid())
        .evidence("port", port)
        .evidence("held_towards", at(&lab).to_string())
        .fix(&["ip_local_reserved_ports", &port.to_string()]);
}

#[test]
fn a_connection_that_a_service_took_before_its_restart_is_not_taken_for_an_outgoing_one() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40003);
    let at = SocketAddr::new(IpAddr::from(lab.client_at().v4), 40001);
    // A service without SO_REUSEADDR, which is restarted while a caller is there.
    let listener = lab.client().run(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&at.into()).unwrap();
        socket.listen(16).unwrap();
        socket
    });
    let caller = lab
        .server()
        .run(|| std::net::TcpStream::connect_timeout(&at, SOON).unwrap());
    let taken = listener.accept().unwrap().0;
    drop(listener);
    let service = LoadProcess::start(lab.client(), "mysqld", None, Work::Listen { at });
    let verdict = both(&lab, "6s");
    verdict
        .says_only(&["ports-listener-taken"])
        .is("warning", "possible")
        .field("/subject/process/pid", service.pid())
        .evidence("port", at.port())
        .evidence("held_towards", caller.local_addr().unwrap().to_string())
        .candidates(&["so_reuseaddr", "this host opened"])
        .tells_not("/summary", &["the kernel has given"])
        .fix(&["SO_REUSEADDR"]);
    drop(taken);
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
    wait_until(SOON, "connections in TIME_WAIT", || {
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

/// The product where `mounts` were made first, in mount points of its own.
fn where_mounted(lab: &Lab, ns: &Namespace, mounts: &str) -> Command {
    let mut command = ns.command("unshare");
    let script = format!("{mounts} && exec \"$0\" \"$@\"");
    command.args(["--mount", "sh", "-ec", &script]);
    command.arg(env!("CARGO_BIN_EXE_wgnat"));
    lab.clean_environment(&mut command);
    command
}

/// A client that is out of ports, and what doctor says of it by its way of looking.
fn out_of_ports(lab: &Lab, command: Command) -> Verdict {
    lab.client().set_port_range(40000, 40049);
    let _server = TcpServer::start(lab.server(), at(lab), Serve::Echo);
    let process = churn(lab, at(lab), false);
    wait_until(SOON, "all ports in TIME_WAIT", || {
        lab.client().sockstat("TCP", "tw") >= 50
    });
    let verdict = Look::with(command)
        .args(&["doctor", "--json", "--duration", "2s"])
        .run();
    let finding = verdict.says_only(&["ports-exhausted"]);
    finding
        .is("critical", "certain")
        .about_destination("tcp", at(lab))
        .evidence("in_use", 50);
    if verdict.collector("bpf")["state"] != "unavailable" {
        finding
            .field("/subject/process/pid", process.pid())
            .measures("errno_eaddrnotavail", 2.0..2000.0);
    }
    verdict
}

fn reason(verdict: &Verdict, collector: &str) -> String {
    verdict.collector(collector)["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

const NO_TYPES: &str = "mount -t tmpfs none /sys/kernel/btf";

#[test]
fn without_the_kernels_types_the_plain_tracepoint_counts_and_says_what_is_lost() {
    let Some(lab) = Lab::pair() else { return };
    let mounts = format!("{NO_TYPES} && mount -t tracefs none /sys/kernel/tracing");
    let verdict = out_of_ports(&lab, where_mounted(&lab, lab.client(), &mounts));
    assert_eq!(
        verdict.collector("bpf")["state"],
        "degraded",
        "{}",
        verdict.everything()
    );
    let told = reason(&verdict, "bpf");
    for word in [
        "/sys/kernel/btf/vmlinux",
        "plain tracepoint",
        "refused",
        "bytes",
        "UDP",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
}

#[test]
fn without_types_and_without_tracefs_both_are_named_and_the_table_tells() {
    let Some(lab) = Lab::pair() else { return };
    let mounts = format!(
        "{NO_TYPES} && mount -t tmpfs none /sys/kernel/tracing && mount -t tmpfs none /sys/kernel/debug"
    );
    let verdict = out_of_ports(&lab, where_mounted(&lab, lab.client(), &mounts));
    assert_eq!(
        verdict.collector("bpf")["state"],
        "unavailable",
        "{}",
        verdict.everything()
    );
    let told = reason(&verdict, "bpf");
    for word in ["/sys/kernel/btf/vmlinux", "no tracefs", "mount -t tracefs"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(!verdict.everything().contains("errno_eaddrnotavail"));
    assert!(verdict.not_checked().contains(&"connect-refused"));
}

#[test]
fn without_bpf_the_rules_that_need_it_are_not_checked() {
    let Some(lab) = Lab::pair() else { return };
    let verdict = Look::at(&lab, lab.client())
        .args(&["--no-bpf"])
        .duration("1s")
        .run();
    verdict.nothing_wrong();
    for code in [
        "connect-refused",
        "connect-timeout",
        "connect-burst",
        "ports-listener-taken",
    ] {
        assert!(verdict.not_checked().contains(&code), "{code}");
    }
}

#[test]
fn in_a_pid_namespace_of_its_own_the_process_has_the_number_that_is_seen_there() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    // A container's process that connects over and over, and a doctor beside it.
    let to = at(&lab);
    let script = format!(
        "mount -t proc proc /proc; (while :; do (exec 3<>/dev/tcp/{}/{}) ; done) & echo $! > \"$1\"; shift; exec \"$@\"",
        to.ip(),
        to.port()
    );
    let file = lab.dir().join("pid-inside");
    let mut command = lab.client().command("unshare");
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "bash",
        "-c",
        &script,
        "bash",
    ]);
    command.arg(&file).arg(env!("CARGO_BIN_EXE_wgnat"));
    lab.clean_environment(&mut command);
    let verdict = Look::with(command)
        .args(&["doctor", "--json", "--duration", "3s"])
        .run();
    let inside: u64 = std::fs::read_to_string(&file)
        .expect("the shell wrote it")
        .trim()
        .parse()
        .expect("a number");
    let churn = verdict.finding("connection-churn");
    let pid = churn.value["subject"]["process"]["pid"].as_u64().unwrap_or(0);
    // Each connection is a process of its own there, started by the loop.
    assert!(
        (inside..inside + 20_000).contains(&pid),
        "{pid} inside of {inside}.. {}",
        verdict.everything()
    );
    assert!(!reason(&verdict, "bpf").contains("outside this PID namespace"));
}

//! doctor says the truth of ephemeral ports: low, used up, held by TIME_WAIT, churned; and of file limits that look alike.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::{
    ChurnPlan, Lab, LoadProcess, SOON, Serve, TcpServer, Work, exhaust, fill_time_wait, hold, wait_until,
};
use std::net::SocketAddr;
use std::time::Duration;
use truth::{Look, Verdict};

fn at(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.server_ip(), 8080)
}

/// A client with 200 ports and a process named `node` that holds `count` connections to the server.
#[track_caller]
fn held(lab: &Lab, count: usize) -> (TcpServer, LoadProcess) {
    lab.client().set_port_range(40000, 40199);
    let server = TcpServer::start(lab.server(), at(lab), Serve::Echo);
    let process = LoadProcess::start(lab.client(), "node", None, Work::Hold { to: at(lab), count });
    assert!(
        process.held.0 == count || process.held.1 == libc::EADDRNOTAVAIL,
        "{:?}",
        process.held
    );
    (server, process)
}

/// A doctor at the client and one at the server, where the same connections are somebody else's ports.
#[track_caller]
fn both(lab: &Lab, case: &str, duration: &str) -> Verdict {
    let client = Look::at(lab, lab.client()).duration(duration).case(case).start();
    let server = Look::at(lab, lab.server())
        .duration(duration)
        .case(&format!("{case}-at-server"))
        .start();
    server.finish().nothing_wrong();
    client.finish()
}

#[test]
fn three_quarters_of_the_ports_are_a_warning() {
    let Some(lab) = Lab::pair() else { return };
    let (_server, process) = held(&lab, 150);
    let verdict = both(&lab, "ports-low-warning", "1s");
    verdict
        .says_only(&["ports-low"])
        .is("warning", "certain")
        .about_destination("tcp", at(&lab))
        .field("/subject/process/comm", "node")
        .field("/subject/process/pid", process.pid())
        .evidence("in_use", 150)
        .evidence("available", 200);
    assert_eq!(verdict.code, 1);
}

#[test]
fn nine_tenths_of_the_ports_are_critical() {
    let Some(lab) = Lab::pair() else { return };
    let (_server, _process) = held(&lab, 185);
    let verdict = both(&lab, "ports-low-critical", "1s");
    verdict
        .says_only(&["ports-low"])
        .is("critical", "certain")
        .about_destination("tcp", at(&lab))
        .evidence("in_use", 185)
        .evidence("available", 200);
    assert_eq!(verdict.code, 2);
}

#[test]
fn reserved_ports_are_not_available() {
    let Some(lab) = Lab::pair() else { return };
    lab.client()
        .sysctl("net.ipv4.ip_local_reserved_ports", "40000-40099");
    let (_server, process) = held(&lab, 80);
    assert_eq!(process.held, (80, 0));
    let verdict = both(&lab, "ports-low-reserved", "1s");
    verdict
        .says_only(&["ports-low"])
        .is("warning", "certain")
        .about_destination("tcp", at(&lab))
        .field("/subject/process/pid", process.pid())
        .evidence("available", 100);
}

#[test]
fn no_port_left_is_exhausted() {
    let Some(lab) = Lab::pair() else { return };
    let (_server, process) = held(&lab, usize::MAX);
    assert_eq!(process.held, (200, libc::EADDRNOTAVAIL));
    let verdict = both(&lab, "ports-exhausted", "1s");
    verdict
        .says_only(&["ports-exhausted"])
        .is("critical", "certain")
        .about_destination("tcp", at(&lab))
        .field("/subject/process/comm", "node")
        .evidence("in_use", 200)
        .evidence("available", 200)
        .tells("", &["EADDRNOTAVAIL"]);
    assert_eq!(verdict.code, 2);
}

#[test]
fn another_destination_keeps_its_ports() {
    let Some(lab) = Lab::pair() else { return };
    let (_server, _process) = held(&lab, 190);
    let other = SocketAddr::new(lab.server_ip(), 8081);
    let _second = TcpServer::start(lab.server(), other, Serve::Echo);
    let _few = hold(lab.client(), other, 100);
    // 290 sockets on a range of 200, and only one destination is short of ports.
    let verdict = both(&lab, "ports-low-one-of-two", "1s");
    verdict
        .says_only(&["ports-low"])
        .about_destination("tcp", at(&lab))
        .evidence("in_use", 190);
}

#[test]
fn ports_run_out_over_ipv6_too() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40099);
    let to = SocketAddr::new(lab.server_at().v6.into(), 8080);
    let _server = TcpServer::start(lab.server(), to, Serve::Echo);
    let held = exhaust(lab.client(), to);
    assert_eq!(held.streams.len(), 100);
    let verdict = both(&lab, "ports-exhausted-ipv6", "1s");
    verdict
        .says_only(&["ports-exhausted"])
        .is("critical", "certain")
        .about_destination("tcp", to);
}

#[test]
fn time_wait_that_holds_half_the_range_is_a_pileup() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40999);
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    fill_time_wait(lab.client(), at(&lab), 600);
    let verdict = both(&lab, "timewait-pileup", "1s");
    verdict
        .says_only(&["timewait-pileup"])
        .is("warning", "certain")
        .about_destination("tcp", at(&lab))
        .evidence("time_wait", 600)
        .fix(&["keep"]);
}

#[test]
fn time_wait_that_holds_every_port_is_why_they_are_exhausted() {
    let Some(lab) = Lab::pair() else { return };
    lab.client().set_port_range(40000, 40999);
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    fill_time_wait(lab.client(), at(&lab), 1000);
    assert_eq!(exhaust(lab.client(), at(&lab)).streams.len(), 0);
    let verdict = both(&lab, "ports-exhausted-time-wait", "1s");
    verdict
        .finding("ports-exhausted")
        .is("critical", "certain")
        .about_destination("tcp", at(&lab));
    verdict.finding("ports-exhausted").evidence("time_wait", 1000);
    verdict.says_at_most(&["ports-exhausted", "timewait-pileup"]);
}

#[test]
fn churn_is_named_with_its_process_and_a_pool() {
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
    let verdict = both(&lab, "connection-churn", "4s");
    verdict
        .says_only(&["connection-churn"])
        .is("warning", "certain")
        .about_destination("tcp", at(&lab))
        .field("/subject/process/comm", "node")
        .field("/subject/process/pid", process.pid())
        .measures("opens_per_second", 60.0..140.0)
        .fix(&["pool"])
        .fix(&["keep"]);
}

#[test]
fn churn_whose_server_closes_is_churn_too() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::CloseFirst);
    // They leave no TIME_WAIT, so only those that are open at a look are counted: a fifth of a second's worth.
    let plan = ChurnPlan {
        to: at(&lab),
        rate: 200,
        lifetime: Duration::from_millis(200),
        server_closes: true,
    };
    let _process = LoadProcess::start(lab.client(), "node", None, Work::Churn(plan));
    wait_until(SOON, "the server's TIME_WAIT", || {
        lab.server().sockstat("TCP", "tw") > 50
    });
    // TIME_WAIT is the server's, which it costs no port.
    let verdict = both(&lab, "connection-churn-server-closes", "4s");
    // A moment in CLOSE_WAIT is no leak. Whose sockets they are may stay unknown: they end before it can be looked up.
    verdict
        .says_only(&["connection-churn"])
        .is("warning", "certain")
        .about_destination("tcp", at(&lab))
        .tells_not("", &["leak"])
        .fix(&["keep"]);
    assert_eq!(lab.client().sockstat("TCP", "tw"), 0);
}

#[test]
fn a_process_at_its_file_limit_is_not_out_of_ports() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let work = Work::Hold {
        to: at(&lab),
        count: 1000,
    };
    let process = LoadProcess::start(lab.client(), "node", Some(128), work);
    assert_eq!(process.held.1, libc::EMFILE);
    let verdict = both(&lab, "fd-limit", "1s");
    verdict
        .says_only(&["fd-limit"])
        .is("critical", "certain")
        .field("/subject/kind", "process")
        .field("/subject/process/pid", process.pid())
        .field("/subject/process/comm", "node")
        .evidence("limit", 128)
        // What the test's own shell left open beyond the limit counts too.
        .measures("open_files", 122.0..=136.0)
        .fix(&["nofile"]);
}

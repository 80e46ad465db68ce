//! The lab's load is real: ports, TIME_WAIT, NAT ranges and conntrack tables do get full.

mod lab;

use lab::{
    Churn, ChurnPlan, CtFill, Lab, LoadProcess, Nat, SOON, Serve, TcpServer, UdpFlows, UdpReflector, Watch,
    Work, exhaust, fill_time_wait, hold, wait_until,
};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

fn at(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.server_ip(), 8080)
}

#[test]
fn held_connections_stay_and_end() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let held = hold(lab.client(), at(&lab), 500);
    assert!(held.error.is_none(), "{:?}", held.error);
    wait_until(SOON, "500 open connections", || server.open() == 500);
    assert!(
        server
            .seen()
            .iter()
            .all(|a| a.ip() == lab::addresses::ROUTER_WAN.v4)
    );
    drop(held);
    wait_until(SOON, "all to be closed", || server.open() == 0);
}

#[test]
fn ports_run_out_with_eaddrnotavail() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    lab.client().set_port_range(40000, 40199);
    let held = exhaust(lab.client(), at(&lab));
    assert_eq!(held.streams.len(), 200);
}

#[test]
fn time_wait_fills_the_range() {
    let Some(lab) = Lab::pair() else { return };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    lab.client().set_port_range(40000, 41999);
    fill_time_wait(lab.client(), at(&lab), 2000);
    let held = exhaust(lab.client(), at(&lab));
    assert_eq!(held.streams.len(), 0, "TIME_WAIT holds every port");
    assert_eq!(lab.server().sockstat("TCP", "tw"), 0);
}

#[test]
fn churn_keeps_its_rate_and_leaves_time_wait_where_it_should() {
    let Some(lab) = Lab::pair() else { return };
    for (serve, port, waits) in [
        (Serve::Echo, 8080, lab.client()),
        (Serve::CloseFirst, 8081, lab.server()),
    ] {
        let to = SocketAddr::new(lab.server_ip(), port);
        let _server = TcpServer::start(lab.server(), to, serve);
        let server_closes = serve == Serve::CloseFirst;
        let plan = ChurnPlan {
            to,
            rate: 400,
            lifetime: Duration::ZERO,
            server_closes,
        };
        let before = waits.sockstat("TCP", "tw");
        let start = Watch::start();
        let churn = Churn::start(lab.client(), plan);
        wait_until(SOON, "400 connections", || churn.done() >= 400);
        assert!(
            start.elapsed() >= Duration::from_millis(900),
            "400 in {:?}",
            start.elapsed()
        );
        assert!(churn.failed().is_empty());
        wait_until(SOON, "TIME_WAIT", || waits.sockstat("TCP", "tw") >= before + 400);
    }
}

#[test]
fn a_process_of_its_own_reaches_its_file_limit() {
    let Some(lab) = Lab::pair() else { return };
    let server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let work = Work::Hold {
        to: at(&lab),
        count: 1000,
    };
    let process = LoadProcess::start(lab.client(), "node", Some(128), work);
    let (held, errno) = process.held;
    assert_eq!(errno, libc::EMFILE);
    assert!(
        (100..128).contains(&held),
        "{held} connections under a limit of 128 files"
    );
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", process.pid())).expect("it lives");
    assert_eq!(comm.trim(), "node");
    drop(process);
    wait_until(SOON, "its connections to end", || server.open() == 0);
}

#[test]
fn a_process_of_its_own_churns() {
    let Some(lab) = Lab::pair() else { return };
    let server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let plan = ChurnPlan {
        to: at(&lab),
        rate: 300,
        lifetime: Duration::from_millis(50),
        server_closes: false,
    };
    let _process = LoadProcess::start(lab.client(), "node", None, Work::Churn(plan));
    wait_until(SOON, "100 connections", || server.accepted() >= 100);
}

#[test]
fn a_port_range_of_100_carries_100_flows() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20099)) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let before = lab.router().conntrack_stats();
    let flows = UdpFlows::open(lab.client(), at(&lab), 150);
    assert_eq!(flows.answered(SOON), 100);
    let after = lab.router().conntrack_stats();
    assert_eq!(after.insert_failed - before.insert_failed, 50);
    assert_eq!(after.drop - before.drop, 50);
    assert!(
        after.found - before.found > 50 * 60,
        "the search for a free port tries many"
    );
}

#[test]
fn tcp_through_a_used_up_range_stays_in_syn_sent() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20019)) else {
        return;
    };
    let _server = TcpServer::start(lab.server(), at(&lab), Serve::Echo);
    let held = hold(lab.client(), at(&lab), 20);
    assert!(held.error.is_none(), "{:?}", held.error);
    let before = lab.router().conntrack_stats();
    let result = lab
        .client()
        .run(|| TcpStream::connect_timeout(&at(&lab), Duration::from_millis(300)));
    assert_eq!(
        result.expect_err("no port is left").kind(),
        std::io::ErrorKind::TimedOut
    );
    assert_eq!(
        lab.router().conntrack_stats().insert_failed - before.insert_failed,
        1
    );
}

#[test]
fn a_full_table_of_assured_entries_drops() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let start = Watch::start();
    lab.router().fill_conntrack_up();
    eprintln!(
        "{} entries in {:?}",
        lab.router().conntrack_count(),
        start.elapsed()
    );
    let before = lab.router().conntrack_stats();
    let flows = UdpFlows::open(lab.client(), at(&lab), 20);
    assert_eq!(flows.answered(Duration::from_millis(200)), 0);
    let after = lab.router().conntrack_stats();
    assert_eq!(after.drop - before.drop, 20);
    assert_eq!(after.insert_failed, before.insert_failed);
    lab.router().conntrack_flush();
    assert_eq!(flows.answered(SOON), 20);
}

#[test]
fn a_full_table_of_unreplied_entries_makes_room() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let max = u32::try_from(lab.router().conntrack_max()).expect("it is no larger");
    lab.router().fill_conntrack(CtFill::unreplied(max));
    let before = lab.router().conntrack_stats();
    let flows = UdpFlows::open(lab.client(), at(&lab), 20);
    assert_eq!(flows.answered(SOON), 20);
    let after = lab.router().conntrack_stats();
    assert!(after.early_drop > before.early_drop);
    assert_eq!(after.drop, before.drop);
}

#[test]
fn a_host_that_tracks_has_a_table_of_its_own() {
    let Some(lab) = Lab::lone() else { return };
    lab.client().track_connections();
    assert_eq!(lab.client().fill_conntrack(CtFill::assured(1000)), 1000);
    let more = CtFill {
        first: 1000,
        tcp: false,
        ..CtFill::assured(500)
    };
    assert_eq!(lab.client().fill_conntrack(more), 1500);
    assert_eq!(lab.client().conntrack_forget(&["-p", "udp"]), 500);
    assert_eq!(lab.client().conntrack_count(), 1000);
}

#[test]
fn a_race_inside_the_nat_fails_insertions_with_ports_to_spare() {
    let Some(lab) = Lab::builder().nat(Nat::Masquerade).second_client().build() else {
        return;
    };
    let _reflector = UdpReflector::start(lab.server(), at(&lab));
    let before = lab.router().conntrack_stats();
    let _race = lab::natrace::start(&lab, at(&lab));
    wait_until(SOON, "insertions to fail", || {
        lab.router().conntrack_stats().insert_failed > before.insert_failed + 10
    });
    let after = lab.router().conntrack_stats();
    assert_eq!(
        after.drop - before.drop,
        after.insert_failed - before.insert_failed
    );
}

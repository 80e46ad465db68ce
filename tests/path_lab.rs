//! `wgnat path` says the truth of real paths: lossy, long, silent about their MTU, unreachable; and of name servers.
#![allow(clippy::expect_used)] // a panic is how a test fails

mod lab;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record};
use lab::wgnat::Doctor;
use lab::{DnsReply, DnsServer, Fault, Lab, Namespace, Serve, TcpServer, Toward, UdpReflector, UdpRelay};
use serde_json::Value;

fn path(lab: &Lab, from: &Namespace, args: &[&str]) -> Doctor {
    let mut command = lab.wgnat(from);
    command.args(["path", "--json"]).args(args);
    lab.json(command)
}

/// The row of a target.
#[track_caller]
fn row<'a>(report: &'a Doctor, target: &str) -> &'a Value {
    let rows = report.report["paths"].as_array().expect("rows");
    rows.iter()
        .find(|row| row["target"] == target)
        .unwrap_or_else(|| panic!("no row for {target}.\n{}", report.everything()))
}

fn server(lab: &Lab, port: u16) -> SocketAddr {
    SocketAddr::new(lab.server_ip(), port)
}

/// A server that answers one HTTP request a connection, after `delay`.
fn http_server(ns: &Namespace, at: SocketAddr, delay: Duration) {
    let listener = ns.run(|| TcpListener::bind(at)).expect("a listener");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut request = [0; 2048];
                let _ = stream.read(&mut request);
                // The server is slow: that is what is simulated.
                std::thread::sleep(delay);
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            });
        }
    });
}

#[test]
fn healthy_targets_stand_side_by_side_and_nothing_is_wrong() {
    let Some(lab) = Lab::routed() else { return };
    let (echo, http) = (server(&lab, 7000), server(&lab, 8080));
    let _udp = UdpReflector::start(lab.server(), echo);
    http_server(lab.server(), http, Duration::ZERO);
    let v6 = lab.server_at().v6;
    let targets = [
        lab.server_ip().to_string(),
        v6.to_string(),
        format!("udp:{echo}"),
        format!("tcp:{http}"),
        format!("http://{http}/"),
    ];
    let mut args: Vec<&str> = targets.iter().map(String::as_str).collect();
    args.extend(["--mtu", "--hops", "--timeout", "5s"]);
    let report = path(&lab, lab.client(), &args);
    assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
    assert_eq!(report.code, 0);
    for target in &targets {
        let row = row(&report, target);
        assert_eq!(row["lost"], 0, "{row:#}");
        assert!(row["rtt"]["median_seconds"].as_f64().expect("a median") > 0.0);
        assert_eq!(row["mtu"]["bytes"], 1500, "{row:#}");
        // The router, then the server.
        let hops = row["hops"].as_array().expect("hops");
        assert_eq!(hops.len(), 2, "{row:#}");
        assert_eq!(hops[1]["addresses"][0], row["address"]);
    }
    let http = row(&report, &targets[4]);
    assert_eq!(http["http_status"], 204);
    assert!(http["stages_seconds"]["connect"].is_f64() && http["stages_seconds"]["first byte"].is_f64());
}

#[test]
fn loss_is_measured_and_a_target_without_it_tells_where() {
    let Some(lab) = Lab::routed() else { return };
    let _fault = lab.inflict(&Fault::new(
        "ip daddr 203.0.113.9 icmp type echo-request numgen random mod 100 < 40",
        "drop",
    ));
    let router = lab.server_at().gateway().v4.to_string();
    let target = lab.server_ip().to_string();
    let report = path(
        &lab,
        lab.client(),
        &[
            &target,
            &router,
            "--count",
            "60",
            "--interval",
            "10ms",
            "--timeout",
            "3s",
        ],
    );
    assert_eq!(report.codes(), ["path-loss"], "{}", report.everything());
    let finding = report.finding("path-loss");
    assert_eq!(finding["confidence"], "certain");
    assert_eq!(finding["subject"]["target"], target.as_str());
    let (low, high) = (
        &finding["evidence"]["loss_share_low"],
        &finding["evidence"]["loss_share_high"],
    );
    assert!(
        low.as_f64().expect("low") < 0.5 && high.as_f64().expect("high") > 0.3,
        "{finding:#}"
    );
    assert!(
        finding["summary"]
            .as_str()
            .expect("text")
            .contains("on the way to this one")
    );
    assert_eq!(report.code, 1);
}

#[test]
fn a_router_that_says_unreachable_is_quoted() {
    let Some(lab) = Lab::routed() else { return };
    lab.router().ip(&["route add unreachable 192.0.2.0/24"]);
    let report = path(
        &lab,
        lab.client(),
        &["192.0.2.7", "tcp:192.0.2.7:80", "--count", "4"],
    );
    for finding in report.findings() {
        assert_eq!(finding["code"], "path-loss");
        assert!(
            finding["title"]
                .as_str()
                .expect("title")
                .contains("not reachable"),
            "{finding:#}"
        );
    }
    assert_eq!(report.findings().len(), 2, "{}", report.everything());
    let echo = report
        .findings()
        .iter()
        .find(|f| f["subject"]["target"] == "192.0.2.7")
        .expect("echo");
    assert_eq!(
        echo["evidence"]["icmp_from"],
        lab.client_at().gateway().v4.to_string().as_str()
    );
}

#[test]
fn silence_about_a_small_link_is_a_black_hole_and_icmp_is_not() {
    let Some(lab) = Lab::routed() else { return };
    let target = lab.server_ip().to_string();
    let small = Fault::drop_longer_than(1400);
    let fault = lab.inflict(&small);
    let silent = path(&lab, lab.client(), &[&target, "--mtu", "--timeout", "3s"]);
    assert_eq!(silent.codes(), ["path-mtu"], "{}", silent.everything());
    let finding = silent.finding("path-mtu");
    assert_eq!(finding["evidence"]["largest_passed_bytes"], 1400);
    assert_eq!(finding["evidence"]["wireguard_mtu_bytes"], 1340);
    assert_eq!(finding["confidence"], "likely", "{finding:#}");
    fault.lift();
    // The router's link carries less now, and it says so.
    lab.router().ip(&["link set wan0 mtu 1400"]);
    let told = path(&lab, lab.client(), &[&target, "--mtu", "--timeout", "3s"]);
    assert_eq!(told.codes(), Vec::<&str>::new(), "{}", told.everything());
    assert_eq!(row(&told, &target)["mtu"]["bytes"], 1400);
    assert_eq!(row(&told, &target)["mtu"]["icmp_said_bytes"], 1400);
}

#[test]
fn slower_than_before_is_found_and_whose_time_it_is() {
    let Some(lab) = Lab::routed() else { return };
    let at = server(&lab, 8080);
    let target = format!("http://{at}/");
    http_server(lab.server(), at, Duration::ZERO);
    let before = path(&lab, lab.client(), &[&target, "--timeout", "5s"]);
    assert_eq!(before.codes(), Vec::<&str>::new(), "{}", before.everything());
    let file = lab.dir().join("before.json");
    std::fs::write(&file, before.report.to_string()).expect("written");
    let slow = server(&lab, 8081);
    http_server(lab.server(), slow, Duration::from_millis(900));
    // The same target from now on leads to a slow server.
    lab.client().nft(&format!(
"table ip slow {{\n chain out {{\n type nat hook output priority -100\n ip daddr {} tcp dport 8080 dnat to {slow}\n }}\n }}",
        at.ip()
    ));
    let baseline = file.to_str().expect("a path");
    let after = path(
        &lab,
        lab.client(),
        &[&target, "--timeout", "8s", "--baseline", baseline],
    );
    assert_eq!(after.codes(), ["path-latency"], "{}", after.everything());
    let finding = after.finding("path-latency");
    assert_eq!(finding["confidence"], "likely");
    assert_eq!(finding["evidence"]["longest_stage"], "first byte");
    assert!(
        finding["summary"]
            .as_str()
            .expect("text")
            .contains("the server is slow, not the path")
    );
}

#[test]
fn jitter_of_a_relay_is_found() {
    let Some(lab) = Lab::routed() else { return };
    let echo = server(&lab, 7000);
    let _udp = UdpReflector::start(lab.server(), echo);
    let delays: Vec<Duration> = [5, 160, 10, 190, 20, 150, 0, 170]
        .map(Duration::from_millis)
        .into();
    let relay = SocketAddr::new(IpAddr::V4(lab.client_at().gateway().v4), 7001);
    let relay = UdpRelay::start(lab.router(), relay, echo, &delays);
    let target = format!("udp:{}", relay.address());
    let report = path(&lab, lab.client(), &[&target, "--count", "24", "--timeout", "8s"]);
    assert_eq!(report.codes(), ["path-jitter"], "{}", report.everything());
    assert!(
        report.finding("path-jitter")["evidence"]["jitter_seconds"]
            .as_f64()
            .expect("seconds")
            > 0.05
    );
}

#[test]
fn name_servers_are_judged_one_by_one() {
    let Some(lab) = Lab::routed() else { return };
    let good = DnsServer::start(
        lab.server(),
        lab.server_ip(),
        DnsReply::Address("192.0.2.1".parse().expect("an address"), Duration::ZERO),
    );
    let silent = lab::addresses::SERVER_MORE[0];
    lab.client()
        .set_resolv_conf(&format!("nameserver {}\nnameserver {silent}\n", lab.server_ip()));
    let _drop = lab.inflict(&Fault::new(&format!("ip daddr {silent}"), "drop"));
    let one = path(&lab, lab.client(), &["dns:a.example", "--timeout", "2s"]);
    assert_eq!(one.codes(), ["dns-failing"], "{}", one.everything());
    let finding = one.finding("dns-failing");
    assert_eq!(finding["severity"], "warning");
    assert_eq!(finding["subject"]["address"], silent.to_string().as_str());
    drop(good);
    let _failing = DnsServer::start(lab.server(), lab.server_ip(), DnsReply::ServFail);
    let all = path(&lab, lab.client(), &["dns:a.example", "--timeout", "2s"]);
    assert_eq!(
        all.codes(),
        ["dns-failing", "dns-failing"],
        "{}",
        all.everything()
    );
    assert!(all.findings().iter().all(|f| f["severity"] == "critical"));
    assert_eq!(all.code, 2);
}

#[test]
fn a_slow_name_server_is_named() {
    let Some(lab) = Lab::routed() else { return };
    let address = "192.0.2.1".parse().expect("an address");
    let _slow = DnsServer::start(
        lab.server(),
        lab.server_ip(),
        DnsReply::Address(address, Duration::from_millis(400)),
    );
    let target = format!("dns:a.example@{}", lab.server_ip());
    let report = path(
        &lab,
        lab.client(),
        &[&target, "--timeout", "8s", "--interval", "500ms"],
    );
    assert_eq!(report.codes(), ["dns-slow"], "{}", report.everything());
    // doctor says the same where the target is named.
    let doctor = lab.doctor_json(lab.client(), &["--target", &target, "--duration", "6s"]);
    doctor.finding("dns-slow");
    assert!(
        lab.doctor_json(lab.client(), &["--duration", "1s"]).report["paths"]
            .as_array()
            .expect("rows")
            .is_empty()
    );
}

/// A server of Fly's list of machines, as `fdaa::3` gives it.
fn fly_resolver(ns: &Namespace, at: SocketAddr, text: String) {
    let socket = ns.run(|| UdpSocket::bind(at)).expect("a socket");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let Ok(mut message) = Message::from_vec(&buffer[..n]) else {
                continue;
            };
            message.metadata.message_type = MessageType::Response;
            let name = message.queries[0].name().clone();
            let chunks: Vec<String> = text
                .as_bytes()
                .chunks(200)
                .map(|c| String::from_utf8_lossy(c).into())
                .collect();
            message.add_answer(Record::from_rdata(name, 5, RData::TXT(TXT::new(chunks))));
            let _ = socket.send_to(&message.to_vec().expect("encoded"), from);
        }
    });
}

#[test]
fn siblings_on_fly_are_found_and_compared_by_region() {
    let Some(lab) = Lab::routed() else { return };
    let machines: [(&str, &str, Ipv6Addr); 3] = [
        ("m1", "ams", lab.server_at().v6),
        ("m2", "gru", "2001:db8:113::77".parse().expect("an address")),
        ("own", "ams", lab.client_at().v6),
    ];
    let list: Vec<String> = machines
        .iter()
        .map(|(id, region, ip)| format!("instance={id},app=web,ip={ip},region={region}"))
        .collect();
    fly_resolver(lab.server(), server(&lab, 53), list.join(";"));
    lab.client()
        .set_resolv_conf(&format!("nameserver {}\n", lab.server_ip()));
    let mut command = lab.wgnat(lab.client());
    command
        .args(["path", "--json", "--fly-mesh", "--count", "5"])
        .env("FLY_MACHINE_ID", "own");
    let report = lab.json(command);
    // Nobody has the second address: its region is the one that fails.
    assert_eq!(report.codes(), ["path-loss"], "{}", report.everything());
    assert_eq!(
        report.report["paths"].as_array().expect("rows").len(),
        2,
        "this machine itself is left out"
    );
    assert_eq!(row(&report, &machines[0].2.to_string())["fly"]["region"], "ams");
    assert_eq!(row(&report, &machines[1].2.to_string())["fly"]["region"], "gru");
}

#[test]
fn what_cannot_be_done_is_said() {
    let Some(lab) = Lab::routed() else { return };
    let serves = server(&lab, 8080);
    let _tcp = TcpServer::start(lab.server(), serves, Serve::Echo);
    // Without privilege and without a group for ping sockets: no echo; TCP works.
    let target = lab.server_ip().to_string();
    let tcp = format!("tcp:{serves}");
    let mut command = lab.client().command("setpriv");
    lab.clean_environment(&mut command);
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]);
    command
        .arg(env!("CARGO_BIN_EXE_wgnat"))
        .args(["path", "--json", &target, &tcp, "--hops"]);
    let report = lab.json(command);
    assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
    assert_eq!(row(&report, &tcp)["lost"], 0);
    let reason = report.report["collectors"]
        .as_array()
        .expect("collectors")
        .iter()
        .find(|c| c["name"] == "paths")
        .expect("paths")["reason"]
        .to_string();
    assert!(reason.contains("CAP_NET_RAW"), "{reason}");
    // A name that leads nowhere, and words that are none.
    let nowhere = path(&lab, lab.client(), &["tcp:no-such-host.invalid:1"]);
    assert_eq!(nowhere.code, 3, "{}", nowhere.everything());
    for (words, expected) in [("ftp://x/", "no kind of target"), ("tcp:x", "needs a port")] {
        let mut command = lab.wgnat(lab.client());
        command.args(["path", words]);
        let out = lab::exec::output(command);
        assert_eq!(out.code, 3);
        assert!(out.stderr.contains(expected), "{}", out.stderr);
    }
}

#[test]
fn a_closed_udp_port_is_no_lossy_path() {
    let Some(lab) = Lab::routed() else { return };
    // As hosts have it: six port unreachables at once, then one a second.
    assert_eq!(lab.server().read_sysctl("net.ipv4.icmp_ratelimit"), "1000");
    let closed = format!("udp:{}", server(&lab, 9));
    let report = path(
        &lab,
        lab.client(),
        &[&closed, "--count", "20", "--interval", "20ms"],
    );
    let row = row(&report, &closed);
    let failures = &row["failures"];
    assert!(
        failures["refused"].as_u64() >= Some(1) && failures["no answer"].as_u64() >= Some(1),
        "{}",
        report.everything()
    );
    assert_eq!(row["lost"], 0, "{row:#}");
    assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
    assert_eq!(
        report.report["not_checked"],
        serde_json::json!([]),
        "{}",
        report.everything()
    );
}

#[test]
fn one_way_loss_of_a_service_that_refuses_is_none() {
    let Some(lab) = Lab::routed() else { return };
    let closed = format!("tcp:{}", server(&lab, 9));
    let report = path(&lab, lab.client(), &[&closed]);
    assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
    assert_eq!(row(&report, &closed)["failures"]["refused"], 10);
    let _fault = lab.inflict(&Fault::drop_tcp().toward(Toward::Client));
    let dropped = path(&lab, lab.client(), &[&closed, "--count", "4"]);
    assert_eq!(dropped.codes(), ["path-loss"], "{}", dropped.everything());
    assert!(
        dropped.finding("path-loss")["candidates"]
            .as_array()
            .expect("candidates")
            .len()
            >= 2
    );
}

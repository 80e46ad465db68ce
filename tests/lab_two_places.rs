//! `wgnat analyze` on two captures of one tunnel, made by tcpdump at the client and at the server of a NAT that does
//! something wrong; and on two records of doctor.
#![allow(clippy::expect_used)] // a panic is how a test fails

mod lab;
mod truth;

use lab::{
    Doctor, Fault, Lab, Message, Namespace, Nat, SOON, Toward, Tunnel, UdpReflector, Watch, ask, tunnel,
    wait_until,
};
use serde_json::Value;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;
use truth::Scenario;

/// What a capture on every interface sees last.
const LAST: &[u8] = b"the last packet of this capture";

/// tcpdump at work in one place.
struct Capture {
    child: Child,
    file: PathBuf,
    ns: Namespace,
}

impl Capture {
    fn start(lab: &Lab, ns: &Namespace, interface: &str, name: &str) -> Self {
        let file = lab.dir().join(name);
        let mut command = ns.command("tcpdump");
        command
            .args([
                "--immediate-mode",
                "-Z",
                "root",
                "-U",
                "-n",
                "-i",
                interface,
                "-w",
            ])
            .arg(&file)
            .arg("udp or icmp");
        let child = command
            .stderr(Stdio::null())
            .spawn()
            .expect("tcpdump is installed (package tcpdump)");
        // It writes the file's header when its socket is open.
        wait_until(SOON, "tcpdump to listen", || {
            fs::metadata(&file).is_ok_and(|m| m.len() >= 24)
        });
        Self {
            child,
            file,
            ns: ns.clone(),
        }
    }

    /// Ends it. The last packet is one of this host to itself, so that the capture is known to have lasted.
    fn stop(mut self) -> PathBuf {
        self.ns.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
            let to = socket.local_addr().expect("it is bound");
            let _ = socket.send_to(LAST, to);
        });
        // Whatever else makes the file grow may come before what is still to be read.
        wait_until(SOON, "the capture's last packet", || {
            fs::read(&self.file).is_ok_and(|file| file.windows(LAST.len()).any(|bytes| bytes == LAST))
        });
        lab::exec::interrupt(self.child.id());
        self.child.wait().expect("it ends");
        self.file
    }
}

/// Captures at both ends, on every interface.
struct Both(Capture, Capture);

impl Both {
    fn start(lab: &Lab) -> Self {
        for ns in [lab.client(), lab.server()] {
            ns.ip(&["link set lo up"]);
        }
        Self(
            Capture::start(lab, lab.client(), "any", "client.pcap"),
            Capture::start(lab, lab.server(), "any", "server.pcap"),
        )
    }

    #[track_caller]
    fn analyze(self, lab: &Lab, extra: &[&str]) -> Doctor {
        let files = [self.0.stop(), self.1.stop()];
        analyze(lab, extra, &files)
    }
}

#[track_caller]
fn analyze(lab: &Lab, extra: &[&str], files: &[PathBuf]) -> Doctor {
    let mut command = lab.wgnat(lab.client());
    command.args(["analyze", "--json"]).args(extra).args(files);
    lab.json(command)
}

/// The only link of a report.
#[track_caller]
fn link(report: &Doctor) -> &Value {
    let links = report.report["places"]["links"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    assert_eq!(links.len(), 1, "{}", report.everything());
    &links[0]
}

#[track_caller]
fn only(report: &Doctor, code: &str, severity: &str, confidence: &str) {
    assert_eq!(report.codes(), [code], "{}", report.everything());
    let finding = report.finding(code);
    assert_eq!(
        (&finding["severity"], &finding["confidence"]),
        (&severity.into(), &confidence.into()),
        "{}",
        report.everything()
    );
}

fn number(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name} in {value}"))
}

fn echo(lab: &Lab) -> UdpReflector {
    UdpReflector::start(lab.server(), SocketAddr::new(tunnel::SERVER_IN, 7))
}

/// Small messages both ways; those that are lost are lost.
fn try_to_talk(lab: &Lab, echo: &UdpReflector, times: u32) {
    for _ in 0..times {
        let _ = ask(lab.client(), echo.address(), 32, Duration::from_millis(100));
    }
}

#[test]
fn a_healthy_tunnel_across_a_nat_maps_and_loses_nothing() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20099)) else {
        return;
    };
    let captures = Both::start(&lab);
    let tunnel = Tunnel::up(&lab);
    let echo = echo(&lab);
    try_to_talk(&lab, &echo, 10);
    let outside = tunnel
        .server
        .dump()
        .peer()
        .endpoint
        .expect("it has one")
        .to_string();
    let report = captures.analyze(&lab, &[]);
    assert_eq!(
        (report.codes(), report.code),
        (vec![], 0),
        "{}",
        report.everything()
    );
    let link = link(&report);
    assert!(
        link["near"].as_str().is_some_and(|a| a.starts_with("10.77.0.2:")),
        "{link}"
    );
    assert_eq!(
        (&link["near_at_second"], &link["far"]),
        (&outside.as_str().into(), &"203.0.113.9:51820".into())
    );
    for way in ["onward", "back"] {
        assert!(number(&link[way], "data_arrived") >= 5, "{link}");
        assert_eq!(
            (number(&link[way], "lost"), number(&link[way], "after_end")),
            (0, 0),
            "{link}"
        );
    }
    // Both are on one clock.
    let places = &report.report["places"];
    let offset = places["clock_offset_seconds"]
        .as_f64()
        .expect("messages went both ways");
    let off_by = places["clock_uncertainty_seconds"].as_f64().expect("as before");
    assert!(offset.abs() <= off_by + 0.001, "{places}");
    Scenario::more_of("healthy", "captures")
        .captures(&report.report)
        .holds();

    // The same two files as one capture.
    let files = [lab.dir().join("client.pcap"), lab.dir().join("server.pcap")];
    let merged = analyze(&lab, &["--same-place"], &files);
    assert!(merged.report["places"].is_null(), "{}", merged.everything());
}

#[test]
fn responses_lost_on_the_way_back_are_certain() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let fault = lab.inflict(&Fault::drop_message(Message::Response).toward(Toward::Client));
    let captures = Both::start(&lab);
    let tunnel = Tunnel::start(&lab);
    tunnel.knock();
    wait_until(SOON, "three initiations", || {
        tunnel.client.dump().peer().tx >= 3 * 148
    });
    wait_until(SOON, "the last response to be lost", || fault.hits() >= 3);
    let report = captures.analyze(&lab, &[]);
    only(&report, "wg-response-lost", "critical", "certain");
    Scenario::more_of("responses-dropped", "captures")
        .captures(&report.report)
        .holds();
    let link = link(&report);
    assert!(number(&link["onward"], "initiations_arrived") >= 2, "{link}");
    assert_eq!(number(&link["back"], "responses_arrived"), 0, "{link}");
    assert_eq!(report.code, 2);
}

#[test]
fn initiations_lost_on_the_way_there_are_told_from_refused_ones() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let mut tunnel = Tunnel::start(&lab);
    let captures = Both::start(&lab);
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    let fault = lab.inflict(&Fault::drop_message(Message::Initiation).toward(Toward::Server));
    tunnel.client.restart();
    tunnel.knock();
    wait_until(SOON, "three initiations", || {
        tunnel.client.dump().peer().tx >= 3 * 148
    });
    let report = captures.analyze(&lab, &[]);
    report.finding("wg-handshake-timeout");
    assert!(
        report.codes().iter().all(|c| *c == "wg-handshake-timeout"),
        "{}",
        report.everything()
    );
    fault.lift();
    Scenario::of(
        "initiations-dropped",
        "Initiations are dropped on the way there, by the router's firewall",
    )
    .captures(&report.report)
    .holds();

    // The same silence at the client, from a server that does not know it.
    tunnel.make_client_unknown();
    tunnel.server.apply();
    tunnel.client.restart();
    let captures = Both::start(&lab);
    tunnel.knock();
    wait_until(SOON, "three initiations", || {
        tunnel.client.dump().peer().tx >= 3 * 148
    });
    let report = captures.analyze(&lab, &[]);
    only(&report, "wg-handshake-timeout", "critical", "certain");
    let finding = report.finding("wg-handshake-timeout");
    let summary = finding["summary"].as_str().unwrap_or_default();
    assert!(summary.contains("the way there is open"), "{finding}");
    let codes: Vec<_> = finding["candidates"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(|c| c["code"].as_str())
        .collect();
    assert!(
        codes.contains(&"wg-unknown-initiator") && codes.contains(&"wg-clock-replay"),
        "{finding}"
    );
    Scenario::more_of("unknown-initiator", "captures")
        .captures(&report.report)
        .holds();
}

#[test]
fn data_lost_one_way_is_told_by_its_way() {
    for toward in [Toward::Server, Toward::Client] {
        let Some(lab) = Lab::nat(Nat::Masquerade) else {
            return;
        };
        let captures = Both::start(&lab);
        let _tunnel = Tunnel::up(&lab);
        let echo = echo(&lab);
        try_to_talk(&lab, &echo, 5);
        let fault = lab.inflict(&Fault::drop_message(Message::Data).toward(toward));
        let server = lab.server().clone();
        wait_until(SOON, "losses", || {
            try_to_talk(&lab, &echo, 1);
            tunnel::knock(&server, tunnel::CLIENT_IN);
            fault.hits() >= 8
        });
        // What is on its way at a capture's end is not called lost.
        let rest = Watch::start();
        wait_until(SOON, "the last ones to be over", || {
            rest.elapsed() > Duration::from_millis(1200)
        });
        let report = captures.analyze(&lab, &[]);
        only(&report, "wg-one-way", "critical", "certain");
        let (lossy, open) = match toward {
            Toward::Server => ("onward", "back"),
            _ => ("back", "onward"),
        };
        let link = link(&report);
        assert!(number(&link[lossy], "lost") >= 5, "{link}");
        assert_eq!(number(&link[open], "lost"), 0, "{link}");
        Scenario::of(
            "data-one-way",
            "Data is dropped one way, by the router's firewall",
        )
        .captures(&report.report)
        .holds();
    }
}

#[test]
fn sizes_that_vanish_between_are_certain() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let hole = lab.inflict(&Fault::drop_longer_than(1300));
    let captures = Both::start(&lab);
    let _tunnel = Tunnel::up(&lab);
    let echo = echo(&lab);
    for size in [100, 600, 1200, 1300, 1372] {
        for _ in 0..3 {
            let _ = ask(lab.client(), echo.address(), size, Duration::from_millis(100));
        }
    }
    assert!(hole.hits() >= 3);
    let rest = Watch::start();
    wait_until(SOON, "the last ones to be over", || {
        rest.elapsed() > Duration::from_millis(1200)
    });
    let report = captures.analyze(&lab, &[]);
    only(&report, "wg-mtu-blackhole", "critical", "certain");
    Scenario::more_of("mtu-black-hole", "captures")
        .captures(&report.report)
        .holds();
    let evidence = &report.finding("wg-mtu-blackhole")["evidence"];
    // 1200 and its headers, padded to 16; 1300 and its headers.
    assert_eq!(number(evidence, "largest_arrived_bytes"), 1232, "{evidence}");
    assert_eq!(number(evidence, "smallest_lost_bytes"), 1328, "{evidence}");
    assert!(
        (1232..=1280).contains(&number(evidence, "mtu_to_set")),
        "{evidence}"
    );
}

#[test]
fn a_nat_that_rebinds_between_is_certain() {
    let Some(lab) = Lab::nat(Nat::Random) else { return };
    for name in ["udp_timeout", "udp_timeout_stream"] {
        lab.router()
            .sysctl(&format!("net.netfilter.nf_conntrack_{name}"), 1);
    }
    let captures = Both::start(&lab);
    let tunnel = Tunnel::up(&lab);
    let echo = echo(&lab);
    try_to_talk(&lab, &echo, 5);
    let old = tunnel.server.dump().peer().endpoint.expect("it has one");
    let silence = Watch::start();
    wait_until(SOON, "the NAT to forget the flow", || {
        !lab.router().conntrack(&["-L", "-p", "udp"]).contains("udp")
    });
    wait_until(SOON, "a silence", || silence.elapsed() > Duration::from_secs(4));
    wait_until(SOON, "the endpoint to change", || {
        tunnel.knock();
        tunnel.server.dump().peer().endpoint != Some(old)
    });
    try_to_talk(&lab, &echo, 5);
    let new = tunnel.server.dump().peer().endpoint.expect("it has one");
    let config = lab.dir().join("wgnat.toml");
    fs::write(&config, "[thresholds]\nrebinding_after = 3.0\n").expect("the lab's directory can be written");
    let report = captures.analyze(&lab, &["--config", &config.display().to_string()]);
    only(&report, "wg-nat-rebinding", "warning", "certain");
    Scenario::more_of("nat-forgets", "captures")
        .captures(&report.report)
        .holds();
    let evidence = &report.finding("wg-nat-rebinding")["evidence"];
    assert_eq!(evidence["old_mapping"], old.to_string(), "{evidence}");
    assert_eq!(evidence["new_mapping"], new.to_string(), "{evidence}");
    assert!(
        evidence["silence_seconds"].as_f64().is_some_and(|s| s >= 3.0),
        "{evidence}"
    );
}

#[test]
fn captures_of_one_interface_with_nothing_in_common_are_one_capture() {
    let Some(lab) = Lab::routed() else { return };
    let tunnel = Tunnel::start(&lab);
    let first = Capture::start(&lab, lab.client(), "eth0", "first.pcap");
    lab.client().ip(&["link set lo up"]);
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    let before = fs::metadata(&first.file).map_or(0, |m| m.len());
    wait_until(SOON, "the capture to have it", || {
        fs::metadata(&first.file).is_ok_and(|m| m.len() >= before && m.len() > 300)
    });
    let first = stop_quietly(first);
    let second = Capture::start(&lab, lab.client(), "eth0", "second.pcap");
    tunnel.knock();
    wait_until(SOON, "the capture to have it", || {
        fs::metadata(&second.file).is_ok_and(|m| m.len() > 100)
    });
    let second = stop_quietly(second);
    let report = analyze(&lab, &[], &[first, second]);
    assert!(report.report["places"].is_null(), "{}", report.everything());
    assert_eq!(
        (report.codes(), report.code),
        (vec![], 0),
        "{}",
        report.everything()
    );
}

fn stop_quietly(mut capture: Capture) -> PathBuf {
    lab::exec::interrupt(capture.child.id());
    capture.child.wait().expect("it ends");
    capture.file
}

#[test]
fn two_records_of_doctor_are_two_places_too() {
    let Some(lab) = Lab::nat(Nat::Range(20000, 20099)) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    let files = [lab.dir().join("client.jsonl"), lab.dir().join("server.jsonl")];
    let doctors: Vec<Child> = [lab.client(), lab.server()]
        .into_iter()
        .zip(&files)
        .map(|(ns, file)| {
            lab.wgnat(ns)
                .args([
                    "doctor",
                    "--json",
                    "--duration",
                    "100s",
                    "--max-duration",
                    "100s",
                    "--record",
                ])
                .arg(file)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("wgnat starts")
        })
        .collect();
    // Each has opened its tap when its record has the first word of it.
    wait_until(SOON, "both to capture", || {
        files
            .iter()
            .all(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("\"capture\"")))
    });
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    let echo = echo(&lab);
    try_to_talk(&lab, &echo, 10);
    for mut doctor in doctors {
        lab::exec::interrupt(doctor.id());
        doctor.wait().expect("it ends");
    }
    let report = analyze(&lab, &[], &files);
    assert_eq!(report.codes(), Vec::<&str>::new(), "{}", report.everything());
    let link = link(&report);
    assert!(number(&link["onward"], "data_arrived") >= 5, "{link}");
    assert_eq!(
        (
            number(&link["onward"], "initiations_arrived"),
            number(&link["back"], "responses_arrived")
        ),
        (1, 1),
        "{link}"
    );
    assert_eq!(
        (number(&link["onward"], "lost"), number(&link["back"], "lost")),
        (0, 0),
        "{link}"
    );
}

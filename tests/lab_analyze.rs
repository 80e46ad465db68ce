//! `wgnat analyze` on captures of real faults, made in the lab by tcpdump.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test fails

mod lab;

use lab::{Doctor, Fault, Keys, Lab, Namespace, SOON, Tunnel, Watch, tunnel, wait_until, wg_faults};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

/// tcpdump at work.
struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    fn start(lab: &Lab, ns: &Namespace, name: &str) -> Self {
        let file = lab.dir().join(name);
        let mut command = ns.command("tcpdump");
        command
            .args(["--immediate-mode", "-Z", "root", "-U", "-n", "-i", "any"])
            // Room for thousands of packets: it has one slot of the snap length for each.
            .args(["-s", "2048", "-B", "8192", "-w"])
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
        Self { child, file }
    }

    fn stop(mut self, lab: &Lab, extra: &[&str]) -> Doctor {
        lab::exec::interrupt(self.child.id());
        self.child.wait().expect("it ends");
        let mut command = lab.wgnat(lab.client());
        command.args(["analyze", "--json"]).args(extra).arg(&self.file);
        lab.json(command)
    }
}

/// A wg-quick file of the server, with `peer` as its only peer.
fn server_config(lab: &Lab, tunnel: &Tunnel, peer: &str) -> String {
    use base64::Engine;
    let key = base64::engine::general_purpose::STANDARD.encode(tunnel.server.keys.private_bytes());
    let file = lab.dir().join("server.conf");
    let text = format!(
        "[Interface]\nPrivateKey = {key}\nListenPort = {}\n[Peer]\nPublicKey = {peer}\n",
        tunnel::PORT
    );
    fs::write(&file, text).expect("the lab's directory can be written");
    file.display().to_string()
}

#[test]
fn a_healthy_tunnel_has_no_finding() {
    let Some(lab) = Lab::routed() else { return };
    let capture = Capture::start(&lab, lab.router(), "router.pcap");
    let tunnel = Tunnel::up(&lab);
    tunnel.knock();
    let report = capture.stop(&lab, &[]);
    assert_eq!(
        (report.codes(), report.code),
        (vec![], 0),
        "{}",
        report.everything()
    );
    assert_eq!(report.report["wireguard"]["tunnels"][0]["state"], "established");
}

#[test]
fn dropped_udp_is_a_timeout_and_a_dead_daemon_is_unreachable() {
    let Some(lab) = Lab::routed() else { return };
    let fault = lab.inflict(&Fault::drop_udp());
    let capture = Capture::start(&lab, lab.client(), "dropped.pcap");
    let mut tunnel = Tunnel::start(&lab);
    tunnel.knock();
    wait_until(SOON, "three initiations", || {
        tunnel.client.dump().peer().tx >= 3 * 148
    });
    let report = capture.stop(&lab, &[]);
    assert_eq!(
        (report.codes(), report.code),
        (vec!["wg-handshake-timeout"], 2),
        "{}",
        report.everything()
    );

    fault.lift();
    tunnel.server.kill();
    let capture = Capture::start(&lab, lab.client(), "dead.pcap");
    let before = tunnel.client.dump().peer().tx;
    wait_until(SOON, "one more initiation", || {
        tunnel.client.dump().peer().tx > before
    });
    wait_until(SOON, "ICMP at the client", || {
        lab.client().counter("Icmp", "InDestUnreachs") > 0
    });
    let report = capture.stop(&lab, &[]);
    assert_eq!(
        report.codes(),
        ["wg-endpoint-unreachable"],
        "{}",
        report.everything()
    );
}

#[test]
fn two_hosts_with_one_key_are_told_from_a_host_that_roams() {
    let Some(lab) = Lab::builder().second_client().build() else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let capture = Capture::start(&lab, lab.server(), "server.pcap");
    let twin = tunnel.clone_client(&lab);
    tunnel.knock();
    tunnel::knock(twin.namespace(), tunnel::SERVER_IN);
    twin.await_handshake(SOON);
    tunnel::knock(twin.namespace(), tunnel::SERVER_IN);
    // Longer than packets may overtake each other.
    let watch = Watch::start();
    wait_until(SOON, "the first host to go on for a while", || {
        tunnel.knock();
        watch.elapsed() > Duration::from_secs(3)
    });
    let report = capture.stop(&lab, &[]);
    report.finding("wg-duplicate-key");
    report.lacks("wg-roamed");
    report.lacks("wg-nat-rebinding");
}

#[test]
fn a_roaming_host_is_no_second_host() {
    let Some(lab) = Lab::builder().second_uplink().build() else {
        return;
    };
    let mut tunnel = Tunnel::up(&lab);
    let capture = Capture::start(&lab, lab.server(), "server.pcap");
    for _ in 0..5 {
        // It is on the wire before the host moves.
        let before = tunnel.server.dump().peer().rx;
        tunnel.knock();
        wait_until(SOON, "the server to hear it", || {
            tunnel.server.dump().peer().rx > before
        });
    }
    lab.roam();
    // wireguard-go keeps its old source address until its port is set again.
    tunnel.client.port = Some(tunnel::PORT + 1);
    tunnel.client.apply();
    let old = tunnel.server.dump().peer().endpoint;
    wait_until(SOON, "the server to follow", || {
        tunnel.knock();
        tunnel.server.dump().peer().endpoint != old
    });
    for _ in 0..5 {
        tunnel.knock();
    }
    let report = capture.stop(&lab, &[]);
    report.finding("wg-roamed");
    report.lacks("wg-duplicate-key");
}

#[test]
fn keys_name_strangers_replays_and_wrong_keys() {
    let Some(lab) = Lab::routed() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    let stranger = Keys::generate();
    let listed = tunnel.client.keys.public().to_owned();
    tunnel.make_client_unknown();
    tunnel.start_both();
    let capture = Capture::start(&lab, lab.server(), "stranger.pcap");
    tunnel.knock();
    wait_until(SOON, "three initiations", || {
        tunnel.client.dump().peer().tx >= 3 * 148
    });
    let keys = server_config(&lab, &tunnel, stranger.public());
    let report = capture.stop(&lab, &["--keys", &keys]);
    report.finding("wg-unknown-initiator");

    // The same silence with a key that the server's configuration would list, but made for another server.
    tunnel.give_client_wrong_server_key();
    tunnel.client.restart();
    let capture = Capture::start(&lab, lab.server(), "wrong.pcap");
    tunnel.knock();
    wait_until(SOON, "three initiations", || {
        tunnel.client.dump().peer().tx >= 3 * 148
    });
    let keys = server_config(&lab, &tunnel, &listed);
    let report = capture.stop(&lab, &["--keys", &keys]);
    report.finding("wg-wrong-peer-key");
    report.lacks("wg-handshake-timeout");
    report.lacks("wg-unknown-initiator");
}

#[test]
fn a_clock_that_went_back_is_named_with_keys() {
    let Some(lab) = Lab::routed() else { return };
    let tunnel = Tunnel::start(&lab);
    let keys = server_config(&lab, &tunnel, tunnel.client.keys.public());
    let capture = Capture::start(&lab, lab.server(), "clock.pcap");
    tunnel.put_client_clock_back(&lab);
    tunnel.knock();
    wait_until(SOON, "two initiations", || {
        tunnel.client.dump().peer().tx >= 2 * 148
    });
    let report = capture.stop(&lab, &["--keys", &keys]);
    let finding = report.finding("wg-clock-replay");
    assert!(
        finding["evidence"]["seconds_behind"]
            .as_f64()
            .is_some_and(|s| s > 20.0),
        "{finding}"
    );
}

/// A capture at the router of a flood of so many initiations to the server, beside a tunnel that lives, as `analyze` sees it.
fn flooded(lab: &Lab, count: usize) -> Doctor {
    let capture = Capture::start(lab, lab.router(), &format!("flood-of-{count}.pcap"));
    let tunnel = Tunnel::up(lab);
    wg_faults::flood_from(lab.host("client2"), lab, &tunnel.server, count);
    // It takes note of each twice, as it comes in and as it goes out, and does not read on when it is told to end.
    let least = (count * 2 * 200) as u64;
    wait_until(SOON, "the flood to be in the file", || {
        fs::metadata(&capture.file).is_ok_and(|m| m.len() >= least)
    });
    capture.stop(lab, &[])
}

#[test]
fn a_flood_of_initiations_is_a_storm_and_names_who_sends_it() {
    let Some(lab) = Lab::builder().second_client().build() else {
        return;
    };
    let report = flooded(&lab, 600);
    let storm = report.finding("wg-handshake-storm");
    assert_eq!(
        (&storm["severity"], &storm["confidence"]),
        (&"warning".into(), &"certain".into()),
        "{}",
        report.everything()
    );
    // The tunnel's own is one of those that came.
    let number = |name: &str| storm["evidence"][name].as_u64().expect("a number");
    assert_eq!(number("initiations"), 601, "{}", report.everything());
    assert!(number("from_busiest_at_least") >= 600, "{}", report.everything());
    assert_eq!(storm["evidence"]["listen_port"], tunnel::PORT, "{storm}");
    let from = storm["evidence"]["busiest_source"].as_str().unwrap_or_default();
    assert!(from.starts_with("10.78.0.2"), "{storm}");
    // The tunnel beside it works, and nothing else is wrong but that its responder is under load, if it is.
    assert_eq!(report.codes(), ["wg-handshake-storm"], "{}", report.everything());
    assert_eq!(report.code, 1);
}

#[test]
fn a_few_initiations_too_many_are_no_storm() {
    let Some(lab) = Lab::builder().second_client().build() else {
        return;
    };
    // With the tunnel's own, one less than the least that is a storm.
    let report = flooded(&lab, 48);
    assert_eq!(
        (report.codes(), report.code),
        (vec![], 0),
        "{}",
        report.everything()
    );
}

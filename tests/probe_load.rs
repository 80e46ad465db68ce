//! `wgnat probe` and `wgnat doctor` at responders that are under load: they say so, and come in by the cookie.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;

use lab::prober::{BoringPeer, ProbeKey};
use lab::{Doctor, Fault, Keys, Lab, SOON, Toward, Tunnel, tunnel, wait_until, wg_faults};
use std::fs;
use std::net::SocketAddr;

const UNDER_LOAD: &str = "wg-under-load";
/// Answers to initiations that carried a cookie, by the record of what was observed.
fn answered_with_cookie(lab: &Lab, record: &str) -> usize {
    let text = fs::read_to_string(lab.dir().join(record)).expect("it was written");
    text.lines()
        .filter(|line| line.contains("\"with_cookie\":true") && line.contains("answered"))
        .count()
}

#[track_caller]
fn says_under_load(run: &Doctor) {
    let found = run.finding(UNDER_LOAD);
    assert_eq!(
        (&found["severity"], &found["confidence"]),
        (&"warning".into(), &"certain".into()),
        "{}",
        run.everything()
    );
    // What a full queue drops is lost, and may be said to be.
    let others: Vec<_> = run
        .codes()
        .into_iter()
        .filter(|code| ![UNDER_LOAD, "wg-handshake-loss"].contains(code))
        .collect();
    assert!(others.is_empty() && run.code == 1, "{}", run.everything());
    assert!(run.attempts("answered") > 0, "{}", run.everything());
}

/// Runs `look` while somebody else floods wireguard-go, until it has answered this client with a cookie.
fn flooded(lab: &Lab, tunnel: &Tunnel, look: impl FnOnce() -> Doctor + Send) -> Doctor {
    let ours = Fault::new(
        &format!("ip daddr {} meta l4proto udp @th,64,8 3", lab.client_at().v4),
        "accept",
    );
    let cookies = lab.inflict(&ours.toward(Toward::Client));
    let flooder = lab.host("client2");
    let run = std::thread::scope(|scope| {
        let looking = scope.spawn(look);
        wait_until(SOON, "a cookie reply to the client", || {
            wg_faults::flood_from(flooder, lab, &tunnel.server, 2000);
            cookies.hits() > 0 || looking.is_finished()
        });
        looking.join().expect("no panic in there")
    });
    assert!(cookies.hits() > 0, "{}", run.everything());
    cookies.lift();
    run
}

#[test]
fn wireguard_go_under_load_is_named_and_its_cookie_is_used() {
    let Some(lab) = Lab::builder().second_client().build() else {
        return;
    };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.server.start();
    let key = lab.probe_key(&mut tunnel);
    let record = |name: &str| lab.dir().join(name).display().to_string();
    let (first, second) = (record("probe.jsonl"), record("doctor.jsonl"));
    let probe = flooded(&lab, &tunnel, || {
        let args = [
            "--count",
            "60",
            "--interval",
            "100ms",
            "--timeout",
            "4s",
            "--record",
            &first,
        ];
        lab.probe_server(&tunnel, &key, &args)
    });
    says_under_load(&probe);
    assert!(probe.attempts("cookies") > 0 && answered_with_cookie(&lab, "probe.jsonl") > 0);
    let at = SocketAddr::new(lab.server_ip(), tunnel::PORT);
    let doctor = flooded(&lab, &tunnel, || {
        let args = ["--duration", "2s", "--record", &second];
        lab.doctor_probing(tunnel.server.keys.public(), at, &key, &args)
    });
    says_under_load(&doctor);
}

#[test]
fn boringtun_under_load_is_named_and_its_cookie_is_used() {
    let Some(lab) = Lab::builder().second_client().build() else {
        return;
    };
    let (own, theirs) = (Keys::generate(), Keys::generate());
    let at = SocketAddr::new(lab.server_ip(), 51_999);
    let peer = BoringPeer::start(lab.server(), at, &own, &theirs, None);
    let key = ProbeKey {
        file: lab.file("probe.key", &theirs.private_base64()),
        keys: theirs,
    };
    // It takes ten handshakes for nothing; whose they are does not matter.
    let cookies = lab.inflict(&Fault::count_message(lab::Message::Cookie));
    let flooder = lab.host("client2");
    wait_until(SOON, "it to be under load", || {
        wg_faults::flood_at(flooder, peer.at, own.public(), 5);
        cookies.hits() > 0
    });
    let record = |name: &str| lab.dir().join(name).display().to_string();
    let args = [
        "--count",
        "4",
        "--interval",
        "200ms",
        "--timeout",
        "4s",
        "--record",
        &record("probe.jsonl"),
    ];
    let probe = lab.probe(lab.client(), own.public(), peer.at, &key, &args);
    says_under_load(&probe);
    assert!(
        answered_with_cookie(&lab, "probe.jsonl") > 0,
        "{}",
        probe.everything()
    );
    // The cookie is good for this address for two minutes, but a new run does not have it.
    let args = ["--duration", "2s", "--record", &record("doctor.jsonl")];
    let doctor = lab.doctor_probing(own.public(), peer.at, &key, &args);
    says_under_load(&doctor);
    assert!(
        answered_with_cookie(&lab, "doctor.jsonl") > 0,
        "{}",
        doctor.everything()
    );
}

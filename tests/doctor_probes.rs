//! `wgnat doctor` tries the peers that its user names, where no device here holds the key: what the answers prove is among
//! its findings, and a live tunnel is left alone.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::prober::ProbeKey;
use lab::{Keys, Lab, Tunnel, tunnel};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use truth::everywhere::masqueraded;
use truth::{Look, Verdict};

const TIMEOUT: &str = "wg-handshake-timeout";

/// A server whose peers are the client, which is not there, and a key for probing.
fn server_alone(lab: &Lab) -> (Tunnel, ProbeKey) {
    let mut tunnel = Tunnel::prepare(lab);
    tunnel.server.start();
    let key = lab.probe_key(&mut tunnel);
    (tunnel, key)
}

/// A wg-quick file with that key, for a peer with `peer`'s.
fn config(lab: &Lab, name: &str, keys: &Keys, peer: &str) -> PathBuf {
    let text = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.99.0.9/32\n[Peer]\nPublicKey = {peer}\nEndpoint = {}:{}\nAllowedIPs = \
         10.99.0.0/24\n",
        keys.private_base64().as_str(),
        lab.server_ip(),
        tunnel::PORT
    );
    lab.file(name, &text)
}

#[track_caller]
fn doctor(lab: &Lab, args: &[&str]) -> Verdict {
    Look::at(lab, lab.client()).args(args).duration("3s").run()
}

/// The only target.
#[track_caller]
fn probed(verdict: &Verdict) -> &Value {
    let probes = verdict.report["wireguard"]["probes"].as_array().expect("a list");
    assert_eq!(probes.len(), 1, "{}", verdict.everything());
    &probes[0]
}

#[test]
fn a_peer_that_answers_is_nothing_wrong() {
    let Some(lab) = masqueraded() else { return };
    let (tunnel, key) = server_alone(&lab);
    let file = config(&lab, "wg7.conf", &key.keys, tunnel.server.keys.public());
    let file = file.to_str().expect("a path in UTF-8");
    let server = Look::at(&lab, lab.server()).until_told().start().await_watching();
    let verdict = doctor(&lab, &["--wg-config", file]);
    verdict.nothing_wrong();
    let target = probed(&verdict);
    assert_eq!(target["attempts"]["answered"], 3, "{}", verdict.everything());
    assert_eq!(verdict.report["wireguard"]["peers"][0]["state"], "up");
    // That the file's device does not exist is for information, once the peer is known to answer.
    verdict.finding("wg-never-connected").field("/severity", "info");
    // Each initiation once: as the probe's, and not as one that was seen by the way.
    let rows = verdict.report["wireguard"]["handshakes"]
        .as_array()
        .expect("a list");
    assert_eq!(rows.len(), 3, "{}", verdict.everything());
    // Who is asked for the answer alone must not look like an initiator that does not get it.
    server.enough().nothing_wrong();
    // By options it is the same.
    let at = format!("{}:{}", lab.server_ip(), tunnel::PORT);
    let private = key.file.to_str().expect("a path in UTF-8");
    let verdict = doctor(
        &lab,
        &[
            "--peer-public-key",
            tunnel.server.keys.public(),
            "--endpoint",
            &at,
            "--private-key-file",
            private,
        ],
    );
    verdict.nothing_wrong();
    assert_eq!(probed(&verdict)["attempts"]["answered"], 3);
    // And where it is not wanted nothing is sent.
    let before = counts(&tunnel);
    let verdict = doctor(&lab, &["--no-probe", "--wg-config", file]);
    verdict
        .says_only(&["wg-never-connected"])
        .is("warning", "certain");
    assert_eq!(verdict.report["wireguard"]["probes"], Value::Array(Vec::new()));
    assert_eq!(counts(&tunnel), before);
}

/// What the server's peers received and sent. The daemon lists them in any order.
fn counts(tunnel: &Tunnel) -> BTreeMap<String, (u64, u64)> {
    let peers = tunnel.server.dump().peers;
    peers
        .into_iter()
        .map(|peer| (peer.public_key, (peer.rx, peer.tx)))
        .collect()
}

#[test]
fn a_wrong_key_and_silence_are_told_as_probes_tell_them() {
    let Some(lab) = masqueraded() else { return };
    let (tunnel, key) = server_alone(&lab);
    let wrong = config(&lab, "wrong.conf", &key.keys, Keys::generate().public());
    let verdict = doctor(&lab, &["--wg-config", wrong.to_str().expect("a path in UTF-8")]);
    verdict
        .says_only(&[TIMEOUT])
        .is("critical", "certain")
        .candidates(&["wg-wrong-peer-key", "wg-unknown-initiator", "wg-clock-replay"])
        .measures("unanswered_attempts", 2.0..);
    let file = config(&lab, "wg7.conf", &key.keys, tunnel.server.keys.public());
    let file = file.to_str().expect("a path in UTF-8");
    let silence = lab.inflict(&lab::Fault::drop_udp());
    let verdict = doctor(&lab, &["--wg-config", file]);
    assert!(silence.hits() >= 2);
    verdict.says_only(&[TIMEOUT]).is("critical", "certain");
    assert_eq!(verdict.code, 2);
    // One look has no time for silence, and takes what it has.
    let verdict = Look::at(&lab, lab.client())
        .args(&["--wg-config", file])
        .duration("0s")
        .run();
    verdict.says_only(&[TIMEOUT]).is("critical", "certain");
    silence.lift();
    let mut tunnel = tunnel;
    tunnel.server.kill();
    let verdict = doctor(&lab, &["--wg-config", file]);
    verdict
        .says_only(&["wg-endpoint-unreachable"])
        .is("critical", "certain")
        .evidence("icmp_from", lab.server_ip().to_string());
}

#[test]
fn a_key_in_use_is_not_tried_and_its_tunnel_stays() {
    let Some(lab) = masqueraded() else { return };
    let tunnel = Tunnel::up(&lab);
    let endpoint = || tunnel.server.dump().peer().endpoint;
    let before = endpoint();
    let file = config(&lab, "wg0.conf", &tunnel.client.keys, tunnel.server.keys.public());
    let file = file.to_str().expect("a path in UTF-8");
    let verdict = doctor(&lab, &["--wg-config", file]);
    verdict.nothing_wrong();
    let skipped = &probed(&verdict)["skipped"];
    assert_eq!(skipped["refused"], true, "{}", verdict.everything());
    let says = |field: &str, words: &str| skipped[field].as_str().is_some_and(|text| text.contains(words));
    assert!(says("reason", "in use by wg0"), "{skipped}");
    assert!(says("way_round", "--private-key-file"), "{skipped}");
    assert_eq!(
        verdict.report["wireguard"]["peers"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(endpoint(), before);
    let private = tunnel.client.keys.private_base64();
    assert!(!verdict.text.contains(private.as_str()) && !verdict.stderr.contains(private.as_str()));
}

/// A record holds what was tried, and is judged the same.
#[test]
fn a_record_with_probes_is_judged_the_same() {
    let Some(lab) = masqueraded() else { return };
    let (_tunnel, key) = server_alone(&lab);
    let wrong = config(&lab, "wrong.conf", &key.keys, Keys::generate().public());
    let record = lab.dir().join("record.jsonl");
    let record = record.to_str().expect("a path in UTF-8");
    let live = doctor(
        &lab,
        &[
            "--wg-config",
            wrong.to_str().expect("a path in UTF-8"),
            "--record",
            record,
        ],
    );
    let again = Look::at(&lab, lab.router()).args(&["--replay", record]).run();
    assert_eq!(again.codes(), live.codes(), "{}", again.everything());
    assert_eq!(
        again.report["wireguard"]["probes"],
        live.report["wireguard"]["probes"]
    );
}

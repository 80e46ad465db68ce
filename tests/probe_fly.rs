//! `wgnat probe` with flyctl's state: its two transports, and keys that the gateway does not know any more.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;

use lab::gateway::{Gateway, Serve443};
use lab::wgnat::Doctor;
use lab::{Fault, Keys, Lab, Nat, Peer, Tunnel, tunnel};
use serde_json::Value;
use std::fmt::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

struct Fly {
    lab: Lab,
    tunnel: Tunnel,
    org: Keys,
}

fn fly() -> Option<Fly> {
    let lab = Lab::nat(Nat::Masquerade)?;
    let mut tunnel = Tunnel::prepare(&lab);
    let org = Keys::generate();
    tunnel.server.peers = vec![Peer::new(org.public(), "fdaa:0:18:a7b:d6b:0:a:102/128")];
    tunnel.server.addresses.push("fdaa:0:18::3/48".to_owned());
    tunnel.server.start();
    Some(Fly { lab, tunnel, org })
}

impl Fly {
    /// flyctl's file with these organisations' keys.
    #[track_caller]
    fn state(&self, websockets: bool, orgs: &[(&str, &Keys)]) -> PathBuf {
        let mut text =
            format!("access_token: fm2_secret\nwire_guard_websockets: {websockets}\nwire_guard_state:\n");
        for (org, keys) in orgs {
            let _ = write!(
                text,
                "    {org}:\n        org: {org}\n        region: lab\n        localpublic: {}\n        localprivate: {}\n        \
                 dns: \"\"\n        peer:\n            peerip: fdaa:0:18:a7b:d6b:0:a:102\n            endpointip: {}\n            \
                 pubkey: {}\n",
                keys.public(),
                keys.private_base64().as_str(),
                self.lab.server_ip(),
                self.tunnel.server.keys.public(),
            );
        }
        std::fs::create_dir_all(self.lab.dir().join(".fly")).expect("the lab's directory is writable");
        self.lab.file(".fly/config.yml", &text)
    }

    #[track_caller]
    fn probe(&self, extra: &[&str]) -> Doctor {
        let mut command = self.lab.wgnat(self.lab.client());
        command
            .args([
                "probe",
                "--json",
                "--fly",
                "--count",
                "2",
                "--interval",
                "200ms",
                "--timeout",
                "2s",
            ])
            .args(extra)
            .env_remove("FLY_CONFIG_DIR")
            .env_remove("CI");
        self.lab.json(command)
    }

    fn gateway(&self, serve: Serve443) -> Gateway {
        let at = SocketAddr::new(self.lab.server_ip(), 443);
        let wireguard = SocketAddr::new("127.0.0.1".parse().expect("an address"), tunnel::PORT);
        Gateway::start(self.lab.server(), at, wireguard, serve)
    }
}

fn of<'a>(probe: &'a Doctor, transport: &str) -> &'a Value {
    let probes = probe.report["wireguard"]["probes"].as_array().expect("a list");
    probes
        .iter()
        .find(|p| p["transport"] == transport)
        .expect("it was probed")
}

#[test]
fn both_transports_work_and_the_resolver_answers_inside() {
    let Some(fly) = fly() else { return };
    fly.state(true, &[("personal", &fly.org)]);
    let _gateway = fly.gateway(Serve443::Gateway);
    let probe = fly.probe(&["--transport", "both", "--ping", "fdaa:0:18::3"]);
    assert_eq!((probe.code, probe.codes()), (0, vec![]), "{}", probe.everything());
    for transport in ["udp", "websocket"] {
        let one = of(&probe, transport);
        assert_eq!(one["attempts"]["answered"], 2, "{}", probe.everything());
        assert_eq!(one["inner"][0]["answered"], 4, "{}", probe.everything());
    }
    let certificate = &of(&probe, "websocket")["websocket"]["certificates"][0];
    assert_eq!(certificate["subject"], "O=Lab, CN=gateway.lab");
    assert!(
        !probe
            .report
            .to_string()
            .contains(fly.org.private_base64().as_str())
    );
}

#[test]
fn udp_that_is_blocked_is_told_with_what_flyctl_uses() {
    let Some(fly) = fly() else { return };
    let _gateway = fly.gateway(Serve443::Gateway);
    let _fault = fly.lab.inflict(&Fault::drop_udp());
    for (websockets, impact) in [(false, "hang"), (true, "None")] {
        fly.state(websockets, &[("personal", &fly.org)]);
        let probe = fly.probe(&["--transport", "both"]);
        assert_eq!(probe.codes(), ["wg-websocket-only"], "{}", probe.everything());
        let found = probe.finding("wg-websocket-only");
        assert_eq!(found["evidence"]["works"], "websocket");
        assert_eq!(
            found["evidence"]["configured"],
            if websockets { "websocket" } else { "udp" }
        );
        assert!(
            found["impact"].as_str().is_some_and(|i| i.contains(impact)),
            "{found}"
        );
    }
}

#[test]
fn what_answers_in_the_gateways_place_is_named() {
    let Some(fly) = fly() else { return };
    fly.state(true, &[("personal", &fly.org)]);
    let proxy = fly.gateway(Serve443::PlainHttp);
    let probe = fly.probe(&["--transport", "both"]);
    assert_eq!(probe.codes(), ["wg-websocket-only"], "{}", probe.everything());
    let summary = probe.finding("wg-websocket-only")["summary"].to_string();
    assert!(summary.contains("HTTP/1.1 400"), "{summary}");
    assert!(
        of(&probe, "websocket")["websocket"]["not_tls"]
            .as_str()
            .is_some_and(|b| b.starts_with("HTTP/1.1"))
    );
    drop(proxy);
    let _site = fly.gateway(Serve443::OtherSite);
    let probe = fly.probe(&["--transport", "both"]);
    let summary = probe.finding("wg-websocket-only")["summary"].to_string();
    assert!(
        summary.contains("404") && summary.contains("gateway.lab"),
        "{summary}"
    );
}

#[test]
fn a_key_that_the_gateway_forgot_is_told_from_a_gateway_that_is_gone() {
    let Some(fly) = fly() else { return };
    let forgotten = Keys::generate();
    // The gateway's WebSocket proves that it is there.
    fly.state(true, &[("personal", &forgotten)]);
    let gateway = fly.gateway(Serve443::Gateway);
    let probe = fly.probe(&["--transport", "both"]);
    assert_eq!(probe.codes(), ["wg-stale-key"], "{}", probe.everything());
    assert_eq!(probe.finding("wg-stale-key")["confidence"], "likely");
    drop(gateway);
    // Another organisation's key does too.
    fly.state(false, &[("personal", &fly.org), ("company", &forgotten)]);
    let probe = fly.probe(&[]);
    assert_eq!(probe.codes(), ["wg-stale-key"], "{}", probe.everything());
    assert_eq!(
        probe.finding("wg-stale-key")["evidence"]["local_public_key"],
        forgotten.public()
    );
    // Without either it is any silence.
    fly.state(false, &[("company", &forgotten)]);
    assert_eq!(fly.probe(&[]).codes(), ["wg-handshake-timeout"]);
}

#[test]
fn a_running_agent_uses_the_key_and_parts_that_lack_are_named() {
    let Some(fly) = fly() else { return };
    let file = fly.state(false, &[("personal", &fly.org)]);
    let agent = UnixListener::bind(file.with_file_name("fly-agent.sock")).expect("the directory is writable");
    let probe = fly.probe(&[]);
    assert_eq!(probe.code, 3, "{}", probe.everything());
    assert!(
        probe.probed()["skipped"]["reason"]
            .to_string()
            .contains("flyctl's agent")
    );
    drop(agent);
    let text = std::fs::read_to_string(&file).expect("it was written");
    let lacks: Vec<&str> = text.lines().filter(|l| !l.contains("endpointip")).collect();
    std::fs::write(&file, lacks.join("\n")).expect("it is writable");
    let mut command = fly.lab.wgnat(fly.lab.client());
    command.args(["probe", "--json", "--fly-config"]).arg(&file);
    let out = lab::exec::output(command);
    assert_eq!(out.code, 3);
    assert!(out.stderr.contains("no peer to probe"), "{}", out.stderr);
    assert!(
        out.stderr.contains("peer.endpointip is missing"),
        "{}",
        out.stderr
    );
}

//! doctor and the kernel's own WireGuard: its devices by generic netlink, and real faults between kernel peers.
//!
//! One boot of a virtual machine (tests/vm) for all of it, hence one test; it goes through all checks and names each that
//! fails.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod lab;
mod truth;
mod vm;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lab::Keys;
use lab::wg_dump::DeviceDump;
use serde_json::Value;
use truth::Verdict;

/// A quiet machine takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(280);

const MODULES: &[&str] = &["veth", "nf_tables", "tcp_diag", "udp_diag", "wireguard"];

/// Programs of this machine that the guest's script runs, and the packages that bring them.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("wg", "wireguard-tools"),
    ("setpriv", "util-linux"),
];

const TIMEOUT: &str = "wg-handshake-timeout";

/// Every check, by its name.
const CHECKS: &[vm::Check<Guest>] = &[
    (
        "it is never made to load its module",
        it_is_never_made_to_load_its_module,
    ),
    ("a healthy tunnel", a_healthy_tunnel),
    ("udp dropped", udp_dropped),
    ("port closed", port_closed),
    ("a differing psk", a_differing_psk),
    ("a wrong peer key", a_wrong_peer_key),
    ("an unknown initiator", an_unknown_initiator),
    ("an endpoint in the tunnel", an_endpoint_in_the_tunnel),
    ("no route", no_route),
    ("an mtu too large", an_mtu_too_large),
    ("an output rule that drops", an_output_rule_that_drops),
    ("allowed ips that do not match", allowed_ips_that_do_not_match),
    ("without rights", without_rights),
    ("many peers", many_peers_are_read_whole),
    (
        "peers that change",
        peers_that_change_are_complete_or_said_to_be_inexact,
    ),
];

#[test]
fn the_kernels_own_wireguard() {
    if !vm::wanted() {
        return;
    }
    let guest = Guest::boot();
    guest.results.assert_script_ended_well();
    vm::all_pass(&guest, CHECKS);
}

/// A guest that has run.
struct Guest {
    results: vm::Results,
}

impl Guest {
    #[track_caller]
    fn boot() -> Self {
        let cache = vm::Cache::ready();
        let mut files = vm::Initramfs::new(&cache);
        files.content("test", 0o755, include_bytes!("vm/wireguard-cases"));
        files.modules(&cache, MODULES);
        files.program("wgnat", Path::new(env!("CARGO_BIN_EXE_wgnat")));
        for (name, package) in PROGRAMS {
            files.installed(name, package);
        }
        let many = ManyPeers::make();
        files.content("many.conf", 0o600, many.config.as_bytes());
        files.content("many.first", 0o600, many.first.as_bytes());
        Self {
            results: vm::run(&cache, &files.finish(), LIMIT),
        }
    }

    /// What doctor said of a case.
    #[track_caller]
    fn verdict(&self, case: &str) -> Verdict {
        let verdict = Verdict::read(case, &self.results.output(case), Duration::ZERO);
        for device in list(&verdict.report["wireguard"]["devices"]) {
            assert_eq!(device["implementation"], "kernel", "{}", verdict.everything());
        }
        verdict
    }

    /// What `wg show` said of a case.
    #[track_caller]
    fn dump(&self, case: &str) -> DeviceDump {
        let text = self.results.text(&format!("{case}.dump"));
        DeviceDump::parse(&text).unwrap_or_else(|| panic!("wg show of {case} is not understood"))
    }

    /// A public key of the guest.
    #[track_caller]
    fn key(&self, name: &str) -> String {
        self.results.text(&format!("{name}.pub")).trim().to_owned()
    }

    /// What holds of every handshake that goes unanswered.
    #[track_caller]
    fn timed_out(&self, case: &str, peer: &str) -> Verdict {
        let verdict = self.verdict(case);
        verdict
            .says_only(&[TIMEOUT])
            .is("critical", "certain")
            .field("/subject/kind", "peer")
            .field("/subject/device", "wg0")
            .field("/subject/public_key", self.key(peer))
            .measures("unanswered_attempts", 2.0..);
        assert_eq!(verdict.code, 2);
        assert_eq!(verdict.peer()["state"], "failing");
        verdict
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn it_is_never_made_to_load_its_module(guest: &Guest) {
    let verdict = guest.verdict("unloaded");
    let collector = verdict.collector("wireguard-netlink");
    let reason = collector["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("not loaded"), "{}", verdict.everything());
    assert!(list(&verdict.report["wireguard"]["devices"]).is_empty());
    let modules = guest.results.text("unloaded.modules");
    assert!(modules.lines().any(|m| m == "veth"), "{modules}");
    assert!(!modules.lines().any(|m| m == "wireguard"), "{modules}");
    let asked = guest.results.text("unloaded.asked");
    assert!(
        asked.contains("vcan"),
        "asking for a module leaves no trace: {asked:?}"
    );
    assert!(!asked.contains("wireguard"), "{asked:?}");
}

fn a_healthy_tunnel(guest: &Guest) {
    let verdict = guest.verdict("healthy");
    verdict.nothing_wrong();
    let (peer, dump) = (verdict.peer(), guest.dump("healthy"));
    assert_eq!(peer["state"], "up", "{}", verdict.everything());
    assert_eq!(peer["public_key"], dump.peer().public_key);
    assert_eq!(peer["endpoint"], "192.0.2.2:51820");
    let seen = peer["last_handshake"].as_str().unwrap_or_default();
    let seen: jiff::Timestamp = seen.parse().expect("a healthy peer has had a handshake");
    assert_eq!(
        Some(seen.as_second().unsigned_abs()),
        dump.peer().latest_handshake
    );
    // One ping each second, and each is answered.
    for counter in ["rx_bytes_watched", "tx_bytes_watched"] {
        let bytes = peer[counter].as_u64();
        assert!(
            bytes.is_some_and(|b| b > 0),
            "{counter}: {}",
            verdict.everything()
        );
    }
    let server = guest.verdict("healthy-server");
    server.nothing_wrong();
    assert_eq!(server.peer()["state"], "up", "{}", server.everything());
    assert_eq!(server.peer()["endpoint"], "192.0.2.1:51820");
}

fn udp_dropped(guest: &Guest) {
    let verdict = guest.timed_out("dropped", "server");
    verdict.finding(TIMEOUT).candidates(&["drop", "key"]);
    guest
        .verdict("dropped-server")
        .says_only(&["wg-local-drop"])
        .is("critical", "certain")
        .evidence("direction", "in")
        .measures("arrived", 2.0..);
}

fn a_wrong_peer_key(guest: &Guest) {
    let verdict = guest.timed_out("wrong-key", "other");
    verdict.finding(TIMEOUT).candidates(&["wg-wrong-peer-key"]);
    guest
        .verdict("wrong-key-server")
        .says_only(&["wg-wrong-peer-key"])
        .is("critical", "certain")
        .evidence("responder_key", guest.key("server"));
}

fn an_unknown_initiator(guest: &Guest) {
    let verdict = guest.timed_out("unknown", "server");
    verdict.finding(TIMEOUT).candidates(&["wg-unknown-initiator"]);
    guest
        .verdict("unknown-server")
        .says_only(&["wg-unknown-initiator"])
        .is("warning", "certain")
        .evidence("initiator_key", guest.key("client"));
}

fn a_differing_psk(guest: &Guest) {
    let verdict = guest.verdict("psk");
    // Responses are on the wire, made for this host, so nothing drops UDP and the server knows the client.
    verdict
        .says_only(&["wg-response-rejected"])
        .is("critical", "likely")
        .field("/subject/public_key", guest.key("server"))
        .candidates(&["preshared"])
        .ruled_out(&["wg-unknown-initiator", "wg-wrong-peer-key", "wg-clock-replay"])
        .measures("responses_not_accepted", 1.0..)
        .measures("responses_made_for_us", 1.0..);
    assert_eq!(verdict.suppressed(), [TIMEOUT], "{}", verdict.everything());
    assert_eq!(verdict.code, 2);
    guest
        .verdict("psk-server")
        .says_only(&["wg-response-rejected"])
        .is("warning", "possible");
}

fn an_output_rule_that_drops(guest: &Guest) {
    // The kernel is not told of the refusal: it counts attempts that no interface sees.
    let verdict = guest.verdict("egress");
    let found = verdict.says_only(&["wg-local-drop"]);
    found
        .field("/severity", "critical")
        .field("/subject/public_key", guest.key("server"))
        .evidence("direction", "out")
        .evidence("attempts_on_wire", 0)
        .measures("attempts_counted_as_sent", 1.0..);
}

fn allowed_ips_that_do_not_match(guest: &Guest) {
    let verdict = guest.verdict("allowed-server");
    verdict
        .says_only(&["wg-one-way"])
        .is("critical", "likely")
        .field("/subject/public_key", guest.key("client"))
        .measures("rx_frame_errors", 1.0..)
        .fix(&["allowed-ips"]);
}

fn port_closed(guest: &Guest) {
    let verdict = guest.verdict("closed");
    verdict
        .says_only(&["wg-endpoint-unreachable"])
        .is("critical", "certain")
        .field("/subject/public_key", guest.key("server"))
        .evidence("icmp_from", "192.0.2.2")
        .evidence("icmp_type", 3)
        .evidence("icmp_code", 3);
    assert_eq!(verdict.code, 2);
}

fn an_endpoint_in_the_tunnel(guest: &Guest) {
    let verdict = guest.verdict("loop");
    verdict
        .says_only(&["wg-endpoint-loop"])
        .is("critical", "certain")
        .field("/subject/device", "wg0")
        .field("/subject/public_key", guest.key("server"));
    assert_eq!(verdict.code, 2);
}

fn no_route(guest: &Guest) {
    let verdict = guest.verdict("no-route");
    verdict
        .says_only(&["wg-no-route"])
        .is("critical", "certain")
        .field("/subject/public_key", guest.key("server"))
        .evidence("errno", 101);
    assert_eq!(verdict.code, 2);
}

fn an_mtu_too_large(guest: &Guest) {
    let verdict = guest.verdict("mtu");
    verdict
        .says_only(&["wg-mtu-too-large"])
        .is("warning", "certain")
        .field("/subject/name", "wg0")
        .evidence("tunnel_mtu", 1420)
        .evidence("mtu_that_fits", 1340);
    assert_eq!(verdict.code, 1);
}

fn without_rights(guest: &Guest) {
    let verdict = guest.verdict("poor");
    let collector = verdict.collector("wireguard-netlink");
    assert_eq!(collector["state"], "unavailable", "{}", verdict.everything());
    let reason = collector["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("CAP_NET_ADMIN"), "{}", verdict.everything());
    assert!(
        verdict.not_checked().contains(&TIMEOUT),
        "{}",
        verdict.everything()
    );
    assert!(verdict.wrong().is_empty(), "{}", verdict.everything());
}

fn many_peers_are_read_whole(guest: &Guest) {
    let (verdict, dump) = (guest.verdict("many"), guest.dump("many"));
    let section = &verdict.report["wireguard"];
    let [device] = list(&section["devices"]) else {
        panic!("expected one device, found {}", section["devices"]);
    };
    assert_eq!(device["public_key"], dump.public_key);
    assert_eq!(device["listen_port"], dump.listen_port);
    assert_eq!(device["fwmark"], ManyPeers::MARK);
    assert_eq!(device["problems"], Value::Array(Vec::new()));
    assert_eq!(section["peers_left_out"], 0);

    let (said, expected) = (rows_of_report(section), rows_of_dump(&dump));
    assert_eq!(expected.len(), ManyPeers::COUNT as usize);
    assert_eq!(said.len(), expected.len());
    for (key, row) in &expected {
        assert_eq!(said.get(key), Some(row), "peer {key}");
    }
    // No more than that nobody has called yet, and the one peer without AllowedIPs.
    verdict.says_only(&["wg-never-connected", "wg-allowed-ips-conflict"]);
    assert_eq!(verdict.collector("routes")["state"], "ok");
}

fn peers_that_change_are_complete_or_said_to_be_inexact(guest: &Guest) {
    let verdict = guest.verdict("changing");
    assert!(
        verdict.stderr.contains("reading again"),
        "no dump was interrupted:\n{}",
        verdict.stderr
    );
    let section = &verdict.report["wireguard"];
    let problems = list(&section["devices"][0]["problems"]);
    if !problems.is_empty() {
        let text = problems[0].as_str().unwrap_or_default();
        assert!(text.contains("changed while they were read"), "{problems:?}");
        return;
    }
    let (said, before) = (rows_of_report(section), rows_of_dump(&guest.dump("many")));
    let first = &ManyPeers::key(0);
    for (key, row) in before.iter().filter(|(key, _)| *key != first) {
        assert_eq!(said.get(key), Some(row), "peer {key}");
    }
}

/// What is compared of a peer.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    endpoint: Option<String>,
    allowed_ips: BTreeSet<String>,
    keepalive: Option<u64>,
}

fn rows_of_report(section: &Value) -> BTreeMap<String, Row> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let rows: Vec<(String, Row)> = list(&section["peers"])
        .iter()
        .map(|peer| {
            let row = Row {
                endpoint: text(&peer["endpoint"]),
                allowed_ips: list(&peer["allowed_ips"]).iter().filter_map(text).collect(),
                keepalive: peer["keepalive_seconds"].as_u64(),
            };
            (text(&peer["public_key"]).unwrap_or_default(), row)
        })
        .collect();
    let count = rows.len();
    let by_key: BTreeMap<String, Row> = rows.into_iter().collect();
    assert_eq!(by_key.len(), count, "a peer is listed twice");
    by_key
}

fn rows_of_dump(dump: &DeviceDump) -> BTreeMap<String, Row> {
    let peers = dump.peers.iter().map(|peer| {
        let prefixes = peer.allowed_ips.split(',').filter(|p| *p != "(none)");
        let row = Row {
            endpoint: peer.endpoint.map(|e| e.to_string()),
            allowed_ips: prefixes.map(str::to_owned).collect(),
            keepalive: peer.keepalive.map(u64::from),
        };
        (peer.public_key.clone(), row)
    });
    peers.collect()
}

/// A device whose peers fill many netlink messages, and one of whose peers alone fills more than one.
struct ManyPeers {
    config: String,
    /// The key of one of them.
    first: String,
}

impl ManyPeers {
    const COUNT: u32 = 2_000;
    const MARK: u32 = 0x51;
    /// AllowedIPs of one peer, 28 bytes each, beyond the 32 KiB that the kernel sends at a time.
    const ALLOWED_IPS_OF_ONE: u32 = 1_500;

    /// Any 32 bytes are a public key.
    fn key(number: u32) -> String {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        STANDARD.encode(bytes)
    }

    fn make() -> Self {
        let mut config = String::new();
        let mut line =
            |text: std::fmt::Arguments<'_>| writeln!(config, "{text}").expect("a string takes all");
        line(format_args!(
            "[Interface]\nPrivateKey = {}\nListenPort = 51821\nFwMark = {:#x}",
            *Keys::generate().private_base64(),
            Self::MARK
        ));
        for n in 0..Self::COUNT {
            let (high, low) = (n / 250, n % 250);
            line(format_args!("[Peer]\nPublicKey = {}", Self::key(n)));
            match n % 3 {
                0 => line(format_args!("Endpoint = 203.0.113.{low}:{}", 1_000 + n)),
                1 => line(format_args!("Endpoint = [2001:db8::{low:x}]:{}", 1_000 + n)),
                // With an endpoint it would call 600 peers at once.
                _ => line(format_args!("PersistentKeepalive = {}", 1 + n % 60)),
            }
            match n {
                7 => {} // none
                1_000 => {
                    for n in 0..Self::ALLOWED_IPS_OF_ONE {
                        line(format_args!("AllowedIPs = 10.200.{}.{}/32", n / 250, n % 250));
                    }
                }
                _ => line(format_args!(
                    "AllowedIPs = 10.100.{high}.{low}/32, 10.101.{high}.{low}/32, fd00::{high:x}:{low:x}/128"
                )),
            }
        }
        Self {
            config,
            first: Self::key(0) + "\n",
        }
    }
}

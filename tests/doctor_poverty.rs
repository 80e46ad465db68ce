//! doctor in poverty: without root, with wrong input, with daemons that hang or die, with records that are cut; and what it
//! promises about records, anonymity, namespaces and exit codes.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

mod lab;
mod truth;

use lab::exec::{self, Output};
use lab::tunnel::SERVER_IN;
use lab::{Lab, Namespace, Nat, SOON, Serve, TcpServer, Tunnel, exhaust};
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use truth::{Look, Verdict};

/// How long a doctor that is asked to watch for a second may take at the very most, whatever hangs.
const BOUND: Duration = Duration::from_secs(20);

fn path_of(lab: &Lab, name: &str) -> (PathBuf, String) {
    let path = lab.dir().join(name);
    let text = path.to_str().expect("the lab's paths are text").to_owned();
    (path, text)
}

/// Runs the product on this machine, without a lab.
fn wgnat(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgnat"));
    command.args(args).env("NO_COLOR", "1");
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("WGNAT_")) {
        command.env_remove(name);
    }
    exec::output_within(command, None, Duration::from_secs(30))
}

/// Asserts that a run said it cannot: exit code 3, no report, one message with these words, no panic.
#[track_caller]
fn refused(out: &Output, words: &[&str]) {
    assert_eq!(out.code, 3, "{out:?}");
    assert!(out.stdout.is_empty(), "{out:?}");
    assert!(!out.stderr.contains("panicked"), "{out:?}");
    for word in words {
        assert!(
            out.stderr.contains(word),
            "it does not say {word:?}: {}",
            out.stderr
        );
    }
}

// --- without root ---

#[test]
fn without_root_it_says_what_it_lacks_and_finds_what_it_can() {
    let Some(lab) = Lab::pair() else { return };
    let to = SocketAddr::new(lab.server_ip(), 8080);
    let _server = TcpServer::start(lab.server(), to, Serve::Echo);
    let _tunnel = Tunnel::up(&lab);
    lab.client().set_port_range(40000, 40099);
    let _held = exhaust(lab.client(), to);
    let verdict = Look::with(lab.wgnat_as_nobody(lab.client()))
        .args(&["doctor", "--json", "--duration", "1s"])
        .run();
    verdict
        .says_only(&["ports-exhausted"])
        .is("critical", "certain")
        .about_destination("tcp", to);
    assert_eq!(verdict.code, 2);
    for (collector, lacks) in [
        ("capture", "CAP_NET_RAW"),
        ("conntrack", "CAP_NET_ADMIN"),
        ("wireguard-uapi", "root"),
    ] {
        let row = verdict.collector(collector);
        assert_ne!(row["state"], "ok", "{collector}: {}", verdict.everything());
        let reason = row["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(lacks), "{collector}: {reason}");
    }
    for collector in ["sockets", "routes", "counters", "host"] {
        assert_ne!(
            verdict.collector(collector)["state"],
            "unavailable",
            "{}",
            verdict.everything()
        );
    }
    let not_checked = verdict.not_checked();
    for code in ["wg-handshake-timeout", "wg-one-way", "wg-no-route"] {
        assert!(not_checked.contains(&code), "{code}: {}", verdict.everything());
    }
}

#[test]
fn without_root_a_quiet_host_is_not_called_unknown() {
    let Some(lab) = Lab::lone() else { return };
    let verdict = Look::with(lab.wgnat_as_nobody(lab.client()))
        .args(&["doctor", "--json", "--duration", "1s"])
        .run();
    assert!(
        verdict.wrong().is_empty() && verdict.code == 0,
        "{}",
        verdict.everything()
    );
    // The text admits it too.
    let mut command = lab.wgnat_as_nobody(lab.client());
    command.args(["doctor", "--duration", "0"]);
    let out = exec::output(command);
    assert!(
        out.stdout.contains("CAP_NET_RAW") && out.stdout.contains("CAP_NET_ADMIN"),
        "{out:?}"
    );
}

#[test]
fn without_root_another_namespace_is_refused_by_name() {
    let Some(lab) = Lab::lone() else { return };
    let mut command = lab.wgnat_as_nobody(lab.client());
    command.args(["doctor", "--json", "--netns", lab.client().name()]);
    refused(&exec::output(command), &["CAP_SYS_ADMIN", lab.client().name()]);
}

#[test]
fn an_unreadable_configuration_is_named() {
    let Some(lab) = Lab::lone() else { return };
    let (path, text) = path_of(&lab, "secret.conf");
    std::fs::write(&path, "[Interface]\n").expect("the lab's directory is writable");
    let mut mode = std::fs::metadata(&path).expect("it was written").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
    std::fs::set_permissions(&path, mode).expect("it is ours");
    let mut command = lab.wgnat_as_nobody(lab.client());
    command.args(["doctor", "--json", "--wg-config", &text]);
    refused(&exec::output(command), &[&text, "ermission denied"]);
}

// --- wrong input ---

#[test]
fn a_missing_namespace_is_named() {
    refused(
        &wgnat(&["doctor", "--json", "--netns", "no-such-namespace"]),
        &["no-such-namespace"],
    );
    refused(
        &wgnat(&["doctor", "--json", "--netns", "/nowhere/net"]),
        &["/nowhere/net"],
    );
    refused(&wgnat(&["doctor", "--json", "--netns", "4194305"]), &["4194305"]);
}

#[test]
fn a_wrong_invocation_is_unknown() {
    for (args, words) in [
        (&["doctor", "--duration", "soon"][..], &["soon", "5s"][..]),
        (&["doctor", "--duration=-5s"], &["-5s"]),
        (&["doctor", "--max-duration", "many"], &["many"]),
        (&["doctor", "--fail-on", "sometimes"], &["sometimes", "critical"]),
        (&["doctor", "--frobnicate"], &["--frobnicate"]),
        (&["doktor"], &["doktor"]),
        (
            &["doctor", "--replay", "/nowhere/case.jsonl"],
            &["/nowhere/case.jsonl"],
        ),
        (
            &["doctor", "--wg-config", "/nowhere/wg0.conf"],
            &["/nowhere/wg0.conf"],
        ),
        (
            &["doctor", "--record", "/nowhere/case.jsonl", "--duration", "0"],
            &["/nowhere/case.jsonl"],
        ),
        (&["explain", "no-such-code"], &["no-such-code"]),
    ] {
        refused(&wgnat(args), words);
    }
}

#[test]
fn a_malformed_configuration_is_named_by_line_and_key() {
    const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    let dir = tempfile::tempdir().expect("a directory can be made");
    let file = dir.path().join("wg0.conf");
    let name = file.to_str().expect("it is text");
    for (text, line, word) in [
        (
            format!("[Interface]\nPrivateKey = {KEY}\nMTU = large\n"),
            3,
            "MTU",
        ),
        (format!("[Interface]\r\nPrivateKey = {KEY}x\r\n"), 2, "PrivateKey"),
        (
            format!("[Interface]\nPrivateKey = {KEY}\n\n[Peer]\n# home\nPublicKey = short\n"),
            6,
            "PublicKey",
        ),
        (
            format!("[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.0.0.0/40\n"),
            3,
            "AllowedIPs",
        ),
        (
            format!("[Peer]\nPublicKey = {KEY}\nEndpoint = nowhere\n"),
            3,
            "Endpoint",
        ),
        (
            format!("[Peer]\nPublicKey = {KEY}\nPersistentKeepalive = 70000\n"),
            3,
            "PersistentKeepalive",
        ),
        (format!("PrivateKey = {KEY}\n"), 1, "[Interface]"),
        ("[Interface]\nPrivateKey\n".to_owned(), 2, "KEY = VALUE"),
    ] {
        std::fs::write(&file, &text).expect("it is writable");
        let out = wgnat(&["doctor", "--json", "--wg-config", name]);
        refused(&out, &[name, &format!("line {line}"), word]);
        assert!(
            !out.stderr.contains(&KEY[..20]),
            "a key was shown: {}",
            out.stderr
        );
    }
}

#[test]
fn a_good_configuration_is_looked_at() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::up(&lab);
    let (path, text) = path_of(&lab, "wg0.conf");
    let private = tunnel.client.keys.private_base64();
    let file = format!(
        "[Interface]\nPrivateKey = {}\nAddress = 10.99.0.2/24\n[Peer]\nPublicKey = {}\nEndpoint = 203.0.113.9:51820\n\
         AllowedIPs = 10.99.0.0/24, fd99::/64\n",
        private.as_str(),
        tunnel.server.keys.public()
    );
    std::fs::write(path, file).expect("the lab's directory is writable");
    let verdict = Look::at(&lab, lab.client())
        .duration("1s")
        .args(&["--wg-config", &text])
        .run();
    verdict.nothing_wrong();
    // The file and the device name one peer.
    assert_eq!(verdict.peer()["public_key"], tunnel.server.keys.public());
    assert!(!verdict.text.contains(private.as_str()));
}

// --- daemons ---

/// A tun device, as a daemon's that hangs would have.
fn tun(ns: &Namespace, name: &str) {
    ns.ip(&[
        &format!("tuntap add dev {name} mode tun"),
        &format!("link set {name} up"),
    ]);
}

#[test]
fn a_dead_control_socket_is_left_alone() {
    let Some(lab) = Lab::pair() else { return };
    let _tunnel = Tunnel::up(&lab);
    tun(lab.client(), "wg7");
    let socket = lab.client().wireguard_dir().join("wg7.sock");
    drop(UnixListener::bind(&socket).expect("the lab's directory is writable"));
    let verdict = Look::at(&lab, lab.client()).duration("1s").run();
    assert!(verdict.wrong().is_empty(), "{}", verdict.everything());
    assert_eq!(verdict.peer()["device"], "wg0");
    // A diagnosis changes nothing, so the file that `wg` would remove stays.
    assert!(socket.exists());
    assert!(
        verdict.text.contains("wg7"),
        "a dead socket is said to be dead: {}",
        verdict.everything()
    );
    assert!(verdict.took < BOUND, "{}", verdict.everything());
}

/// What a hanging daemon does with who connects.
#[derive(Clone, Copy)]
enum Hang {
    NeverAccepts,
    NeverAnswers,
    StopsHalfWay,
    NeverEnds,
}

/// A control socket whose daemon hangs. It ends with the process.
fn hung(ns: &Namespace, name: &str, how: Hang) -> UnixListener {
    tun(ns, name);
    let socket = ns.wireguard_dir().join(format!("{name}.sock"));
    let listener = UnixListener::bind(socket).expect("the lab's directory is writable");
    let theirs = listener.try_clone().expect("a listener can be cloned");
    if !matches!(how, Hang::NeverAccepts) {
        std::thread::spawn(move || {
            let mut open: Vec<UnixStream> = Vec::new();
            while let Ok((mut stream, _)) = theirs.accept() {
                match how {
                    Hang::NeverAccepts | Hang::NeverAnswers => {}
                    Hang::StopsHalfWay => drop(stream.write_all(b"listen_port=51820\nfwmark=1\npublic_k")),
                    Hang::NeverEnds => {
                        let mut writer = stream.try_clone().expect("a stream can be cloned");
                        std::thread::spawn(
                            move || while writer.write_all(b"allowed_ip=10.0.0.0/8\n").is_ok() {},
                        );
                    }
                }
                open.push(stream);
            }
        });
    }
    listener
}

#[test]
fn hung_daemons_cost_one_timeout() {
    let Some(lab) = Lab::pair() else { return };
    let tunnel = Tunnel::up(&lab);
    let kinds = [
        Hang::NeverAccepts,
        Hang::NeverAnswers,
        Hang::StopsHalfWay,
        Hang::NeverEnds,
    ];
    let names = ["wg5", "wg6", "wg7", "wg8"];
    let _daemons: Vec<_> = names
        .iter()
        .zip(kinds)
        .map(|(name, how)| hung(lab.client(), name, how))
        .collect();
    let verdict = Look::at(&lab, lab.client()).duration("1s").run();
    assert!(verdict.took < BOUND, "{}", verdict.everything());
    assert!(verdict.wrong().is_empty(), "{}", verdict.everything());
    // The one that answers is read all the same.
    assert_eq!(
        verdict.peer()["public_key"],
        tunnel.server.keys.public(),
        "{}",
        verdict.everything()
    );
    let row = verdict.collector("wireguard-uapi");
    assert_eq!(row["state"], "degraded", "{}", verdict.everything());
    for name in names {
        assert!(
            verdict.text.contains(name),
            "{name} is not said to hang: {}",
            verdict.everything()
        );
    }
}

#[test]
fn a_device_that_vanishes_is_said_to_have_vanished() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::up(&lab);
    let look = Look::at(&lab, lab.client())
        .duration("4s")
        .start()
        .await_watching();
    tunnel.client.kill();
    let verdict = look.finish();
    verdict.says_at_most(&[]);
    let everything = verdict.everything();
    let told = ["vanish", "disappear", "gone", "removed"]
        .iter()
        .any(|word| everything.contains(word));
    assert!(told && everything.contains("wg0"), "{everything}");
}

#[test]
fn a_peer_that_is_removed_takes_its_failure_along() {
    let Some(lab) = Lab::pair() else { return };
    let tunnel = Tunnel::up(&lab);
    let look = Look::at(&lab, lab.client())
        .duration("4s")
        .start()
        .await_watching();
    tunnel
        .client
        .wg(&["set", "wg0", "peer", tunnel.server.keys.public(), "remove"]);
    look.finish().says_at_most(&[]);
}

// --- records ---

/// A lab whose client has no way to its peer, and what doctor says there.
#[track_caller]
fn without_route(record: &str) -> Option<(Lab, Tunnel, Verdict)> {
    let lab = Lab::nat(Nat::Masquerade)?;
    let tunnel = Tunnel::start(&lab);
    tunnel.cut_route(&lab);
    tunnel.knock();
    let (_, path) = path_of(&lab, record);
    let verdict = Look::at(&lab, lab.client())
        .duration("1s")
        .args(&["--record", &path])
        .run();
    verdict.says_only(&["wg-no-route"]);
    Some((lab, tunnel, verdict))
}

fn replay(lab: &Lab, record: &str, more: &[&str]) -> Verdict {
    let (_, path) = path_of(lab, record);
    Look::at(lab, lab.server())
        .args(&["--replay", &path])
        .args(more)
        .run()
}

#[test]
fn a_replay_is_the_same_report_byte_for_byte() {
    let Some((lab, _tunnel, live)) = without_route("case.jsonl") else {
        return;
    };
    assert_eq!(replay(&lab, "case.jsonl", &[]).text, live.text);
    let text = |lab: &Lab| {
        let mut command = lab.wgnat(lab.server());
        command.args([
            "doctor",
            "--format",
            "markdown",
            "--replay",
            &path_of(lab, "case.jsonl").1,
        ]);
        exec::output(command).stdout
    };
    assert_eq!(text(&lab), text(&lab));
    // A record names addresses: it is its owner's alone.
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(path_of(&lab, "case.jsonl").0)
            .expect("it was written")
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn exit_codes_follow_fail_on() {
    let Some((lab, tunnel, live)) = without_route("critical.jsonl") else {
        return;
    };
    assert_eq!(live.code, 2);
    lab.client().ip(&["route add default via 10.77.0.1"]);
    tunnel
        .client
        .wg(&["set", "wg0", "peer", tunnel.server.keys.public(), "remove"]);
    tunnel.client.apply();
    let (_, path) = path_of(&lab, "warning.jsonl");
    let warning = Look::at(&lab, lab.client())
        .duration("1s")
        .args(&["--record", &path])
        .run();
    warning.says_only(&["wg-never-connected"]);
    assert_eq!(warning.code, 1);
    for (record, fail_on, code) in [
        ("critical.jsonl", "warning", 2),
        ("critical.jsonl", "critical", 2),
        ("critical.jsonl", "never", 0),
        ("warning.jsonl", "warning", 1),
        ("warning.jsonl", "critical", 0),
        ("warning.jsonl", "never", 0),
    ] {
        let verdict = replay(&lab, record, &["--fail-on", fail_on]);
        assert_eq!(verdict.code, code, "{record} {fail_on}");
    }
}

#[test]
fn a_record_that_is_cut_replays_as_far_as_it_goes() {
    let Some((lab, _tunnel, _)) = without_route("case.jsonl") else {
        return;
    };
    let whole = std::fs::read(path_of(&lab, "case.jsonl").0).expect("it was written");
    let (cut, text) = path_of(&lab, "cut.jsonl");
    for length in [whole.len() - 1, whole.len() - 20, whole.len() / 2] {
        std::fs::write(&cut, &whole[..length]).expect("the lab's directory is writable");
        let verdict = replay(&lab, "cut.jsonl", &[]);
        if length < whole.len() - 1 {
            assert!(verdict.stderr.contains("cut short"), "{}", verdict.everything());
        }
    }
    // What is no record at all is refused by line.
    for (content, word) in [
        (&b""[..], "line 1"),
        (b"hello\n", "line 1"),
        (b"{\"wgnat_record\":999,\"version\":\"9\",\"started\":\"2026-01-01T00:00:00Z\",\"anonymised\":false}\n", "999"),
        (b"\xff\xfe\x00\x00", "line 1"),
    ] {
        std::fs::write(&cut, content).expect("the lab's directory is writable");
        refused(&wgnat(&["doctor", "--json", "--replay", &text]), &["cut.jsonl", word]);
    }
    let mut spoilt = whole[..whole.iter().position(|b| *b == b'\n').expect("it has lines") + 1].to_vec();
    spoilt.extend(b"{\"at\":\"yesterday\"}\n{}\n");
    std::fs::write(&cut, spoilt).expect("the lab's directory is writable");
    refused(
        &wgnat(&["doctor", "--json", "--replay", &text]),
        &["cut.jsonl", "line 2"],
    );
    // A whole header and nothing else: nothing was observed.
    let header = &whole[..whole.iter().position(|b| *b == b'\n').expect("it has lines") + 1];
    std::fs::write(&cut, header).expect("the lab's directory is writable");
    let verdict = replay(&lab, "cut.jsonl", &[]);
    assert_eq!(
        (verdict.code, &verdict.report["status"]),
        (3, &"unknown".into()),
        "{}",
        verdict.everything()
    );
}

#[test]
fn anonymised_nothing_of_the_lab_is_left() {
    let Some((lab, tunnel, _)) = without_route("case.jsonl") else {
        return;
    };
    let (record, path) = path_of(&lab, "anonymous.jsonl");
    let live = Look::at(&lab, lab.client())
        .duration("1s")
        .args(&["--anonymise", "--record", &path])
        .run();
    let kept = std::fs::read_to_string(&record).expect("it was written");
    let replayed = replay(&lab, "case.jsonl", &["--anonymise"]);
    let again = replay(&lab, "anonymous.jsonl", &[]);
    // The record is the anonymous case: it gives the same report.
    assert_eq!(again.text, live.text);
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("every host has one");
    let mut secrets: Vec<String> = vec![
        "203.0.113.".into(),
        "10.77.0.".into(),
        "10.99.0.".into(),
        "fd77::".into(),
        "fd99::".into(),
        "2001:db8:113".into(),
        lab.id().into(),
        tunnel.client.keys.public().into(),
        tunnel.server.keys.public().into(),
        format!("\"{}\"", hostname.trim()),
    ];
    // Base64 in JSON may stand with an escaped slash.
    secrets.extend([tunnel.client.keys.public(), tunnel.server.keys.public()].map(|k| k.replace('/', "\\/")));
    for text in [&kept, &live.text, &replayed.text] {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{secret} is left in {text}");
        }
    }
    for verdict in [&live, &replayed] {
        verdict.says_only(&["wg-no-route"]).is("critical", "certain");
        assert_eq!(verdict.code, 2);
    }
}

#[test]
fn no_key_that_is_secret_is_told() {
    let Some(lab) = Lab::pair() else { return };
    let mut tunnel = Tunnel::prepare(&lab);
    tunnel.share_psk();
    tunnel.start_both();
    tunnel.knock();
    tunnel.client.await_handshake(SOON);
    let (record, path) = path_of(&lab, "case.jsonl");
    let mut command = lab.wgnat(lab.client());
    command.args(["-vvv", "doctor", "--json", "--duration", "1s", "--record", &path]);
    let out = exec::output(command);
    let psk = tunnel.client.peers[0]
        .psk
        .as_ref()
        .expect("it was shared")
        .base64();
    let private = tunnel.client.keys.private_base64();
    let hex: String = tunnel
        .client
        .keys
        .private_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let kept = std::fs::read_to_string(record).expect("it was written");
    for text in [&out.stdout, &out.stderr, &kept] {
        // The text may not be shown when this fails.
        assert!(!text.contains(psk.as_str()) && !text.contains(private.as_str()) && !text.contains(&hex));
    }
    assert!(kept.contains("has_preshared_key\":true"));
}

// --- namespaces and pipes ---

#[test]
fn a_namespace_is_seen_from_outside() {
    let Some(lab) = Lab::nat(Nat::Masquerade) else {
        return;
    };
    let tunnel = Tunnel::start(&lab);
    tunnel.cut_route(&lab);
    tunnel.knock();
    let pid = tunnel.client.pid().to_string();
    let path = format!("/run/netns/{}", lab.client().name());
    for name in [lab.client().name(), &path, &pid] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgnat"));
        lab.clean_environment(&mut command);
        command.args(["-v", "doctor", "--json", "--duration", "1s", "--netns", name]);
        let verdict = Look::with(command).run();
        verdict
            .says_only(&["wg-no-route"])
            .about_peer_of(&tunnel.client)
            // What is to be pasted goes where the fault is.
            .fix(&[name]);
        assert_eq!(verdict.report["host"]["netns"], name, "{}", verdict.everything());
        assert_eq!(verdict.peer()["device"], "wg0");
    }
    let _: IpAddr = SERVER_IN;
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let Some(lab) = Lab::lone() else { return };
    for format in ["text", "json", "markdown"] {
        let mut command = lab.wgnat(lab.client());
        command
            .args(["doctor", "--duration", "0", "--format", format])
            .stdin(Stdio::null());
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        drop(reader);
        command.stdout(writer).stderr(Stdio::piped());
        let child = command.spawn().expect("it starts");
        // The command holds a copy of the pipe's end.
        drop(command);
        let out = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{format}: {said}");
        assert!(said.is_empty(), "{format}: {said}");
    }
}

#[test]
fn a_full_disk_is_said_once_and_costs_no_diagnosis() {
    let Some(lab) = Lab::lone() else { return };
    let mut command = lab.wgnat(lab.client());
    command.args(["doctor", "--json", "--duration", "1s", "--record", "/dev/full"]);
    let out = exec::output(command);
    assert!(
        serde_json::from_str::<serde_json::Value>(&out.stdout).is_ok(),
        "{out:?}"
    );
    assert!(out.stderr.contains("/dev/full") && out.code == 3, "{out:?}");
    assert!(Path::new("/dev/full").exists());
}

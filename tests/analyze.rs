//! `wgnat analyze` on files that tcpdump made, on damaged ones, on pipes, and on what is no capture.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic is how a test fails

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn pcap(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/pcaps")
        .join(name)
}

fn wgnat() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgnat"));
    command.env_clear().arg("analyze");
    command
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn analyze(files: &[PathBuf]) -> (Value, Option<i32>) {
    let output = wgnat().arg("--json").args(files).output().unwrap();
    (json(&output), output.status.code())
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["code"].as_str().unwrap())
        .collect()
}

#[test]
fn every_link_type_shows_the_same_handshake() {
    for name in [
        "ethernet-snaplen-200.pcap",
        "any-cooked-v1-nanoseconds.pcap",
        "any-cooked-v2.pcap",
        "two-sections-two-interfaces.pcapng",
    ] {
        let (report, code) = analyze(&[pcap(name)]);
        assert_eq!((code, codes(&report)), (Some(0), vec![]), "{name}");
        let handshakes = report["wireguard"]["handshakes"].as_array().unwrap();
        assert_eq!(handshakes.len(), 1, "{name}");
        assert_eq!(handshakes[0]["outcome"], "answered");
        assert_eq!(handshakes[0]["initiator"], "192.0.2.1:40000");
        assert!(
            (handshakes[0]["rtt_seconds"].as_f64().unwrap() - 0.000_627).abs() < 0.000_001,
            "{name}"
        );
        assert_eq!(report["wireguard"]["messages"]["response"], 1, "{name}");
        let tunnel = &report["wireguard"]["tunnels"][0];
        assert_eq!(
            (&tunnel["state"], &tunnel["handshakes"]),
            (&"established".into(), &1.into()),
            "{name}"
        );
        assert_eq!(tunnel["sides"][0]["lost"], 0, "{name}");
    }
}

#[test]
fn several_files_are_one_capture() {
    let files = ["ethernet-snaplen-200.pcap", "any-cooked-v2.pcap"].map(pcap);
    let (report, code) = analyze(&files);
    assert_eq!((code, codes(&report)), (Some(0), vec![]));
    assert_eq!(report["captures"].as_array().unwrap().len(), 2);
    assert_eq!(report["wireguard"]["handshakes"].as_array().unwrap().len(), 1);
    let sides = &report["wireguard"]["tunnels"][0]["sides"];
    assert_eq!(
        (&sides[0]["messages"], &sides[0]["duplicates"]),
        (&4.into(), &1.into())
    );
    assert_eq!(sides[0]["longest_packet"], 1420);
}

#[test]
fn a_dead_daemon_is_named() {
    let (report, code) = analyze(&[pcap("port-unreachable.pcap")]);
    assert_eq!((code, codes(&report)), (Some(2), vec!["wg-endpoint-unreachable"]));
    assert_eq!(report["findings"][0]["evidence"]["icmp_from"], "192.0.2.2");
    // It began before the capture: that is unknown, not failed.
    assert_eq!(report["wireguard"]["tunnels"][0]["state"], "unknown");
    let output = wgnat()
        .args(["--fail-on", "never"])
        .arg(pcap("port-unreachable.pcap"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("192.0.2.2:51820 is unreachable: port unreachable"),
        "{text}"
    );
    assert!(text.contains("Handshakes"), "{text}");
}

#[test]
fn a_cut_file_is_read_as_far_as_it_goes() {
    let whole = fs::read(pcap("port-unreachable.pcap")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.pcap");
    fs::write(&cut, &whole[..whole.len() - 3]).unwrap();
    let (report, _) = analyze(&[cut]);
    assert!(
        report["captures"][0]["problem"]
            .as_str()
            .unwrap()
            .starts_with("cut at its end: the record at byte ")
    );
    let capture = &report["collectors"][0];
    assert_eq!(
        (&capture["name"], &capture["state"]),
        (&"capture".into(), &"degraded".into())
    );
    // Damage in the middle: what came before counts.
    let damaged = dir.path().join("damaged.pcap");
    let mut bytes = whole;
    bytes.extend([0xff; 16]);
    fs::write(&damaged, bytes).unwrap();
    let (report, code) = analyze(&[damaged]);
    assert_eq!((code, codes(&report)), (Some(2), vec!["wg-endpoint-unreachable"]));
    let problem = report["captures"][0]["problem"].as_str().unwrap();
    assert!(
        problem.contains("at byte 4864") && problem.contains("damaged"),
        "{problem}"
    );
}

#[test]
fn standard_input_is_a_capture_too() {
    let mut child = wgnat()
        .args(["--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let bytes = fs::read(pcap("any-cooked-v2.pcap")).unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["captures"][0]["file"], "standard input");
}

#[test]
fn an_interrupted_pipe_gives_what_was_read() {
    let mut child = wgnat()
        .args(["--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(&fs::read(pcap("any-cooked-v2.pcap")).unwrap())
        .unwrap();
    // The pipe stays open. Once the child has emptied it, it waits for more.
    let empty = || {
        let mut waiting = 0;
        for _ in 0..500 {
            let state = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
            waiting += i32::from(state.contains(") S "));
            if waiting > 3 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the child never came to wait");
    };
    empty();
    // The shell's own: a bare machine has no kill program.
    let killed = Command::new("sh")
        .args(["-c", "kill -s INT \"$0\"", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        json(&output)["wireguard"]["handshakes"].as_array().unwrap().len(),
        1
    );
}

#[test]
fn what_is_no_capture_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    for (path, words) in [
        (file("empty", b""), "the file is empty"),
        (
            file("text", b"hello world, this is no capture"),
            "expected a pcap or pcapng file",
        ),
        (file("gz", &[0x1f, 0x8b, 8, 0, 0, 0, 0]), "gunzip"),
        (
            file("short", &[0xd4, 0xc3, 0xb2, 0xa1, 2, 0]),
            "ends after 6 bytes",
        ),
        (dir.path().join("absent"), "cannot open the capture file"),
        (dir.path().to_owned(), "is a directory"),
    ] {
        let output = wgnat().arg(&path).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{error}");
        assert!(
            error.contains(words) && error.contains(&*path.to_string_lossy()),
            "{error}"
        );
    }
    assert_eq!(wgnat().output().unwrap().status.code(), Some(3));
}

#[test]
fn a_capture_without_wireguard_is_unknown() {
    let mut bytes = vec![
        0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
    ];
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 14, 0, 0, 0, 14, 0, 0, 0]);
    bytes.extend([2; 12]);
    bytes.extend([8, 6]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("arp.pcap");
    fs::write(&path, bytes).unwrap();
    let (report, code) = analyze(&[path]);
    assert_eq!((code, report["status"].as_str()), (Some(3), Some("unknown")));
}

#[test]
fn keys_are_told_from_text_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let secret = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
    fs::write(&keys, format!("LOCAL_STATIC_PRIVATE_KEY = {secret}\n")).unwrap();
    let run = |keys: &Path| {
        let output = wgnat()
            .args(["--json", "--keys"])
            .arg(keys)
            .arg(pcap("any-cooked-v2.pcap"))
            .output()
            .unwrap();
        let all = [&output.stdout[..], &output.stderr].concat();
        let all = String::from_utf8(all).unwrap();
        assert!(!all.contains(&secret[4..20]), "{all}");
        (output, all)
    };
    let (output, _) = run(&keys);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json(&output)["not_checked"].as_array().unwrap().len(), 0);
    fs::write(&keys, format!("\nLOCAL_STATIC_PRIVATE_KEY = {}\n", &secret[2..])).unwrap();
    let (output, all) = run(&keys);
    assert_eq!(output.status.code(), Some(3));
    assert!(all.contains("line 2: expected a private key"), "{all}");
}

//! `wgnat probe` on wrong input: a clear error that names file, line or option, exit code 3, and no secret.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::expect_used)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A private key (the base64 of 32 bytes of 7) and its like for a peer.
const PRIVATE: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const PEER: &str = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("it is writable");
        path
    }

    /// Runs `wgnat probe` and returns its exit code and what it said on standard error.
    fn probe(&self, args: &[&str], input: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgnat"));
        command
            .arg("probe")
            .args(args)
            .env("HOME", self.0.path())
            .env_remove("FLY_CONFIG_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("wgnat starts");
        // It may end before it has read anything.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let out = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            !said.contains(PRIVATE) && !String::from_utf8_lossy(&out.stdout).contains(PRIVATE),
            "{said}"
        );
        assert!(!said.contains("panicked"), "{said}");
        (out.status.code().expect("no signal"), said)
    }
}

#[test]
fn wrong_input_is_named() {
    let home = Home::new();
    let key = home.file("good.key", PRIVATE);
    let key = key.to_str().expect("UTF-8");
    let short = home.file("short.key", "c2hvcnQ=");
    let short = short.to_str().expect("UTF-8");
    let keyless = home.file(
        "keyless.conf",
        &format!("[Interface]\n[Peer]\nPublicKey = {PEER}\nEndpoint = 127.0.0.1:1\n"),
    );
    let keyless = keyless.to_str().expect("UTF-8");
    let wrong = home.file(
        "wrong.conf",
        &format!("[Interface]\r\nPrivateKey = {PRIVATE}\r\n[Peer]\r\nPublicKey = x\r\n"),
    );
    let wrong = wrong.to_str().expect("UTF-8");
    let peer = ["--peer-public-key", PEER, "--endpoint", "127.0.0.1:9"];
    let fly = home.file("fly.yml", "access_token: fm2_x\n");
    let fly = fly.to_str().expect("UTF-8");
    let explicit = |more: &[&'static str]| [&peer[..], &["--private-key-file", key], more].concat();
    for (args, words) in [
        (
            vec!["--wg-config", "/nowhere/wg0.conf"],
            &["/nowhere/wg0.conf"][..],
        ),
        (
            vec!["--wg-config", wrong],
            &["wrong.conf", "line 4", "PublicKey", "44 characters"],
        ),
        (
            vec!["--wg-config", keyless],
            &["keyless.conf", "no PrivateKey", "--private-key-file"],
        ),
        (vec!["--fly-config", fly], &["fly.yml", "wire_guard_state"]),
        (vec!["--fly"], &["config.yml", "No such file"]),
        (peer.to_vec(), &["--private-key-file"]),
        (
            [&peer[..], &["--private-key-file", short]].concat(),
            &["short.key", "expected 32 bytes, got 5"],
        ),
        (
            [&peer[..], &["--private-key-file", "/dev/zero"]].concat(),
            &["/dev/zero", "larger than"],
        ),
        (
            vec![
                "--peer-public-key",
                "x",
                "--endpoint",
                "a:1",
                "--private-key-file",
                key,
            ],
            &["--peer-public-key", "44 characters"],
        ),
        (
            explicit(&["--interval", "10ms"]),
            &["--interval", "50 ms", "flood"],
        ),
        (explicit(&["--count", "0"]), &["--count"]),
        (explicit(&["--ping", "10.0.0.1"]), &["--source"]),
        (
            explicit(&["--source", "10.0.0.2", "--dns", "a.internal"]),
            &["--dns", "NAME@SERVER"],
        ),
        (
            explicit(&["--source", "10.0.0.2", "--dns", "a@b"]),
            &["--dns", "\"b\""],
        ),
        (explicit(&["--source", "10.0.0.2", "--mtu"]), &["--mtu", "--ping"]),
        (explicit(&["--transport", "both"]), &["--transport", "--fly"]),
        (explicit(&["--mapping-lifetime"]), &["--tcp"]),
    ] {
        let (code, said) = home.probe(&args, "");
        assert_eq!(code, 3, "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?} should say {word:?}: {said}");
        }
    }
}

#[test]
fn a_key_comes_by_standard_input_and_a_name_that_does_not_resolve_is_told() {
    let home = Home::new();
    let args = [
        "--json",
        "--peer-public-key",
        PEER,
        "--endpoint",
        "no-such-host.invalid:51820",
        "--private-key-file",
        "-",
    ];
    let (code, said) = home.probe(&args, PRIVATE);
    assert_eq!(code, 3, "{said}");
    assert_eq!(said, "", "nothing is wrong with the invocation");
}

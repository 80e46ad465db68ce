//! `wgnat report` without a lab: what is wrong with what it is told, histories that are none, and delivery.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

#[path = "common/kept.rs"]
mod kept;

use kept::history;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use wgnat::sys::clock;

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

/// `wgnat report` without the machine's own settings, at home in `home`.
fn report(home: &Path, args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgnat"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("WGNAT_") || name.to_ascii_lowercase().ends_with("_proxy") {
            command.env_remove(name);
        }
    }
    let out = command
        .arg("report")
        .args(args)
        .env("HOME", home)
        .env_remove("XDG_STATE_HOME")
        .env_remove("STATE_DIRECTORY")
        .stdin(Stdio::null())
        .output()
        .expect("it can be run");
    Said {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8(out.stdout).expect("UTF-8"),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

#[test]
fn what_is_told_wrongly_is_said_clearly_and_ends_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let short = home.join("short");
    std::fs::write(&short, "hunter2\n").unwrap();
    let short = short.to_str().unwrap();
    let home_text = home.to_str().unwrap();
    for (args, words) in [
        (
            &["--since", "5parsecs"][..],
            &["--since", "5parsecs", "expected a duration"][..],
        ),
        (&["--since", "0"], &["--since", "no time to look back"]),
        (&["--since=-5m"], &["--since", "expected a duration"]),
        (&["--bundle-raw"], &["--bundle"]),
        (
            &["--webhook", "ftp://x/sEcReT"],
            &["--webhook", "https://HOST/PATH"],
        ),
        (
            &["--webhook", "http://user:sEcReT@x/"],
            &["--webhook", "not supported"],
        ),
        (&["--webhook-secret-file", short], &["--webhook URL"]),
        (
            &[
                "--webhook",
                "http://127.0.0.1:1/x",
                "--webhook-secret-file",
                short,
            ],
            &["7 bytes", "expected 14 at least"],
        ),
        (
            &["--webhook", "https://127.0.0.1:1/x", "--webhook-ca-file", short],
            &["expected PEM"],
        ),
        (
            &[
                "--webhook",
                "https://127.0.0.1:1/x",
                "--webhook-ca-file",
                "/nowhere/ca",
            ],
            &["/nowhere/ca", "No such file"],
        ),
        (
            &["--state", "/etc/passwd"],
            &["/etc/passwd", "not one that wgnat report has written"],
        ),
        (&["--state", home_text], &["state file"]),
        (&["--store", home_text], &["it is a directory", "--store"]),
        (&["--store", "/dev/null"], &["no regular file"]),
        (&["--bundle", home_text], &["it is a directory", "tar.gz"]),
        (&["--wg-config", "/nowhere/wg0.conf"], &["/nowhere/wg0.conf"]),
    ] {
        let said = report(home, args);
        assert_eq!(said.code, 3, "{args:?}: {}{}", said.stdout, said.stderr);
        assert_eq!(said.stdout, "", "{args:?}");
        for word in words {
            assert!(said.stderr.contains(word), "{args:?}: {word}: {}", said.stderr);
        }
        for secret in ["sEcReT", "hunter2"] {
            assert!(!said.stderr.contains(secret), "{args:?}: {}", said.stderr);
        }
    }
}

#[test]
fn a_history_that_is_none_or_newer_or_older_is_said_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.db");
    let store = path.to_str().unwrap();
    let newer = |version: i64| {
        let _ = std::fs::remove_file(&path);
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch(&format!("PRAGMA user_version = {version}"))
            .unwrap();
    };
    std::fs::write(&path, [7; 8192]).unwrap();
    let garbage = std::fs::read(&path).unwrap();
    let said = report(dir.path(), &["--store", store]);
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(
        said.stderr.contains(store) && said.stderr.contains("not a database"),
        "{}",
        said.stderr
    );
    assert_eq!(std::fs::read(&path).unwrap(), garbage, "it only reads");
    newer(99);
    let said = report(dir.path(), &["--store", store]);
    assert_eq!(said.code, 3);
    assert!(said.stderr.contains("schema 99"), "{}", said.stderr);
    newer(1);
    let said = report(dir.path(), &["--store", store]);
    assert_eq!(said.code, 3);
    assert!(
        said.stderr.contains("schema 1: start an agent"),
        "{}",
        said.stderr
    );
    // Cut in the middle.
    std::fs::remove_file(&path).unwrap();
    history(&path, "warning");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{store}{ending}"));
    }
    let said = report(dir.path(), &["--store", store]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains(store), "{}", said.stderr);
}

#[test]
fn each_severity_has_its_exit_code_and_fail_on_moves_the_line() {
    let dir = tempfile::tempdir().unwrap();
    for (severity, by_default, critical) in [("info", 0, 0), ("warning", 1, 0), ("critical", 2, 2)] {
        let path = dir.path().join(severity);
        history(&path, severity);
        let store = path.to_str().unwrap();
        let args = ["--store", store, "--json", "--no-remember"];
        let said = report(dir.path(), &args);
        assert_eq!(said.code, by_default, "{}{}", said.stdout, said.stderr);
        let said = report(dir.path(), &[&args[..], &["--fail-on", "critical"]].concat());
        assert_eq!(said.code, critical, "{}", said.stderr);
        let value: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(value["findings"][0]["severity"], severity);
        // In its own order, and to the millisecond.
        assert!(
            said.stdout.find("\"open\"") < said.stdout.find("\"limit\": 1024"),
            "{}",
            said.stdout
        );
        let at = value["generated_at"].as_str().unwrap();
        assert!(at.len() <= "2026-01-01T00:00:00.000Z".len(), "{at}");
    }
}

#[test]
fn whoever_reads_the_file_meanwhile_never_sees_half_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history.db");
    history(&store, "warning");
    let out = dir.path().join("report.json");
    let args = [
        "--store",
        store.to_str().unwrap(),
        "--json",
        "--output",
        out.to_str().unwrap(),
    ];
    assert_eq!(report(dir.path(), &args).code, 1);
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o604)).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut read = 0_u32;
            while !done.load(Ordering::Relaxed) || read == 0 {
                let text = std::fs::read_to_string(&out).unwrap();
                let _: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
                read += 1;
            }
        });
        for _ in 0..8 {
            assert_eq!(report(dir.path(), &args).code, 1);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert_eq!(out.metadata().unwrap().permissions().mode() & 0o777, 0o604);
    let left: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let nowhere = dir.path().join("no/such/report.json");
    let said = report(
        dir.path(),
        &["--store", args[1], "--output", nowhere.to_str().unwrap()],
    );
    assert_eq!(said.code, 3);
    assert!(said.stderr.contains("no/such/report.json"), "{}", said.stderr);
}

/// A request that came in.
struct Request {
    headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let own = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value.as_str())
    }
}

/// Reads a request and answers it; an answer that is empty cuts the connection.
fn serve(mut stream: TcpStream, answer: &str) -> Request {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut headers = Vec::new();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("POST /services/T0/sEcReT HTTP/1.1"), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let length = headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.map_or(0, |(_, n)| n.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(answer.as_bytes()).unwrap();
    Request {
        headers,
        body: String::from_utf8(body).unwrap(),
    }
}

/// Answers requests in this order, then listens no more.
fn hook(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<Request>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/services/T0/sEcReT", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        answers
            .iter()
            .map(|answer| serve(listener.accept().unwrap().0, answer))
            .collect()
    });
    (url, server)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n";
const CUT: &str = "";

#[test]
fn a_hook_that_fails_twice_is_told_at_last_and_what_it_gets_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history.db");
    history(&store, "critical");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "correct horse battery staple\n").unwrap();
    let (url, server) = hook(&[BUSY, CUT, OK]);
    let said = report(
        dir.path(),
        &[
            "--store",
            store.to_str().unwrap(),
            "--webhook",
            &url,
            "--webhook-secret-file",
            secret.to_str().unwrap(),
            "-vv",
        ],
    );
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stdout.contains("fd-limit"), "{}", said.stdout);
    let requests = server.join().unwrap();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        let time = request.header("x-wgnat-timestamp").unwrap();
        let age = clock::now().as_nanos() / 1_000_000_000 - time.parse::<i64>().unwrap();
        assert!((0..120).contains(&age), "{age}");
        let mut mac = Hmac::<Sha256>::new_from_slice(b"correct horse battery staple").unwrap();
        mac.update(format!("v1:{time}:{}", request.body).as_bytes());
        let hex: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            request.header("x-wgnat-signature"),
            Some(format!("v1={hex}").as_str())
        );
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let text = body["text"].as_str().unwrap();
        assert!(text.contains("critical") && text.contains("`fd-limit`"), "{text}");
    }
    assert!(
        !said.stderr.contains("sEcReT") && !said.stderr.contains("battery"),
        "{}",
        said.stderr
    );
    // It was delivered, so it is remembered.
    let quiet = report(
        dir.path(),
        &["--store", store.to_str().unwrap(), "--only-changes"],
    );
    assert_eq!((quiet.code, quiet.stdout.as_str()), (2, ""), "{}", quiet.stderr);
}

#[test]
fn a_hook_that_refuses_or_redirects_loses_neither_the_report_nor_its_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("history.db");
    history(&store, "info");
    let store = store.to_str().unwrap();
    for (answer, words) in [
        (
            &["HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"][..],
            "answers 404",
        ),
        (
            &[
                "HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:1/elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            ],
            "a redirect, which is not followed",
        ),
    ] {
        let (url, server) = hook(answer);
        let said = report(
            dir.path(),
            &["--store", store, "--webhook", &url, "--only-changes"],
        );
        server.join().unwrap();
        assert_eq!(said.code, 3, "all else is well: {}", said.stderr);
        assert!(said.stdout.contains("fd-limit"), "{}", said.stdout);
        assert!(
            said.stderr.contains(words) && said.stderr.contains("tried once"),
            "{}",
            said.stderr
        );
        assert!(!said.stderr.contains("sEcReT"), "{}", said.stderr);
    }
    // Nobody listens any more. What the hook was not told is still a change.
    let (url, server) = hook(&[]);
    server.join().unwrap();
    let said = report(
        dir.path(),
        &["--store", store, "--webhook", &url, "--only-changes"],
    );
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stdout.contains("+ new"), "{}", said.stdout);
    assert!(said.stderr.contains("tried 4 times"), "{}", said.stderr);
}

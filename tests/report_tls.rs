//! `wgnat report --webhook` over TLS: to whom it is told, to whom it is not, and what is said then.

// A panic is how a test fails.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

#[path = "common/kept.rs"]
mod kept;
mod lab;

use hmac::{Hmac, KeyInit as _, Mac as _};
use kept::history;
use lab::tls::{Authority, Wish};
use serde_json::Value;
use sha2::Sha256;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SECRET: &str = "correct horse battery staple";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 0\r\nConnection: close\r\n\r\n";

/// Head and body of what came in.
type Request = (String, String);

/// A receiver that answers so many connections, in this order; none is what it says to a caller who does not trust it.
fn receiver(
    config: Arc<ServerConfig>,
    answers: Vec<&'static str>,
) -> (SocketAddr, JoinHandle<Vec<Option<Request>>>) {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let serve = |answer: &&str| {
            let tcp = listener.accept().unwrap().0;
            tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            answer_one(StreamOwned::new(session, tcp), answer)
        };
        answers.iter().map(serve).collect()
    });
    (at, server)
}

fn answer_one(stream: StreamOwned<ServerConnection, std::net::TcpStream>, answer: &str) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        // The handshake is made here: a caller who does not trust us hangs up.
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("content-length: ")?
            .parse()
            .ok()
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let stream = reader.get_mut();
    stream.write_all(answer.as_bytes()).ok()?;
    stream.conn.send_close_notify();
    let _ = stream.flush();
    Some((head, String::from_utf8(body).unwrap()))
}

struct Place {
    dir: tempfile::TempDir,
    store: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("history.db");
        history(&store, "critical");
        std::fs::write(dir.path().join("secret"), SECRET).unwrap();
        Self { dir, store }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `wgnat report` to this hook; the exit code and standard error.
    fn report(&self, at: &str, roots: Roots<'_>) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgnat"));
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_lowercase();
            if text.starts_with("wgnat_") || text.ends_with("_proxy") || text.starts_with("ssl_cert") {
                command.env_remove(name);
            }
        }
        command
            .args(["-v", "report", "--no-remember", "--store"])
            .arg(&self.store);
        command
            .arg("--webhook")
            .arg(format!("https://{at}/services/T0/sEcReT"));
        command
            .arg("--webhook-secret-file")
            .arg(self.dir.path().join("secret"));
        match roots {
            Roots::Option(file) => command.arg("--webhook-ca-file").arg(file),
            Roots::Variable(file) => command.env("SSL_CERT_FILE", file),
        };
        let out = command
            .env("HOME", self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!said.contains("sEcReT") && !said.contains("battery"), "{said}");
        // Whoever reads standard output is told in any case.
        assert!(
            String::from_utf8_lossy(&out.stdout).contains("fd-limit"),
            "{said}"
        );
        (out.status.code().unwrap(), said)
    }
}

/// How it is told whom to trust.
#[derive(Clone, Copy)]
enum Roots<'a> {
    Option(&'a Path),
    Variable(&'a Path),
}

#[track_caller]
fn is_signed((head, body): &Request) {
    assert!(head.starts_with("POST /services/T0/sEcReT HTTP/1.1"), "{head}");
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    };
    let time = header("x-wgnat-timestamp").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("v1:{time}:{body}").as_bytes());
    let hex: String = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(
        header("x-wgnat-signature"),
        Some(format!("v1={hex}").as_str()),
        "{head}"
    );
    let body: Value = serde_json::from_str(body).unwrap();
    assert!(body["text"].as_str().unwrap().contains("`fd-limit`"), "{body}");
}

#[test]
fn whom_a_chain_of_certificates_vouches_for_is_told_and_tried_again_when_busy() {
    let place = Place::new();
    let root = Authority::new("Root");
    let roots = place.file("roots.pem", root.pem());
    let config = root.below("Middle").below("Lower").config(&Wish::good_for(HERE));
    for trust in [Roots::Option(&roots), Roots::Variable(&roots)] {
        let (at, server) = receiver(Arc::clone(&config), vec![BUSY, OK]);
        let (code, said) = place.report(&at.to_string(), trust);
        assert_eq!(code, 2, "{said}");
        let requests = server.join().unwrap();
        for request in &requests {
            is_signed(request.as_ref().expect("a request"));
        }
        assert_eq!(requests.len(), 2);
        assert!(said.contains("it answers 503; trying again"), "{said}");
    }
}

#[test]
fn whom_nobody_vouches_for_is_told_nothing_and_why_is_said_once() {
    let place = Place::new();
    let (root, other) = (Authority::new("Root"), Authority::new("Other"));
    let roots = place.file("roots.pem", root.pem());
    let good = Wish::good_for(HERE);
    for (config, says) in [
        (
            other.below("Middle").config(&good),
            "issuer is not trusted here: if it should be, name a file with the issuer's certificate by --webhook-ca-file",
        ),
        (root.config(&good.clone().between(2019, 2021)), "has expired"),
        (root.config(&good.clone().between(2099, 2100)), "is not valid yet"),
        (
            root.config(&Wish::good_for([192, 0, 2, 7].into())),
            "is for another name than the URL's host",
        ),
    ] {
        let (at, server) = receiver(config, vec![OK]);
        let (code, said) = place.report(&at.to_string(), Roots::Option(&roots));
        // The verdict is critical whoever was told.
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(says), "{says}: {said}");
        assert!(
            said.contains(&format!("webhook https://{at}/…: not delivered, tried once")),
            "{said}"
        );
        assert!(server.join().unwrap()[0].is_none(), "nothing was told: {says}");
    }
}

#[test]
fn a_receiver_that_speaks_no_tls_is_said_to() {
    let place = Place::new();
    let roots = place.file("roots.pem", Authority::new("Root").pem());
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..4 {
            let mut tcp = listener.accept().unwrap().0;
            let mut bytes = [0; 2048];
            let length = tcp.read(&mut bytes).unwrap();
            // A client hello, and no request in the clear.
            assert!(bytes[..length].starts_with(&[22, 3]), "{:?}", &bytes[..length]);
            let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    });
    let (code, said) = place.report(&at.to_string(), Roots::Option(&roots));
    assert_eq!(code, 2, "{said}");
    server.join().unwrap();
    assert!(said.contains("tried 4 times"), "{said}");
    assert!(said.contains("it does not speak TLS"), "{said}");
}
